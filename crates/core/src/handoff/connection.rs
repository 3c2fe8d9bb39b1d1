//! One guest's connection, from its first byte to a whole handoff.

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

use nix::{
    sys::socket::{MsgFlags, getsockopt, recv, sockopt::PeerCredentials},
    unistd::Pid,
};

use rustix::net::sockopt::set_socket_oobinline;

use super::{
    HandoffError,
    framing::Frame,
    incoming::{Incoming, Piece},
    leaving::Helper,
    message,
    wait::{Wait, Woken},
    wire::Wire,
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
        Self { snapshot_len, timeout: Duration::from_secs(10), max_message: 1 << 20 }
    }
}

/// A guest, handed over.
#[derive(Debug)]
pub struct Handoff {
    /// The userfaultfd its memory is registered with.
    pub uffd: OwnedFd,
    /// Where its memory lies.
    pub layout: Layout,
    /// The process that connected.
    pub peer: Peer,
    /// The connection, non-blocking. Nothing more can be said on it, but VMMs that keep it open
    /// end it by dying.
    pub socket: UnixStream,
    /// They close what else was sent, and are forgotten when they have.
    _helpers: Vec<Helper>,
}

/// A VMM that connected and has not been listened to yet. Dropping it closes whatever it sent,
/// and waits for nothing but the userfaultfd.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    peer: Peer,
    incoming: Incoming,
}

impl Connection {
    /// Takes a stream that was connected elsewhere, and makes it non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        let wire = Wire::new(stream);
        wire.set_nonblocking(true)?;
        // A byte out of band could have descriptors with it like any other: it has to come in its
        // turn, and not to be passed over.
        set_socket_oobinline(&*wire, true)?;
        let credentials = getsockopt(&*wire, PeerCredentials)?;
        let pid = Some(Pid::from_raw(credentials.pid())).filter(|pid| pid.as_raw() > 0);
        let peer = Peer { pid, uid: credentials.uid(), gid: credentials.gid() };
        Ok(Self { wire, peer, incoming: Incoming::default() })
    }

    /// The process that connected.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Waits for the whole handoff, in however many pieces it comes. Blocks until it is there, is
    /// known to be wrong, the time is up, or `cancel` becomes readable.
    pub fn receive(
        mut self,
        limits: &Limits,
        cancel: BorrowedFd<'_>,
    ) -> Result<Handoff, HandoffError> {
        self.try_receive(limits, cancel)
    }

    /// The same, once. After an error it still has what was sent, so that whoever is refused can be
    /// told of before that is closed.
    pub(crate) fn try_receive(
        &mut self,
        limits: &Limits,
        cancel: BorrowedFd<'_>,
    ) -> Result<Handoff, HandoffError> {
        let Self { wire, incoming, .. } = self;
        let wait = Wait::new(wire, cancel, limits.timeout);
        let mut layout = None;

        let layout = loop {
            match wait.until_readable()? {
                Woken::Readable => {}
                // Who has left without a word is nobody, whenever that is found out.
                Woken::Cancelled if has_left(wire) => {
                    let (received, missing) = incoming.lacks();
                    return Err(HandoffError::Closed { received, missing });
                }
                Woken::Cancelled => return Err(HandoffError::Cancelled),
                Woken::TimeIsUp => {
                    let (received, missing) = incoming.lacks();
                    let timeout = limits.timeout;
                    return Err(HandoffError::Timeout { timeout, received, missing });
                }
            }
            if let Piece::End = incoming.read(wire, limits.max_message)? {
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
        wire.hang_up().map_err(|source| HandoffError::Io {
            doing: "end the guest's side of the connection",
            source,
        })?;
        while let Piece::Some = incoming.read(wire, limits.max_message)? {}
        if let Frame::Ends(end) = incoming.frame {
            message::only_spaces(&incoming.bytes[end..])?;
        }
        let (uffd, helpers) = incoming.descriptors.take_uffd()?;
        let socket = wire.take_emptied();
        Ok(Handoff { uffd, layout, peer: self.peer, socket, _helpers: helpers })
    }
}

/// Whether the peer has closed its side, and everything it has said was read.
fn has_left(wire: &Wire) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(wire.as_raw_fd(), &mut [0], flags) == Ok(0)
}
