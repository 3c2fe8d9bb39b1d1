use napi_derive::napi;
use uffd_core::trace::{SnapshotId, TraceStats};

/// Which snapshot a trace belongs to.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct TraceSnapshot {
    /// The length of the memory file in bytes.
    pub length: u64,
    /// A hash of samples of its contents.
    pub fingerprint: String,
}

impl From<SnapshotId> for TraceSnapshot {
    fn from(id: SnapshotId) -> Self {
        Self { length: id.length, fingerprint: id.fingerprint.to_string() }
    }
}

/// What a trace amounts to.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct TraceSummary {
    /// Pages in the trace.
    pub pages: f64,
    /// Their bytes.
    pub bytes: u64,
    /// Pages whose first touch was a write.
    pub writes: f64,
    /// Pages that a replay prefaults.
    pub replayed: f64,
    /// The time from the earliest touch to the latest, in microseconds.
    pub span_micros: f64,
}

impl From<TraceStats> for TraceSummary {
    fn from(stats: TraceStats) -> Self {
        Self {
            pages: stats.pages as f64,
            bytes: stats.bytes,
            writes: stats.writes as f64,
            replayed: stats.replayed as f64,
            span_micros: stats.span.as_nanos() as f64 / 1e3,
        }
    }
}
