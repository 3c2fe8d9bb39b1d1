//! The table as data: each metric with its series, and values in the same order.

use super::distribution::{BOUNDS, FaultClass};
use super::figures::Reading;
use super::totals::ServerReading;
use super::{Ahead, Counters, Holdings, ServerCounters, StateCounts};

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// Empty where its one series says it.
    pub(crate) help: &'static str,
    pub(crate) series: &'static [LineSeries],
}

/// A number in a line of the table.
#[derive(Debug)]
pub(crate) struct LineSeries {
    pub(crate) field: &'static str,
    /// What it is, in a sentence.
    pub(crate) doc: &'static str,
    pub(crate) label: Option<(&'static str, &'static str)>,
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Never goes down while the process lives.
    Counter,
    /// How things stand now.
    Gauge,
    /// Times in buckets.
    Histogram,
}

/// Whose a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each guest's; a server's is the sum.
    Guest,
    /// The server's alone.
    Server,
}

/// A metric.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Its name by the conventions of Prometheus, without the `_total` of a counter.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Whose it is.
    pub scope: Scope,
    /// `seconds`, `pages`, `bytes` or none; the name ends with it.
    pub unit: Option<&'static str>,
    /// What it is, in a sentence.
    pub help: &'static str,
    /// Its series: one at least.
    pub series: Vec<Series>,
    /// The bounds of a histogram's buckets, in its unit; one more has no bound.
    pub bounds: Vec<f64>,
}

/// A series of a metric.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name of the number in statistics; a histogram's has none.
    pub field: Option<&'static str>,
    /// What it is, in a sentence; empty where the metric says it.
    pub help: &'static str,
    /// What tells it from the others of the metric.
    pub labels: Vec<(&'static str, &'static str)>,
}

/// All metrics: those of a guest, then those of a server alone.
pub fn metrics() -> Vec<Metric> {
    let lines = [
        (Counters::METRICS, Kind::Counter, Scope::Guest),
        (StateCounts::METRICS, Kind::Gauge, Scope::Guest),
        (Ahead::METRICS, Kind::Gauge, Scope::Guest),
        (ServerCounters::METRICS, Kind::Counter, Scope::Server),
        (Holdings::METRICS, Kind::Gauge, Scope::Server),
    ];
    let simple = lines.into_iter().flat_map(|(lines, kind, scope)| {
        lines.iter().map(move |line| Metric::of(line, kind, scope))
    });
    std::iter::once(fault_seconds()).chain(simple).collect()
}

fn fault_seconds() -> Metric {
    let series = FaultClass::all().map(|class| Series {
        field: None,
        help: "",
        labels: class.labels().to_vec(),
    });
    Metric {
        name: "uffd_fault_seconds",
        kind: Kind::Histogram,
        scope: Scope::Guest,
        unit: Some("seconds"),
        help: "Time from the read of a page fault to the end of the install that served it, by \
               what its thread wanted and what the page was filled with.",
        series: series.collect(),
        bounds: BOUNDS.map(|nanos| nanos as f64 / 1e9).to_vec(),
    }
}

impl Metric {
    fn of(line: &Line, kind: Kind, scope: Scope) -> Self {
        let alone = line.series.len() == 1;
        let series = line.series.iter().map(|series| Series {
            field: Some(series.field),
            help: if alone { "" } else { series.doc },
            labels: series.label.into_iter().collect(),
        });
        Self {
            name: line.name,
            kind,
            scope,
            unit: (line.unit != "events").then_some(line.unit),
            help: if alone { line.series[0].doc } else { line.help },
            series: series.collect(),
            bounds: Vec::new(),
        }
    }
}

impl Reading {
    /// The values of a guest's metrics, series by series in the order of [`metrics`]. A histogram
    /// has a count for each bucket, and then the sum.
    pub fn values(&self) -> Vec<f64> {
        let latencies = self.latencies.iter().flat_map(|latency| {
            let counts = latency.counts.iter().map(|count| *count as f64);
            counts.chain([latency.nanos as f64 / 1e9])
        });
        let words = [
            self.counters.to_words().as_slice(),
            self.pages.to_words().as_slice(),
            self.ahead.to_words().as_slice(),
        ]
        .concat();
        latencies.chain(words.into_iter().map(|word| word as f64)).collect()
    }
}

impl ServerReading {
    /// The values of all metrics, in the order of [`metrics`].
    pub fn values(&self) -> Vec<f64> {
        let mut values = self.guests.values();
        values.extend(self.server.to_words().map(|word| word as f64));
        values.extend(self.holdings.to_words().map(|word| word as f64));
        values
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::super::Totals;
    use super::*;

    #[test]
    fn no_metric_no_series_and_no_number_is_described_twice() {
        let metrics = metrics();
        let mut names = HashSet::new();
        let mut fields = HashSet::new();
        for metric in &metrics {
            assert!(names.insert(metric.name), "{} is described twice", metric.name);
            let mut labels = HashSet::new();
            for series in &metric.series {
                assert!(labels.insert(&series.labels), "{}: {:?}", metric.name, series.labels);
                if let Some(field) = series.field {
                    assert!(fields.insert(field), "{field} is described twice");
                }
            }
        }
    }

    #[test]
    fn every_number_belongs_to_a_metric() {
        let all = [
            Counters::COUNT,
            StateCounts::COUNT,
            Ahead::COUNT,
            ServerCounters::COUNT,
            Holdings::COUNT,
        ];
        let described = metrics().iter().flat_map(|metric| &metric.series).count();
        assert_eq!(described, all.iter().sum::<usize>() + FaultClass::COUNT);
    }

    #[test]
    fn names_units_and_helps_follow_the_conventions() {
        for Metric { name, kind, unit, help, series, bounds, .. } in metrics() {
            let is_name = |text: &str| {
                text.starts_with(|first: char| first.is_ascii_lowercase())
                    && text.chars().all(|char| char.is_ascii_lowercase() || "_".contains(char))
            };
            assert!(is_name(name) && name.starts_with("uffd_"), "{name}");
            for suffix in ["_total", "_count", "_sum", "_bucket", "_info", "_created"] {
                assert!(!name.ends_with(suffix), "{name} ends with {suffix}");
            }
            for word in ["seconds", "pages", "bytes"] {
                let ends_with = name.ends_with(&format!("_{word}"));
                assert_eq!(unit == Some(word), ends_with, "{name} is in {unit:?}");
            }
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help:?}");
            for Series { labels, help, .. } in &series {
                assert_eq!(series.len() > 1, !labels.is_empty(), "{name}: {labels:?}");
                assert!(labels.iter().all(|(label, _)| is_name(label) && *label != "le"));
                assert!(help.is_empty() || help.ends_with('.'), "{name}: {help:?}");
            }
            assert_eq!(kind == Kind::Histogram, !bounds.is_empty(), "{name}");
        }
    }

    #[test]
    fn there_is_a_value_for_each_series_and_bucket() {
        let values = |metric: &Metric| match metric.kind {
            Kind::Histogram => metric.series.len() * (metric.bounds.len() + 2),
            Kind::Counter | Kind::Gauge => metric.series.len(),
        };
        let all = metrics();
        let expected: usize = all.iter().map(values).sum();
        assert_eq!(Arc::<Totals>::default().read().values().len(), expected);
        let guests = all.iter().filter(|metric| metric.scope == Scope::Guest);
        assert_eq!(Reading::default().values().len(), guests.map(values).sum::<usize>());
        assert!(all.is_sorted_by_key(|metric| metric.scope == Scope::Server));
    }
}
