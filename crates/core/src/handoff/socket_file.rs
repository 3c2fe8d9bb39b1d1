//! The file a Unix socket leaves in a directory: binding one, deciding who may connect, and telling
//! a live one from one that its process left behind.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
    },
};

use super::BindError;

/// The path of a Unix socket, in bytes: `sun_path` has 108, the last of them a zero.
const MAX_PATH: usize = 107;

/// Who may connect. A Unix socket is connected to with the right to write to its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketAccess {
    /// The user and the group the file is given to; this process's own without it.
    pub owner: Option<(u32, u32)>,
    /// The file's permissions, nine bits; what the umask leaves without it.
    pub mode: Option<u32>,
}

/// Listens on `path`, over a socket that nobody listens on any more if need be.
pub(super) fn listen_on(path: &Path, access: SocketAccess) -> Result<UnixListener, BindError> {
    check_path(path)?;
    // Two takeovers of one path at once could each remove what the other has just bound.
    let _lock = lock_directory(path);
    match bind_for(path, access) {
        Err(BindError::InUse { .. }) => {}
        bound => return bound,
    }
    if is_live(path).map_err(|error| explain(path, error))? {
        return Err(BindError::InUse { path: path.into() });
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(explain(path, error)),
        _ => bind_for(path, access),
    }
}

/// Nobody can connect before the file belongs to whom it is meant for: it listens only then.
fn bind_for(path: &Path, access: SocketAccess) -> Result<UnixListener, BindError> {
    let failed = |error: Errno| explain(path, error.into());
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(failed)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path).map_err(failed)?).map_err(failed)?;
    let ready = give(path, access).and_then(|()| listen(&socket, Backlog::MAXCONN).map_err(failed));
    if let Err(error) = ready {
        // It was bound a moment ago, so it is ours. Nobody could tell what to do if this failed.
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(UnixListener::from(socket))
}

fn give(path: &Path, SocketAccess { owner, mode }: SocketAccess) -> Result<(), BindError> {
    if let Some(mode) = mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o777))
            .map_err(|error| explain(path, error))?;
    }
    if let Some((uid, gid)) = owner {
        lchown(path, Some(uid), Some(gid)).map_err(|source| BindError::Owner {
            path: path.into(),
            uid,
            gid,
            source,
        })?;
    }
    Ok(())
}

fn check_path(path: &Path) -> Result<(), BindError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(BindError::NotAPath { path: path.into() });
    }
    if bytes.len() > MAX_PATH {
        return Err(BindError::PathTooLong { path: path.into(), len: bytes.len() });
    }
    Ok(())
}

/// Whether something is in the way of a new socket: one that is bound, or a file of another kind.
///
/// The kernel is asked by a datagram socket, which cannot be connected to a listener: it answers
/// whether any socket has this file, in whatever namespace, and whoever listens learns nothing of
/// it. A connection would be taken for a guest, and a handler that serves only one would be gone.
fn is_live(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(Errno::ENOTSOCK.into()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        // One of another kind, or a datagram socket, which is told nothing either.
        Err(Errno::EPROTOTYPE | Errno::EPERM) | Ok(()) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Whether the file of a socket is there.
pub(super) fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// A lock that costs no file of its own. Who cannot have it within a second goes on without: it
/// narrows a race between servers, and is no reason to refuse one.
fn lock_directory(path: &Path) -> Option<Flock<File>> {
    const TRIES: u32 = 100;
    let directory = match path.parent()? {
        parent if parent.as_os_str().is_empty() => Path::new("."),
        parent => parent,
    };
    let mut file = File::open(directory).ok()?;
    for _ in 0..TRIES {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Some(lock),
            Err((returned, Errno::EWOULDBLOCK)) => file = returned,
            Err(_) => return None,
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

fn explain(path: &Path, source: io::Error) -> BindError {
    let path = path.to_path_buf();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOTSOCK) => BindError::NotASocket { path },
        Some(Errno::EADDRINUSE) => BindError::InUse { path },
        Some(Errno::ENOENT | Errno::ENOTDIR) => BindError::NoDirectory { path },
        Some(Errno::EACCES | Errno::EPERM | Errno::EROFS) => BindError::Denied { path, source },
        _ => BindError::Io { path, source },
    }
}

/// A socket file that is ours to remove.
#[derive(Debug)]
pub(super) struct SocketFile {
    /// Absolute, so that a change of the working directory does not matter.
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// The file that was just bound at `path`.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        let path = std::path::absolute(path)?;
        Ok(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    /// Leaves alone what somebody else has put there since.
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode));
        if ours {
            // Nobody is left to be told if this fails, and the next bind takes the file over.
            let _ = fs::remove_file(&self.path);
        }
    }
}
