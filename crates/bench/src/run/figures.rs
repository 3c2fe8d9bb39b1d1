//! From what was seen to figures.

use std::slice;
use std::time::Duration;

use uffd_guest::driver::Guest;
use uffd_guest::protocol::BenchReport;

use super::touched::Touched;
use crate::Result;
use crate::host::{self, Use};
use crate::measure::{Measure, Metric};
use crate::stand::Stand;

pub(super) fn latencies(measure: &mut Measure, report: &BenchReport) {
    let micros = |nanos: u64| nanos as f64 / 1e3;
    measure.set(Metric::TimeMs, report.nanos as f64 / 1e6);
    measure.set(Metric::P50Us, micros(report.latency.p50));
    measure.set(Metric::P99Us, micros(report.latency.p99));
    measure.set(Metric::P999Us, micros(report.latency.p999));
    measure.set(Metric::MaxUs, micros(report.latency.max));
}

/// What handlers use up.
pub(super) struct Meter<'a> {
    stands: &'a [Stand],
    faults: Option<u64>,
    used: Use,
}

impl<'a> Meter<'a> {
    /// From now on.
    pub(super) fn start(stand: &'a Stand) -> Result<Self> {
        Self::of_all(slice::from_ref(stand))
    }

    /// From now on, those of all of them.
    pub(super) fn of_all(stands: &'a [Stand]) -> Result<Self> {
        Ok(Self { stands, faults: faults(stands)?, used: used(stands) })
    }

    /// Until now.
    pub(super) fn stop(self, measure: &mut Measure) {
        self.used(measure);
    }

    /// Until now, and what it is for each fault.
    pub(super) fn stop_with_faults(self, measure: &mut Measure) -> Result<()> {
        let used = self.used(measure);
        if let Some((after, before)) = faults(self.stands)?.zip(self.faults) {
            let faults = (after - before) as f64;
            measure.set(Metric::Faults, faults);
            measure.set(Metric::HandlerCpuPerFaultUs, used.cpu as f64 / 1e3 / faults);
            measure.set(Metric::SwitchesPerFault, used.switches as f64 / faults);
        }
        Ok(())
    }

    fn used(&self, measure: &mut Measure) -> Use {
        let used = used(self.stands).since(self.used);
        measure.set(Metric::ProcessCpuMs, used.process_cpu as f64 / 1e3);
        if self.stands.iter().any(|stand| stand.tid().is_some()) {
            measure.set(Metric::HandlerCpuMs, used.cpu as f64 / 1e6);
        }
        used
    }
}

/// Of all of them, if each is served.
fn faults(stands: &[Stand]) -> Result<Option<u64>> {
    stands.iter().map(Stand::faults).sum()
}

/// By the threads that serve, and by those that fetch and copy for them.
fn used(stands: &[Stand]) -> Use {
    let helpers = ["uffd-crew", "uffd-fetch"].into_iter().flat_map(host::threads);
    Use::now(stands.iter().filter_map(Stand::tid).chain(helpers))
}

pub(super) fn memory(measure: &mut Measure, guest: &Guest, touched: Touched) -> Result<()> {
    let resident = guest.rss()?.guest as f64;
    measure.set(Metric::GuestMib, resident / MIB);
    measure.set(Metric::MemoryPerTouch, resident / touched.bytes as f64);
    if touched.data_bytes < touched.bytes {
        measure.set(Metric::MemoryPerData, resident / touched.data_bytes as f64);
    }
    Ok(())
}

pub(super) const MIB: f64 = 1_048_576.0;

pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
