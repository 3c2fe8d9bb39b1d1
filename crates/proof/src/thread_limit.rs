//! A control group whose processes may have only so many threads: who asks for more is told to try
//! again (EAGAIN), whatever its rights.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::hugelimit::{controller, hand_down};

/// The same file in both versions of control groups.
const LIMIT: &str = "pids.max";

/// A group of its own. It goes when this does, if its processes have gone.
#[derive(Debug)]
pub struct ThreadLimit {
    group: PathBuf,
}

impl ThreadLimit {
    /// A group without a limit yet. An error says why this host has none to give.
    pub fn none_yet() -> io::Result<Self> {
        let (root, _) = controller("pids", LIMIT, LIMIT)?;
        if root.join("cgroup.subtree_control").exists() {
            // Others may use it by the time this ends: it stays handed down.
            hand_down(&root, "pids")?;
        }
        let group = root.join(format!("uffd-rs-proof-threads-{}", std::process::id()));
        fs::create_dir(&group)?;
        Ok(Self { group })
    }

    /// Has a process join, with all its threads.
    pub fn take_in(&self, pid: u32) -> io::Result<()> {
        fs::write(self.group.join("cgroup.procs"), pid.to_string())
    }

    /// Lets the group have no thread more than it has, or as many as it wants.
    pub fn refuse_more(&self, refuse: bool) -> io::Result<()> {
        fs::write(self.group.join(LIMIT), if refuse { "1" } else { "max" })
    }
}

impl Drop for ThreadLimit {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.group);
    }
}
