//! Guests that were left by a process that served them: found by their ledgers, taken from it only
//! when the kernel says that it is gone, and served on.

mod awaited;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use thiserror::Error;

use crate::contract::{SessionError, SessionOptions};
use crate::guardian::Client;
use crate::kernel::{
    InPieces, Outcome, Process, ProcessId, Registration, Uffd, boot_time, is_same_file, is_shortage,
};
use crate::layout::Layout;
use crate::ledger::{
    Header, HeaderError, Ledger, LedgerError, LedgerFile, SnapshotPlace, StateDir, Subject,
    UnownedFile,
};
use crate::look::Look;
use crate::service_manager::ServiceManager;
use crate::units::GuestAddr;

pub use crate::ledger::Spares;
pub use awaited::Awaited;

/// Where a guest's ledger is kept, and what it says of the snapshot.
#[derive(Clone, Debug)]
pub struct Keep {
    /// The state directory.
    pub dir: Arc<StateDir>,
    /// The snapshot that guests are restored from.
    pub snapshot: SnapshotPlace,
    /// Whom guests are entrusted to.
    pub guardian: Option<Arc<Client>>,
    /// Who keeps copies of their userfaultfds beyond this process.
    pub manager: Option<Arc<ServiceManager>>,
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
            let cause = "it cannot be seen from this pid namespace, or has exited";
            needed("its process for the ledger", &cause)
        })?;
        let started = peer.started().map_err(|error| needed("its start time", &error))?;
        let host = Host::here().map_err(|error| needed("what tells this boot", &error))?;
        Ok(Header::new(Subject {
            id: id.to_owned(),
            boot: host.boot,
            pid_namespace: host.pid_namespace,
            time_namespace: host.time_namespace,
            pid: peer.pid(),
            started,
            // Where it may not be known, a successor needs another way to the descriptor.
            uffd: match peer.number_of(uffd) {
                Err(error) if is_shortage(&error) => {
                    return Err(needed("the number of its userfaultfd", &error));
                }
                found => found.ok().flatten(),
            },
            layout,
            snapshot: self.snapshot.clone(),
            handed_off: u64::try_from(boot_time().as_nanos()).unwrap_or(u64::MAX),
            options,
        }))
    }
}

/// What process numbers and times mean here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    boot: String,
    pid_namespace: u64,
    time_namespace: u64,
}

impl Host {
    fn here() -> io::Result<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let pid_namespace = std::fs::metadata("/proc/self/ns/pid")?.ino();
        // Before Linux 5.6 there is one time for all.
        let time_namespace = std::fs::metadata("/proc/self/ns/time").map_or(0, |about| about.ino());
        Ok(Self { boot: boot.trim().to_owned(), pid_namespace, time_namespace })
    }
}

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
    /// The number of its process means another one here, or its start time another moment.
    #[error(
        "it was left by a server in another pid or time namespace, where its process has the number {pid}: start the server there"
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
    /// It was restored from another file, of which it cannot be known whether it holds the same.
    #[error(
        "it was restored from {}, and the snapshot served here is another file, of which it cannot be \
         known whether it holds the same: {cause}; serve the very file", snapshot.path.display()
    )]
    UnprovenSnapshot {
        /// The guest's snapshot.
        snapshot: SnapshotPlace,
        /// Why it cannot be known.
        cause: io::Error,
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
            Self::OtherSnapshot { .. } | Self::UnprovenSnapshot { .. } => {
                "ERR_UFFD_RECOVERY_SNAPSHOT"
            }
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

/// A guest that somebody serves or has left, with all it takes to serve it but the right to: that is
/// the lock on its ledger. Nothing of the guest is touched by this, so that it can be had long
/// before the guest is left.
#[derive(Debug)]
pub struct Prospect {
    file: UnownedFile,
    path: PathBuf,
    header: Header,
    /// Mapped, and neither read nor written: it is its owner's.
    ledger: Ledger,
    layout: Arc<Layout>,
    process: Process,
    uffd: Uffd,
    look: Look,
    /// Whether the process showed that the guest's memory is its own, where that could be seen.
    shown: Option<bool>,
}

/// What was found out of a guest's process that stays true: whose memory it is. To look at that takes
/// the longer the more memory the guest has, which is served meanwhile.
#[derive(Clone, Debug)]
pub struct Known {
    process: Arc<ProcessId>,
    uffd: Uffd,
    /// With the page map of the very memory that was looked at, whatever the process executes later.
    look: Look,
}

impl Known {
    /// Whether it was found out of this very process and this very userfaultfd.
    fn is_of(&self, process: &Process, uffd: &Uffd) -> bool {
        let is_same = is_same_file(self.uffd.as_fd(), uffd.as_fd());
        let found = ProcessId::of(process.as_fd(), process.pid());
        is_same == Ok(true) && found.is_ok_and(|found| found.is(&self.process))
    }
}

/// What it means that a ledger which nobody has the lock on has no name any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfUnnamed {
    /// Its guest has ended.
    HasEnded,
    /// That is not known yet: whoever has let go of it will say.
    IsUnknown,
    /// It was removed by somebody who was not asked to: for whoever was told of the guest, and not
    /// told that it has ended. Nobody else finds it any more.
    IsLeft,
}

