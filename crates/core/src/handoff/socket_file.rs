//! The file a Unix socket leaves in a directory: binding one, deciding who may connect, and telling
//! a live one from one that its process left behind.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{FileTypeExt, MetadataExt},
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
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fstat};

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
pub fn listen_on(
    path: &Path,
    access: SocketAccess,
) -> Result<(UnixListener, SocketFile), BindError> {
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
fn bind_for(path: &Path, access: SocketAccess) -> Result<(UnixListener, SocketFile), BindError> {
    let socket = bind_narrowly(path, access)?;
    let file = BoundFile::of(path, &socket)?;
    let ours = file.to_remove(path)?;
    file.give(path, access)?;
    listen(&socket, Backlog::MAXCONN).map_err(|error| explain(path, error.into()))?;
    Ok((UnixListener::from(socket), ours))
}

/// Binds it with no more than these permissions: the file of a socket gets those that the socket has,
/// less what the umask takes, so that it is never open to more, not for a moment.
pub(super) fn bind_narrowly(path: &Path, access: SocketAccess) -> Result<OwnedFd, BindError> {
    let failed = |error: Errno| explain(path, error.into());
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(failed)?;
    if let Some(mode) = access.mode {
        rustix::fs::fchmod(&socket, permissions(mode))
            .map_err(|error| explain(path, error.into()))?;
    }
    bind(socket.as_raw_fd(), &UnixAddr::new(path).map_err(failed)?).map_err(failed)?;
    Ok(socket)
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777)
}

/// The very file that was found at a path after binding. Whoever else may write to its directory can
/// put a link there at any time: what is done to the file by its path might be done to another.
#[derive(Debug)]
pub(super) struct BoundFile {
    file: OwnedFd,
    stat: Stat,
}

impl BoundFile {
    pub(super) fn of(path: &Path, socket: &OwnedFd) -> Result<Self, BindError> {
        let failed = |error: rustix::io::Errno| explain(path, error.into());
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Err(BindError::Replaced { path: path.into() }),
            opened => opened.map_err(failed)?,
        };
        let stat = fstat(&file).map_err(failed)?;
        let is_socket = FileType::from_raw_mode(stat.st_mode) == FileType::Socket;
        // Sockets of others are none of ours, and no more can be asked of one.
        if !is_socket || stat.st_uid != fstat(socket).map_err(failed)?.st_uid {
            return Err(BindError::Replaced { path: path.into() });
        }
        Ok(Self { file, stat })
    }

    fn to_remove(&self, path: &Path) -> Result<SocketFile, BindError> {
        let path = std::path::absolute(path).map_err(|error| explain(path, error))?;
        Ok(SocketFile { path, device: self.stat.st_dev, inode: self.stat.st_ino })
    }

    fn give(&self, path: &Path, access: SocketAccess) -> Result<(), BindError> {
        let SocketAccess { owner, mode } = access;
        if let Some(mode) = mode.map(permissions)
            && Mode::from_raw_mode(self.stat.st_mode) & Mode::from_raw_mode(0o777) != mode
        {
            // A descriptor of a path has no fchmod; what it stands for is reached by this name.
            let itself = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            rustix::fs::chmod(itself, mode).map_err(|error| explain(path, error.into()))?;
        }
        if let Some((uid, gid)) = owner {
            let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(&self.file, "", Some(user), Some(group), AtFlags::EMPTY_PATH).map_err(
                |error| BindError::Owner { path: path.into(), uid, gid, source: error.into() },
            )?;
        }
        Ok(())
    }
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

/// A socket file that is ours to remove: it goes when this does.
#[derive(Debug)]
pub struct SocketFile {
    /// Absolute, so that a change of the working directory does not matter.
    path: PathBuf,
    device: u64,
    inode: u64,
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
