//! What a trace is good for: the pages to prefault, and figures for people.

use std::time::Duration;

use super::super::{FilledWith, TraceEntry};
use super::refault::Refault;
use super::{Trace, micros};
use crate::units::{PageIndex, PageRange, PageSize};

/// What a trace amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceStats {
    /// Pages in the trace.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pages whose first touch was a write.
    pub writes: u64,
    /// Pages that a replay prefaults.
    pub replayed: u64,
    /// The time from the earliest touch to the latest, in whole microseconds.
    pub span: Duration,
}

impl Trace {
    /// The pages of the trace, in its order, to be prefaulted in the next restore.
    ///
    /// A page the guest had given back before it touched it again
    /// ([`FilledWith::Zeros`]) is left out: the next guest needs none of its bytes then either.
    /// So that pages can be installed many at once, the touches of each 256 KiB of trace are put
    /// in order of their pages: that moves no page further than the guest's vCPUs do.
    pub fn ranges(&self) -> Vec<PageRange> {
        self.in_batches(self.replayed().map(PageRange::single).collect())
    }

    /// The same with the pages that were filled around the faults, which a trace does not name.
    ///
    /// They are found again by going through the faults once more. In a trace that was recorded
    /// page by page there are none: its entries name every page that was touched.
    pub fn ranges_with_neighbours(&self) -> Vec<PageRange> {
        let refault = Refault::new(self.snapshot.page_count(), self.snapshot.page_size);
        let (runs, refaults) = refault.all(self.entries.iter().filter(|entry| replays(entry)));
        // With fault-around a page that was filled did not fault: entries that did betray a
        // trace recorded without.
        if refaults * 4 >= self.entries.len() { self.ranges() } else { self.in_batches(runs) }
    }

    fn replayed(&self) -> impl Iterator<Item = PageIndex> + '_ {
        self.entries.iter().filter(|entry| replays(entry)).map(|entry| entry.page())
    }

    fn in_batches(&self, runs: Vec<PageRange>) -> Vec<PageRange> {
        let mut ranges: Vec<PageRange> = Vec::new();
        for batch in runs.chunks(together(self.snapshot.page_size)) {
            let mut batch = batch.to_vec();
            batch.sort_unstable_by_key(|run| run.start);
            for run in batch {
                match ranges.last_mut() {
                    Some(last) if last.end == run.start => last.end = run.end,
                    _ => ranges.push(run),
                }
            }
        }
        ranges
    }

    /// What the trace amounts to.
    pub fn stats(&self) -> TraceStats {
        let count = |pick: fn(&TraceEntry) -> bool| {
            self.entries.iter().filter(|entry| pick(entry)).count() as u64
        };
        let pages = self.entries.len() as u64;
        let times = || self.entries.iter().map(|entry| micros(*entry));
        let span = times().max().unwrap_or(0) - times().min().unwrap_or(0);
        TraceStats {
            pages,
            bytes: pages << self.snapshot.page_size.shift(),
            writes: count(|entry| entry.is_write()),
            replayed: count(replays),
            span: Duration::from_micros(span),
        }
    }
}

fn replays(entry: &TraceEntry) -> bool {
    entry.filled_with() != FilledWith::Zeros
}

/// How many touches are put in order of their pages.
const fn together(page_size: PageSize) -> usize {
    match page_size {
        PageSize::Small => 64,
        PageSize::Huge => 1,
    }
}
