//! The state directory: a folder, on a tmpfs of the user's choice, with a ledger for each guest.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};
use thiserror::Error;

/// How a ledger's file ends; its name begins with the guest's id.
const SUFFIX: &str = "ledger";

/// How a ledger's file ends while it is being made.
const UNFINISHED: &str = "new";

/// What one process at a time is for a state directory. It has a lock there to prove it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DirLock {
    /// The server of its guests.
    Server,
    /// Their guardian.
    Guardian,
}

impl DirLock {
    /// The file that is locked.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Server => "server.lock",
            Self::Guardian => "guardian.lock",
        }
    }
}

/// Why a directory cannot keep ledgers.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// It cannot be made, opened or written to.
    #[error("cannot keep guests' ledgers in {}: cannot {doing} it: {cause}{}", path.display(), way_out(doing, cause))]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// It belongs to somebody else, who could change what is trusted.
    #[error(
        "cannot keep guests' ledgers in {}: it belongs to user {owner}, and this is user {user}: \
         give a directory of this user", path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who asked.
        user: u32,
    },
    /// Others may write to it, who could change what is trusted.
    #[error(
        "cannot keep guests' ledgers in {}: others may write to it (mode {mode:o}): make it 0700",
        path.display()
    )]
    Shared {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It lies on another machine, whose locks and mappings do not hold here.
    #[error(
        "cannot keep guests' ledgers in {}: it is on a network file system: give a directory on a \
         tmpfs, such as one in /run", path.display()
    )]
    Network {
        /// The directory.
        path: PathBuf,
    },
    /// Guests were left in it, whom a server for one guest would keep from others.
    #[error(
        "the state directory {} has guests that were left ({count}, such as {}), and this server is \
         for another one alone: take them over with `listen`, or give a directory of its own",
        path.display(), first.display()
    )]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// How many guests.
        count: usize,
        /// The ledger of one of them.
        first: PathBuf,
    },
    /// It has a guardian.
    #[error("the state directory {} has a guardian already", path.display())]
    Guarded {
        /// The directory.
        path: PathBuf,
    },
    /// Another server serves its guests.
    #[error(
        "another server has the state directory {}: stop it, have it hand over, or wait for it",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
}

impl StateDirError {
    /// A code that stays the same from version to version.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InUse { .. } | Self::Guarded { .. } => "ERR_UFFD_STATE_DIR_IN_USE",
            Self::Occupied { .. } => "ERR_UFFD_STATE_DIR_OCCUPIED",
            _ => "ERR_UFFD_STATE_DIR",
        }
    }
}

/// A directory that keeps ledgers.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    dir: File,
}

/// File systems whose files and locks are another machine's (`statfs(2)`): NFS, SMB, SMB2, CIFS,
/// Ceph, 9P and AFS.
const NETWORK: [FsType; 7] = [
    FsType(0x6969),
    FsType(0x517b),
    FsType(0xfe53_4d42),
    FsType(0xff53_4d42),
    FsType(0x00c3_6400),
    FsType(0x0102_1997),
    FsType(0x5346_414f),
];

/// What to do where the system's words do not say it.
fn way_out(doing: &str, cause: &io::Error) -> &'static str {
    match (doing, cause.kind()) {
        ("make", io::ErrorKind::NotFound) => ": make the directory above it first",
        ("open", io::ErrorKind::NotADirectory) => {
            ": give a directory, which is made if there is none"
        }
        _ => "",
    }
}

impl StateDir {
    /// Opens `path`, which is made (mode 0700) if it is not there.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let io = |doing| {
            let path = path.clone();
            move |cause| StateDirError::Io { path, doing, cause }
        };
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io("make")(error));
            }
            _ => {}
        }
        let dir = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&path)
            .map_err(io("open"))?;
        let about = dir.metadata().map_err(io("look at"))?;
        let user = nix::unistd::geteuid().as_raw();
        if about.uid() != user {
            return Err(StateDirError::Foreign { path, owner: about.uid(), user });
        }
        let mode = about.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(StateDirError::Shared { path, mode });
        }
        let kind = fstatfs(&dir).map_err(|errno| io("look at")(errno.into()))?.filesystem_type();
        if NETWORK.contains(&kind) {
            return Err(StateDirError::Network { path });
        }
        let state_dir = Self { path: path.clone(), dir };
        // Full or read-only is better known before a guest comes. Without a name where that can be:
        // whoever is killed here must leave nothing that is in anybody's way.
        let probe = tempfile::tempfile_in(&state_dir.path);
        probe.and_then(|file| reserve(&file, 0..4096)).map_err(io("write to"))?;
        Ok(state_dir)
    }

    /// The directory, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is in memory. On a disk, every fault would write to it.
    pub fn is_in_memory(&self) -> bool {
        // tmpfs and ramfs.
        const MEMORY: [FsType; 2] = [TMPFS_MAGIC, FsType(0x8584_58f6)];
        fstatfs(self.dir.as_fd()).is_ok_and(|about| MEMORY.contains(&about.filesystem_type()))
    }

    /// The inode of a lock's file.
    pub(crate) fn inode_of(&self, lock: DirLock) -> io::Result<u64> {
        let about =
            rustix::fs::statat(&self.dir, lock.name(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(about.st_ino)
    }

    /// The ledgers in it, in no order, whoever serves their guests. Those that were being made when
    /// a process died are removed: no guest was served by them yet.
    pub fn ledgers(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            match path.extension().and_then(|suffix| suffix.to_str()) {
                Some(SUFFIX) => found.push(path),
                Some(UNFINISHED) if path.file_stem().is_some_and(is_id) => {
                    let file = OpenOptions::new()
                        .read(true)
                        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                        .open(&path);
                    let Ok(file) = file else { continue };
                    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
                    // Its maker may have given it the name of a ledger, or made another one.
                    if let Ok(lock) = lock
                        && is_at(&lock, &path)
                    {
                        let _ = fs::remove_file(&path);
                    }
                }
                _ => {}
            }
        }
        Ok(found)
    }

    pub(super) fn unfinished(&self, id: &str) -> PathBuf {
        self.path.join(format!("{id}.{UNFINISHED}"))
    }

    /// Where the ledger of the guest `id` is.
    pub fn finished(&self, id: &str) -> PathBuf {
        self.path.join(format!("{id}.{SUFFIX}"))
    }
}

