//! Taking in what a piece of a message has with it. Any descriptor may come, and closing one may
//! take for ever: a socket lingers, a file's system does not answer. So none is received by this
//! process but a userfaultfd; the rest is received aside, looked at there, and closed there.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags, open, readlinkat_raw};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::path::DecInt;

use super::HandoffError;
use super::incoming::consume;
use super::leaving::Helper;
use crate::kernel::{OwnTable, aside};

/// How many descriptors may come at once. A VMM sends one or two; the kernel would allow 253.
pub(super) const MAX_AT_ONCE: usize = 16;

/// What `/proc` calls a userfaultfd.
const USERFAULTFD: &[u8] = b"anon_inode:[userfaultfd]";

/// What came with a piece of a message.
#[derive(Debug)]
pub(super) struct Taken {
    /// The length of the piece.
    pub(super) bytes: usize,
    /// How many userfaultfds were among the descriptors.
    pub(super) userfaultfds: usize,
    /// The one, if it was wanted and the only one.
    pub(super) uffd: Option<OwnedFd>,
    /// What the first other one is.
    pub(super) stranger: Option<String>,
    /// Closes all the others.
    pub(super) helper: Helper,
}

/// Takes the next piece of a message into `buffer`, which has descriptors with it.
pub(super) fn take(
    stream: &UnixStream,
    buffer: &mut [u8],
    wanted: bool,
) -> Result<Taken, HandoffError> {
    let (ours, theirs) = UnixStream::pair().map_err(failed("open a pair of sockets"))?;
    let mut found = Found::default();
    let helper = aside(&mut |table| {
        found.outcome = found.visit(table, [stream.as_fd(), theirs.as_fd()], buffer, wanted);
    });
    let helper = Helper::from(
        helper.map_err(|errno| failed("start a process to receive in")(errno.into()))?,
    );
    drop(theirs);
    match found.outcome {
        Outcome::Taken { bytes, userfaultfds, passed_on } => Ok(Taken {
            bytes,
            userfaultfds,
            uffd: if passed_on { Some(receive(&ours)?) } else { None },
            stranger: found.stranger(),
            helper,
        }),
        Outcome::Truncated { taken } => Err(HandoffError::Truncated { taken }),
        Outcome::Failed { doing, errno } => Err(failed(doing)(errno.into())),
    }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> HandoffError {
    move |source| match Errno::from_io_error(&source) {
        // There is no room for what comes.
        Some(Errno::MFILE | Errno::NFILE) => HandoffError::Truncated { taken: 0 },
        _ => HandoffError::Io { doing, source },
    }
}

/// The userfaultfd that was passed on.
fn receive(ours: &UnixStream) -> Result<OwnedFd, HandoffError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(ours, &mut [IoSliceMut::new(&mut [0])], &mut control, flags)
        .map_err(|errno| failed("receive the userfaultfd")(errno.into()))?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        })
        // There was no room for it in the table.
        .ok_or(HandoffError::Truncated { taken: 0 })
}

/// What was found out aside. Nothing there allocates or closes anything.
struct Found {
    outcome: Outcome,
    /// What the first stranger is.
    name: [u8; 256],
    name_len: usize,
}

enum Outcome {
    Taken { bytes: usize, userfaultfds: usize, passed_on: bool },
    Truncated { taken: usize },
    Failed { doing: &'static str, errno: Errno },
}

impl Default for Found {
    fn default() -> Self {
        // What is left if the process is killed in the middle.
        let outcome = Outcome::Failed { doing: "receive descriptors aside", errno: Errno::CHILD };
        Self { outcome, name: [0; 256], name_len: 0 }
    }
}

impl Found {
    fn stranger(&self) -> Option<String> {
        let name = &self.name[..self.name_len];
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }

    /// The work aside.
    fn visit(
        &mut self,
        table: &OwnTable,
        streams: [BorrowedFd<'_>; 2],
        buffer: &mut [u8],
        wanted: bool,
    ) -> Outcome {
        self.look(table, streams, buffer, wanted)
            .unwrap_or_else(|(doing, errno)| Outcome::Failed { doing, errno })
    }

    fn look(
        &mut self,
        table: &OwnTable,
        streams: [BorrowedFd<'_>; 2],
        buffer: &mut [u8],
        wanted: bool,
    ) -> Result<Outcome, (&'static str, Errno)> {
        let proc = open(c"/proc/self/fd", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| ("open /proc/self/fd", errno))?;
        let [stream, to] = streams;
        let [stream, to, proc] = table
            .put_first([stream, to, proc.as_fd()])
            .map_err(|errno| ("make room for the guest's descriptors", errno))?;

        // First they are only copied, and then the message is read without them: so the kernel
        // never has the last of one to close before this process ends.
        let mut fds = ManuallyDrop::new([const { None }; MAX_AT_ONCE]);
        let seen = copy(&stream, buffer, &mut fds)
            .map_err(|errno| ("read from the guest's connection", errno))?;
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
        let passed_on = match uffd {
            Some(uffd) if wanted && userfaultfds == 1 => {
                pass_on(&to, uffd).map_err(|errno| ("pass the userfaultfd on", errno))?;
                true
            }
            _ => false,
        };
        let bytes = seen.bytes;
        let read = consume(&stream, &mut buffer[..bytes]);
        match read.map_err(|errno| ("read from the guest's connection", errno))? {
            read if read == bytes => Ok(Outcome::Taken { bytes, userfaultfds, passed_on }),
            _ => Err(("read all that there is from the guest's connection", Errno::IO)),
        }
    }
}

/// What a copy of the next piece has.
struct Seen {
    bytes: usize,
    truncated: bool,
}

/// Copies the next piece of a message, descriptors included, and leaves it where it is.
fn copy(
    stream: &OwnedFd,
    buffer: &mut [u8],
    fds: &mut [Option<OwnedFd>; MAX_AT_ONCE],
) -> Result<Seen, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_AT_ONCE))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
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

fn pass_on(to: &OwnedFd, uffd: &OwnedFd) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [uffd.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(to, &[IoSlice::new(&[0])], &mut control, flags).map(drop)
}
