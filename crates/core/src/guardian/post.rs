//! Where a guardian listens, and how a server gets there.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    socket_with,
};
use thiserror::Error;

use super::channel::Channel;
use super::proof::{self, Unproven};
use crate::kernel::Process;
use crate::ledger::{Claim, DirLock, StateDir, StateDirError};

/// The socket's name in the state directory.
const NAME: &str = "guardian.sock";

/// Servers that may wait to be heard. There is one at a time, and strangers.
const BACKLOG: i32 = 16;

/// Why there is no post, or nobody has come to it.
#[derive(Debug, Error)]
pub enum PostError {
    /// Another guardian is there, or the directory cannot be used.
    #[error(transparent)]
    Dir(#[from] StateDirError),
    /// The system refused.
    #[error("cannot {doing} {}: {cause}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// As many wait to be heard as may.
    #[error(
        "the guardian hears nobody, and has {BACKLOG} servers or more at its door: it is frozen; \
         continue it (SIGCONT), or kill it, and another one is started"
    )]
    Crowded,
    /// Whoever connected is not what it has to be.
    #[error("a connection was refused: {0}")]
    Unproven(#[from] Unproven),
}

/// A guardian's place: there is one in each directory.
#[derive(Debug)]
pub struct Post {
    dir: Arc<StateDir>,
    socket: OwnedFd,
    path: PathBuf,
    _lock: Claim,
}

/// The server of the directory, which has proved it.
#[derive(Debug)]
pub struct Visitor {
    /// What is said.
    pub channel: Channel,
    /// Its process.
    pub process: Process,
}

impl Post {
    /// Makes this process the directory's guardian.
    pub fn open(dir: Arc<StateDir>) -> Result<Self, PostError> {
        let lock = dir.guard()?;
        let path = dir.path().join(NAME);
        let io = |doing| {
            let path = path.clone();
            move |errno: Errno| PostError::Io { path, doing, cause: errno.into() }
        };
        // The lock says that nobody is there to whom it could belong.
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(PostError::Io { path, doing: "replace", cause });
            }
            _ => {}
        }
        let socket = new_socket().map_err(io("make"))?;
        let address = address(&dir).map_err(io("name"))?;
        bind(&socket, &address).map_err(io("bind"))?;
        listen(&socket, BACKLOG).map_err(io("listen on"))?;
        Ok(Self { dir, socket, path, _lock: lock })
    }

    /// Whether some process has the directory's claim, as far as that can be seen.
    pub fn server_is_there(&self) -> bool {
        proof::is_held(&self.dir, DirLock::Guardian, DirLock::Server)
    }

    /// The next who has come, if it is the directory's server; none if nobody has.
    pub fn accept(&self) -> Result<Option<Visitor>, PostError> {
        let socket = match accept_with(&self.socket, FLAGS) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(None),
            Err(errno) => {
                let (path, cause) = (self.path.clone(), errno.into());
                return Err(PostError::Io { path, doing: "accept on", cause });
            }
        };
        match proof::holder(&socket, &self.dir, DirLock::Guardian, DirLock::Server) {
            Ok(process) => Ok(Some(Visitor { channel: Channel::new(socket), process })),
            Err(error) => {
                close_elsewhere(socket);
                Err(error.into())
            }
        }
    }
}

impl AsFd for Post {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        // Still under the lock, so that it is no other guardian's.
        let _ = fs::remove_file(&self.path);
    }
}

/// The guardian of a directory, for the server that has its claim; none if there is none.
pub(super) fn visit(dir: &StateDir) -> Result<Option<Visitor>, PostError> {
    let io = |doing| {
        move |errno: Errno| {
            let path = dir.path().join(NAME);
            PostError::Io { path, doing, cause: errno.into() }
        }
    };
    let socket = new_socket().map_err(io("make"))?;
    match connect(&socket, &address(dir).map_err(io("name"))?) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::CONNREFUSED) => return Ok(None),
        Err(Errno::AGAIN) => return Err(PostError::Crowded),
        Err(errno) => return Err(io("connect to")(errno)),
    }
    let process = proof::holder(&socket, dir, DirLock::Server, DirLock::Guardian)?;
    Ok(Some(Visitor { channel: Channel::new(socket), process }))
}

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

fn new_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)
}

/// By the directory that is open: it may have another name by now, and the name be too long for a
/// socket's.
fn address(dir: &StateDir) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", dir.as_fd().as_raw_fd()))
}

/// What a stranger has sent is closed with its connection, and closing may take for ever.
fn close_elsewhere(socket: OwnedFd) {
    let _ = std::thread::Builder::new().name("uffd-close".to_owned()).spawn(move || drop(socket));
}
