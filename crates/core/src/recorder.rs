//! Keeps a session's trace beyond the session's end, on the way to whoever else wants it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::contract::{End, Notice, Observer};
use crate::stats::Stats;
use crate::trace::{EntryError, SnapshotId, Trace, TraceEntry};
use crate::view::View;

/// An observer that notes the trace and tells another observer everything.
///
/// The session reports its trace once [`Session::report`](crate::session::Session::report) was
/// told to; what comes after its start and before that call is not lost.
#[derive(Debug)]
pub struct Recorder<O> {
    inner: O,
    entries: Arc<Mutex<Vec<TraceEntry>>>,
    /// Entries noted already that `inner` has not taken: they will be offered again.
    ahead: usize,
}

/// What a [`Recorder`] has noted so far; all of the trace once the session has ended.
#[derive(Clone, Debug)]
pub struct Recording {
    entries: Arc<Mutex<Vec<TraceEntry>>>,
}

impl<O: Observer> Recorder<O> {
    /// A recorder in front of `inner`, and where to get what it notes.
    pub fn new(inner: O) -> (Self, Recording) {
        let entries = Arc::default();
        let recording = Recording { entries: Arc::clone(&entries) };
        (Self { inner, entries, ahead: 0 }, recording)
    }
}

impl<O: Observer> Observer for Recorder<O> {
    fn begins(&mut self, view: &Arc<View>) {
        self.inner.begins(view);
    }

    fn stats(&mut self, stats: Stats) {
        self.inner.stats(stats);
    }

    fn trace(&mut self, entries: &[TraceEntry]) -> usize {
        let new = entries.get(self.ahead..).unwrap_or_default();
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(new);
        let taken = self.inner.trace(entries).min(entries.len());
        self.ahead = entries.len() - taken;
        taken
    }

    fn notice(&mut self, notice: Notice) {
        self.inner.notice(notice);
    }

    fn ended(&mut self, end: &End, stats: Stats) {
        self.inner.ended(end, stats);
    }
}

impl Recording {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The trace so far, as one of `snapshot`.
    pub fn trace(&self, snapshot: SnapshotId) -> Result<Trace, EntryError> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Trace::new(snapshot, entries)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::trace::FilledWith;
    use crate::units::PageIndex;

    /// Takes the numbers of entries it was given, and then nothing.
    struct Slow(Vec<usize>, Vec<TraceEntry>);

    impl Observer for Slow {
        fn trace(&mut self, entries: &[TraceEntry]) -> usize {
            let take = if self.0.is_empty() { 0 } else { self.0.remove(0) }.min(entries.len());
            self.1.extend(&entries[..take]);
            take
        }
    }

    #[test]
    fn every_entry_is_noted_once_however_slowly_the_other_takes_them() {
        let entry =
            |page| TraceEntry::new(PageIndex(page), false, FilledWith::Source, Duration::ZERO);
        let all: Vec<TraceEntry> = (0..10).map(entry).collect();
        let (mut recorder, recording) = Recorder::new(Slow(vec![3, 0, 4, 0], Vec::new()));
        assert!(recording.is_empty());

        let mut sent = 0;
        for known in [5, 5, 8, 8, 10, 10] {
            sent += recorder.trace(&all[sent..known]);
            assert_eq!(*recording.entries.lock().unwrap(), all[..known]);
        }
        assert_eq!(sent, 7);
        assert_eq!(recorder.inner.1, all[..7]);
    }
}
