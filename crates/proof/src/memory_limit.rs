//! A control group whose processes may have only so much memory: who takes more is killed.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::hugelimit::{controller, hand_down};

/// A group of its own. It goes when this does, if its processes have gone.
#[derive(Debug)]
pub struct MemoryLimit {
    group: PathBuf,
    /// The file that says how often somebody was killed.
    kills: &'static str,
}

impl MemoryLimit {
    /// A group for so many bytes. An error says why this host has none to give.
    pub fn of(bytes: u64) -> io::Result<Self> {
        const FIRST: &str = "memory.limit_in_bytes";
        const SECOND: &str = "memory.max";
        let (root, limit) = controller("memory", FIRST, SECOND)?;
        if limit == SECOND {
            // Others may use it by the time this ends: it stays handed down.
            hand_down(&root, "memory")?;
        }
        let kills = if limit == SECOND { "memory.events" } else { "memory.oom_control" };
        let group = root.join(format!("uffd-rs-proof-memory-{}", std::process::id()));
        fs::create_dir(&group)?;
        let it = Self { group, kills };
        fs::write(it.group.join(limit), bytes.to_string())?;
        Ok(it)
    }

    /// Has a process join. What it has by now is not counted.
    pub fn take_in(&self, pid: i32) -> io::Result<()> {
        fs::write(self.group.join("cgroup.procs"), pid.to_string())
    }

    /// How many processes were killed for what they took.
    pub fn kills(&self) -> io::Result<u64> {
        let said = fs::read_to_string(self.group.join(self.kills))?;
        let count = said.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
        count.ok_or_else(|| io::Error::other(format!("{}: {said}", self.group.display())))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.group);
    }
}
