//! The table of the core, and values in its order.

use std::sync::Arc;

use napi::bindgen_prelude::{AsyncTask, Buffer};
use napi::{Either, Env, Task};
use napi_derive::napi;
use uffd_core::metrics::{self, Kind, Scope};
use uffd_core::view::{Picture, View};

use crate::error::ErrorInfo;

/// What kind of number a metric is.
#[napi(string_enum = "lowercase")]
#[derive(Debug)]
pub enum MetricKind {
    /// Never goes down while the process lives.
    Counter,
    /// How things stand now.
    Gauge,
    /// Times in buckets.
    Histogram,
}

/// Whose a metric is.
#[napi(string_enum = "lowercase")]
#[derive(Debug)]
pub enum MetricScope {
    /// Each guest's; a server's is the sum.
    Guest,
    /// The server's alone.
    Server,
}

/// A metric.
#[napi(object, object_from_js = false)]
pub struct Metric {
    /// Its name by the conventions of Prometheus, without the `_total` of a counter.
    pub name: String,
    /// Its kind.
    pub kind: MetricKind,
    /// Whose it is.
    pub scope: MetricScope,
    /// `seconds`, `pages` or `bytes`; the name ends with it.
    pub unit: Option<String>,
    /// What it is, in a sentence.
    pub help: String,
    /// Its series: one at least.
    pub series: Vec<MetricSeries>,
    /// The bounds of a histogram's buckets, in its unit; one more has no bound.
    pub bounds: Vec<f64>,
}

/// A series of a metric.
#[napi(object, object_from_js = false)]
pub struct MetricSeries {
    /// The name of the number in statistics; a histogram's has none.
    pub field: Option<String>,
    /// What it is, in a sentence, where the metric does not say it.
    pub help: Option<String>,
    /// What tells it from the others of the metric.
    pub labels: Vec<MetricLabel>,
}

/// A label of a series.
#[napi(object, object_from_js = false)]
pub struct MetricLabel {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// All metrics: those of a guest, then those of a server alone.
#[napi(catch_unwind)]
pub fn metrics() -> Vec<Metric> {
    metrics::metrics().into_iter().map(Metric::from).collect()
}

impl From<metrics::Metric> for Metric {
    fn from(metric: metrics::Metric) -> Self {
        Self {
            name: metric.name.to_owned(),
            kind: match metric.kind {
                Kind::Counter => MetricKind::Counter,
                Kind::Gauge => MetricKind::Gauge,
                Kind::Histogram => MetricKind::Histogram,
            },
            scope: match metric.scope {
                Scope::Guest => MetricScope::Guest,
                Scope::Server => MetricScope::Server,
            },
            unit: metric.unit.map(str::to_owned),
            help: metric.help.to_owned(),
            series: metric.series.into_iter().map(MetricSeries::from).collect(),
            bounds: metric.bounds,
        }
    }
}

impl From<metrics::Series> for MetricSeries {
    fn from(series: metrics::Series) -> Self {
        let label = |(name, value): (&str, &str)| MetricLabel {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        Self {
            field: series.field.map(camel_case),
            help: Some(series.help.to_owned()).filter(|help| !help.is_empty()),
            labels: series.labels.into_iter().map(label).collect(),
        }
    }
}

/// The name that a field of Rust has in JavaScript.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (initial, rest) = word.split_at(word.len().min(1));
        name + &initial.to_ascii_uppercase() + rest
    })
}

/// A guest's memory as a picture.
#[napi(object, object_from_js = false)]
pub struct MemoryPicture {
    /// How many pages a cell stands for; the last may have fewer.
    pub pages_per_cell: f64,
    /// Six bytes a cell, in page order: the share of its pages that is unfaulted, clean, zero,
    /// dirty, removed and poisoned, out of 255. A cell of pages that the guest has not has zeros.
    pub shares: Buffer,
}

impl From<Picture> for MemoryPicture {
    fn from(picture: Picture) -> Self {
        Self { pages_per_cell: picture.pages_per_cell as f64, shares: picture.shares().into() }
    }
}

/// What there is of a guest to take a picture of.
pub(crate) enum Sitter {
    Served(Arc<View>),
    /// The picture that was kept of its end.
    Ended(Option<Picture>),
}

/// Takes a picture, on a thread of the pool of Node.js.
pub struct TakePicture {
    sitter: Sitter,
    cells: usize,
}

impl TakePicture {
    pub(crate) fn of(sitter: Sitter, cells: u32) -> AsyncTask<Self> {
        AsyncTask::new(Self { sitter, cells: cells as usize })
    }
}

impl Task for TakePicture {
    type Output = Result<Picture, ErrorInfo>;
    type JsValue = Either<MemoryPicture, ErrorInfo>;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        Ok(match &mut self.sitter {
            Sitter::Served(view) => view.picture(self.cells).map_err(|error| {
                ErrorInfo::resources(format!("cannot look at the page states of a guest: {error}"))
            }),
            Sitter::Ended(kept) => kept.take().ok_or_else(ErrorInfo::guest_ended),
        })
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(match output {
            Ok(picture) => Either::A(picture.into()),
            Err(error) => Either::B(error),
        })
    }
}
