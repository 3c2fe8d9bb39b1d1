//! The service manager that started this process, such as systemd: it is told of what becomes of the
//! service (`sd_notify(3)`), and keeps userfaultfds while no server lives (`FDSTORE=1`).
//!
//! Which one that is is given: whoever reads it from the environment takes it out there, so that no
//! program that is started from here takes itself for the service.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, sendmsg_addr, socket_with, sockopt,
};

use crate::kernel::inherited;
use crate::ledger::Spares;

/// How long it may take to take a message in. One that hangs holds no guest up for longer.
const WITHIN: Duration = Duration::from_millis(500);

/// Somebody who is told.
#[derive(Debug)]
pub struct ServiceManager {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

/// What becomes of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Ready,
    /// It reads its configuration again, and is ready afterwards.
    Reloading,
    /// It ends.
    Stopping,
}

impl ServiceManager {
    /// The one that listens at `address`, as NOTIFY_SOCKET has it: a path, or a name that begins
    /// with @ for an abstract one. Nothing is sent yet.
    pub fn at(address: &OsStr) -> io::Result<Self> {
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

    /// Says what becomes of the service, and who serves by now.
    pub fn tell(&self, phase: Phase) -> io::Result<()> {
        let pid = std::process::id();
        match phase {
            Phase::Ready => self.send(&format!("READY=1\nMAINPID={pid}"), None),
            Phase::Reloading => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
                let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
                self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"), None)
            }
            Phase::Stopping => self.send("STOPPING=1", None),
        }
    }

    /// A line for whoever asks how the service is.
    pub fn status(&self, text: &str) -> io::Result<()> {
        let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.send(&format!("STATUS={line}"), None)
    }

    /// The service is alive, for a manager that waits for that (WATCHDOG_USEC).
    pub fn is_alive(&self) -> io::Result<()> {
        self.send("WATCHDOG=1", None)
    }

    /// Keeps a copy of a guest's userfaultfd until it is [forgotten](Self::forget), also beyond this
    /// process. The next one inherits it under the guest's id.
    pub fn keep(&self, id: &str, uffd: BorrowedFd<'_>) -> io::Result<()> {
        // It must not be polled: a userfaultfd can look broken there that is not.
        self.send(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={id}"), Some(uffd))
    }

    /// The guest has ended.
    pub fn forget(&self, id: &str) -> io::Result<()> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={id}"), None)
    }

    fn send(&self, text: &str, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: Vec<_> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let pieces = [IoSlice::new(text.as_bytes())];
        let (socket, flags) = (self.socket.as_fd(), SendFlags::NOSIGNAL);
        sendmsg_addr(socket, &self.address, &pieces, &mut control, flags)?;
        Ok(())
    }
}

/// A guest whose userfaultfd is kept by the service manager.
#[derive(Debug)]
pub(crate) struct Stored {
    manager: Arc<ServiceManager>,
    id: String,
}

impl Stored {
    /// None without a manager, or where it takes nothing in: a successor needs another way then.
    pub(crate) fn of(
        manager: Option<&Arc<ServiceManager>>,
        id: &str,
        uffd: BorrowedFd<'_>,
    ) -> Option<Self> {
        let manager = Arc::clone(manager?);
        manager.keep(id, uffd).ok()?;
        Some(Self { manager, id: id.to_owned() })
    }

    /// The guest has ended, or needs no handler any more.
    pub(crate) fn forget(self) {
        // Kept for longer, the next server finds no guest to it and forgets it.
        let _ = self.manager.forget(&self.id);
    }
}

/// The descriptors that a service manager started this process with: `count` of them from number 3
/// on (LISTEN_FDS), with `names` (LISTEN_FDNAMES). For a process that LISTEN_PID names, once: they
/// are taken.
///
/// Userfaultfds are by the ids of their guests; the first listening socket is apart. Others are closed.
pub fn take_inherited(count: u32, names: &str) -> io::Result<(Spares, Option<OwnedFd>)> {
    let (mut spares, mut socket) = (Spares::new(), None);
    let names = names.split(':').map(Some).chain(std::iter::repeat(None));
    for (fd, name) in inherited(count)?.into_iter().zip(names) {
        let listens = sockopt::socket_acceptconn(&fd).unwrap_or(false);
        match name {
            _ if listens => socket = socket.or(Some(fd)),
            Some(id) if !id.is_empty() => drop(spares.insert(id.to_owned(), fd)),
            _ => {}
        }
    }
    Ok((spares, socket))
}
