//! A guest and whoever serves it.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uffd_core::handoff::{Handoff, Limits, Listener};
use uffd_core::kernel::{FileMap, Uffd, Waker};
use uffd_core::session::{NoObserver, Session, SessionOptions};
use uffd_core::source::{Fetcher, FileSource, Source};
use uffd_core::units::PageRange;
use uffd_guest::driver::{Guest, GuestBuilder};
use uffd_guest::options::Options;

use crate::minimal::{Memory, Minimal};
use crate::packed::Packed;
use crate::plan::{Contender, Handler, Script, Snapshot};
use crate::snapshots::Snapshots;
use crate::{AS_GUEST, Result, host};

/// A guest that is being served.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) guest: Guest,
    pub(crate) service: Service,
}

/// Who serves it.
#[derive(Debug)]
pub(crate) enum Service {
    Nobody,
    /// Its memory is to be filled as a whole.
    Raw(Box<Memory>),
    Minimal(Minimal),
    Session {
        session: Session,
        tid: i32,
    },
}

/// From which page on the memory is there before anything is measured.
const fn filled_from(script: &Script, pages: u64) -> u64 {
    match script {
        Script::GiveBack { .. } => 0,
        Script::Churn { .. } => pages / 2,
        Script::Touch { .. } | Script::Fill | Script::Idle { .. } => pages,
    }
}

/// How long a guest may take for all of its touches.
const DEADLINE: Duration = Duration::from_secs(120);

impl Stand {
    /// Starts the guest of a contender, for which `ahead` is going to be prefaulted, and serves
    /// it.
    pub(crate) fn set_up(
        contender: &Contender,
        snapshots: &mut Snapshots,
        ahead: &[PageRange],
    ) -> Result<Self> {
        let Contender { snapshot, cold, handler, script, .. } = contender;
        let first = filled_from(script, snapshot.pages);
        let file = &snapshots.file(*snapshot, *cold)?;
        let packed = match handler {
            Handler::UffdPacked(_) => Some(snapshots.packed(*snapshot, ahead, *cold)?),
            _ => None,
        };
        let dir = snapshots.dir();
        let map = |populate: bool| -> Result<FileMap> {
            let map = FileMap::new(&File::open(file)?, usize::try_from(snapshot.bytes())?)?;
            if populate {
                map.populate(0, usize::try_from(snapshot.bytes())?);
            }
            Ok(map)
        };
        let memory = |handoff: Handoff, map: FileMap| -> Result<Memory> {
            let base = handoff.layout.regions()[0].base.0;
            let (len, page_size) = (snapshot.bytes(), snapshot.page_size);
            Ok(Memory { uffd: Uffd::new(handoff.uffd)?, map, base, len, page_size })
        };
        match *handler {
            Handler::File => {
                let guest = spawn(dir, *snapshot, Some(file))?;
                Ok(Self { guest, service: Service::Nobody })
            }
            Handler::RawCopy { mapped_before } => {
                let map = map(mapped_before)?;
                let (guest, handoff) = handed_off(dir, *snapshot)?;
                Ok(Self { guest, service: Service::Raw(Box::new(memory(handoff, map)?)) })
            }
            Handler::Floor => {
                let map = map(!cold)?;
                let (guest, handoff) = handed_off(dir, *snapshot)?;
                let memory = memory(handoff, map)?;
                memory.fill(first * snapshot.page_size, true)?;
                Ok(Self { guest, service: Service::Minimal(Minimal::start(memory)?) })
            }
            Handler::Uffd(options) | Handler::UffdAgain(options) | Handler::UffdPacked(options) => {
                let source: Arc<dyn Source> = match packed {
                    Some(packed) => {
                        Arc::new(Packed::open(file, ahead, snapshot.page_size, &packed)?)
                    }
                    None => Arc::new(FileSource::open(file)?),
                };
                let source = Arc::new(Fetcher::new(source));
                if matches!(handler, Handler::UffdAgain(_)) {
                    let (guest, handoff) = handed_off(dir, *snapshot)?;
                    let before = Self::session(guest, handoff, source.clone(), options)?;
                    before.fill(0, *snapshot)?;
                    before.take_down()?;
                }
                let (guest, handoff) = handed_off(dir, *snapshot)?;
                let stand = Self::session(guest, handoff, source, options)?;
                stand.fill(first, *snapshot)?;
                Ok(stand)
            }
        }
    }

