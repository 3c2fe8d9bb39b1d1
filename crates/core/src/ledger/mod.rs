//! What must outlive the process that serves a guest: the events it has read and not dealt with, a
//! note of the installs in hand, the page states, and the trace of first touches. One piece of shared memory a guest: without a
//! name, for a guest that ends with this process, or a file in a state directory.
//!
//! Rules of order: events are read into the ledger and nowhere else; a REMOVE is applied and marked
//! done before anything of its batch is installed; Dirty is written before a write is let through;
//! the note is written before an install whose outcome the states could not tell. Whoever has the
//! lock on the file owns the guest: the kernel gives it up when the last thread of its holder is
//! gone, and no install of that one can be under way then.

mod claim;
mod dir;
mod header;
mod live;
mod note;
mod touches;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use thiserror::Error;

pub use claim::Claim;
pub(crate) use dir::DirLock;
pub use dir::{StateDir, StateDirError};
pub(crate) use header::{Header, Subject};
pub use header::{HeaderError, SnapshotPlace};
pub(crate) use live::Live;
pub(crate) use note::{Filling, Note};
pub(crate) use touches::Touches;

use crate::kernel::{EventReader, Part, SharedMemory};
use crate::layout::Layout;
use crate::states::PageStates;

/// Bytes between the header and the page states.
const FIXED: usize = Note::BYTES + Live::BYTES + Touches::COUNT + EventReader::BYTES;

/// Descriptors kept for the case that a VMM's own may not be taken from it, by the guest's id.
pub type Spares = HashMap<String, OwnedFd>;

/// The parts of one guest's ledger; each is taken once.
#[derive(Debug)]
pub(crate) struct Ledger {
    note: Option<Part>,
    live: Option<Part>,
    events: Option<Part>,
    states: Option<Part>,
    /// The count of the trace's entries, and these, where a successor can find them.
    touches: Option<(Part, Part)>,
    /// What it holds was written by a predecessor.
    is_recovered: bool,
    /// Bytes of the file that was mapped.
    len: u64,
}

impl Ledger {
    /// A ledger that nobody else can see, for a guest that ends with this process.
    pub(crate) fn private(layout: &Layout) -> io::Result<Self> {
        let pages = pages(layout)?;
        let mut memory = SharedMemory::anonymous(FIXED + pages)?;
        Ok(Self::of(&mut memory, pages, false).0)
    }

    /// Everything but the trace, and what its count is in.
    fn of(memory: &mut SharedMemory, pages: usize, is_recovered: bool) -> (Self, Part) {
        let (note, live) = (memory.take(Note::BYTES), memory.take(Live::BYTES));
        let count = memory.take(Touches::COUNT);
        let (events, states) = (memory.take(EventReader::BYTES), memory.take(pages));
        let ledger = Self {
            note: Some(note),
            live: Some(live),
            events: Some(events),
            states: Some(states),
            touches: None,
            is_recovered,
            len: memory.len(),
        };
        (ledger, count)
    }

    /// The trace as far as it was noted, where a successor can find it.
    pub(crate) fn touches(&mut self) -> Option<Touches> {
        self.touches.take().map(|(count, entries)| Touches::new(count, entries))
    }

    pub(crate) fn events(&mut self) -> EventReader {
        EventReader::new(self.events.take().expect("one reader of events"))
    }

    pub(crate) fn note(&mut self) -> Note {
        Note::new(self.note.take().expect("one note"))
    }

    pub(crate) fn live(&mut self) -> Live {
        Live::new(self.live.take().expect("one owner of what changes"))
    }

    /// Whether a predecessor was about to give up all regions, everything being installed.
    pub(crate) fn is_releasing(&self) -> bool {
        self.live.as_ref().is_some_and(Live::is_releasing_in)
    }

    /// Whether each part can have been written by a predecessor that served such a guest.
    fn check(&self, layout: &Layout) -> Result<(), LedgerError> {
        let sound = |part: &Option<Part>, is_sound: &dyn Fn(&Part) -> bool| {
            part.as_ref().is_some_and(is_sound)
        };
        let parts = [
            ("note of installs", sound(&self.note, &|part| Note::is_sound(part, layout))),
            ("list of what was decided", sound(&self.live, &Live::is_sound)),
            ("list of events", sound(&self.events, &EventReader::is_sound)),
            (
                "table of page states",
                sound(&self.states, &|part| PageStates::is_sound(part, layout)),
            ),
            (
                "trace of first touches",
                self.touches
                    .as_ref()
                    .is_some_and(|(count, entries)| Touches::is_sound(count, entries)),
            ),
        ];
        match parts.iter().find(|(_, sound)| !sound) {
            None => Ok(()),
            Some((part, _)) => Err(LedgerError::Damaged { part }),
        }
    }

