//! The work aside: looking at descriptors that came, in a process that is about to end. Nothing here
//! waits, allocates, or closes what was received.

use std::io::{IoSlice, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open, readlinkat_raw};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::path::DecInt;

use super::peek::consume;
use crate::kernel::OwnTable;

/// How many descriptors may come at once. A VMM sends one or two.
pub(super) const MAX_AT_ONCE: usize = 16;

/// How many the kernel would allow.
const MOST: usize = 253;

/// What `/proc` calls a userfaultfd.
const USERFAULTFD: &[u8] = b"anon_inode:[userfaultfd]";

/// What was found out.
pub(super) struct Found {
    pub(super) outcome: Outcome,
    /// What the first stranger is.
    name: [u8; 256],
    name_len: usize,
}

pub(super) enum Outcome {
    Taken { bytes: usize, userfaultfds: usize, passed_on: bool },
    Truncated { taken: usize },
    Failed { doing: &'static str, errno: Errno },
}

type Failure = (&'static str, Errno);

impl Default for Found {
    fn default() -> Self {
        // What is left if the process is killed in the middle.
        let outcome = Outcome::Failed { doing: "receive descriptors aside", errno: Errno::CHILD };
        Self { outcome, name: [0; 256], name_len: 0 }
    }
}

impl Found {
    pub(super) fn stranger(&self) -> Option<String> {
        let name = &self.name[..self.name_len];
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// Takes the next piece into `buffer`, and passes the userfaultfd on if there is just one.
    pub(super) fn look(
        &mut self,
        table: &OwnTable,
        stream: BorrowedFd<'_>,
        to: Option<BorrowedFd<'_>>,
        buffer: &mut [u8],
    ) {
        self.outcome = self
            .try_look(table, stream, to, buffer)
            .unwrap_or_else(|(doing, errno)| Outcome::Failed { doing, errno });
    }

    fn try_look(
        &mut self,
        table: &OwnTable,
        stream: BorrowedFd<'_>,
        to: Option<BorrowedFd<'_>>,
        buffer: &mut [u8],
    ) -> Result<Outcome, Failure> {
        let proc = open(c"/proc/self/fd", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| ("open /proc/self/fd", errno))?;
        table.fill(stream, MAX_AT_ONCE as u64);

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_AT_ONCE))];
        let mut fds = ManuallyDrop::new([const { None }; MAX_AT_ONCE]);
        let seen = copy(stream, buffer, &mut space, &mut *fds).map_err(cannot_read)?;
        let fds = fds.iter().flatten();
        if seen.truncated {
            return Ok(Outcome::Truncated { taken: fds.count() });
        }
        let (mut userfaultfds, mut uffd) = (0, None);
        for fd in fds {
            let mut name = [0; 256];
            let len = readlinkat_raw(&proc, DecInt::from_fd(fd), &mut name)
                .map_err(|errno| ("see what a received descriptor is, in /proc/self/fd", errno))?;
            if &name[..len] == USERFAULTFD {
                userfaultfds += 1;
                uffd = Some(fd);
            } else if self.name_len == 0 {
                (self.name, self.name_len) = (name, len);
            }
        }
        let passed_on = match (uffd, to) {
            (Some(uffd), Some(to)) if userfaultfds == 1 => {
                pass_on(to, uffd).map_err(|errno| ("pass the userfaultfd on", errno))?;
                true
            }
            _ => false,
        };
        let bytes = seen.bytes;
        match consume(stream, &mut buffer[..bytes]).map_err(cannot_read)? {
            read if read == bytes => Ok(Outcome::Taken { bytes, userfaultfds, passed_on }),
            _ => Err(cannot_read(Errno::IO)),
        }
    }
}

/// Takes pieces with descriptors out of a stream, as many as there are or as have room, and counts
/// them.
pub(super) fn take_out(table: &OwnTable, stream: BorrowedFd<'_>, pieces: &mut usize) {
    table.fill(stream, MOST as u64);
    let mut buffer = [0; 4096];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut fds = ManuallyDrop::new([const { None }; MOST]);
        match copy(stream, &mut buffer, &mut space, &mut *fds) {
            Ok(Seen { bytes, truncated: false }) if bytes > 0 => {
                if consume(stream, &mut buffer[..bytes]) != Ok(bytes) {
                    return;
                }
                *pieces += 1;
            }
            _ => return,
        }
    }
}

/// What a copy of the next piece has.
struct Seen {
    bytes: usize,
    truncated: bool,
}

/// Copies the next piece of a message, descriptors included, and leaves it where it is. So when it
/// is read afterwards, without them, the kernel has the last of none to close.
fn copy(
    stream: BorrowedFd<'_>,
    buffer: &mut [u8],
    space: &mut [MaybeUninit<u8>],
    fds: &mut [Option<OwnedFd>],
) -> Result<Seen, Errno> {
    let mut control = RecvAncillaryBuffer::new(space);
    let flags = RecvFlags::PEEK | RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let seen = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    for (place, fd) in fds.iter_mut().zip(rights.flatten()) {
        *place = Some(fd);
    }
    Ok(Seen { bytes: seen.bytes, truncated: seen.flags.contains(ReturnFlags::CTRUNC) })
}

fn pass_on(to: BorrowedFd<'_>, uffd: &OwnedFd) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [uffd.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(to, &[IoSlice::new(&[0])], &mut control, flags).map(drop)
}

const fn cannot_read(errno: Errno) -> Failure {
    ("read from the guest's connection", errno)
}
