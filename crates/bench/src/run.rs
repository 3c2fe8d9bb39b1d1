//! Carries a plan out.

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use uffd_core::session::{PrefaultReport, Reply, SessionOptions};
use uffd_core::units::PageRange;
use uffd_guest::protocol::{Bench, BenchReport, Order};

use crate::Result;
use crate::host::Use;
use crate::measure::{Measure, Metric};
use crate::plan::{Ahead, Contender, Handler, Script};
use crate::snapshots::Snapshots;
use crate::stand::{Service, Stand};

/// One run of one contender.
pub(crate) fn run(contender: &Contender, snapshots: &mut Snapshots) -> Result<Measure> {
    let traced = match &contender.script {
        Script::Touch { ahead: Ahead::Trace { of, recorder }, .. } => {
            record(contender, of, **recorder, snapshots)?
        }
        _ => Vec::new(),
    };
    let file = snapshots.file(contender.snapshot, contender.cold)?;
    let stand = Stand::set_up(contender, &file, snapshots.dir())?;
    let measure = match &contender.script {
        Script::Touch { bench, .. } => touch(contender, &stand, bench, traced)?,
        Script::Fill => fill(contender, &stand)?,
    };
    stand.take_down()?;
    Ok(measure)
}

fn touch(
    contender: &Contender,
    stand: &Stand,
    bench: &Bench,
    ahead: Vec<PageRange>,
) -> Result<Measure> {
    let mut measure = Measure::default();
    let before = (stand.faults()?, Use::now(stand.tid()));
    let begin = Instant::now();
    let prefault = prefault(stand, ahead)?;
    let report = stand.guest.thread(0).bench(bench.clone())?;
    let used = Use::now(stand.tid()).since(before.1);
    let faults = stand.faults()?.zip(before.0).map(|(after, before)| after - before);

    latencies(&mut measure, &report);
    let all_in = match prefault {
        Some(prefault) => prefault.recv()?.0.duration_since(begin),
        None => Duration::from_nanos(report.nanos),
    };
    measure.set(Metric::WorkingSetMs, millis(all_in));
    usage(&mut measure, stand, used, faults);
    let memory = stand.guest.rss()?;
    let resident = memory.guest as f64;
    measure.set(Metric::GuestMib, resident / f64::from(1 << 20));
    let touched = distinct(bench).unwrap_or(report.touches) * contender.snapshot.page_size;
    measure.set(Metric::MemoryPerTouch, resident / touched as f64);
    Ok(measure)
}

/// Different pages in a list; every other order has each page once.
fn distinct(bench: &Bench) -> Option<u64> {
    match &bench.order {
        Order::List(pages) => Some(pages.iter().collect::<HashSet<_>>().len() as u64),
        _ => None,
    }
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

/// What another guest faulted on, in order, as runs of pages.
fn record(
    contender: &Contender,
    bench: &Bench,
    recorder: SessionOptions,
    snapshots: &mut Snapshots,
) -> Result<Vec<PageRange>> {
    let file = snapshots.file(contender.snapshot, false)?;
    let recorded = Contender { handler: Handler::Uffd(recorder), ..contender.clone() };
    let stand = Stand::set_up(&recorded, &file, snapshots.dir())?;
    // Work between the touches would only make the recording longer.
    stand.guest.thread(0).bench(Bench { work: 0, ..bench.clone() })?;
    let Service::Session { session, .. } = &stand.service else { return Ok(Vec::new()) };
    let trace = session.trace(0)?;
    stand.take_down()?;
    let mut runs: Vec<PageRange> = Vec::new();
    for page in trace.iter().map(|entry| entry.page()) {
        match runs.last_mut() {
            Some(run) if run.end == page => run.end = page.next(),
            _ => runs.push(PageRange::single(page)),
        }
    }
    Ok(runs)
}

fn fill(contender: &Contender, stand: &Stand) -> Result<Measure> {
    let before = Use::now(stand.tid());
    let begin = Instant::now();
    match (&stand.service, contender.handler) {
        (Service::Raw(memory), Handler::RawCopy { mapped_before }) => memory.fill(mapped_before)?,
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
    measure.set(Metric::GuestMib, stand.guest.rss()?.guest as f64 / f64::from(1 << 20));
    Ok(measure)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