impl LedgerError {
    /// Whether it can be tried again to have the guest.
    fn passes(&self, unnamed: IfUnnamed) -> bool {
        match self {
            Self::Owned => true,
            Self::Gone => unnamed == IfUnnamed::IsUnknown,
            _ => false,
        }
    }
}

/// Why a prospect did not become ours.
#[derive(Debug)]
pub enum NotTaken<S = Box<Prospect>> {
    /// Somebody serves the guest; it can be tried again.
    Served(S),
    /// It cannot be served here.
    Not(NotRecovered),
}

impl Prospect {
    /// Gets ready to take over the guest of the ledger at `path`.
    pub fn find(path: &Path, spares: &mut Spares) -> Result<Self, NotRecovered> {
        Self::find_again(path, spares, None)
    }

    /// The same for a guest of which something may be `known`: that is not looked at again.
    pub fn find_again(
        path: &Path,
        spares: &mut Spares,
        known: Option<&Known>,
    ) -> Result<Self, NotRecovered> {
        find(path, spares, known).map_err(|why| NotRecovered { path: path.to_owned(), why })
    }

    /// What was found out that need not be looked at again: nothing where the guest's memory was not
    /// seen to be its process's.
    pub fn known(&self) -> Option<Known> {
        let process = ProcessId::of(self.process.as_fd(), self.process.pid()).ok()?;
        let (process, uffd, look) = (Arc::new(process), self.uffd.clone(), self.look.clone());
        (self.shown == Some(true)).then_some(Known { process, uffd, look })
    }

    /// The guest's id.
    pub fn id(&self) -> &str {
        &self.header.id
    }

    /// The snapshot it was restored from.
    pub const fn snapshot(&self) -> &SnapshotPlace {
        &self.header.snapshot
    }

    /// Its ledger.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The options its session had, without the ones about tracking, which stay as they were.
    pub fn options(&self) -> SessionOptions {
        self.header.options()
    }

