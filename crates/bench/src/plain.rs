//! The least handlers there can be. What they take is the kernel's own price of a fault.
//!
//! One thread polls one descriptor, reads one event, copies one page. It counts its faults, which
//! costs nothing, and knows no states: unless it unregisters what is given back, what it serves
//! after a REMOVE is wrong.

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{gettid, read};
use uffd_core::kernel::{Outcome, Waker};
use uffd_guest::driver::Guest;
use userfaultfd_sys::{UFFD_EVENT_PAGEFAULT, UFFD_EVENT_REMOVE};

use crate::Result;
use crate::memory::Memory;

/// A thread that serves a guest in this way.
#[derive(Debug)]
pub(crate) struct PlainHandler {
    thread: JoinHandle<nix::Result<()>>,
    shared: Arc<Shared>,
    pub(crate) tid: i32,
}

#[derive(Debug)]
struct Shared {
    /// Whether REMOVEs are obeyed.
    unregisters: bool,
    stop: AtomicBool,
    /// Polled by a handler that unregisters: of memory that is registered no more comes no event
    /// that could end it.
    waker: Waker,
    faults: AtomicU64,
    /// Whether to wait for the gate before the next event is read.
    held: AtomicBool,
    gate: Mutex<()>,
}

impl PlainHandler {
    /// Serves `memory`; `unregisters` what is given back, or ignores that.
    pub(crate) fn start(memory: Memory, unregisters: bool) -> Result<Self> {
        let shared = Arc::new(Shared {
            unregisters,
            stop: AtomicBool::default(),
            waker: Waker::new()?,
            faults: AtomicU64::default(),
            held: AtomicBool::default(),
            gate: Mutex::default(),
        });
        let (sender, tid) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new().name("plain".into()).spawn(move || {
            let _ = sender.send(gettid().as_raw());
            serve(&memory, &theirs)
        })?;
        Ok(Self { thread, shared, tid: tid.recv()? })
    }

    /// Missing-page faults so far.
    pub(crate) fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::Relaxed)
    }

    /// Keeps the thread from reading events for as long as the guard lives.
    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        let gate = self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.held.store(true, Ordering::Release);
        gate
    }

    /// Ends the thread. Most poll nothing but the descriptor, so that the guest has to wake them.
    pub(crate) fn stop(self, guest: &Guest) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        if self.shared.unregisters {
            self.shared.waker.wake();
        } else {
            guest.thread(0).madvise(0, 1)?;
        }
        let ended = self.thread.join().map_err(|_| "the plain handler panicked")?;
        ended.map_err(|errno| format!("the plain handler failed: {errno}").into())
    }
}

/// Until it is woken, or an event that is no page fault comes after `stop`.
fn serve(memory: &Memory, shared: &Shared) -> nix::Result<()> {
    let fds = [memory.uffd.as_fd(), shared.waker.as_fd()];
    let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    let polled = if shared.unregisters { &mut fds[..] } else { &mut fds[..1] };
    let mut message = [0; 32];
    // Faults that met a REMOVE under way, which the kernel does not deliver again.
    let mut late = Vec::new();
    loop {
        if late.is_empty() {
            poll(polled, PollTimeout::NONE)?;
            if shared.waker.is_awake() {
                return Ok(());
            }
        }
        if shared.held.load(Ordering::Acquire) {
            shared.held.store(false, Ordering::Relaxed);
            drop(shared.gate.lock());
        }
        match read(&memory.uffd, &mut message) {
            Err(Errno::EAGAIN) if late.is_empty() => continue,
            Err(Errno::EAGAIN) => {
                late.retain(|address| !memory.serve(*address));
                thread::yield_now();
                continue;
            }
            other => other?,
        };
        if message[0] != UFFD_EVENT_PAGEFAULT {
            if message[0] == UFFD_EVENT_REMOVE && shared.unregisters {
                if let Outcome::Refused(errno) = memory.unregister(removed_in(&message)) {
                    return Err(Errno::from_raw(errno));
                }
            } else if shared.stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            continue;
        }
        let address = address_in(&message);
        if !memory.serve(address) {
            late.push(address);
        }
        // The only writer: no need to add atomically.
        shared.faults.store(shared.faults.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// `arg.pagefault.address` of a `struct uffd_msg`.
fn address_in(message: &[u8; 32]) -> u64 {
    word(message, 16)
}

/// `arg.remove` of a `struct uffd_msg`.
fn removed_in(message: &[u8; 32]) -> Range<u64> {
    word(message, 8)..word(message, 16)
}

fn word(message: &[u8; 32], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&message[at..at + 8]);
    u64::from_ne_bytes(word)
}
