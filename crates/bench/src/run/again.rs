//! Memory that is given back and then used again.

use uffd_core::policy::Tracking;
use uffd_core::session::Session;
use uffd_guest::protocol::{Bench, Expect};

use super::figures::{Meter, latencies};
use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::Contender;
use crate::stand::{Service, Stand};

/// Gives all of memory back in pieces of so many pages, and touches it as `bench` says.
pub(super) fn run(
    contender: &Contender,
    stand: &Stand,
    piece: u64,
    bench: &Bench,
) -> Result<Measure> {
    let pages = contender.snapshot.pages;
    let thread = stand.guest.thread(0);
    let mut measure = Measure::default();
    let gives = thread.madvise_bench(0, pages, piece)?;
    measure.set(Metric::MadviseP50Us, gives.latency.p50 as f64 / 1e3);
    measure.set(Metric::MadviseP99Us, gives.latency.p99 as f64 / 1e3);

    let meter = Meter::start(stand)?;
    let report = thread.bench(bench.clone())?;
    meter.stop_with_faults(&mut measure)?;
    latencies(&mut measure, &report);
    measure.set(Metric::PerPageUs, report.nanos as f64 / 1e3 / report.touches as f64);

    // A figure is worth nothing if what it is about is wrong.
    if bench.stamp.is_none() {
        let found = thread.verify(0, pages, &[Expect::Zeros])?;
        if found.wrong > 0 {
            return Err(format!("pages given back are not zeros: {found:?}").into());
        }
    } else if let Service::Session { session, .. } = &stand.service
        && session.tracking() != Tracking::Off
    {
        // Given back once more and only read: pages that were written and are not dirty.
        thread.madvise(0, piece)?;
        thread.touch(0, piece)?;
        check_dirty(session, piece, pages)?;
    }
    Ok(measure)
}

/// Of so many pages, those from `first` on have to be dirty, and those before to be zeros.
fn check_dirty(session: &Session, first: u64, pages: u64) -> Result<()> {
    let export = session.export()?;
    let count = |set: &roaring::RoaringBitmap, range: std::ops::Range<u64>| -> Result<u64> {
        Ok(set.range_cardinality(u32::try_from(range.start)?..u32::try_from(range.end)?))
    };
    let (dirty, empty) = (count(&export.dirty, first..pages)?, count(&export.empty, 0..first)?);
    let is_right = export.exact
        && (dirty, empty) == (pages - first, first)
        && (export.dirty.len(), export.empty.len()) == (dirty, empty);
    if is_right {
        return Ok(());
    }
    let (all_dirty, all_empty) = (export.dirty.len(), export.empty.len());
    Err(format!(
        "after a write to pages {first}..{pages} {dirty} of them are dirty and {all_dirty} in all; \
         of pages 0..{first} {empty} are zeros and {all_empty} in all; exact: {}",
        export.exact
    )
    .into())
}
