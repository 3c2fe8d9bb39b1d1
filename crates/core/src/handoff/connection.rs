//! One guest's connection, from its first byte to a whole handoff.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        socket::{getsockopt, sockopt::PeerCredentials},
        time::TimeSpec,
    },
    unistd::Pid,
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

use super::{
    HandoffError, Missing,
    descriptors::{Descriptors, MAX_AT_ONCE},
    framing::{Frame, Framing},
    message,
};
use crate::layout::Layout;

/// The process that connected, as the kernel knew it at that moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; `None` if it lives in a pid namespace that cannot be seen from here.
    pub pid: Option<Pid>,
    /// Its effective user id.
    pub uid: u32,
    /// Its effective group id.
    pub gid: u32,
}

/// What a handoff may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The length of the snapshot's memory file in bytes; no region may lie past it.
    pub snapshot_len: u64,
    /// How long the whole message may take to come.
    pub timeout: Duration,
    /// How many bytes the message may have.
    pub max_message: usize,
}

impl Limits {
    /// The usual limits for a snapshot of `snapshot_len` bytes: ten seconds, one mebibyte.
    pub const fn new(snapshot_len: u64) -> Self {
        Self {
            snapshot_len,
            timeout: Duration::from_secs(10),
            max_message: 1 << 20,
        }
    }
}

/// A guest, handed over.
#[derive(Debug)]
pub struct Handoff {
    /// The userfaultfd its memory is registered with.
    pub uffd: OwnedFd,
    /// Where its memory lies.
    pub layout: Layout,
    /// The process it runs in.
    pub peer: Peer,
    /// The connection, non-blocking. Nothing more is said on it, but VMMs that keep it open end
    /// it by dying.
    pub socket: UnixStream,
}

/// A VMM that connected and has not been listened to yet.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    peer: Peer,
}

impl Connection {
    /// Takes a stream that was connected elsewhere, and makes it non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let credentials = getsockopt(&stream, PeerCredentials)?;
        let pid = Some(Pid::from_raw(credentials.pid())).filter(|pid| pid.as_raw() > 0);
        let peer = Peer {
            pid,
            uid: credentials.uid(),
            gid: credentials.gid(),
        };
        Ok(Self { stream, peer })
    }

    /// The process that connected.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Waits for the whole handoff, in however many pieces it comes. Blocks until it is there, is
    /// known to be wrong, the time is up, or `cancel` becomes readable.
    pub fn receive(self, limits: &Limits, cancel: BorrowedFd<'_>) -> Result<Handoff, HandoffError> {
        let wait = Wait::new(&self.stream, cancel, limits.timeout);
        let mut incoming = Incoming::default();
        let mut layout = None;

        let layout = loop {
            match wait.until_readable()? {
                Woken::Readable => {}
                Woken::Cancelled => return Err(HandoffError::Cancelled),
                Woken::TimeIsUp => {
                    let (received, missing) = incoming.lacks();
                    let timeout = limits.timeout;
                    return Err(HandoffError::Timeout {
                        timeout,
                        received,
                        missing,
                    });
                }
            }
            if let Piece::End = incoming.read(&self.stream, limits.max_message)? {
                let (received, missing) = incoming.lacks();
                return Err(HandoffError::Closed { received, missing });
            }
            // A message that is wrong is refused now, not when its descriptor fails to come.
            if layout.is_none() && incoming.frame != Frame::Open {
                layout = Some(message::parse(&incoming.bytes, limits.snapshot_len)?);
            }
            if incoming.descriptors.any()
                && let Some(layout) = layout.take()
            {
                break layout;
            }
        };

        // What else is there already belongs to the handoff, and may make it a wrong one.
        while let Piece::Some = incoming.read(&self.stream, limits.max_message)? {}
        if let Frame::Ends(end) = incoming.frame {
            message::only_spaces(&incoming.bytes[end..])?;
        }
        let uffd = incoming.descriptors.into_uffd()?;
        Ok(Handoff {
            uffd,
            layout,
            peer: self.peer,
            socket: self.stream,
        })
    }
}

/// All that has come of a message.
struct Incoming {
    bytes: Vec<u8>,
    framing: Framing,
    frame: Frame,
    descriptors: Descriptors,
}

/// What there was to read.
enum Piece {
    Some,
    Nothing,
    End,
}

impl Default for Incoming {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            framing: Framing::default(),
            frame: Frame::Open,
            descriptors: Descriptors::default(),
        }
    }
}

impl Incoming {
    /// Reads one piece, without waiting for it.
    fn read(&mut self, stream: &UnixStream, limit: usize) -> Result<Piece, HandoffError> {
        let mut buffer = [0; 8192];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut buffer)],
            &mut control,
            flags,
        ) {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                return Ok(Piece::Nothing);
            }
            Err(rustix::io::Errno::CONNRESET) => return Ok(Piece::End),
            Err(error) => {
                return Err(HandoffError::Io {
                    doing: "read from the guest's connection",
                    source: error.into(),
                });
            }
        };

        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received
            .flags
            .intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC)
        {
            return Err(HandoffError::Truncated { taken: fds.len() });
        }
        for fd in fds {
            self.descriptors.add(fd)?;
        }

        let piece = &buffer[..received.bytes];
        if piece.is_empty() {
            return Ok(Piece::End);
        }
        if self.bytes.len() + piece.len() > limit {
            return Err(HandoffError::TooLarge { limit });
        }
        self.bytes.extend_from_slice(piece);
        self.frame = self.framing.feed(piece);
        Ok(Piece::Some)
    }

    /// How many bytes are there, and what is not.
    fn lacks(&self) -> (usize, Missing) {
        let missing = match (self.frame, self.descriptors.any()) {
            (Frame::Open, false) => Missing::Both,
            (Frame::Open, true) => Missing::ArrayEnd,
            _ => Missing::Descriptor,
        };
        (self.bytes.len(), missing)
    }
}

/// Waiting for a stream, with two ways out.
struct Wait<'a> {
    stream: &'a UnixStream,
    cancel: BorrowedFd<'a>,
    /// `None` if it lies further away than the clock can tell.
    deadline: Option<Instant>,
}

enum Woken {
    Readable,
    Cancelled,
    TimeIsUp,
}

impl<'a> Wait<'a> {
    fn new(stream: &'a UnixStream, cancel: BorrowedFd<'a>, timeout: Duration) -> Self {
        Self {
            stream,
            cancel,
            deadline: Instant::now().checked_add(timeout),
        }
    }

    /// Looks at the way out first: a peer that never stops talking cannot keep us here.
    fn until_readable(&self) -> Result<Woken, HandoffError> {
        loop {
            let left = self
                .deadline
                .map(|d| d.saturating_duration_since(Instant::now()));
            let mut fds = [
                PollFd::new(self.cancel, PollFlags::POLLIN),
                PollFd::new(self.stream.as_fd(), PollFlags::POLLIN),
            ];
            match ppoll(&mut fds, left.map(TimeSpec::from_duration), None) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    return Err(HandoffError::Io {
                        doing: "wait for the guest's handoff",
                        source: error.into(),
                    });
                }
            }
            if fds[0].any() != Some(false) {
                return Ok(Woken::Cancelled);
            }
            if left == Some(Duration::ZERO) {
                return Ok(Woken::TimeIsUp);
            }
            if fds[1].any() != Some(false) {
                return Ok(Woken::Readable);
            }
        }
    }
}
