//! The least handler there can be: what it takes is the kernel's own price of a fault.
//!
//! One thread polls one descriptor, reads one event, copies one page. It counts its faults, which
//! costs nothing, and knows no states: what it serves after a REMOVE is wrong.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{gettid, read};
use uffd_guest::driver::Guest;
use userfaultfd_sys::UFFD_EVENT_PAGEFAULT;

use crate::Result;
use crate::memory::Memory;

/// A thread that serves a guest in this way.
#[derive(Debug)]
pub(crate) struct PlainHandler {
    thread: JoinHandle<nix::Result<()>>,
    shared: Arc<Shared>,
    pub(crate) tid: i32,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    faults: AtomicU64,
}

impl PlainHandler {
    pub(crate) fn start(memory: Memory) -> Result<Self> {
        let shared = Arc::new(Shared::default());
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

    /// Ends the thread. It polls nothing but the descriptor, so that the guest has to wake it.
    pub(crate) fn stop(self, guest: &Guest) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        guest.thread(0).madvise(0, 1)?;
        let ended = self.thread.join().map_err(|_| "the plain handler panicked")?;
        ended.map_err(|errno| format!("the plain handler failed: {errno}").into())
    }
}

/// Until an event that is no page fault comes after `stop`.
fn serve(memory: &Memory, shared: &Shared) -> nix::Result<()> {
    let mut message = [0; 32];
    // Faults that met a REMOVE under way, which the kernel does not deliver again.
    let mut late = Vec::new();
    loop {
        if late.is_empty() {
            poll(&mut [PollFd::new(memory.uffd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
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
            if shared.stop.load(Ordering::Relaxed) {
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
    let mut address = [0; 8];
    address.copy_from_slice(&message[16..24]);
    u64::from_ne_bytes(address)
}