    pub(crate) const fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) const fn uffd(&self) -> &Uffd {
        &self.uffd
    }

    /// A copy of its userfaultfd.
    pub fn userfaultfd(&self) -> io::Result<OwnedFd> {
        self.uffd.as_fd().try_clone_to_owned()
    }

    /// Whether the ledger that it is of has its name still.
    fn is_current(&self) -> bool {
        self.file.has_its_name()
    }

    /// Whether its process has exited.
    pub fn has_ended(&self) -> bool {
        self.process.has_exited()
    }

    /// Whether only a look at all of both files can tell if its snapshot is `served`.
    fn has_to_be_compared(&self, served: &SnapshotPlace) -> bool {
        let snapshot = &self.header.snapshot;
        snapshot.looks_like(served) && !snapshot.is_same_file(served)
    }

    /// Refuses a guest of another snapshot than `served`. Files with the same samples are compared
    /// as a whole, each once: what came of it is in `compared`.
    fn of_snapshot(
        self,
        served: &SnapshotPlace,
        compared: &mut HashMap<SnapshotPlace, bool>,
    ) -> Result<Self, NotRecovered> {
        let snapshot = &self.header.snapshot;
        let same = if snapshot.is_same_file(served) {
            Ok(true)
        } else if !snapshot.looks_like(served) {
            Ok(false)
        } else if let Some(same) = compared.get(snapshot) {
            Ok(*same)
        } else {
            crate::kill_point!("comparing");
            snapshot.holds_the_same(served).inspect(|same| {
                compared.insert(snapshot.clone(), *same);
            })
        };
        let why = match same {
            Ok(true) => return Ok(self),
            Ok(false) => Obstruction::OtherSnapshot { snapshot: self.header.snapshot },
            Err(cause) => Obstruction::UnprovenSnapshot { snapshot: self.header.snapshot, cause },
        };
        Err(NotRecovered { path: self.path, why })
    }

    /// Takes the guest over, if whoever served it is gone or has let go of it. From then on it is
    /// ours: dropped, it is left again.
    pub fn take(self) -> Result<Left, NotTaken> {
        self.take_if(IfUnnamed::HasEnded)
    }

    /// The same; `unnamed` says what it means where the ledger is there no more.
    pub fn take_if(self, unnamed: IfUnnamed) -> Result<Left, NotTaken> {
        let Self { file, path, header, ledger, layout, process, uffd, look, mut shown } = self;
        let not = |why| NotTaken::Not(NotRecovered { path: path.clone(), why });
        let file = match file.own(unnamed == IfUnnamed::IsLeft) {
            Ok(file) => file,
            Err((Some(file), error)) if error.passes(unnamed) => {
                let it = Self { file, path, header, ledger, layout, process, uffd, look, shown };
                return Err(NotTaken::Served(Box::new(it)));
            }
            Err((_, error)) => return Err(not(unusable(error))),
        };
        let pid = header.pid;
        if process.has_exited() {
            file.remove();
            return Err(not(Obstruction::Ended { pid }));
        }
        if let Err(error) = file.check(&ledger, &layout) {
            return Err(not(unusable(error)));
        }
        if ledger.is_releasing() {
            // Some of it is registered with nobody any more, as it is meant to be.
            shown = None;
        } else {
            match check(&process, &layout, &uffd, shown) {
                Ok(seen) => shown = seen,
                // Its memory is gone before its end can be seen.
                Err(why) if why.is_ended() || is_gone(&process) => {
                    file.remove();
                    return Err(not(Obstruction::Ended { pid }));
                }
                Err(why) => return Err(not(why)),
            }
        }
        Ok(Left { file, header, ledger, layout, process, uffd, look, shown })
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
    pub(crate) look: Look,
    /// Whether the process showed that the guest's memory is its own, where that could be seen.
    pub(crate) shown: Option<bool>,
}

impl Left {
    /// Takes over the guest of the ledger at `path`. From then on it is ours: dropped, it is left
    /// again.
    pub fn find(path: &Path, spares: &mut Spares) -> Result<Self, NotRecovered> {
        Prospect::find(path, spares)?.take().map_err(|error| match error {
            NotTaken::Served(_) => NotRecovered { path: path.to_owned(), why: Obstruction::Served },
            NotTaken::Not(error) => error,
        })
    }

    /// The guest's id.
    pub fn id(&self) -> &str {
        &self.header.id
    }

    /// The snapshot it was restored from.
    pub const fn snapshot(&self) -> &SnapshotPlace {
        &self.header.snapshot
    }

    /// Its ledger.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The options its session had, without the ones about tracking, which stay as they were.
    pub fn options(&self) -> SessionOptions {
        self.header.options()
    }
}

/// How long a process that is ending may take to let go of its guests.
const LETS_GO_WITHIN: Duration = Duration::from_secs(2);

/// How long a guardian may take to let go of a guest before the next one is asked for.
const GIVES_WITHIN: Duration = Duration::from_millis(50);

