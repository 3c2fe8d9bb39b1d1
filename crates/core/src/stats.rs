//! Counters of a session and the latency of its faults.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::states::StateCounts;

/// What a session has done so far. Counts never go down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Missing-page faults served whose thread wanted to read.
    pub read_faults: u64,
    /// Missing-page faults served whose thread wanted to write.
    pub write_faults: u64,
    /// Write-protect faults served.
    pub protect_faults: u64,
    /// Faults of another thread on a page whose fault was already in hand; served with it.
    pub duplicate_faults: u64,
    /// Faults on pages that were unmapped before they could be served; their threads were woken.
    pub stray_faults: u64,

    /// Pages installed with the source's bytes, whatever for.
    pub source_pages: u64,
    /// Pages installed as zeros, whatever for.
    pub zero_pages: u64,
    /// Of the pages installed, those around a fault that nobody had asked for yet.
    pub neighbour_pages: u64,
    /// Of the pages installed, those of a prefault.
    pub prefault_pages: u64,
    /// Bytes copied into the guest, zeros that had to be copied included.
    pub copied_bytes: u64,

    /// REMOVE events.
    pub remove_events: u64,
    /// Pages they covered, counted each time.
    pub removed_pages: u64,

    /// Times that work was put off because the address space was changing (EAGAIN).
    pub deferred: u64,
    /// Times that an install was tried again, whatever had stopped it.
    pub retried: u64,
    /// Installs that met a page already present.
    pub already_present: u64,
    /// Wakes on their own, without an install.
    pub wakes: u64,
    /// Installs for which there was no memory.
    pub out_of_memory: u64,
    /// Reads of the source made away from the fault loop.
    pub fetches: u64,
    /// Of those, the ones that failed.
    pub failed_fetches: u64,
    /// Pages poisoned because they could not be had.
    pub poisoned_pages: u64,
}

impl Counters {
    /// Faults served, of every kind.
    pub const fn faults(&self) -> u64 {
        self.read_faults + self.write_faults + self.protect_faults
    }
}

/// The state of a session at one moment.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Time since the handoff.
    pub uptime: Duration,
    /// What was done since the handoff.
    pub counters: Counters,
    /// Pages by state, now.
    pub pages: StateCounts,
    /// Faults in hand: read, and not served yet.
    pub faults_in_hand: u64,
    /// Latency of the faults served.
    pub latency: Latency,
}

/// A summary of fault latencies: from the moment the event was read to the end of the install.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Faults measured.
    pub count: u64,
    /// The mean.
    pub mean: Duration,
    /// Half of the faults took at most this long.
    pub p50: Duration,
    /// 90 % of the faults.
    pub p90: Duration,
    /// 99 % of the faults.
    pub p99: Duration,
    /// 99.9 % of the faults.
    pub p999: Duration,
    /// The slowest.
    pub max: Duration,
}

/// Fault latencies in nanoseconds, two significant digits, from 128 ns to about a minute.
#[derive(Debug)]
pub(crate) struct LatencyHistogram(Histogram<u64>);

impl LatencyHistogram {
    const LOWEST: u64 = 128;
    const HIGHEST: u64 = 1 << 36;

    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(Self::LOWEST, Self::HIGHEST, 2)
            .expect("constant bounds that the histogram accepts");
        Self(histogram)
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn summary(&self) -> Latency {
        if self.0.is_empty() {
            return Latency::default();
        }
        let at = |quantile| Duration::from_nanos(self.0.value_at_quantile(quantile));
        Latency {
            count: self.0.len(),
            mean: Duration::from_secs_f64(self.0.mean() / 1e9),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_nanos(self.0.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_keep_two_digits_and_saturate() {
        let mut histogram = LatencyHistogram::new();
        assert_eq!(histogram.summary(), Latency::default());
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let summary = histogram.summary();
        assert_eq!(summary.count, 1000);
        let near = |value: Duration, micros: u64| {
            let micros = Duration::from_micros(micros);
            value.abs_diff(micros) <= micros / 64
        };
        assert!(near(summary.p50, 500) && near(summary.p99, 990), "{summary:?}");
        histogram.record(Duration::from_secs(10_000));
        assert!(histogram.summary().max > Duration::from_secs(60));
    }
}
