//! Guests that were left by a process that served them: found by their ledgers, taken from it only
//! when the kernel says that it is gone, and served on.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use thiserror::Error;

use crate::contract::{SessionError, SessionOptions};
use crate::kernel::{Outcome, Process, Registration, Uffd};
use crate::layout::Layout;
use crate::ledger::{
    Header, HeaderError, Ledger, LedgerError, LedgerFile, SnapshotPlace, StateDir, Subject,
};

/// Where a guest's ledger is kept, and what it says of the snapshot.
#[derive(Clone, Debug)]
pub struct Keep {
    /// The state directory.
    pub dir: Arc<StateDir>,
    /// The snapshot that guests are restored from.
    pub snapshot: SnapshotPlace,
}

impl Keep {
    /// What is written down of a guest that was just handed off.
    pub(crate) fn header(
        &self,
        id: &str,
        peer: Option<&Process>,
        uffd: &Uffd,
        layout: &Layout,
        options: SessionOptions,
    ) -> Result<Header, SessionError> {
        let needed = |what, cause: &dyn std::fmt::Display| SessionError::Resources {
            what,
            cause: cause.to_string(),
        };
        let peer = peer.ok_or_else(|| {
            needed("its process for the ledger", &"it cannot be seen from this pid namespace")
        })?;
        let started = peer.started().map_err(|error| needed("its start time", &error))?;
        let host = Host::here().map_err(|error| needed("what tells this boot", &error))?;
        Ok(Header::new(Subject {
            id: id.to_owned(),
            boot: host.boot,
            pid_namespace: host.pid_namespace,
            pid: peer.pid(),
            started,
            // Where it may not be known, a successor needs another way to the descriptor.
            uffd: peer.number_of(uffd).ok().flatten(),
            layout,
            snapshot: self.snapshot.clone(),
            handed_off: u64::try_from(crate::fault_loop::boot_time().as_nanos())
                .unwrap_or(u64::MAX),
            options,
        }))
    }
}

/// What process numbers and times mean here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    boot: String,
    pid_namespace: u64,
}

impl Host {
    fn here() -> io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let pid_namespace = std::fs::metadata("/proc/self/ns/pid")?.ino();
        Ok(Self { boot: boot.trim().to_owned(), pid_namespace })
    }
}

/// Descriptors kept for the case that a VMM's own may not be taken from it, by the guest's id.
pub type Spares = HashMap<String, OwnedFd>;

/// Why a guest that was left is not taken over. Nothing of it has been changed, unless it has
/// ended: then its ledger is gone.
#[derive(Debug, Error)]
#[error("the guest of {} is not taken over: {why}", path.display())]
pub struct NotRecovered {
    /// The ledger.
    pub path: PathBuf,
    /// Why.
    pub why: Obstruction,
}

/// What is in the way of taking a guest over.
#[derive(Debug, Error)]
pub enum Obstruction {
    /// Another process serves it.
    #[error("another process serves it")]
    Served,
    /// The ledger cannot be used.
    #[error("its ledger cannot be used: {0}")]
    Ledger(LedgerError),
    /// The guest ended with the boot in which it ran.
    #[error("it ended with an earlier boot of the host")]
    OtherBoot,
    /// The guest's process has exited.
    #[error("its process {pid} has exited")]
    Ended {
        /// The process.
        pid: i32,
    },
    /// The number of its process means another one here.
    #[error(
        "it was left by a server in another pid namespace, where its process has the number {pid}: start the server there"
    )]
    OtherNamespace {
        /// The process, there.
        pid: i32,
    },
    /// It was restored from another snapshot than the one that is served.
    #[error(
        "it was restored from {} ({} bytes, fingerprint {}), which is not the snapshot served here: \
         serve that one", snapshot.path.display(), snapshot.length, snapshot.fingerprint
    )]
    OtherSnapshot {
        /// The guest's snapshot.
        snapshot: SnapshotPlace,
    },
    /// Its process or its descriptor cannot be had.
    #[error("its userfaultfd cannot be taken from process {pid}: {cause}")]
    Descriptor {
        /// The process.
        pid: i32,
        /// What the system said, and what would have to change.
        cause: String,
    },
    /// The descriptor is not the one the guest's memory is registered with.
    #[error(
        "process {pid} has no memory at the guest's addresses that is registered with its userfaultfd: {cause}"
    )]
    NotItsMemory {
        /// The process.
        pid: i32,
        /// What the kernel says.
        cause: String,
    },
    /// It cannot be served.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl Obstruction {
    /// A code that stays the same from version to version.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Served => "ERR_UFFD_RECOVERY_SERVED",
            Self::Ledger(_) => "ERR_UFFD_RECOVERY_LEDGER",
            Self::OtherBoot | Self::Ended { .. } => "ERR_UFFD_RECOVERY_ENDED",
            Self::OtherNamespace { .. } => "ERR_UFFD_RECOVERY_NAMESPACE",
            Self::OtherSnapshot { .. } => "ERR_UFFD_RECOVERY_SNAPSHOT",
            Self::Descriptor { .. } => "ERR_UFFD_RECOVERY_DESCRIPTOR",
            Self::NotItsMemory { .. } => "ERR_UFFD_RECOVERY_MEMORY",
            Self::Session(error) => error.code(),
        }
    }

    /// Whether the guest has ended, so that there is nothing to take over.
    pub const fn is_ended(&self) -> bool {
        matches!(self, Self::OtherBoot | Self::Ended { .. })
    }
}

