//! What `/proc` tells of threads: which of them wait in userfaultfd, and what they cost.

use std::fs;
use std::time::{Duration, Instant};

use nix::unistd::{Uid, setfsuid};

/// How long anything may take before a proof fails instead of hanging.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until something holds. There is no event to wait for instead.
///
/// # Panics
/// If it does not in time.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Threads of a process that wait in userfaultfd: for a page, or for their event to be read.
pub fn waiting_threads(pid: i32) -> usize {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let wchan = |task: fs::DirEntry| fs::read_to_string(task.path().join("wchan"));
    tasks
        .flatten()
        .filter_map(|task| wchan(task).ok())
        .filter(|function| function.contains("userfault"))
        .count()
}

/// What a thread of this process has cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadCost {
    /// How often it went to sleep.
    pub sleeps: u64,
    /// CPU time in clock ticks of 10 ms.
    pub ticks: u64,
}

/// The threads of this process of that name.
pub fn threads_named(name: &str) -> Vec<i32> {
    threads_of("self", name)
}

/// The threads of that name of a process, by its number or as `self`.
pub(crate) fn threads_of(process: &str, name: &str) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("/proc");
    let is_named = |tid: &i32| {
        fs::read_to_string(format!("/proc/{process}/task/{tid}/comm"))
            .is_ok_and(|comm| comm.trim_end() == name)
    };
    let tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
    tids.filter(is_named).collect()
}

/// What a thread has cost so far.
pub fn cost_of(tid: i32) -> Option<ThreadCost> {
    let status = fs::read_to_string(format!("/proc/self/task/{tid}/status")).ok()?;
    let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?;
    // After the name in brackets: the state is field 3, user and system time are 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(ThreadCost { sleeps: sleeps?.trim().parse().ok()?, ticks: ticks(14)? + ticks(15)? })
}

/// Checks that the fault loops of this process sleep, by what they cost while it passes half a
/// second: a loop that spins uses up all of it.
///
/// # Panics
/// If one of them does not sleep.
pub fn assert_idle() {
    let loops = || -> Vec<(i32, ThreadCost)> {
        let tids = threads_named("uffd-guest");
        tids.into_iter().filter_map(|tid| Some((tid, cost_of(tid)?))).collect()
    };
    // A loop that was just at work may still be about to sleep.
    let start = Instant::now();
    loop {
        let before = loops();
        std::thread::sleep(Duration::from_millis(500));
        let after = loops();
        let moved = before.iter().filter(|loop_| !after.contains(loop_)).count();
        if moved == 0 {
            return;
        }
        let is_late = start.elapsed() > DEADLINE;
        assert!(!is_late, "a fault loop with nothing to do does not sleep: {after:?}");
    }
}

/// Runs something as a user who owns nothing, on a thread of its own: what it starts there runs as
/// that user too, and what it opens it opens with that user's rights.
///
/// # Panics
/// As `run` does.
pub fn as_another_user<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let other = || {
        setfsuid(Uid::from_raw(65534));
        run()
    };
    let done = std::thread::scope(|scope| scope.spawn(other).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