/// Takes over every guest of the snapshot that was left in the directory of `keep`, and says why not
/// of the others. For whoever has the directory's [claim](StateDir::claim): the server before has
/// ended, or has handed over, and what it still has the lock on is about to be let go of.
///
/// First everything is made `ready` for all of them, and then the same for those whose snapshot has to
/// be compared with the one served; who was `awaited` is not looked at again. A guardian that is there
/// gives each back only when it is about to be taken: then `take` is called, which may wait for so long
/// until the guest is let go of, and is called again where it was not. Whom it does not come to have, the
/// guardian is to serve.
pub fn take_over<S>(
    keep: &Keep,
    spares: &mut Spares,
    mut awaited: Awaited,
    mut ready: impl FnMut(Prospect) -> Result<S, NotRecovered>,
    mut take: impl FnMut(S, Duration) -> Result<(), NotTaken<S>>,
) -> io::Result<Vec<NotRecovered>> {
    let Keep { dir, snapshot: served, guardian, manager } = keep;
    if let Some(manager) = manager {
        spares.extend(manager.store().copies(dir));
    }
    if let Some(guardian) = guardian {
        spares.extend(guardian.copies());
    }
    let mut others = Vec::new();
    let mut note = |error: NotRecovered| {
        // It was removed by whoever had the lock: its guest has ended.
        if matches!(error.why, Obstruction::Ledger(LedgerError::Gone)) {
            return;
        }
        if let Some(guardian) = guardian
            && let Some(id) = error.path.file_stem().and_then(OsStr::to_str)
            && !error.why.is_ended()
        {
            // It may be able to, now or once whoever has the guest is gone.
            guardian.leave(id);
        }
        others.push(error);
    };
    // To compare a snapshot takes as long as reading it: those guests come last for whom that has to be.
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for path in dir.ledgers()? {
        match awaited.take(&path).map_or_else(|| Prospect::find(&path, spares), Ok) {
            Ok(prospect) if prospect.has_to_be_compared(served) => last.push((path, prospect)),
            Ok(prospect) => first.push((path, prospect)),
            Err(error) => note(error),
        }
    }
    let mut compared = HashMap::new();
    for prospects in [first, last] {
        let mut waiting = Vec::new();
        for (path, prospect) in prospects {
            let found = prospect.of_snapshot(served, &mut compared).and_then(|found| {
                let id = found.id().to_owned();
                Ok((id, ready(found)?))
            });
            match found {
                Ok((id, standby)) => waiting.push((id, path, standby)),
                Err(error) => note(error),
            }
        }
        take_all(waiting, guardian.as_deref(), &mut take, &mut note);
    }
    if let Some(manager) = manager {
        manager.store().settle(dir);
    }
    Ok(others)
}