/// A guest whose ledger is ours, with all it takes to serve it.
#[derive(Debug)]
pub struct Left {
    pub(crate) file: LedgerFile,
    pub(crate) header: Header,
    pub(crate) ledger: Ledger,
    pub(crate) layout: Arc<Layout>,
    pub(crate) process: Process,
    pub(crate) uffd: Uffd,
}

impl Left {
    /// Takes over the guest of the ledger at `path`. From then on it is ours: dropped, it is left
    /// again.
    pub fn find(path: &Path, spares: &mut Spares) -> Result<Self, NotRecovered> {
        find(path, spares).map_err(|why| NotRecovered { path: path.to_owned(), why })
    }

    /// The guest's id.
    pub fn id(&self) -> &str {
        &self.header.id
    }

    /// The snapshot it was restored from.
    pub const fn snapshot(&self) -> &SnapshotPlace {
        &self.header.snapshot
    }

    /// The options its session had, without the ones about tracking, which stay as they were.
    pub fn options(&self) -> SessionOptions {
        self.header.options()
    }

    /// Refuses a guest of another snapshot than `served`; it is left again.
    pub fn of_snapshot(self, served: &SnapshotPlace) -> Result<Self, NotRecovered> {
        if self.header.snapshot.is_same(served) {
            return Ok(self);
        }
        let snapshot = self.header.snapshot.clone();
        let path = self.file.path().to_owned();
        Err(NotRecovered { path, why: Obstruction::OtherSnapshot { snapshot } })
    }
}

/// How long a process that is ending may take to let go of its guests.
const LETS_GO_WITHIN: Duration = Duration::from_secs(2);

/// Takes over every guest of `served` that was left in `dir`, and says why not of the others. For
/// whoever has the directory's [claim](StateDir::claim): the server before has ended, or has handed
/// over, and what it still has the lock on is about to be let go of.
pub fn take_all(
    dir: &StateDir,
    served: &SnapshotPlace,
    spares: &mut Spares,
) -> io::Result<(Vec<Left>, Vec<NotRecovered>)> {
    let (mut taken, mut others) = (Vec::new(), Vec::new());
    let mut paths = dir.ledgers()?;
    let until = Instant::now() + LETS_GO_WITHIN;
    while !paths.is_empty() {
        let over = Instant::now() >= until;
        let mut locked = Vec::new();
        for path in paths {
            match Left::find(&path, spares).and_then(|left| left.of_snapshot(served)) {
                Ok(left) => taken.push(left),
                Err(NotRecovered { why: Obstruction::Served, .. }) if !over => locked.push(path),
                // It was removed by whoever had the lock: its guest has ended.
                Err(NotRecovered { why: Obstruction::Ledger(LedgerError::Gone), .. }) => {}
                Err(other) => others.push(other),
            }
        }
        paths = locked;
        if !paths.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok((taken, others))
}

fn find(path: &Path, spares: &mut Spares) -> Result<Left, Obstruction> {
    let unusable = |error| match error {
        LedgerError::Owned => Obstruction::Served,
        other => Obstruction::Ledger(other),
    };
    let (file, header, size) = LedgerFile::open(path).map_err(unusable)?;
    let here = Host::here().map_err(|cause| {
        let doing = "cannot find out which boot this is";
        Obstruction::Ledger(LedgerError::Io { doing, cause })
    })?;
    if header.boot != here.boot {
        file.remove();
        return Err(Obstruction::OtherBoot);
    }
    let pid = header.pid;
    if header.pid_namespace != here.pid_namespace {
        return Err(Obstruction::OtherNamespace { pid });
    }
    let layout = header.layout().map_err(|error| unusable(error.into()))?;
    let ledger = file.recover(&layout, size).map_err(unusable)?;
    let process = match Process::find(pid, header.started) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {
            file.remove();
            return Err(Obstruction::Ended { pid });
        }
        Err(error) => return Err(Obstruction::Descriptor { pid, cause: error.to_string() }),
    };
    let uffd = descriptor(&process, &header, spares)?;
    let uffd = check(&process, &layout, uffd, ledger.is_releasing())?;
    Ok(Left { file, header, ledger, layout: Arc::new(layout), process, uffd })
}

