//! A process that stands still for a while, and goes on whatever becomes of the proof.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::observe::until;

/// A process all of whose threads are stopped. Dropped, it goes on.
#[derive(Debug)]
#[must_use = "dropping it lets the process go on"]
pub struct Frozen(i32);

impl Frozen {
    /// Stops a process, and waits until all of its threads stand.
    ///
    /// # Panics
    /// If there is no such process, or it does not stop.
    pub fn new(pid: i32) -> Self {
        kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("a process that lives");
        let frozen = Self(pid);
        until("a process to stand still", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("/proc");
            let stands = |task: fs::DirEntry| {
                let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit_once(')').is_some_and(|(_, fields)| fields.starts_with(" T"))
            };
            tasks.flatten().all(stands)
        });
        frozen
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = kill(Pid::from_raw(self.0), Signal::SIGCONT);
    }
}
