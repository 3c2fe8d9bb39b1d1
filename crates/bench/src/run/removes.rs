//! Memory that is given back.

use uffd_guest::protocol::Bench;

use super::figures::{Meter, latencies};
use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::Contender;
use crate::stand::Stand;

pub(super) fn give_back(contender: &Contender, stand: &Stand, run: u64) -> Result<Measure> {
    let mut measure = Measure::default();
    let meter = Meter::start(stand)?;
    let report = stand.guest.thread(0).madvise_bench(0, contender.snapshot.pages, run)?;
    latencies(&mut measure, &report);
    meter.stop(&mut measure);
    Ok(measure)
}

pub(super) fn churn(contender: &Contender, stand: &Stand, bench: &Bench) -> Result<Measure> {
    let pages = contender.snapshot.pages;
    let mut measure = Measure::default();
    let meter = Meter::start(stand)?;
    let touches = stand.guest.thread(0).start_bench(bench.clone());
    let gives = stand.guest.thread(1).start_madvise_bench(pages / 2, pages - pages / 2, 1);
    let (touches, gives) = (touches.get()?, gives.get()?);
    meter.stop_with_faults(&mut measure)?;
    latencies(&mut measure, &touches);
    measure.set(Metric::MadviseP50Us, gives.latency.p50 as f64 / 1e3);
    measure.set(Metric::MadviseP99Us, gives.latency.p99 as f64 / 1e3);
    Ok(measure)
}