/// The guest's userfaultfd: from its process, or from whoever kept a copy.
fn descriptor(
    process: &Process,
    header: &Header,
    spares: &mut Spares,
) -> Result<OwnedFd, Obstruction> {
    let pid = header.pid;
    if let Some(spare) = spares.remove(&header.id) {
        return Ok(spare);
    }
    let failed = |cause: &str| Obstruction::Descriptor { pid, cause: cause.to_owned() };
    let number = header.uffd.ok_or_else(|| {
        failed(
            "its number there could not be found out at the handoff: that takes the right to trace \
             it (root, CAP_SYS_PTRACE, or the same user), or a guardian that keeps a copy",
        )
    })?;
    let uffd = process.descriptor(number).map_err(|errno| match errno {
        Errno::EPERM => failed(
            "not permitted: it takes the right to trace it (root, CAP_SYS_PTRACE, or the same \
             user where the process did not change its own), or a guardian that keeps a copy",
        ),
        Errno::EBADF => failed(&format!("it has no descriptor {number} any more")),
        other => failed(&other.to_string()),
    })?;
    let what =
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&uffd)));
    match what {
        Ok(what) if what.as_os_str() == "anon_inode:[userfaultfd]" => Ok(uffd),
        Ok(what) => {
            Err(failed(&format!("its descriptor {number} is {} now", what.to_string_lossy())))
        }
        Err(error) => Err(failed(&error.to_string())),
    }
}

/// Whether the guest's memory is registered with this very userfaultfd.
fn check(
    process: &Process,
    layout: &Layout,
    uffd: OwnedFd,
    releasing: bool,
) -> Result<Uffd, Obstruction> {
    let pid = process.pid();
    let wrong = |cause: String| Obstruction::NotItsMemory { pid, cause };
    let uffd = Uffd::new(uffd).map_err(|errno| wrong(errno.to_string()))?;
    if releasing {
        // Some of it is registered with nobody any more, as it is meant to be.
        return Ok(uffd);
    }
    let size = layout.page_size();
    let regions: Vec<_> =
        layout.regions().iter().map(|region| (region.base, region.end(size))).collect();
    // Where the process may not be looked into, the descriptor came from whoever had it before.
    if matches!(process.has_registered(&regions, Registration::Missing), Ok(false)) {
        return Err(wrong("/proc/PID/smaps shows other mappings there".to_owned()));
    }
    for region in layout.regions() {
        match uffd.register_missing(region.base, region.size(size)) {
            Outcome::Done(_) => {}
            Outcome::Gone => return Err(Obstruction::Ended { pid }),
            Outcome::Refused(errno) => {
                return Err(wrong(io::Error::from_raw_os_error(errno).to_string()));
            }
            other => return Err(wrong(format!("{other:?}"))),
        }
    }
    Ok(uffd)
}

impl From<HeaderError> for Obstruction {
    fn from(error: HeaderError) -> Self {
        Self::Ledger(error.into())
    }
}
