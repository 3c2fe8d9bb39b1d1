//! What is promised of traces: kept whole, refused when broken, merged and replayed sensibly.

mod broken;
mod disk;
mod golden;
mod merge;
mod replay;
mod round_trip;

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{FilledWith, Fingerprint, SnapshotId, TraceEntry};
use super::Trace;
use crate::units::{PageIndex, PageSize};

const FILLS: [FilledWith; 4] =
    [FilledWith::Source, FilledWith::SourceZeros, FilledWith::Zeros, FilledWith::Present];

/// A snapshot with so many pages.
fn snapshot(pages: u64) -> SnapshotId {
    let (page_size, fingerprint) = (PageSize::Small, Fingerprint(*b"of the snapshot!"));
    SnapshotId { length: pages * page_size.bytes(), page_size, fingerprint }
}

fn read(page: u64, micros: u64) -> TraceEntry {
    touch(page, false, FilledWith::Source, micros)
}

fn touch(page: u64, write: bool, filled: FilledWith, micros: u64) -> TraceEntry {
    TraceEntry::new(PageIndex(page), write, filled, Duration::from_micros(micros))
}

/// Reads of these pages, ten microseconds apart.
fn reads(pages: impl IntoIterator<Item = u64>) -> Trace {
    let entries = pages.into_iter().zip(1..).map(|(page, n)| read(page, 10 * n)).collect();
    Trace::new(snapshot(1 << 20), entries).unwrap()
}

fn pages(trace: &Trace) -> Vec<u64> {
    trace.entries().iter().map(|entry| entry.page().0).collect()
}

/// Any trace at all, of a snapshot of at most `most` pages.
fn any_trace(most: u64) -> impl Strategy<Value = Trace> {
    let page_size = prop_oneof![Just(PageSize::Small), Just(PageSize::Huge)];
    let entries = vec((0..most, any::<bool>(), 0..4_usize, any::<u64>(), 0..64_u32), 0..60);
    (page_size, any::<[u8; 16]>(), ".{0,20}", entries, 0..4096_u64).prop_map(
        move |(page_size, fingerprint, created_by, entries, cut)| {
            let fingerprint = Fingerprint(fingerprint);
            let length = most * page_size.bytes() - cut;
            let id = SnapshotId { length, page_size, fingerprint };
            let mut seen = std::collections::HashSet::new();
            let new = entries.into_iter().filter(|entry| seen.insert(entry.0));
            let entries = new.map(|(page, write, filled, time, shift)| {
                let time = Duration::from_nanos(time >> shift);
                TraceEntry::new(PageIndex(page), write, FILLS[filled], time)
            });
            Trace::new(id, entries.collect()).unwrap().with_created_by(created_by)
        },
    )
}