/// Takes over those that all is ready for, as soon as each is let go of.
fn take_all<S>(
    mut waiting: Vec<(String, PathBuf, S)>,
    guardian: Option<&Client>,
    take: &mut impl FnMut(S, Duration) -> Result<(), NotTaken<S>>,
    note: &mut impl FnMut(NotRecovered),
) {
    let (mut until, mut within) = (None, GIVES_WITHIN);
    while !waiting.is_empty() {
        let over = until.is_some_and(|until| Instant::now() >= until);
        let mut locked = Vec::new();
        for (id, path, standby) in waiting {
            if let Some(guardian) = guardian.filter(|_| until.is_none()) {
                guardian.want(&id);
            }
            match take(standby, within) {
                Ok(()) => {}
                Err(NotTaken::Served(standby)) if !over => {
                    // Whoever has it is frozen, or dying: the others are not to wait for that.
                    within = Duration::ZERO;
                    locked.push((id, path, standby));
                }
                Err(untaken) => {
                    if let Some(guardian) = guardian {
                        guardian.want_no_more(&id);
                    }
                    note(match untaken {
                        NotTaken::Served(_) => NotRecovered { path, why: Obstruction::Served },
                        NotTaken::Not(error) => error,
                    });
                }
            }
        }
        waiting = locked;
        until.get_or_insert_with(|| Instant::now() + LETS_GO_WITHIN);
        if !waiting.is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The ledgers in `dir` whose guests have not ended, as far as that can be said; those of guests that
/// have are removed. No guest is touched. For whoever has the directory's
/// [claim](StateDir::claim).
pub fn left_in(dir: &StateDir) -> io::Result<Vec<PathBuf>> {
    let mut left = dir.ledgers()?;
    left.retain(|path| match Prospect::find(path, &mut Spares::new()) {
        Err(NotRecovered { why: Obstruction::Ledger(LedgerError::Gone), .. }) => false,
        Err(NotRecovered { why, .. }) => !why.is_ended(),
        Ok(_) => true,
    });
    Ok(left)
}

fn find(path: &Path, spares: &mut Spares, known: Option<&Known>) -> Result<Prospect, Obstruction> {
    // Whoever serves the guest meanwhile may want this core.
    let mut pieces = InPieces::begin();
    let (file, header) = UnownedFile::open(path).map_err(unusable)?;
    pieces.done();
    let here = Host::here().map_err(|cause| {
        let doing = "cannot find out which boot this is";
        unusable(LedgerError::Io { doing, cause })
    })?;
    if header.boot != here.boot {
        return Err(ended(file, Obstruction::OtherBoot));
    }
    let pid = header.pid;
    // In another time namespace each process seems to have been started at another time.
    if (header.pid_namespace, header.time_namespace) != (here.pid_namespace, here.time_namespace) {
        return Err(Obstruction::OtherNamespace { pid });
    }
    let layout = header.layout().map_err(|error| unusable(error.into()))?;
    pieces.done();
    let ledger = file.map(&layout).map_err(unusable)?;
    pieces.done();
    let process = match Process::find(pid, header.started) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {
            return Err(ended(file, Obstruction::Ended { pid }));
        }
        Err(error) if is_shortage(&error) => return Err(shortage("its process", &error)),
        Err(error) => return Err(Obstruction::Descriptor { pid, cause: error.to_string() }),
    };
    pieces.done();
    let uffd = match descriptor(&process, &header, spares) {
        Ok(uffd) => uffd,
        // What it had is given up bit by bit while it ends.
        Err(_) if is_gone(&process) => return Err(ended(file, Obstruction::Ended { pid })),
        Err(why) => return Err(why),
    };
    let uffd = Uffd::new(uffd)
        .map_err(|errno| Obstruction::Descriptor { pid, cause: errno.to_string() })?;
    pieces.done();
    let (shown, look) = match known.filter(|known| known.is_of(&process, &uffd)) {
        // Whether all of it is still registered is asked once the guest is ours.
        Some(known) => (Some(true), known.look.clone()),
        None => {
            // First the page map: should the process execute something else in between, it is not shown
            // to have the guest's memory.
            let look = Look::at(&uffd, Some(&process))?;
            (is_shown(&process, &layout)?, look)
        }
    };
    let (path, layout) = (path.to_owned(), Arc::new(layout));
    Ok(Prospect { file, path, header, ledger, layout, process, uffd, look, shown })
}

fn unusable(error: LedgerError) -> Obstruction {
    match error {
        LedgerError::Owned => Obstruction::Served,
        LedgerError::Io { doing, cause } if is_shortage(&cause) => shortage(doing, &cause),
        other => Obstruction::Ledger(other),
    }
}

/// Whether a process has exited, or is about to and has no memory any more.
fn is_gone(process: &Process) -> bool {
    process.has_exited() || process.has_memory().is_ok_and(|has| !has)
}

/// What passes, and is no fault of the guest's or its ledger's.
fn shortage(what: &'static str, cause: &io::Error) -> Obstruction {
    Obstruction::Session(SessionError::Resources { what, cause: cause.to_string() })
}

/// Sweeps the ledger of a guest that has ended, unless somebody still serves it, who will.
fn ended(file: UnownedFile, why: Obstruction) -> Obstruction {
    match file.remove() {
        Ok(()) => why,
        Err(error) => unusable(error),
    }
}

/// The guest's userfaultfd: from its process, or from whoever kept a copy.
fn descriptor(
    process: &Process,
    header: &Header,
    spares: &mut Spares,
) -> Result<OwnedFd, Obstruction> {
    let pid = header.pid;
    let failed = |cause: &str| Obstruction::Descriptor { pid, cause: cause.to_owned() };
    let what = |fd: &OwnedFd| {
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd)))
            .map_err(|error| failed(&error.to_string()))
    };
    let is_userfaultfd = |what: &Path| what.as_os_str() == "anon_inode:[userfaultfd]";
    if let Some(spare) = spares.remove(&header.id) {
        let what = what(&spare)?;
        if is_userfaultfd(&what) {
            return Ok(spare);
        }
        return Err(failed(&format!("the copy that was kept is {}", what.display())));
    }
    let number = header.uffd.ok_or_else(|| {
        failed(
            "its number there could not be found out at the handoff: that takes the right to trace \
             it (root, CAP_SYS_PTRACE, or the same user), or a guardian or a service manager that \
             keeps a copy",
        )
    })?;
    let uffd = process.descriptor(number).map_err(|errno| match errno {
        Errno::EPERM => failed(
            "not permitted: it takes the right to trace it (root, CAP_SYS_PTRACE, or the same \
             user where the process did not change its own), or a guardian or a service manager \
             that keeps a copy",
        ),
        Errno::EBADF => failed(&format!("it has no descriptor {number} any more")),
        other if is_shortage(&other.into()) => shortage("its userfaultfd", &other.into()),
        other => failed(&other.to_string()),
    })?;
    let what = what(&uffd)?;
    if is_userfaultfd(&what) {
        return Ok(uffd);
    }
    Err(failed(&format!("its descriptor {number} is {} now", what.display())))
}

