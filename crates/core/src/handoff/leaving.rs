//! What is on its way out: processes that close what strangers sent, and descriptors that cannot
//! be closed yet. Nobody waits for any of it, but it is counted: a peer can make the kernel wait
//! for as long as it likes, and must not fill the host with what waits.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::kernel::{Leaving, close_at_end_of_thread};

/// With so many, no guest is accepted. Ordinary ones are gone as soon as they have had a core.
const MOST: usize = 64;

/// Those of this process that are in no list.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Processes that no thread could be had to wait for.
static UNREAPED: Mutex<Vec<Leaving>> = Mutex::new(Vec::new());

/// Descriptors that no thread could be had to close.
static KEPT: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// How many are on their way out, if they are too many.
pub(super) fn crowd() -> Option<usize> {
    let unreaped = {
        let mut processes = lock(&UNREAPED);
        processes.retain(|process| !process.try_reap());
        processes.len()
    };
    let kept = std::mem::take(&mut *lock(&KEPT));
    kept.into_iter().for_each(close);
    let count = COUNT.load(Ordering::Acquire) + unreaped + lock(&KEPT).len();
    (count >= MOST).then_some(count)
}

/// Closes a socket that a stranger can write to, and waits for nothing.
pub(super) fn close(fd: impl Into<OwnedFd>) {
    if let Err(fd) = close_at_end_of_thread(fd.into()) {
        lock(&KEPT).push(fd);
    }
}

/// Something on its way out, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Ticket(());

impl Ticket {
    pub(crate) fn new() -> Self {
        COUNT.fetch_add(1, Ordering::AcqRel);
        Self(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A process that closes what strangers sent. Whoever drops it does not wait for that.
#[derive(Debug)]
pub(super) struct Helper {
    process: Leaving,
    ticket: Option<Ticket>,
}

impl From<Leaving> for Helper {
    fn from(process: Leaving) -> Self {
        Self { process, ticket: Some(Ticket::new()) }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let process = self.process;
        if process.try_reap() {
            return;
        }
        let ticket = self.ticket.take();
        let reaper = thread::Builder::new().name("uffd-reaper".to_owned()).stack_size(64 << 10);
        let wait = move || {
            process.reap();
            drop(ticket);
        };
        if reaper.spawn(wait).is_err() {
            lock(&UNREAPED).push(process);
        }
    }
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
