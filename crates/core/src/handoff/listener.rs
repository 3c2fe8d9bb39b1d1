//! The socket that VMMs connect to.

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use rustix::net::{Shutdown, shutdown};

use super::{
    AcceptError, BindError, Connection, leaving,
    socket_file::{self, SocketAccess, SocketFile},
    wire::Wire,
};
use crate::service_manager::InheritedSocket;

/// A bound Unix socket, non-blocking and closed on exec. Its file goes when it does, unless it is the
/// service manager's: then who connects afterwards waits for the next process of the service.
#[derive(Debug)]
pub struct Listener {
    // Before the socket, so that the file is gone before connecting to it would be refused.
    _file: Option<SocketFile>,
    socket: Socket,
    path: PathBuf,
}

/// Who waits in its queue may have sent something already, so it is emptied before it is closed.
#[derive(Debug)]
struct Socket {
    /// There until it is dropped.
    listener: Option<UnixListener>,
    /// The manager listens on it as well.
    inherited: Option<InheritedSocket>,
}

impl Listener {
    /// Listens on `path`. A socket file that nobody listens on is taken over; anything else that
    /// is there stays, and is an error.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        Self::bind_for(path, SocketAccess::default())
    }

    /// The same, for these to connect: nobody else could in the meantime.
    pub fn bind_for(path: &Path, access: SocketAccess) -> Result<Self, BindError> {
        let (listener, file) = socket_file::listen_on(path, access)?;
        let socket = Socket { listener: Some(listener), inherited: None };
        let unblocked = socket.get().set_nonblocking(true);
        unblocked.map_err(|source| BindError::Io { path: path.into(), source })?;
        Ok(Self { _file: Some(file), socket, path: path.into() })
    }

    /// Listens on what the service manager has bound at `path`: a stream socket that listens, whose file
    /// is there, and whose access is the manager's matter.
    pub(crate) fn inherited(
        path: &Path,
        access: SocketAccess,
        inherited: InheritedSocket,
    ) -> Result<Self, BindError> {
        let unusable =
            |cause: &str| BindError::Inherited { path: path.into(), cause: cause.into() };
        if inherited.is_shared() {
            return Err(BindError::InUse { path: path.into() });
        }
        if let Some(flaw) = inherited.flaw() {
            return Err(unusable(&format!(
                "it is {flaw}; its unit needs ListenStream= and Accept=no"
            )));
        }
        if !socket_file::is_socket(path) {
            return Err(unusable("its file is gone, so that nobody can connect: restart its unit"));
        }
        if access != SocketAccess::default() {
            return Err(unusable(
                "socketOwner and socketMode come too late: its unit says who may connect, by \
                 SocketUser=, SocketGroup= and SocketMode=",
            ));
        }
        let io = |source| BindError::Io { path: path.into(), source };
        let listener = UnixListener::from(inherited.copy().map_err(io)?);
        listener.set_nonblocking(true).map_err(io)?;
        let socket = Socket { listener: Some(listener), inherited: Some(inherited) };
        Ok(Self { _file: None, socket, path: path.into() })
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next guest, or `None` if there is none yet: poll the listener and ask again. After an
    /// error see [`AcceptError::retry_after`].
    pub fn accept(&self) -> Result<Option<Connection>, AcceptError> {
        let path = || self.path.clone();
        if let Some(count) = leaving::crowd() {
            return Err(AcceptError::Crowded { path: path(), count });
        }
        let socket = self.socket.get();
        loop {
            let error = match socket.accept() {
                Ok((stream, _)) => {
                    return Connection::new(stream)
                        .map(Some)
                        .map_err(|source| AcceptError::Lost { path: path(), source });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => error,
            };
            match error.raw_os_error().map(Errno::from_raw) {
                // That one is out of the queue; the next may be fine.
                Some(Errno::ECONNABORTED | Errno::EINTR) => {}
                Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    return Err(AcceptError::Exhausted { path: path(), source: error });
                }
                _ => {
                    return Err(AcceptError::Broken { path: path(), source: error });
                }
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.get().as_fd()
    }
}

impl Socket {
    fn get(&self) -> &UnixListener {
        self.listener.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Of the manager's, whoever waits in the queue does so for the next process.
        if let Some(socket) = self.listener.take()
            && self.inherited.is_none()
            && !empty(&socket)
        {
            leaving::close(socket);
        }
    }
}

/// Lets nobody connect any more and hangs up on whoever has. Says whether nobody is left.
fn empty(socket: &UnixListener) -> bool {
    if shutdown(socket, Shutdown::Read).is_err() {
        return false;
    }
    loop {
        match socket.accept() {
            Ok((stream, _)) => drop(Wire::new(stream)),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ECONNABORTED | Errno::EINTR) => {}
                // It was shut, and its queue is empty.
                Some(Errno::EINVAL) => return true,
                _ => return false,
            },
        }
    }
}
