//! How a guest dies: at once, or after so many touches.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lock::lock;
use crate::protocol::Death;

/// A death that may have been asked for in advance.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    armed: AtomicBool,
    touches_left: AtomicU64,
    how: Mutex<Option<Death>>,
}

impl Fate {
    /// Dies, or prepares to.
    pub(crate) fn seal(&self, how: Death, after_touches: Option<u64>) {
        let Some(touches) = after_touches else { die(how) };
        *lock(&self.how) = Some(how);
        self.touches_left.store(touches, Ordering::Relaxed);
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Counts a touch, which may be the last.
    pub(crate) fn count_touch(&self) {
        if self.armed.load(Ordering::Relaxed)
            && self.touches_left.fetch_sub(1, Ordering::Relaxed) == 0
            && let Some(how) = *lock(&self.how)
        {
            die(how);
        }
    }
}

fn die(how: Death) -> ! {
    match how {
        Death::Exit => std::process::exit(0),
        Death::Abort => std::process::abort(),
        Death::Kill => {
            let _ = kill(Pid::this(), Signal::SIGKILL);
            std::process::abort()
        }
    }
}
