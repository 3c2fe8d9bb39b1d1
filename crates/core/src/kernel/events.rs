//! Events of a userfaultfd, taken out by value.

use userfaultfd::{Event as Raw, EventBuffer, FaultKind, ReadWrite};

use super::descriptor::Uffd;
use crate::units::GuestAddr;

/// One event, as read. Addresses are as the kernel gave them and may lie inside a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A thread touched an absent page.
    Missing {
        /// Where.
        addr: GuestAddr,
        /// Whether it wanted to write.
        write: bool,
    },
    /// A thread wrote to a write-protected page.
    WriteProtect {
        /// Where.
        addr: GuestAddr,
    },
    /// `start..end` is being given back: `madvise(MADV_DONTNEED)`, or unmapped.
    Remove {
        /// The first byte.
        start: GuestAddr,
        /// The byte after the last.
        end: GuestAddr,
    },
    /// An event that no negotiated feature allows; its name.
    Unexpected(&'static str),
}

/// Why events could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The descriptor says end-of-file.
    Closed,
    /// `read` failed, with this errno.
    Failed(i32),
}

/// Reads events in batches, into a buffer that is allocated once.
pub struct EventReader {
    buffer: EventBuffer,
}

impl EventReader {
    /// Events one `read` can return.
    pub const CAPACITY: usize = 128;

    /// A reader with an empty buffer.
    pub fn new() -> Self {
        Self { buffer: EventBuffer::new(Self::CAPACITY) }
    }

    /// One `read`: hands each event to `take` and returns how many there were. Fewer than
    /// [`CAPACITY`](Self::CAPACITY) means that the descriptor was empty at that moment, as the
    /// kernel fills the buffer until it would block.
    pub fn read(&mut self, uffd: &Uffd, mut take: impl FnMut(Event)) -> Result<usize, ReadError> {
        let events = match uffd.inner().read_events(&mut self.buffer) {
            Ok(events) => events,
            Err(userfaultfd::Error::ReadEof) => return Err(ReadError::Closed),
            Err(userfaultfd::Error::SystemError(errno)) if errno as i32 == libc_eintr() => {
                // A signal before the first event: full, so that the caller reads again.
                return Ok(Self::CAPACITY);
            }
            Err(userfaultfd::Error::SystemError(errno)) => {
                return Err(ReadError::Failed(errno as i32));
            }
            Err(_) => return Err(ReadError::Failed(nix::errno::Errno::EIO as i32)),
        };
        let mut count = 0;
        for event in events {
            count += 1;
            take(event.map_or(Event::Unexpected("unknown"), Event::from));
        }
        Ok(count)
    }
}

impl Default for EventReader {
    fn default() -> Self {
        Self::new()
    }
}

const fn libc_eintr() -> i32 {
    nix::errno::Errno::EINTR as i32
}

impl From<Raw> for Event {
    fn from(raw: Raw) -> Self {
        let addr = |p: *mut std::ffi::c_void| GuestAddr(p.addr() as u64);
        match raw {
            Raw::Pagefault { kind: FaultKind::WriteProtected, addr: at, .. } => {
                Self::WriteProtect { addr: addr(at) }
            }
            Raw::Pagefault { kind: FaultKind::Missing, rw, addr: at, .. } => {
                Self::Missing { addr: addr(at), write: rw == ReadWrite::Write }
            }
            Raw::Pagefault { kind: FaultKind::Minor, .. } => Self::Unexpected("minor fault"),
            Raw::Remove { start, end } | Raw::Unmap { start, end } => {
                Self::Remove { start: addr(start), end: addr(end) }
            }
            Raw::Fork { .. } => Self::Unexpected("fork"),
            Raw::Remap { .. } => Self::Unexpected("remap"),
        }
    }
}
