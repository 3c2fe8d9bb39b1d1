//! Datagrams to a service manager (`sd_notify(3)`).

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with, sockopt,
};

/// How long one try of a message may take that may wait.
const WITHIN: Duration = Duration::from_millis(500);

/// What the two messages about a descriptor say before its name.
const KEEP: &str = "FDSTORE=1\nFDPOLL=0\nFDNAME=";
const FORGET: &str = "FDSTOREREMOVE=1\nFDNAME=";

/// Who sends to the manager.
#[derive(Debug)]
pub(super) struct Notifier {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

/// What becomes of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Ready,
    /// It ends.
    Stopping,
}

impl Phase {
    pub(super) fn message(self) -> Message {
        let text = match self {
            Self::Ready => format!("READY=1\nMAINPID={}", std::process::id()),
            Self::Stopping => "STOPPING=1".to_owned(),
        };
        Message { text, is_newest: false }
    }
}

/// What is said.
#[derive(Debug)]
pub(super) struct Message {
    text: String,
    /// Whatever was said before it under the same word is out of date.
    is_newest: bool,
}

impl Message {
    /// A line for whoever asks how the service is.
    pub(super) fn status(text: &str) -> Self {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { text: format!("STATUS={line}"), is_newest: true }
    }

    /// A sign of life.
    pub(super) fn alive() -> Self {
        Self { text: "WATCHDOG=1".to_owned(), is_newest: true }
    }

    /// Has a copy of a descriptor, which goes with it, kept by `name`.
    pub(super) fn keep(name: &str) -> Self {
        // It must not be polled: a userfaultfd can look broken there that is not.
        Self { text: format!("{KEEP}{name}"), is_newest: false }
    }

    /// Has what is kept by `name` forgotten.
    pub(super) fn forget(name: &str) -> Self {
        Self { text: format!("{FORGET}{name}"), is_newest: false }
    }

    /// Whether it takes back `other`, so that neither need be said.
    pub(super) fn undoes(&self, other: &Self) -> bool {
        let forgotten = self.text.strip_prefix(FORGET);
        forgotten.is_some() && forgotten == other.text.strip_prefix(KEEP)
    }

    /// Whether there is no point in saying `other` any more.
    pub(super) fn replaces(&self, other: &Self) -> bool {
        let word = |message: &Self| message.text.split('=').next().map(str::to_owned);
        self.is_newest && word(self) == word(other)
    }
}

impl Notifier {
    /// To whoever listens at `address`, as NOTIFY_SOCKET has it: a path, or a name that begins with @
    /// for an abstract one. Nothing is sent yet.
    pub(super) fn to(address: &OsStr) -> io::Result<Self> {
        let bytes = address.as_bytes();
        let address = match bytes.split_first() {
            Some((b'@', name)) => SocketAddrUnix::new_abstract_name(name)?,
            Some((b'/', _)) => SocketAddrUnix::new(bytes)?,
            _ => {
                let text = "it is neither a path nor the name of an abstract socket";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(WITHIN))?;
        Ok(Self { socket, address })
    }

    /// Sends it. Where the manager takes nothing in, it may be waited for a moment, or not at all.
    pub(super) fn send(
        &self,
        message: &Message,
        fd: Option<BorrowedFd<'_>>,
        may_wait: bool,
    ) -> io::Result<()> {
        let fds: Vec<_> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let pieces = [IoSlice::new(message.text.as_bytes())];
        let mut flags = SendFlags::NOSIGNAL;
        flags.set(SendFlags::DONTWAIT, !may_wait);
        sendmsg_addr(self.socket.as_fd(), &self.address, &pieces, &mut control, flags)?;
        Ok(())
    }
}
