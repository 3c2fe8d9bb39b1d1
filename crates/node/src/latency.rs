use std::time::Duration;

use napi_derive::napi;

/// How long faults took: from the moment the event was read to the end of the install. In
/// microseconds, with fractions.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct Latency {
    /// Faults measured.
    pub count: f64,
    /// The mean.
    pub mean: f64,
    /// Half of the faults took at most this long.
    pub p50: f64,
    /// 90 % of the faults.
    pub p90: f64,
    /// 99 % of the faults.
    pub p99: f64,
    /// 99.9 % of the faults.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

impl From<uffd_core::stats::Latency> for Latency {
    fn from(latency: uffd_core::stats::Latency) -> Self {
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        Self {
            count: latency.count as f64,
            mean: micros(latency.mean),
            p50: micros(latency.p50),
            p90: micros(latency.p90),
            p99: micros(latency.p99),
            p999: micros(latency.p999),
            max: micros(latency.max),
        }
    }
}