    /// A session of uffd-rs for a guest that has handed off.
    pub(crate) fn session(
        guest: Guest,
        handoff: Handoff,
        source: Arc<Fetcher>,
        options: SessionOptions,
    ) -> Result<Self> {
        let before = host::threads("uffd-guest");
        let session = Session::start(handoff, source, options, Box::new(NoObserver))?;
        let tid = host::new_thread("uffd-guest", &before)?;
        Ok(Self { guest, service: Service::Session { session, tid } })
    }

    /// Installs the pages from `first` on.
    fn fill(&self, first: u64, snapshot: Snapshot) -> Result<()> {
        if let Service::Session { session, .. } = &self.service
            && first < snapshot.pages
        {
            session.prefault(vec![PageRange::new(first, snapshot.pages)])?;
        }
        Ok(())
    }

    /// Keeps handler and guest on cores of their own. Threads they start later follow them.
    pub(crate) fn pin(&self) -> Result<()> {
        if let Some(tid) = self.tid() {
            host::pin(tid, true)?;
        }
        host::pin(self.guest.pid(), false)
    }

    /// The thread that serves the guest.
    pub(crate) const fn tid(&self) -> Option<i32> {
        match &self.service {
            Service::Nobody | Service::Raw(_) => None,
            Service::Minimal(minimal) => Some(minimal.tid),
            Service::Session { tid, .. } => Some(*tid),
        }
    }

    /// Faults that reached it.
    pub(crate) fn faults(&self) -> Result<Option<u64>> {
        Ok(match &self.service {
            Service::Nobody | Service::Raw(_) => None,
            Service::Minimal(minimal) => Some(minimal.faults()),
            Service::Session { session, .. } => Some(session.stats()?.counters.faults()),
        })
    }

    /// Ends the service, then the guest.
    pub(crate) fn take_down(mut self) -> Result<()> {
        match self.service {
            Service::Nobody | Service::Raw(_) => {}
            Service::Minimal(minimal) => minimal.stop(&self.guest)?,
            Service::Session { session, tid } => {
                session.stop();
                drop(session);
                gone(tid);
            }
        }
        self.guest.kill()?;
        Ok(())
    }
}

/// Waits until a thread has ended, so that its last work falls into no other measurement.
fn gone(tid: i32) {
    let begin = Instant::now();
    let task = format!("/proc/self/task/{tid}");
    while Path::new(&task).exists() && begin.elapsed() < DEADLINE {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A guest that has handed off, and its handoff.
pub(crate) fn handed_off(dir: &Path, snapshot: Snapshot) -> Result<(Guest, Handoff)> {
    let listener = Listener::bind(&dir.join("uffd.sock"))?;
    let guest = spawn(dir, snapshot, None)?;
    let connection = listener.accept()?.ok_or("the guest has not connected")?;
    let never = Waker::new()?;
    let handoff = connection.receive(&Limits::new(snapshot.bytes()), never.as_fd())?;
    Ok((guest, handoff))
}

/// A guest process: this program once more.
fn spawn(dir: &Path, snapshot: Snapshot, file: Option<&Path>) -> Result<Guest> {
    let mut options = Options::new(dir.join("uffd.sock"), [snapshot.pages], snapshot.pattern());
    options.map_file = file.map(Path::to_owned);
    let program = std::env::current_exe()?;
    let builder = GuestBuilder::new(program, options).leading_arg(AS_GUEST).deadline(DEADLINE);
    Ok(builder.spawn()?)
}
