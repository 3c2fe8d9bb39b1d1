//! What a trace is good for: the pages to prefault, and figures for people.

use std::time::Duration;

use super::super::{FilledWith, TraceEntry};
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
    /// The pages to prefault in the next restore, in the order of the trace.
    ///
    /// A page the guest had given back before it touched it again
    /// ([`FilledWith::Zeros`]) is left out: the next guest needs none of its bytes then either.
    /// So that pages can be installed many at once, the touches of each 256 KiB of trace are put
    /// in order of their pages: that moves no page further than the guest's vCPUs do.
    pub fn ranges(&self) -> Vec<PageRange> {
        let pages: Vec<PageIndex> =
            self.entries.iter().filter(|entry| replays(entry)).map(|entry| entry.page()).collect();
        let mut ranges: Vec<PageRange> = Vec::new();
        for batch in pages.chunks(together(self.snapshot.page_size)) {
            let mut batch = batch.to_vec();
            batch.sort_unstable();
            for page in batch {
                match ranges.last_mut() {
                    Some(last) if last.end == page => last.end = page.next(),
                    _ => ranges.push(PageRange::single(page)),
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
