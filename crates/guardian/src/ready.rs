//! Getting ready for guests, beside everything else: looking at a guest takes milliseconds, and
//! opening its snapshot as long as its device likes.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Sender, unbounded};
use uffd_core::kernel::{Waker, stay_behind};
use uffd_core::ledger::SnapshotPlace;
use uffd_core::recovery::{Known, NotRecovered, Prospect, Spares};
use uffd_core::session::{End, Taken};
use uffd_core::source::Fetcher;

use super::snapshots;

/// What other threads have to tell.
#[derive(Debug)]
pub(crate) enum Event {
    /// All that it takes to serve a guest is at hand, or cannot be had.
    Looked { id: String, found: Result<Box<Prospect>, NotRecovered> },
    /// A snapshot is open, or cannot be opened.
    Opened { place: SnapshotPlace, result: Result<Arc<Fetcher>, String> },
    /// A guest was taken over, or could not be.
    Taken { id: String, taken: Taken },
    /// A session of this process is over.
    Ended { id: String, end: End },
}

/// Takes what other threads have to tell.
#[derive(Clone, Debug)]
pub(crate) struct Bell {
    pub(crate) sender: Sender<Event>,
    pub(crate) waker: Arc<Waker>,
}

impl Bell {
    pub(crate) fn ring(&self, event: Event) {
        if self.sender.send(event).is_ok() {
            self.waker.wake();
        }
    }
}

/// To look at a guest takes the longer the more memory it has, and it is being served meanwhile. A
/// third of what others get of a core that is wanted by all.
const AFTER_OTHERS: i32 = 5;

/// A guest to get ready for.
#[derive(Debug)]
struct Job {
    id: String,
    path: PathBuf,
    copy: Option<OwnedFd>,
    known: Option<Known>,
}

/// Gets ready, one guest after the other.
#[derive(Debug)]
pub(crate) struct Ready {
    jobs: Sender<Job>,
    bell: Bell,
}

impl Ready {
    pub(crate) fn new(bell: Bell) -> std::io::Result<Self> {
        let (jobs, receiver) = unbounded::<Job>();
        let looks = bell.clone();
        thread::Builder::new().name("uffd-ready".to_owned()).spawn(move || {
            // Before guests and those who serve them, who want the same cores.
            let _ = rustix::process::nice(AFTER_OTHERS);
            let _behind = stay_behind();
            for Job { id, path, copy, known } in receiver {
                let mut spares: Spares = copy.map(|copy| (id.clone(), copy)).into_iter().collect();
                let found = Prospect::find_again(&path, &mut spares, known.as_ref()).map(Box::new);
                looks.ring(Event::Looked { id, found });
            }
        })?;
        Ok(Self { jobs, bell })
    }

    /// Looks at the guest `id` of the ledger at `path`; `copy` is its userfaultfd, if it was given, and
    /// `known` what was found out before.
    pub(crate) fn look(
        &self,
        id: &str,
        path: PathBuf,
        copy: Option<OwnedFd>,
        known: Option<Known>,
    ) {
        let _ = self.jobs.send(Job { id: id.to_owned(), path, copy, known });
    }

    /// Opens a snapshot, on a thread of its own: another one's device may not answer.
    pub(crate) fn open(&self, place: SnapshotPlace) {
        let bell = self.bell.clone();
        let open = {
            let place = place.clone();
            move || {
                let result = snapshots::open(&place);
                bell.ring(Event::Opened { place, result });
            }
        };
        if let Err(error) = thread::Builder::new().name("uffd-open".to_owned()).spawn(open) {
            let result = Err(format!("no thread can be had to open the snapshot: {error}"));
            self.bell.ring(Event::Opened { place, result });
        }
    }
}
