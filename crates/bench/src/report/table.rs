//! Tables for a terminal.

use std::fmt::Write;
use std::time::Duration;

use crate::measure::{Metric, Spread};
use crate::results::{Results, WorkloadResults};

/// The columns of a workload, as far as it has them.
const COLUMNS: [Metric; 23] = [
    Metric::StartMs,
    Metric::TimeMs,
    Metric::WorkingSetMs,
    Metric::PerPageUs,
    Metric::ReadNs,
    Metric::HugePercent,
    Metric::P50Us,
    Metric::P99Us,
    Metric::P999Us,
    Metric::MaxUs,
    Metric::Faults,
    Metric::TracedFaults,
    Metric::HandlerCpuMs,
    Metric::HandlerCpuPerFaultUs,
    Metric::SwitchesPerFault,
    Metric::GuestMib,
    Metric::MemoryPerTouch,
    Metric::MemoryPerData,
    Metric::MadviseP50Us,
    Metric::MadviseP99Us,
    Metric::PrefaultedPercent,
    Metric::IdleCpuPercent,
    Metric::IdleKibPerGuest,
];

/// A workload, its name and what it does above.
pub(crate) fn workload(results: &WorkloadResults, took: Duration) -> String {
    let rounds = results.contenders.first().map_or(0, |contender| contender.rounds.len());
    let (name, about) = (results.workload.name, results.workload.about);
    let table = aligned(&workload_rows(results));
    format!("{name}: {about} ({rounds} rounds, {} s)\n{table}", took.as_secs())
}

/// A row for each contender with the medians of its rounds, the time with its spread.
pub(super) fn workload_rows(results: &WorkloadResults) -> Vec<Vec<String>> {
    let columns: Vec<Metric> = COLUMNS
        .into_iter()
        .filter(|metric| results.contenders.iter().any(|one| one.spread(*metric).is_some()))
        .collect();
    let mut head = vec![String::new()];
    head.extend(columns.iter().map(|metric| metric.heading().to_owned()));
    let mut rows = vec![head];
    for contender in &results.contenders {
        let mut row = vec![contender.name.to_owned()];
        row.extend(columns.iter().map(|metric| match (contender.spread(*metric), metric) {
            (Some(spread), Metric::TimeMs) => with_ends(spread),
            (Some(spread), _) => number(spread.median),
            (None, _) => "–".to_owned(),
        }));
        rows.push(row);
    }
    rows
}

/// The targets: figure, limit, and whether it is met.
pub(crate) fn targets(results: &Results) -> String {
    aligned(&target_rows(results))
}

/// A row for each target whose workload was run.
pub(super) fn target_rows(results: &Results) -> Vec<Vec<String>> {
    let head = ["target", "workload", "figure (least–most)", "limit", ""].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    rows.extend(results.figures().map(|(target, figure)| {
        let met = match target.bound.is_met(figure.median) {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        };
        vec![
            target.what.to_owned(),
            target.workload.to_owned(),
            with_ends(figure),
            target.bound.to_string(),
            met.to_owned(),
        ]
    }));
    rows
}

/// How far the figures are to be trusted.
pub(super) fn other_work(results: &Results) -> String {
    let percent = number(results.others);
    let verdict = if results.others > 10.0 { ": too much to trust what is close" } else { "" };
    format!("other work took {percent} % of the machine meanwhile{verdict}")
}

fn with_ends(spread: Spread) -> String {
    format!("{} ({}–{})", number(spread.median), number(spread.min), number(spread.max))
}

/// Three digits that matter.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Columns under each other: the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = match column {
                0 => write!(line, "{cell:<width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([0.1234, 1.234, 12.34, 1234.0].map(number), ["0.123", "1.23", "12.3", "1234"]);
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["", "a"], ["long", "1"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "      a\nlong  1");
    }
}