    pub(crate) fn states(&mut self, layout: &Layout) -> PageStates {
        let bytes = self.states.take().expect("one owner of the page states");
        if self.is_recovered {
            PageStates::recovered(bytes, layout.regions().iter().map(|region| region.pages))
        } else {
            PageStates::new(bytes, layout.page_count())
        }
    }
}

/// Why a ledger cannot be used, or not yet.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// It could not be made, opened, read or mapped.
    #[error("{doing}: {cause}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// Its guest is being served by the process that has the lock on it.
    #[error("its guest is being served by another process")]
    Owned,
    /// It is not there any more: its guest has ended.
    #[error("it is not there any more")]
    Gone,
    /// It belongs to somebody else, or others may change it.
    #[error("it is not a file that only user {user} may change: {found}")]
    Foreign {
        /// This user.
        user: u32,
        /// What it is instead.
        found: String,
    },
    /// What it says of itself is wrong.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It has the name of another guest: a copy, whose guest may have another owner.
    #[error(
        "it is the ledger of guest {id}, which would have another name: it was copied or renamed"
    )]
    Name {
        /// The guest it is about.
        id: String,
    },
    /// Nobody can have written what it holds.
    #[error("its {part} cannot be: it was damaged or changed")]
    Damaged {
        /// Which part of it.
        part: &'static str,
    },
}

/// The file of a ledger, locked: whoever has this owns the guest.
///
/// That of a guest that nobody has served yet is removed with this; the others stay, for whoever is
/// the next to serve their guests.
#[derive(Debug)]
pub(crate) struct LedgerFile {
    lock: Flock<File>,
    path: PathBuf,
    stays: bool,
}

impl LedgerFile {
    /// Makes a ledger for a guest. It is seen by others only when it is whole.
    pub(crate) fn create(
        dir: &StateDir,
        header: &Header,
        layout: &Layout,
    ) -> io::Result<(Self, Ledger)> {
        let Extent { kept, entries, .. } = Extent::of(layout)?;
        let start = header.encode(kept + entries)?;
        let len = (start.len() + kept) as u64;
        let (unfinished, path) = (dir.unfinished(&header.id), dir.finished(&header.id));
        let file = dir::create(&unfinished)?;
        let make = |lock: Flock<File>| {
            crate::kill_point!("ledger made");
            dir::reserve(&lock, 0..len)?;
            lock.set_len(len + entries as u64)?;
            crate::kill_point!("ledger reserved");
            lock.write_all_at(&start, 0)?;
            let ledger = Self::map(&lock, start.len(), layout, false)?;
            crate::kill_point!("ledger written");
            fs::rename(&unfinished, &path)?;
            crate::kill_point!("ledger named");
            Ok((Self { lock, path, stays: false }, ledger))
        };
        make(file).inspect_err(|_| drop(fs::remove_file(&unfinished)))
    }

    fn map(file: &File, header: usize, layout: &Layout, recovered: bool) -> io::Result<Ledger> {
        let Extent { pages, kept, entries } = Extent::of(layout)?;
        let mut memory = SharedMemory::of(file)?;
        memory.take(header);
        let (mut ledger, count) = Ledger::of(&mut memory, pages, recovered);
        memory.take(kept - FIXED - pages);
        ledger.touches = Some((count, memory.take(entries)));
        if let Some(events) = &ledger.events {
            // The kernel takes an event off its queue before it writes it here.
            events.lock()?;
        }
        if recovered && let Some(states) = &ledger.states {
            // Whoever takes the guest over has them in its page table by then: nothing of them is
            // read or written by this. Where it cannot be done, that takes longer.
            let _ = states.populate(0..pages);
        }
        Ok(ledger)
    }

