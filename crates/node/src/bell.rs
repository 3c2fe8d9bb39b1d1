//! The bell: a JavaScript function that is called when there is something to collect.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use napi::Status;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};

/// Called without arguments on the JavaScript thread. Weak: what keeps the process alive is
/// decided in TypeScript. One call is queued at most.
pub(crate) type Ring = ThreadsafeFunction<(), (), (), Status, false, true, 1>;

pub(crate) struct Bell {
    ring: Mutex<Option<Ring>>,
    rung: AtomicBool,
}

impl Bell {
    pub(crate) const fn new(ring: Ring) -> Self {
        Self { ring: Mutex::new(Some(ring)), rung: AtomicBool::new(false) }
    }

    /// Rings, unless it has rung and nobody came yet. Never waits for JavaScript.
    pub(crate) fn ring(&self) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ring) = &*ring {
            // It can only fail where JavaScript is ending, and then nobody will collect.
            let _ = ring.call((), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }

    /// JavaScript comes: what is said from now on needs another ring.
    pub(crate) fn answered(&self) {
        self.rung.store(false, Ordering::Release);
    }

    /// Never rings again, and lets go of the JavaScript function.
    pub(crate) fn remove(&self) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