impl AsFd for StateDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// Whether a name is a guest's id, a UUID: what is called otherwise is somebody else's.
fn is_id(name: &OsStr) -> bool {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    let is_right = |(at, byte): (usize, &u8)| match HYPHENS.contains(&at) {
        true => *byte == b'-',
        false => byte.is_ascii_hexdigit(),
    };
    name.len() == 36 && name.as_encoded_bytes().iter().enumerate().all(is_right)
}

/// How often a file is made again that somebody has swept.
const TRIES: u32 = 1000;

/// Makes a file that nobody has, and locks it. Between the one and the other it looks like what a dead
/// process left, which [`StateDir::ledgers`] removes.
pub(super) fn create(path: &Path) -> io::Result<Flock<File>> {
    let mut swept = 0;
    loop {
        match create_once(path) {
            Ok(Some(file)) => return Ok(file),
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || swept == TRIES => {
                return Err(error);
            }
            // Whoever sweeps it has its lock, and will have removed it in a moment.
            Ok(None) | Err(_) => {}
        }
        swept += 1;
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// None if it was swept meanwhile.
fn create_once(path: &Path) -> io::Result<Option<Flock<File>>> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) if is_at(&lock, path) => Ok(Some(lock)),
        Ok(_) | Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Whether `file` is what has the name `path` now.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    let there = fs::symlink_metadata(path);
    file.metadata().is_ok_and(|about| {
        there.is_ok_and(|now| (now.dev(), now.ino()) == (about.dev(), about.ino()))
    })
}

/// Gives `file` these bytes, in blocks that are really there: writing to a mapping of a file on a
/// full file system would end the process.
pub(super) fn reserve(file: &File, bytes: Range<u64>) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let start = i64::try_from(bytes.start).map_err(io::Error::other)?;
    let len = i64::try_from(bytes.end - bytes.start).map_err(io::Error::other)?;
    nix::fcntl::posix_fallocate(file, start, len).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As guests have them.
    fn id(number: u8) -> String {
        format!("00000000-0000-0000-0000-{number:012}")
    }

    #[test]
    fn a_directory_is_made_for_this_user_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let dir = StateDir::open(&path).unwrap();
        assert_eq!(fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(dir.ledgers().unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn what_others_could_change_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(matches!(error, StateDirError::Shared { mode: 0o770, .. }), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        nix::unistd::chown(&path, Some(65534.into()), None).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(matches!(error, StateDirError::Foreign { owner: 65534, .. }), "{error}");
    }

    #[test]
    fn what_is_no_directory_is_refused_by_name() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "").unwrap();
        for path in [path.join("in"), path.clone(), parent.path().join("a/b")] {
            let error = StateDir::open(&path).unwrap_err().to_string();
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
    }

    #[test]
    fn what_was_being_made_when_its_maker_died_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let dir = StateDir::open(parent.path()).unwrap();
        let (mine, dead) = (dir.unfinished(&id(1)), dir.unfinished(&id(2)));
        let others = ["notes.new", "00000000-0000-0000-0000-00000000000g.new"];
        let others = others.map(|name| parent.path().join(name));
        let lock = create(&mine).unwrap();
        for path in others.iter().chain([&dead, &dir.finished("done")]) {
            drop(create(path).unwrap());
        }
        assert_eq!(dir.ledgers().unwrap(), [dir.finished("done")]);
        assert!(mine.exists() && !dead.exists());
        assert!(others.iter().all(|path| path.exists()), "what is no ledger");
        drop(lock);
    }

    #[test]
    fn what_is_being_made_beside_whoever_sweeps_is_made_all_the_same() {
        let parent = tempfile::tempdir().unwrap();
        let dir = StateDir::open(parent.path()).unwrap();
        let path = dir.unfinished(&id(1));
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    assert_eq!(dir.ledgers().unwrap(), Vec::<PathBuf>::new());
                }
            });
            let lost = (0..5_000).filter(|_| {
                // As a maker does, who lets go of the name first and of the lock then.
                let made = create(&path).is_ok_and(|lock| {
                    let made = is_at(&lock, &path);
                    let _ = fs::remove_file(&path);
                    made
                });
                !made
            });
            let lost = lost.count();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            assert_eq!(lost, 0);
        });
    }
}
