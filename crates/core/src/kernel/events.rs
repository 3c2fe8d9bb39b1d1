//! Events of a userfaultfd, read into memory that outlives the process and taken out by value.

use std::io::IoSliceMut;
use std::mem::offset_of;

use nix::errno::Errno;
use rustix::io::{ReadWriteFlags, preadv2};
use userfaultfd_sys as sys;

use super::descriptor::Uffd;
use super::shared::Part;
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

/// Bytes of one event.
const EVENT: usize = size_of::<sys::uffd_msg>();

/// Reads events in batches into one buffer, which may be shared with a successor.
///
/// The kernel takes an event off its queue before its bytes are here, so nothing else may hold the
/// only copy of it. An entry that is not zero is an event that was not dealt with yet; whoever
/// deals with it clears it, and the next read finds all entries clear.
#[derive(Debug)]
pub struct EventReader {
    buffer: Part,
    /// Before Linux 6.9 a read cannot be told not to wait.
    can_refuse_to_wait: bool,
}

impl EventReader {
    /// Events one `read` can return.
    pub const CAPACITY: usize = 128;

    /// Bytes of the buffer.
    pub const BYTES: usize = Self::CAPACITY * EVENT;

    /// Reads into `buffer`, which has [`BYTES`](Self::BYTES).
    pub fn new(buffer: Part) -> Self {
        assert_eq!(buffer.as_slice().len(), Self::BYTES, "the buffer of an event reader");
        Self { buffer, can_refuse_to_wait: true }
    }

    /// One `read`; how many events there are now. Fewer than [`CAPACITY`](Self::CAPACITY) means
    /// that the descriptor was empty at that moment, as the kernel fills the buffer until it would
    /// block. Never waits, whatever the owner does to the flags of the file it shares with us.
    pub fn read(&mut self, uffd: &Uffd) -> Result<usize, ReadError> {
        let buffer = self.buffer.as_mut_slice();
        let result = if self.can_refuse_to_wait {
            let current = u64::MAX;
            preadv2(uffd, &mut [IoSliceMut::new(buffer)], current, ReadWriteFlags::NOWAIT)
        } else {
            // What another process can still do between these two is to make the read wait.
            let _ = uffd.refuse_to_wait();
            rustix::io::read(uffd, &mut *buffer)
        };
        match result {
            Ok(0) => Err(ReadError::Closed),
            Ok(bytes) => Ok(bytes / EVENT),
            Err(rustix::io::Errno::AGAIN) => Ok(0),
            // A signal before the first event: full, so that the caller reads again.
            Err(rustix::io::Errno::INTR) => Ok(Self::CAPACITY),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::SPIPE)
                if self.can_refuse_to_wait =>
            {
                self.can_refuse_to_wait = false;
                self.read(uffd)
            }
            Err(error) => Err(ReadError::Failed(error.raw_os_error())),
        }
    }

    /// The event at `index`, unless it was dealt with.
    pub fn get(&self, index: usize) -> Option<Event> {
        let entry = &self.buffer.as_slice()[index * EVENT..][..EVENT];
        parse(entry.try_into().expect("an entry has the length of an event"))
    }

    /// Whether `buffer` can have been written by the kernel, and cleared by whoever read it.
    pub fn is_sound(buffer: &Part) -> bool {
        buffer.as_slice().chunks_exact(EVENT).all(|entry| {
            let entry = entry.try_into().expect("an entry has the length of an event");
            match parse(entry) {
                None => true,
                Some(Event::Unexpected("unknown")) => false,
                Some(Event::Remove { start, end }) => start < end,
                Some(_) => true,
            }
        })
    }

    /// The event at `index` was dealt with, and everything that follows from it written down.
    pub fn done(&mut self, index: usize) {
        Part::in_order();
        let entry = &mut self.buffer.as_mut_slice()[index * EVENT..][..EVENT];
        // First that it is an event: half of a REMOVE would be one of other pages.
        entry[offset_of!(sys::uffd_msg, event)] = 0;
        Part::in_order();
        entry.fill(0);
    }
}

fn parse(entry: &[u8; EVENT]) -> Option<Event> {
    const ARG: usize = offset_of!(sys::uffd_msg, arg);
    let word = |at: usize| {
        let bytes = &entry[ARG + at..][..8];
        u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
    };
    let range = || Event::Remove {
        start: GuestAddr(word(offset_of!(sys::uffd_msg_remove, start))),
        end: GuestAddr(word(offset_of!(sys::uffd_msg_remove, end))),
    };
    Some(match entry[offset_of!(sys::uffd_msg, event)] {
        0 => return None,
        sys::UFFD_EVENT_PAGEFAULT => {
            let flags = word(offset_of!(sys::uffd_msg_pagefault, flags));
            let addr = GuestAddr(word(offset_of!(sys::uffd_msg_pagefault, address)));
            if flags & sys::UFFD_PAGEFAULT_FLAG_WP != 0 {
                Event::WriteProtect { addr }
            } else if flags & sys::UFFD_PAGEFAULT_FLAG_MINOR != 0 {
                Event::Unexpected("minor fault")
            } else {
                Event::Missing { addr, write: flags & sys::UFFD_PAGEFAULT_FLAG_WRITE != 0 }
            }
        }
        sys::UFFD_EVENT_REMOVE | sys::UFFD_EVENT_UNMAP => range(),
        sys::UFFD_EVENT_FORK => Event::Unexpected("fork"),
        sys::UFFD_EVENT_REMAP => Event::Unexpected("remap"),
        _ => Event::Unexpected("unknown"),
    })
}

impl From<ReadError> for std::io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => std::io::ErrorKind::UnexpectedEof.into(),
            ReadError::Failed(errno) => Errno::from_raw(errno).into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: u8, words: [u64; 2]) -> [u8; EVENT] {
        let mut entry = [0; EVENT];
        entry[0] = event;
        entry[8..16].copy_from_slice(&words[0].to_ne_bytes());
        entry[16..24].copy_from_slice(&words[1].to_ne_bytes());
        entry
    }

    #[test]
    fn events_are_what_the_kernel_wrote() {
        let addr = GuestAddr(0x7000_1234);
        let fault = |flags| parse(&entry(sys::UFFD_EVENT_PAGEFAULT, [flags, addr.0])).unwrap();
        assert_eq!(fault(0), Event::Missing { addr, write: false });
        assert_eq!(fault(1), Event::Missing { addr, write: true });
        assert_eq!(fault(2), Event::WriteProtect { addr });
        assert_eq!(fault(3), Event::WriteProtect { addr });
        assert_eq!(fault(4), Event::Unexpected("minor fault"));
        for kind in [sys::UFFD_EVENT_REMOVE, sys::UFFD_EVENT_UNMAP] {
            let range = Event::Remove { start: GuestAddr(0x1000), end: GuestAddr(0x3000) };
            assert_eq!(parse(&entry(kind, [0x1000, 0x3000])), Some(range));
        }
        assert_eq!(parse(&entry(sys::UFFD_EVENT_FORK, [3, 0])), Some(Event::Unexpected("fork")));
        assert_eq!(parse(&[0; EVENT]), None);
    }
}
