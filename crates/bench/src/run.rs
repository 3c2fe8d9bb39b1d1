//! Carries a plan out.

mod idle;
mod touched;

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use uffd_core::session::{PrefaultReport, Reply, SessionOptions};
use uffd_core::trace::{SnapshotId, Trace};
use uffd_core::units::PageRange;
use uffd_guest::driver::{Guest, Pending};
use uffd_guest::protocol::{Bench, BenchReport, Op};

use crate::Result;
use crate::host::Use;
use crate::measure::{Measure, Metric};
use crate::plan::{Ahead, Contender, Handler, Script};
use crate::snapshots::Snapshots;
use crate::stand::{Service, Stand};
use touched::Touched;

/// One run of one contender.
pub(crate) fn run(
    contender: &Contender,
    snapshots: &mut Snapshots,
    pinned: bool,
) -> Result<Measure> {
    if let Script::Idle { guests, millis } = contender.script {
        return idle::run(contender, guests, Duration::from_millis(millis), snapshots);
    }
    let ahead = ahead(contender, snapshots)?;
    let stand = Stand::set_up(contender, snapshots, &ahead)?;
    if pinned {
        stand.pin()?;
    }
    let measure = match &contender.script {
        Script::Touch { bench, .. } => touch(contender, &stand, bench, ahead)?,
        Script::Fill | Script::Idle { .. } => fill(contender, &stand)?,
        Script::GiveBack { run } => give_back(contender, &stand, *run)?,
        Script::Churn { bench } => churn(contender, &stand, bench)?,
    };
    stand.take_down()?;
    Ok(measure)
}

/// What is to be prefaulted.
fn ahead(contender: &Contender, snapshots: &mut Snapshots) -> Result<Vec<PageRange>> {
    let Script::Touch { ahead, .. } = &contender.script else { return Ok(Vec::new()) };
    match ahead {
        Ahead::Nothing => Ok(Vec::new()),
        Ahead::Pages(pages) => Ok(vec![PageRange::new(pages.start, pages.end)]),
        Ahead::Trace { of, recorder } => record(contender, of, **recorder, snapshots),
    }
}

