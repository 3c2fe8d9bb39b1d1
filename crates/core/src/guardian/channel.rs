//! A connection that keeps messages apart, and takes a descriptor with each. Nobody waits for the
//! other side here: it may be frozen.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// The longest message. An id is a UUID, and an error's text is some hundreds of bytes.
const LONGEST: usize = 16 << 10;

/// Messages that may wait for a peer to take them in. One that takes none for so long is as good as
/// gone.
const MOST_WAITING: usize = 16 << 10;

/// Why a channel is of no use any more.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The other side has closed it, or is gone.
    #[error("the connection has ended")]
    Ended,
    /// Something came that is no message.
    #[error("what came is no message of this protocol: {0}")]
    Strange(String),
    /// The other side takes nothing in.
    #[error("the other side has not taken in {MOST_WAITING} messages")]
    Stuck,
    /// The system refused.
    #[error("{doing}: {cause}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// One end of a connection.
#[derive(Debug)]
pub struct Channel {
    socket: Arc<OwnedFd>,
    /// What the other side had no room for yet, in order.
    waiting: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket), waiting: VecDeque::new() }
    }

    /// What to poll, without keeping the channel from those who send.
    pub(super) fn socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    /// Sends a message, at once or when the other side has room for it.
    pub fn send(
        &mut self,
        message: &impl Serialize,
        fd: Option<OwnedFd>,
    ) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(message)
            .map_err(|error| ChannelError::Strange(error.to_string()))?;
        if self.waiting.len() >= MOST_WAITING {
            return Err(ChannelError::Stuck);
        }
        self.waiting.push_back((bytes, fd));
        self.flush()
    }

    /// Whether there is something to [`flush`](Self::flush) once the descriptor is writable.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Sends what the other side has room for.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some((bytes, fd)) = self.waiting.front() {
            match send(self.socket.as_fd(), bytes, fd.as_ref().map(AsFd::as_fd)) {
                Ok(()) => drop(self.waiting.pop_front()),
                // ETOOMANYREFS: as many descriptors are on their way as this user may have.
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::TOOMANYREFS) => break,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    return Err(ChannelError::Ended);
                }
                Err(errno) => return Err(io("cannot send", errno)),
            }
        }
        Ok(())
    }

    /// The next message and the descriptor that came with it; none if there is none now.
    pub fn receive<T: DeserializeOwned>(
        &self,
    ) -> Result<Option<(T, Option<OwnedFd>)>, ChannelError> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut piece = [IoSliceMut::new(&mut bytes)];
        let received = match recvmsg(&*self.socket, &mut piece, &mut control, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(Errno::CONNRESET) => return Err(ChannelError::Ended),
            Err(errno) => return Err(io("cannot receive", errno)),
        };
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
            _ => None,
        });
        if received.bytes == 0 && fd.is_none() {
            return Err(ChannelError::Ended);
        }
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::Strange(format!("it has more than {LONGEST} bytes")));
        }
        let message = serde_json::from_slice(&bytes[..received.bytes]);
        let message = message.map_err(|error| ChannelError::Strange(error.to_string()))?;
        Ok(Some((message, fd)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
    let fds: Vec<_> = fd.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags).map(drop)
}

fn io(doing: &'static str, errno: Errno) -> ChannelError {
    ChannelError::Io { doing, cause: errno.into() }
}
