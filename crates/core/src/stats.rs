//! Counters of a session and the latency of its faults.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::states::StateCounts;

/// Declares the counters once: the struct, and its words in the order given.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What a session has done so far. Counts never go down.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// How many counters there are.
            pub const COUNT: usize = [$(stringify!($name)),+].len();

            /// Their values, in a fixed order.
            pub const fn to_words(&self) -> [u64; Self::COUNT] {
                [$(self.$name),+]
            }

            /// The counters with these values.
            pub const fn from_words(words: [u64; Self::COUNT]) -> Self {
                let [$($name),+] = words;
                Self { $($name),+ }
            }
        }
    };
}

counters! {
    /// Missing-page faults served whose thread wanted to read.
    read_faults,
    /// Missing-page faults served whose thread wanted to write.
    write_faults,
    /// Write-protect faults served.
    protect_faults,
    /// Faults of another thread on a page whose fault was already in hand; served with it.
    duplicate_faults,
    /// Faults on pages that were unmapped before they could be served; their threads were woken.
    stray_faults,

    /// Pages installed with the source's bytes, whatever for.
    source_pages,
    /// Pages installed as zeros, whatever for.
    zero_pages,
    /// Of the pages installed, those around a fault that nobody had asked for yet.
    neighbour_pages,
    /// Of the pages installed, those of a prefault.
    prefault_pages,
    /// Bytes copied into the guest, zeros that had to be copied included.
    copied_bytes,

    /// REMOVE events.
    remove_events,
    /// Pages they covered, counted each time.
    removed_pages,

    /// Times that work was put off because the address space was changing (EAGAIN).
    deferred,
    /// Times that an install was tried again, whatever had stopped it.
    retried,
    /// Installs that met a page already present.
    already_present,
    /// Wakes on their own, without an install.
    wakes,
    /// Installs for which there was no memory.
    out_of_memory,
    /// Reads of the source made away from the fault loop.
    fetches,
    /// Of those, the ones that failed.
    failed_fetches,
    /// Pages poisoned because they could not be had.
    poisoned_pages,
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
