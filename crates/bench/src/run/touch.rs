//! A guest that touches pages, which may be prefaulted meanwhile.

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use uffd_core::session::{PrefaultReport, Reply, SessionOptions};
use uffd_core::trace::{SnapshotId, Trace};
use uffd_core::units::PageRange;
use uffd_guest::protocol::Bench;

use super::figures::{Meter, latencies, memory, millis};
use super::start::{tell, when_told};
use super::touched::Touched;
use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::{Ahead, Contender, Handler, Script};
use crate::snapshots::Snapshots;
use crate::stand::{Ready, Service, Stand};

/// What is to be prefaulted.
pub(super) fn ahead(contender: &Contender, snapshots: &mut Snapshots) -> Result<Vec<PageRange>> {
    let Script::Touch { ahead, .. } = &contender.script else { return Ok(Vec::new()) };
    match ahead {
        Ahead::Nothing => Ok(Vec::new()),
        Ahead::Pages(pages) => Ok(vec![PageRange::new(pages.start, pages.end)]),
        Ahead::Trace { of, recorder, .. } => record(contender, of, **recorder, snapshots),
    }
}

pub(super) fn touch(
    contender: &Contender,
    stand: &Stand,
    bench: &Bench,
    ahead: Vec<PageRange>,
) -> Result<Measure> {
    let mut measure = Measure::default();
    let first = match contender.script {
        Script::Touch { ahead: Ahead::Trace { first, .. }, .. } => first,
        _ => Duration::ZERO,
    };
    // The guest knows what to do and waits for the word, so that a prefault has no head start.
    let bench_done = when_told(&stand.guest, 0, bench);
    let meter = Meter::start(stand)?;
    let begin = Instant::now();
    let prefault = prefault(stand, ahead.clone())?;
    let early = prefault.as_ref().and_then(|prefault| prefault.recv_timeout(first).ok());
    let waited = if first.is_zero() { first } else { begin.elapsed() };
    tell(&stand.guest)?;
    let report = bench_done.get()?;
    meter.stop_with_faults(&mut measure)?;
    latencies(&mut measure, &report);
    // Whoever waits first pays for that.
    measure.set(Metric::TimeMs, millis(waited + Duration::from_nanos(report.nanos)));
    let all_in = match prefault {
        Some(prefault) => {
            let (done, report) = early.map_or_else(|| prefault.recv(), Ok)?;
            let percent = 100.0 * report.installed as f64 / report.requested() as f64;
            measure.set(Metric::PrefaultedPercent, percent);
            if let Some(faults) = faults_of(stand, &ahead)? {
                measure.set(Metric::TracedFaults, faults as f64);
            }
            done.duration_since(begin)
        }
        None => Duration::from_nanos(report.nanos),
    };
    measure.set(Metric::WorkingSetMs, millis(all_in));
    memory(&mut measure, &stand.guest, Touched::by(bench, contender.snapshot))?;
    Ok(measure)
}

/// Starts to prefault, if there is something to prefault; when it is done comes through the
/// channel.
fn prefault(
    stand: &Stand,
    ranges: Vec<PageRange>,
) -> Result<Option<mpsc::Receiver<(Instant, PrefaultReport)>>> {
    let Service::Session { session, .. } = &stand.service else { return Ok(None) };
    if ranges.is_empty() {
        return Ok(None);
    }
    let (sender, receiver) = mpsc::channel();
    let reply = Reply::new(move |report| {
        if let Ok(report) = report {
            let _ = sender.send((Instant::now(), report));
        }
    });
    session.prefault_with(ranges, reply)?;
    Ok(Some(receiver))
}

/// How many faults there were on pages of `ranges`.
fn faults_of(stand: &Stand, ranges: &[PageRange]) -> Result<Option<usize>> {
    let Service::Session { session, .. } = &stand.service else { return Ok(None) };
    let pages: HashSet<_> = ranges.iter().flat_map(|range| range.pages()).collect();
    let faults = session.trace(0)?;
    Ok(Some(faults.iter().filter(|entry| pages.contains(&entry.page())).count()))
}

/// What another guest faulted on, and what was filled around it, in order.
fn record(
    contender: &Contender,
    bench: &Bench,
    recorder: SessionOptions,
    snapshots: &mut Snapshots,
) -> Result<Vec<PageRange>> {
    let handler = Handler::Uffd(recorder);
    let recorded = Contender { handler, cold: false, ..contender.clone() };
    let stand = Ready::open(&recorded, snapshots, &[])?.guest()?;
    // Work between the touches would only make the recording longer.
    stand.guest.thread(0).bench(Bench { work: 0, ..bench.clone() })?;
    let Service::Session { session, .. } = &stand.service else { return Ok(Vec::new()) };
    let trace = session.trace(0)?;
    let file = snapshots.file(contender.snapshot, false)?;
    let snapshot = SnapshotId::of_path(&file, session.layout().page_size())?;
    stand.take_down()?;
    Ok(Trace::new(snapshot, trace)?.ranges_with_neighbours())
}