/// Whether the guest's memory is the process's, and registered, as far as that can be seen. Reads
/// what the process has mapped, which takes the longer the more that is.
fn is_shown(process: &Process, layout: &Layout) -> Result<Option<bool>, Obstruction> {
    match process.has_registered(&ranges(layout), Registration::Missing) {
        Ok(shown) => Ok(Some(shown)),
        Err(error) if is_shortage(&error) => Err(shortage("a look at its memory", &error)),
        Err(_) => Ok(None),
    }
}

/// Makes sure that the guest's memory is registered with this very userfaultfd; what is `shown` of it
/// then.
///
/// A part may have been unmapped, or something else mapped over it, of which a session does not hear
/// either: that is no reason to leave those who wait for the rest, however little that is. Memory
/// that is registered with this descriptor is nobody else's.
fn check(
    process: &Process,
    layout: &Layout,
    uffd: &Uffd,
    shown: Option<bool>,
) -> Result<Option<bool>, Obstruction> {
    let wrong = |cause: String| Obstruction::NotItsMemory { pid: process.pid(), cause };
    let all = ranges(layout);
    let page_size = layout.page_size().bytes();
    let mut refused = "/proc/PID/smaps shows other mappings there".to_owned();
    if shown != Some(false) {
        // The ioctl that tells registers what is not registered, so that only a page of each region is
        // asked about. Where the process may not be looked into, the descriptor came from whoever
        // had it before.
        let asked = if shown.is_none() { u64::MAX } else { page_size };
        match is_registered(process, uffd, &all, asked)? {
            None => return Ok(shown),
            Some(why) => refused = why,
        }
    }
    // What was seen in advance may have been seen too early.
    let parts = match process.registered(&all, Registration::Missing) {
        Ok(parts) => parts,
        Err(error) if is_shortage(&error) => return Err(shortage("a look at its memory", &error)),
        Err(_) => return Err(wrong(refused)),
    };
    if parts.is_empty() {
        return Err(wrong(refused));
    }
    match is_registered(process, uffd, &parts, page_size)? {
        None => Ok(Some(true)),
        Some(why) => Err(wrong(why)),
    }
}

/// Whether the start of each range, up to so many bytes, is registered with this very userfaultfd; why
/// not, if it is not.
fn is_registered(
    process: &Process,
    uffd: &Uffd,
    ranges: &[(GuestAddr, GuestAddr)],
    asked: u64,
) -> Result<Option<String>, Obstruction> {
    for (start, end) in ranges {
        match uffd.register_missing(*start, asked.min(end.0 - start.0)) {
            Outcome::Done(_) => {}
            Outcome::Gone => return Err(Obstruction::Ended { pid: process.pid() }),
            Outcome::Refused(errno) => {
                return Ok(Some(io::Error::from_raw_os_error(errno).to_string()));
            }
            other => return Ok(Some(format!("{other:?}"))),
        }
    }
    Ok(None)
}

/// Where the guest's memory is, by addresses.
fn ranges(layout: &Layout) -> Vec<(GuestAddr, GuestAddr)> {
    let size = layout.page_size();
    layout.regions().iter().map(|region| (region.base, region.end(size))).collect()
}

impl From<HeaderError> for Obstruction {
    fn from(error: HeaderError) -> Self {
        Self::Ledger(error.into())
    }
}
