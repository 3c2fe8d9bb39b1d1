//! Tells what was measured: tables on the terminal, JSON and charts.

mod json;
mod markdown;
mod plots;
mod table;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::Result;
use crate::options::Options;
use crate::results::{Results, WorkloadResults};
use crate::workloads;

/// Names and describes the workloads.
pub(crate) fn list() {
    for workload in workloads::ALL {
        println!("{:<20} {}", workload.name, workload.about);
    }
}

/// One workload, as soon as it is done.
pub(crate) fn workload(results: &WorkloadResults, took: Duration) {
    println!("\n{}", table::workload(results, took));
}

/// What had to be reached, and what was.
pub(crate) fn targets(results: &Results) {
    println!("\n{}\n\n{}", table::targets(results), table::other_work(results));
}

/// Writes the files that were asked for.
pub(crate) fn save(results: &Results, options: &Options) -> Result<()> {
    let path = options
        .json
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("bench-results/{}.json", results.at)));
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(&path, serde_json::to_string_pretty(&json::of(results))?)?;
    println!("\nall figures: {}", path.display());
    if let Some(dir) = &options.plots {
        plots::draw(results, dir)?;
        fs::write(dir.join("results.md"), markdown::of(results, &options.command()))?;
        println!("charts and results.md: {}", dir.display());
    }
    Ok(())
}