fn touch(
    contender: &Contender,
    stand: &Stand,
    bench: &Bench,
    ahead: Vec<PageRange>,
) -> Result<Measure> {
    let mut measure = Measure::default();
    // The guest knows what to do and waits for the word, so that a prefault has no head start.
    let bench_done = when_told(&stand.guest, 0, bench);
    let before = (stand.faults()?, Use::now(stand.tid()));
    let begin = Instant::now();
    let prefault = prefault(stand, ahead.clone())?;
    tell(&stand.guest)?;
    let report = bench_done.get()?;
    let used = Use::now(stand.tid()).since(before.1);
    let faults = stand.faults()?.zip(before.0).map(|(after, before)| after - before);

    latencies(&mut measure, &report);
    let all_in = match prefault {
        Some(prefault) => {
            let (done, report) = prefault.recv()?;
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
    usage(&mut measure, stand, used, faults);
    memory(&mut measure, &stand.guest, Touched::by(bench, contender.snapshot))?;
    Ok(measure)
}

/// Has a thread of the guest wait for [`tell`] and then touch pages.
fn when_told(guest: &Guest, thread: u32, bench: &Bench) -> Pending<BenchReport> {
    // Answered when the guest is told, and not of interest.
    let _: Pending<()> = guest.start(thread, word());
    guest.thread(thread).start_bench(bench.clone())
}

fn tell(guest: &Guest) -> Result<()> {
    Ok(guest.call(u32::MAX, word())?)
}

fn word() -> Op {
    Op::Barrier { name: "start".into(), parties: 2 }
}

fn latencies(measure: &mut Measure, report: &BenchReport) {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    measure.set(Metric::TimeMs, report.nanos as f64 / 1e6);
    measure.set(Metric::P50Us, micros(report.latency.p50));
    measure.set(Metric::P99Us, micros(report.latency.p99));
    measure.set(Metric::P999Us, micros(report.latency.p999));
    measure.set(Metric::MaxUs, micros(report.latency.max));
}

fn usage(measure: &mut Measure, stand: &Stand, used: Use, faults: Option<u64>) {
    measure.set(Metric::ProcessCpuMs, used.process_cpu as f64 / 1e3);
    if stand.tid().is_some() {
        measure.set(Metric::HandlerCpuMs, used.cpu as f64 / 1e6);
    }
    if let Some(faults) = faults {
        measure.set(Metric::Faults, faults as f64);
        measure.set(Metric::HandlerCpuPerFaultUs, used.cpu as f64 / 1e3 / faults as f64);
        measure.set(Metric::SwitchesPerFault, used.switches as f64 / faults as f64);
    }
}

fn memory(measure: &mut Measure, guest: &Guest, touched: Touched) -> Result<()> {
    let resident = guest.rss()?.guest as f64;
    measure.set(Metric::GuestMib, resident / MIB);
    measure.set(Metric::MemoryPerTouch, resident / touched.bytes as f64);
    if touched.data_bytes < touched.bytes {
        measure.set(Metric::MemoryPerData, resident / touched.data_bytes as f64);
    }
    Ok(())
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
    let stand = Stand::set_up(&recorded, snapshots, &[])?;
    // Work between the touches would only make the recording longer.
    stand.guest.thread(0).bench(Bench { work: 0, ..bench.clone() })?;
    let Service::Session { session, .. } = &stand.service else { return Ok(Vec::new()) };
    let trace = session.trace(0)?;
    let file = snapshots.file(contender.snapshot, false)?;
    let snapshot = SnapshotId::of_path(&file, session.layout().page_size())?;
    stand.take_down()?;
    Ok(Trace::new(snapshot, trace)?.ranges_with_neighbours())
}

fn fill(contender: &Contender, stand: &Stand) -> Result<Measure> {
    let before = Use::now(stand.tid());
    let begin = Instant::now();
    match (&stand.service, contender.handler) {
        (Service::Raw(memory), Handler::RawCopy { mapped_before }) => {
            memory.fill(0, mapped_before)?;
        }
        (Service::Session { session, .. }, _) => {
            let report = session.prefault(vec![PageRange::new(0, contender.snapshot.pages)])?;
            if report.installed != contender.snapshot.pages {
                return Err(format!("the prefault fell short: {report:?}").into());
            }
        }
        _ => return Err("nobody can fill this guest".into()),
    }
    let time = begin.elapsed();
    let mut measure = Measure::default();
    measure.set(Metric::TimeMs, millis(time));
    usage(&mut measure, stand, Use::now(stand.tid()).since(before), None);
    measure.set(Metric::GuestMib, stand.guest.rss()?.guest as f64 / MIB);
    Ok(measure)
}

fn give_back(contender: &Contender, stand: &Stand, run: u64) -> Result<Measure> {
    let mut measure = Measure::default();
    let before = Use::now(stand.tid());
    let report = stand.guest.thread(0).madvise_bench(0, contender.snapshot.pages, run)?;
    latencies(&mut measure, &report);
    usage(&mut measure, stand, Use::now(stand.tid()).since(before), None);
    Ok(measure)
}

fn churn(contender: &Contender, stand: &Stand, bench: &Bench) -> Result<Measure> {
    let pages = contender.snapshot.pages;
    let mut measure = Measure::default();
    let before = (stand.faults()?, Use::now(stand.tid()));
    let touches = stand.guest.thread(0).start_bench(bench.clone());
    let gives = stand.guest.thread(1).start_madvise_bench(pages / 2, pages - pages / 2, 1);
    let (touches, gives) = (touches.get()?, gives.get()?);
    let used = Use::now(stand.tid()).since(before.1);
    let faults = stand.faults()?.zip(before.0).map(|(after, before)| after - before);
    latencies(&mut measure, &touches);
    measure.set(Metric::MadviseP50Us, gives.latency.p50 as f64 / 1e3);
    measure.set(Metric::MadviseP99Us, gives.latency.p99 as f64 / 1e3);
    usage(&mut measure, stand, used, faults);
    Ok(measure)
}

const MIB: f64 = 1_048_576.0;

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