    /// Makes sure that all of it may be written to, and that a predecessor can have left `ledger`,
    /// which it holds, for such a guest.
    pub(crate) fn check(&self, ledger: &Ledger, layout: &Layout) -> Result<(), LedgerError> {
        let io = |doing| move |cause| LedgerError::Io { doing, cause };
        let len = self.lock.metadata().map_err(io("cannot look at it"))?.len();
        // What is mapped behind its end cannot be looked at: that would end the process.
        if len < ledger.len {
            return Err(HeaderError::Length { found: len, said: ledger.len }.into());
        }
        let entries = Extent::of(layout).map_err(io("cannot map it"))?.entries as u64;
        // A copy may have holes, and room for them may be wanting only when they are written to.
        let kept = 0..len.saturating_sub(entries);
        dir::reserve(&self.lock, kept).map_err(io("cannot fill its holes"))?;
        ledger.check(layout)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its guest is being served: whatever becomes of this process, the next may serve it on.
    pub(crate) const fn served(&mut self) {
        self.stays = true;
    }

    /// Its guest has ended: it is removed with this.
    pub(crate) const fn ended(&mut self) {
        self.stays = false;
    }

    /// Whether it is there for others when this is gone.
    pub(crate) const fn stays(&self) -> bool {
        self.stays
    }

    /// The guest needs no ledger any more.
    pub(crate) fn remove(mut self) {
        self.stays = false;
    }
}

impl Drop for LedgerFile {
    fn drop(&mut self) {
        // Before the lock is given up: nobody else may have taken the guest over by then.
        if !self.stays {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file of a ledger that may have an owner. What never changes of it may be looked at, and it
/// can be mapped in advance; what is mapped is read and written by whoever owns it.
#[derive(Debug)]
pub(crate) struct UnownedFile {
    file: File,
    path: PathBuf,
    /// Bytes before the note.
    header: usize,
}

impl UnownedFile {
    /// Opens a ledger that is there, whoever owns it. Nothing of it is changed.
    pub(crate) fn open(path: &Path) -> Result<(Self, Header), LedgerError> {
        let io = |doing| move |cause| LedgerError::Io { doing, cause };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path)
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => LedgerError::Gone,
                _ => io("cannot open it")(error),
            })?;
        let about = file.metadata().map_err(io("cannot look at it"))?;
        let user = nix::unistd::geteuid().as_raw();
        let mode = about.permissions().mode() & 0o7777;
        if !about.is_file() || about.uid() != user || mode & 0o077 != 0 || about.nlink() > 1 {
            let found = format!(
                "{}, of user {}, mode {mode:o}, {} names",
                if about.is_file() { "a file" } else { "no file" },
                about.uid(),
                about.nlink()
            );
            return Err(LedgerError::Foreign { user, found });
        }
        let (header, size) =
            Header::decode(about.len(), |bytes, at| file.read_exact_at(bytes, at))?;
        if path.file_stem() != Some(OsStr::new(&header.id)) {
            return Err(LedgerError::Name { id: header.id });
        }
        Ok((Self { file, path: path.to_owned(), header: size }, header))
    }

    /// Whether it is what has its name: others find it, and nobody has put another one there.
    pub(crate) fn has_its_name(&self) -> bool {
        dir::is_at(&self.file, &self.path)
    }

    /// Maps what its owner writes.
    pub(crate) fn map(&self, layout: &Layout) -> Result<Ledger, LedgerError> {
        let io = |cause| LedgerError::Io { doing: "cannot map it", cause };
        let Extent { kept, entries, .. } = Extent::of(layout).map_err(io)?;
        let found = self.file.metadata().map_err(io)?.len();
        let said = (self.header + kept + entries) as u64;
        if found != said {
            return Err(HeaderError::Length { found, said }.into());
        }
        LedgerFile::map(&self.file, self.header, layout, true).map_err(io)
    }

    /// Becomes its owner, unless that one lives. With the error comes what can be tried again. One
    /// that has no name any more belongs to a guest that has ended, unless `unnamed` ones are served.
    pub(crate) fn own(self, unnamed: bool) -> Result<LedgerFile, (Option<Self>, LedgerError)> {
        let Self { file, path, header } = self;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, errno)) => {
                let error = match errno {
                    Errno::EWOULDBLOCK => LedgerError::Owned,
                    _ => LedgerError::Io { doing: "cannot lock it", cause: errno.into() },
                };
                return Err((Some(Self { file, path, header }), error));
            }
        };
        // Its last owner may have removed it before the lock was ours.
        if !unnamed && !dir::is_at(&lock, &path) {
            let unlocked = lock.unlock().ok().map(|file| Self { file, path, header });
            return Err((unlocked, LedgerError::Gone));
        }
        Ok(LedgerFile { lock, path, stays: true })
    }

    /// Removes it, its guest having ended, unless somebody else is about to.
    pub(crate) fn remove(self) -> Result<(), LedgerError> {
        self.own(false).map(LedgerFile::remove).map_err(|(_, error)| error)
    }
}

/// How much there is behind the header.
struct Extent {
    /// Pages of the guest.
    pages: usize,
    /// Bytes whose blocks are reserved, in whole pages: everything but the trace.
    kept: usize,
    /// Bytes of the trace's entries, behind those. Blocks of it are there as far as it goes.
    entries: usize,
}

impl Extent {
    fn of(layout: &Layout) -> io::Result<Self> {
        let pages = pages(layout)?;
        let kept = (FIXED + pages).next_multiple_of(4096);
        Ok(Self { pages, kept, entries: Touches::bytes(pages)? })
    }
}

fn pages(layout: &Layout) -> io::Result<usize> {
    usize::try_from(layout.page_end().0).map_err(io::Error::other)
}
