//! Counters of a session and the latency of its faults.

use std::time::Duration;

use hdrhistogram::Histogram;

pub use crate::metrics::Counters;
use crate::metrics::StateCounts;

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
