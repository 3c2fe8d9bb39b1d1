//! The thread that has the kernel make transparent huge pages: one for all guests of the process,
//! started when there is something to do and ended when there is not.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::identity::SharedIdentity;
use crate::kernel::{Collapse, Together};
use crate::units::GuestAddr;

/// Without work for this long the thread ends.
const IDLE: Duration = Duration::from_secs(2);

/// A 2 MiB range of a guest.
pub(crate) struct Job {
    pub(crate) identity: SharedIdentity,
    pub(crate) start: GuestAddr,
    /// Told what came of it, on the thread that did it.
    pub(crate) done: Box<dyn FnOnce(Verdict) + Send>,
}

/// What came of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is a huge page already.
    Huge,
    /// Something else is there besides pages of the guest's own that are free to be written.
    Mixed,
    /// The kernel was asked.
    Tried(Collapse),
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    runs: bool,
}

static STATE: Mutex<State> = Mutex::new(State { jobs: VecDeque::new(), runs: false });
static CALLED: Condvar = Condvar::new();

/// Has it done soon. A guest asks for one at a time, so all have their turn. Whether there is a
/// thread to do it.
pub(crate) fn submit(job: Job) -> bool {
    let mut state = lock();
    if !state.runs {
        let name = "uffd-collapse".to_owned();
        state.runs = thread::Builder::new().name(name).stack_size(256 << 10).spawn(work).is_ok();
    }
    if state.runs {
        state.jobs.push_back(job);
        CALLED.notify_one();
    }
    state.runs
}

fn work() {
    let mut state = lock();
    loop {
        if let Some(job) = state.jobs.pop_front() {
            drop(state);
            thread::sleep(run(job));
            state = lock();
            continue;
        }
        let (guard, timeout) =
            CALLED.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = guard;
        if timeout.timed_out() && state.jobs.is_empty() {
            state.runs = false;
            return;
        }
    }
}

/// Does it; how long to pause then: as long as the guest could feel it, so that it takes half of a
/// core at the most.
fn run(Job { identity, start, done }: Job) -> Duration {
    let begun = Instant::now();
    let answer = collapse(&identity, start);
    let pause = if matches!(answer, Verdict::Tried(_)) { begun.elapsed() } else { Duration::ZERO };
    done(answer);
    pause
}

/// The kernel refuses a range that is not complete, but only after the guest's faults have waited.
fn collapse(identity: &SharedIdentity, start: GuestAddr) -> Verdict {
    let (Some(owner), Some(map)) = (identity.peer(), identity.page_map()) else {
        return Verdict::Mixed;
    };
    match map.together(start, GuestAddr(start.0 + Collapse::BYTES)) {
        Ok(Together::Pages) => Verdict::Tried(owner.collapse(start)),
        Ok(Together::Huge) => Verdict::Huge,
        Ok(Together::Not) => Verdict::Mixed,
        Err(error) => {
            // Only some errors are for good: not that the guest has ended, or memory is short.
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            Verdict::Tried(Collapse::refused_by(errno))
        }
    }
}

fn lock() -> MutexGuard<'static, State> {
    // Nothing that can panic runs under this lock.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}
