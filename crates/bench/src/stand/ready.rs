//! What a handler opens before guests come, and the guests it then serves.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use uffd_core::kernel::FileMap;
use uffd_core::ledger::{SnapshotPlace, StateDir};
use uffd_core::recovery::Keep;
use uffd_core::source::{Fetcher, FileSource};
use uffd_core::units::PageRange;

use super::guest::{handed_off, mapping};
use super::{Service, Stand};
use crate::Result;
use crate::memory::{self, Memory};
use crate::packed::Packed;
use crate::plain::PlainHandler;
use crate::plan::{Contender, Handler};
use crate::snapshots::Snapshots;

/// A handler that is ready for guests.
pub(crate) struct Ready<'a> {
    contender: &'a Contender,
    dir: PathBuf,
    opened: Opened,
    /// Where guests are kept that outlive this process.
    kept: Option<(TempDir, Keep)>,
    /// How long that took: until then no guest can come.
    pub(crate) took: Duration,
}

/// Where bytes come from.
enum Opened {
    /// For a guest that maps the snapshot itself.
    File(PathBuf),
    /// For one that has no snapshot at all.
    Zeros,
    Map(Arc<FileMap>),
    Source(Arc<Fetcher>),
}

impl<'a> Ready<'a> {
    /// Prepares to serve the guests of a contender, for which `ahead` is going to be prefaulted.
    pub(crate) fn open(
        contender: &'a Contender,
        snapshots: &mut Snapshots,
        ahead: &[PageRange],
    ) -> Result<Self> {
        let Contender { snapshot, cold, handler, .. } = contender;
        let file = snapshots.file(*snapshot, *cold)?;
        let packed = match handler {
            Handler::UffdPacked(_) => Some(snapshots.packed(*snapshot, ahead, *cold)?),
            _ => None,
        };
        let map = |populated| -> Result<Opened> {
            Ok(Opened::Map(Arc::new(memory::map(&file, *snapshot, populated)?)))
        };
        let source = |source| Opened::Source(Arc::new(Fetcher::new(source)));
        let begin = Instant::now();
        let opened = match (handler, packed) {
            (Handler::File, _) => Opened::File(file.clone()),
            (Handler::Kernel, _) => Opened::Zeros,
            (Handler::RawCopy { mapped_before, .. }, _) => map(*mapped_before)?,
            (Handler::Plain(plain), _) => map(plain.populated && !cold)?,
            (_, Some(packed)) => {
                source(Arc::new(Packed::open(&file, ahead, snapshot.page_size, &packed)?))
            }
            _ => source(Arc::new(FileSource::open(&file)?)),
        };
        if let (Handler::UffdExpecting(_), Opened::Source(source)) = (handler, &opened) {
            source.expect_huge_pages();
        }
        let took = begin.elapsed();
        let kept = match handler {
            Handler::UffdKept(_) => Some(keep(&file)?),
            _ => None,
        };
        Ok(Self { contender, dir: snapshots.dir().to_owned(), opened, kept, took })
    }

    /// Starts a guest and serves it.
    pub(crate) fn guest(&self) -> Result<Stand> {
        let Contender { snapshot, handler, script, .. } = self.contender;
        let filled = script.filled(snapshot.pages);
        match &self.opened {
            Opened::File(file) => {
                let guest = mapping(file, &self.dir, *snapshot)?;
                Ok(Stand { guest, service: Service::Nobody })
            }
            Opened::Zeros => {
                // A private mapping of it is anonymous memory like that of other guests.
                let guest = mapping(Path::new("/dev/zero"), &self.dir, *snapshot)?;
                for pages in filled {
                    guest.thread(0).write_word(pages.start.0, pages.len(), 1, 0)?;
                }
                Ok(Stand { guest, service: Service::Nobody })
            }
            Opened::Map(map) => {
                let (guest, handoff) = handed_off(&self.dir, *snapshot)?;
                let memory = Memory::new(handoff, Arc::clone(map), *snapshot)?;
                let Handler::Plain(plain) = handler else {
                    return Ok(Stand { guest, service: Service::Raw(Box::new(memory)) });
                };
                filled.into_iter().try_for_each(|pages| memory.fill_pages(pages))?;
                let plain = PlainHandler::start(memory, plain.unregisters)?;
                Ok(Stand { guest, service: Service::Plain(plain) })
            }
            Opened::Source(source) => {
                if let Handler::UffdAgain(_) = handler {
                    let before = self.session(source)?;
                    before.prefault(vec![PageRange::new(0, snapshot.pages)])?;
                    before.take_down()?;
                }
                let stand = self.session(source)?;
                stand.prefault(filled)?;
                Ok(stand)
            }
        }
    }

    fn session(&self, source: &Arc<Fetcher>) -> Result<Stand> {
        let options = self.contender.handler.session().ok_or("nobody has a session")?;
        let (guest, handoff) = handed_off(&self.dir, self.contender.snapshot)?;
        let keep = self.kept.as_ref().map(|(_, keep)| keep);
        Stand::session(guest, handoff, Arc::clone(source), options, keep)
    }
}

/// A state directory in memory, and what is kept there of guests of `file`.
fn keep(file: &Path) -> Result<(TempDir, Keep)> {
    let folder = tempfile::tempdir_in("/dev/shm")?;
    let dir = Arc::new(StateDir::open(folder.path())?);
    let snapshot = SnapshotPlace::of(&FileSource::open(file)?)?;
    Ok((folder, Keep { dir, snapshot, guardian: None, manager: None }))
}
