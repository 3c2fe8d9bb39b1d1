//! Taking in what a piece of a message has with it. Any descriptor may come, and closing one may
//! take for ever: a socket lingers, a file's system does not answer. So none is received by this
//! process but a userfaultfd; the rest is received aside, looked at there, and closed there.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::HandoffError;
use super::leaving::Helper;
use super::visit::{self, Found, Outcome};
use crate::kernel::aside;

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
        found.look(table, stream.as_fd(), wanted.then_some(theirs.as_fd()), buffer);
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

/// Takes as much out of a stream as can be received at once, and keeps nothing of it. Says whether
/// that was anything.
pub(super) fn take_out(stream: &UnixStream) -> bool {
    let mut pieces = 0;
    let helper = aside(&mut |table| visit::take_out(table, stream.as_fd(), &mut pieces));
    helper.is_ok_and(|process| {
        drop(Helper::from(process));
        pieces > 0
    })
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
