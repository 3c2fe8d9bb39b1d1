//! Work with files, on a thread of the pool of Node.js. An error is a value there: a rejected
//! promise could not carry its code.

use std::path::PathBuf;
use std::sync::Arc;

use napi::{Either, Env, Task};
use uffd_core::trace::{SnapshotId, Trace, TraceEntry, TraceError};
use uffd_core::units::PageSize;

use super::{NativeTrace, Outcome};
use crate::error::ErrorInfo;
use crate::snapshot::Snapshot;
use crate::trace_words::from_words;

type TraceOrError = Either<NativeTrace, ErrorInfo>;

fn answer(outcome: Outcome<Trace>) -> TraceOrError {
    match outcome {
        Ok(trace) => Either::A(trace.into()),
        Err(error) => Either::B(error),
    }
}

/// Declares a task by its type of output and its work.
macro_rules! task {
    ($task:ty, $output:ty => $value:ty, $work:expr, $answer:expr) => {
        impl Task for $task {
            type Output = Outcome<$output>;
            type JsValue = $value;

            fn compute(&mut self) -> napi::Result<Self::Output> {
                let work: fn(&mut Self) -> Outcome<$output> = $work;
                Ok(work(self))
            }

            fn resolve(&mut self, _env: Env, outcome: Self::Output) -> napi::Result<Self::JsValue> {
                Ok($answer(outcome))
            }
        }
    };
}

pub struct LoadTrace {
    pub(super) path: PathBuf,
    /// Refuse the trace of any other.
    pub(super) snapshot: Option<PathBuf>,
}

task!(
    LoadTrace,
    Trace => TraceOrError,
    |task| {
        let trace = Trace::load(&task.path)?;
        if let Some(snapshot) = &task.snapshot {
            let id = SnapshotId::of_path(snapshot, trace.snapshot().page_size)?;
            let path = task.path.clone();
            trace.check(&id).map_err(|mismatch| TraceError::WrongSnapshot { path, mismatch })?;
        }
        Ok(trace)
    },
    answer
);

pub struct RecordTrace {
    snapshot: PathBuf,
    page_size: u32,
    entries: Vec<TraceEntry>,
}

impl RecordTrace {
    pub(super) fn new(snapshot: PathBuf, page_size: u32, words: &[u64]) -> Self {
        Self { snapshot, page_size, entries: from_words(words) }
    }
}

task!(
    RecordTrace,
    Trace => TraceOrError,
    |task| {
        let page_size = PageSize::from_bytes(u64::from(task.page_size))
            .ok_or_else(|| ErrorInfo::no_page_size(task.page_size))?;
        let snapshot = SnapshotId::of_path(&task.snapshot, page_size)?;
        Ok(Trace::new(snapshot, std::mem::take(&mut task.entries))?)
    },
    answer
);

pub struct TakeDown {
    snapshot: Arc<Snapshot>,
    page_size: PageSize,
    entries: Vec<TraceEntry>,
}

impl TakeDown {
    pub(crate) fn new(snapshot: Arc<Snapshot>, page_size: PageSize, words: &[u64]) -> Self {
        Self { snapshot, page_size, entries: from_words(words) }
    }
}

task!(
    TakeDown,
    Trace => TraceOrError,
    |task| {
        let snapshot = task.snapshot.id(task.page_size)?;
        Ok(Trace::new(snapshot, std::mem::take(&mut task.entries))?)
    },
    answer
);

pub struct CheckTrace {
    pub(crate) trace: Arc<Trace>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) page_size: PageSize,
}

task!(
    CheckTrace,
    () => Option<ErrorInfo>,
    |task| {
        // What differs in its page size is told without a look at the file.
        let id = match task.trace.snapshot().page_size == task.page_size {
            true => task.snapshot.id(task.page_size)?,
            false => task.trace.snapshot().with_page_size(task.page_size),
        };
        Ok(task.trace.check(&id)?)
    },
    Result::err
);

pub struct BelongsTo {
    pub(super) trace: Arc<Trace>,
    pub(super) path: PathBuf,
}

task!(
    BelongsTo,
    bool => Either<bool, ErrorInfo>,
    |task| {
        let id = SnapshotId::of_path(&task.path, task.trace.snapshot().page_size)?;
        Ok(task.trace.check(&id).is_ok())
    },
    |outcome| match outcome {
        Ok(belongs) => Either::A(belongs),
        Err(error) => Either::B(error),
    }
);

pub struct SaveTrace {
    pub(super) trace: Arc<Trace>,
    pub(super) path: PathBuf,
}

task!(SaveTrace, () => Option<ErrorInfo>, |task| Ok(task.trace.save(&task.path)?), Result::err);
