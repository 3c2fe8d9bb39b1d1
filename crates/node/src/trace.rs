//! Traces. What reads or writes a file runs off the JavaScript thread.

mod info;
pub(crate) mod tasks;

use std::path::PathBuf;
use std::sync::Arc;

use napi::bindgen_prelude::{AsyncTask, BigUint64Array, ClassInstance, Float64Array};
use napi_derive::napi;
use uffd_core::trace::{Merge, Trace};

use self::info::{TraceSnapshot, TraceSummary};
use self::tasks::{BelongsTo, LoadTrace, RecordTrace, SaveTrace};
use crate::error::{ErrorInfo, Thrown};
use crate::trace_words::to_words;

/// Which pages of several traces are kept.
#[napi(string_enum = "lowercase")]
#[derive(Debug)]
pub enum MergeOption {
    /// Those of any.
    Union,
    /// Those of all.
    Intersection,
}

/// The trace of one snapshot. Never changes.
#[napi]
pub struct NativeTrace {
    trace: Arc<Trace>,
}

impl From<Trace> for NativeTrace {
    fn from(trace: Trace) -> Self {
        Self { trace: Arc::new(trace) }
    }
}

impl NativeTrace {
    pub(crate) fn shared(&self) -> Arc<Trace> {
        Arc::clone(&self.trace)
    }
}

/// Loads a trace from a file; with a snapshot, refuses the trace of any other.
#[napi(catch_unwind, ts_return_type = "Promise<NativeTrace | ErrorInfo>")]
pub fn load_trace(path: String, snapshot: Option<String>) -> AsyncTask<LoadTrace> {
    AsyncTask::new(LoadTrace { path: path.into(), snapshot: snapshot.map(PathBuf::from) })
}

/// Makes a trace of first touches, two words each, and of the snapshot they were made on.
#[napi(catch_unwind, ts_return_type = "Promise<NativeTrace | ErrorInfo>")]
pub fn record_trace(
    snapshot: String,
    page_size: u32,
    words: BigUint64Array,
) -> AsyncTask<RecordTrace> {
    AsyncTask::new(RecordTrace::new(PathBuf::from(snapshot), page_size, &words))
}

#[napi]
impl NativeTrace {
    /// The page size of the guest it was recorded from, in bytes.
    #[napi(getter, catch_unwind)]
    pub fn page_size(&self) -> f64 {
        self.trace.snapshot().page_size.bytes() as f64
    }

    /// Whether the memory file at this path is the snapshot it belongs to.
    #[napi(catch_unwind, ts_return_type = "Promise<boolean | ErrorInfo>")]
    pub fn belongs_to(&self, snapshot: String) -> AsyncTask<BelongsTo> {
        AsyncTask::new(BelongsTo { trace: self.shared(), path: snapshot.into() })
    }

    /// The snapshot it belongs to.
    #[napi(getter, catch_unwind)]
    pub fn snapshot(&self) -> TraceSnapshot {
        self.trace.snapshot().into()
    }

    /// The program that made it, and its version.
    #[napi(getter, catch_unwind)]
    pub fn created_by(&self) -> &str {
        self.trace.created_by()
    }

    /// What it amounts to.
    #[napi(catch_unwind)]
    pub fn summary(&self) -> TraceSummary {
        self.trace.stats().into()
    }

    /// Its entries, two words each.
    #[napi(catch_unwind)]
    pub fn words(&self) -> BigUint64Array {
        to_words(self.trace.entries())
    }

    /// The pages to prefault, in order: pairs of a first page and the page after the last.
    #[napi(catch_unwind)]
    pub fn ranges(&self) -> Float64Array {
        let pair = |range: uffd_core::units::PageRange| [range.start.0 as f64, range.end.0 as f64];
        self.trace.ranges_with_neighbours().into_iter().flat_map(pair).collect::<Vec<_>>().into()
    }

    /// The view for people.
    #[napi(catch_unwind)]
    pub fn to_json(&self) -> String {
        self.trace.to_json()
    }

    /// This trace and others of the same snapshot as one.
    #[napi(catch_unwind)]
    pub fn merge(
        &self,
        how: MergeOption,
        others: Vec<ClassInstance<NativeTrace>>,
    ) -> Result<Self, Thrown> {
        let how = match how {
            MergeOption::Union => Merge::Union,
            MergeOption::Intersection => Merge::Intersection,
        };
        let others: Vec<Trace> = others.iter().map(|other| Trace::clone(&other.trace)).collect();
        match self.trace.merge(how, &others) {
            Ok(merged) => Ok(merged.into()),
            Err(error) => Err(Thrown::new(error.code(), format!("A trace to merge was {error}"))),
        }
    }

    /// Saves it, all or nothing: resolves when it is on disk, or with why it is not.
    #[napi(catch_unwind, ts_return_type = "Promise<ErrorInfo | undefined>")]
    pub fn save(&self, path: String) -> AsyncTask<SaveTrace> {
        AsyncTask::new(SaveTrace { trace: self.shared(), path: path.into() })
    }
}

/// What a task ends with: the value, or why there is none.
type Outcome<T> = Result<T, ErrorInfo>;
