//! Who is told what a session does.

use std::sync::Arc;

use super::error::{Cause, End};
use super::reports::ReleaseProgress;
use crate::stats::Stats;
use crate::trace::TraceEntry;
use crate::units::PageIndex;
use crate::view::View;

/// Something worth a line in a log, that does not end the session.
#[derive(Clone, Debug)]
pub enum Notice {
    /// There was no memory for a page. Said once in a session; the counter
    /// [`out_of_memory`](crate::stats::Counters::out_of_memory) goes on.
    OutOfMemory {
        /// The page.
        page: PageIndex,
        /// Whether a pool of 2 MiB pages is used up, rather than ordinary memory.
        huge: bool,
    },
    /// A page could not be had and was poisoned.
    Poisoned {
        /// The page.
        page: PageIndex,
        /// Its offset in the snapshot, in bytes.
        offset: u64,
        /// Why it could not be had.
        cause: Cause,
    },
    /// The guest's memory cannot be collapsed into huge pages, as was asked for.
    NotCollapsed {
        /// Why not.
        why: String,
    },
}

/// Is told what a session does, on the session's own thread: must return at once.
pub trait Observer: Send + 'static {
    /// The session begins. `view` shows how its guest is doing, now and after its end. Called once,
    /// before everything else, by whoever starts the session.
    fn begins(&mut self, _view: &Arc<View>) {}

    /// Statistics, as often as was asked for.
    fn stats(&mut self, _stats: Stats) {}

    /// First touches that were not handed out before, in order. Returns how many of them were
    /// taken; the rest is offered again after
    /// [`Session::want_trace`](super::Session::want_trace).
    fn trace(&mut self, entries: &[TraceEntry]) -> usize {
        entries.len()
    }

    /// Whether the whole trace is wanted at the end: to put it together takes the longer the more
    /// pages were touched.
    fn wants_last_trace(&self) -> bool {
        true
    }

    /// The whole trace, right before [`ended`](Self::ended): there is no later chance to take any
    /// of it. The first `told` entries were handed out before, or are not wanted.
    fn last_trace(&mut self, entries: Vec<TraceEntry>, told: usize) {
        let mut rest = &entries[told..];
        while !rest.is_empty() {
            match self.trace(rest).min(rest.len()) {
                0 => break,
                taken => rest = &rest[taken..],
            }
        }
    }

    /// Something worth a line in a log.
    fn notice(&mut self, _notice: Notice) {}

    /// A release goes on: now and then, and when everything is installed.
    fn releasing(&mut self, _progress: ReleaseProgress) {}

    /// The session has ended. Called exactly once, after everything else.
    fn ended(&mut self, _end: &End, _stats: Stats) {}
}

/// Nobody in particular.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoObserver;

impl Observer for NoObserver {}
