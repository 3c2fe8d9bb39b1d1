//! Figures, and what can be said of several of them.

use std::collections::BTreeMap;

use serde::Serialize;

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Until the handler listens.
    StartMs,
    /// From the first touch to the last, or from the first page filled to the last.
    TimeMs,
    /// Until every page of the working set is installed.
    WorkingSetMs,
    /// That time for each touch.
    PerPageUs,
    /// A read of a word at a random place.
    ReadNs,
    /// Memory of the guest in transparent huge pages, of 100 that it has.
    HugePercent,
    /// Latency of a touch, or of a madvise call.
    P50Us,
    P99Us,
    P999Us,
    MaxUs,
    /// Missing-page and write-protect faults that reached the handler.
    Faults,
    /// Of those, faults on pages that were to be prefaulted.
    TracedFaults,
    /// CPU time of the handler's thread.
    HandlerCpuMs,
    HandlerCpuPerFaultUs,
    /// CPU time of the handler's whole process.
    ProcessCpuMs,
    /// Context switches of the handler's thread.
    SwitchesPerFault,
    /// Memory the guest has of its own.
    GuestMib,
    /// That memory, in pages touched.
    MemoryPerTouch,
    /// That memory, in pages touched that the snapshot has data for.
    MemoryPerData,
    /// Latency of a madvise call, where touches are measured too.
    MadviseP50Us,
    MadviseP99Us,
    /// Pages installed by the prefault, of 100 it was asked for.
    PrefaultedPercent,
    /// CPU time of all idle sessions together, in percent of one core.
    IdleCpuPercent,
    /// Memory of an idle session in the handler's process.
    IdleKibPerGuest,
}

impl Metric {
    /// The heading of its column.
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::StartMs => "start ms",
            Self::TimeMs => "time ms",
            Self::WorkingSetMs => "all in ms",
            Self::PerPageUs => "µs/page",
            Self::ReadNs => "ns/read",
            Self::HugePercent => "huge %",
            Self::P50Us => "p50 µs",
            Self::P99Us => "p99 µs",
            Self::P999Us => "p99.9 µs",
            Self::MaxUs => "max µs",
            Self::Faults => "faults",
            Self::TracedFaults => "of traced pages",
            Self::HandlerCpuMs => "cpu ms",
            Self::HandlerCpuPerFaultUs => "cpu/fault µs",
            Self::ProcessCpuMs => "process ms",
            Self::SwitchesPerFault => "switches/fault",
            Self::GuestMib => "guest MiB",
            Self::MemoryPerTouch => "memory/touched",
            Self::MemoryPerData => "memory/data",
            Self::MadviseP50Us => "madvise p50 µs",
            Self::MadviseP99Us => "madvise p99 µs",
            Self::PrefaultedPercent => "prefaulted %",
            Self::IdleCpuPercent => "idle cpu %",
            Self::IdleKibPerGuest => "KiB/guest",
        }
    }
}

/// What was measured in one run of one contender.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Measure(BTreeMap<Metric, f64>);

impl Measure {
    pub(crate) fn set(&mut self, metric: Metric, value: f64) {
        if value.is_finite() {
            self.0.insert(metric, value);
        }
    }

    pub(crate) fn get(&self, metric: Metric) -> Option<f64> {
        self.0.get(&metric).copied()
    }
}

/// The middle of some figures and how far they reach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of some figures, unless there are none.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let (low, high) = (figures[(figures.len() - 1) / 2], figures[figures.len() / 2]);
        Some(Self { median: f64::midpoint(low, high), min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_median_and_ends() {
        let spread = |figures: &[f64]| Spread::of(figures.iter().copied());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some(Spread { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(spread(&[4.0, 1.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(spread(&[]), None);
    }
}
