//! What a fault loop is asked to do, and where its answers go.

use crossbeam_channel::Receiver;
use thiserror::Error;

use super::copied::Copied;
use super::reports::{NotReleased, PrefaultReport};
use crate::collapser::Verdict;
use crate::source::{Delivery, SourceError};
use crate::stats::Stats;
use crate::trace::TraceEntry;
use crate::units::PageRange;

/// The session had ended before it could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the session has ended")]
pub struct Ended;

/// Where the answer to a command goes. Called exactly once, on the fault loop's thread or, if
/// the session has ended, on the thread that asked; must not block.
pub struct Reply<T>(Option<Answer<T>>);

type Answer<T> = Box<dyn FnOnce(Result<T, Ended>) + Send>;

impl<T> Reply<T> {
    /// Answers go to `answer`.
    pub fn new(answer: impl FnOnce(Result<T, Ended>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    pub(crate) fn send(mut self, value: T) {
        if let Some(answer) = self.0.take() {
            answer(Ok(value));
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(Ended));
        }
    }
}

/// Names a prefault while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefaultId(pub(crate) u64);

/// What is done to pages that are wanted soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrefaultMode {
    /// They are installed.
    Install,
    /// They are brought into the host's memory; faults install them.
    Fetch,
    /// They are installed, but for those that are zeros anyhow.
    Release,
}

/// Takes a copy of the page states; everything else about an export happens away from the loop.
pub(crate) struct ExportJob {
    /// Room for the states, in host memory already, so that copying them is all there is to do. The
    /// loop is told when it has come.
    pub(crate) room: Receiver<Vec<u8>>,
    pub(crate) deliver: Box<dyn FnOnce(Copied) + Send>,
}

/// What a fault loop is asked to do.
pub(crate) enum Command {
    Prefault {
        mode: PrefaultMode,
        id: PrefaultId,
        ranges: Vec<PageRange>,
        reply: Reply<PrefaultReport>,
    },
    CancelPrefault(PrefaultId),
    Export(ExportJob),
    /// The room for an export has come.
    RoomForExport,
    Stats(Reply<Stats>),
    /// Answered by a loop that turns.
    Ping(Reply<()>),
    Trace {
        from: usize,
        reply: Reply<Vec<TraceEntry>>,
    },
    /// Answered once no fault is in hand.
    Settle(Reply<()>),
    /// Statistics every so often, and the trace as it grows, go to the observer.
    Report {
        stats_every: Option<std::time::Duration>,
        trace: bool,
    },
    /// The observer can take more of the trace.
    TraceWanted,
    /// Everything is to be installed, and then the guest to need no handler.
    Release {
        id: PrefaultId,
        reply: Reply<Result<(), NotReleased>>,
    },
    /// The first part of that is done.
    ReleaseInstalled(PrefaultReport),
    /// The guest is left to a successor.
    HandOver,
    Stop,
}

/// Bytes that were fetched for the fault loop.
pub(crate) struct Fetched {
    pub(crate) pages: PageRange,
    pub(crate) bytes: Result<Delivery, SourceError>,
    /// The prefault they were fetched for; `None` for a fault.
    pub(crate) prefault: Option<PrefaultId>,
}

pub(crate) enum Message {
    Command(Command),
    Fetched(Fetched),
    /// Fetches that were refused for want of room can be asked for again.
    Room,
    /// What came of the range that was to become a huge page.
    Collapsed(Verdict),
}
