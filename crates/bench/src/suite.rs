//! Runs the workloads: contenders take turns, and each round begins with another one.

use std::io::{IsTerminal, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use uffd_proof::HugePages;

use crate::host::{Machine, Others};
use crate::options::Options;
use crate::results::{ContenderResults, Results, WorkloadResults};
use crate::snapshots::Snapshots;
use crate::workloads::{self, Scale, Workload};
use crate::{Result, interrupt, report, run};

/// Runs what is asked for and tells it.
#[expect(clippy::disallowed_methods, reason = "it is for people, and nothing depends on it")]
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut results = Results {
        machine: Machine::here(),
        quick: options.quick,
        pinned: !options.free,
        rounds: options.rounds(),
        at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        others: 0.0,
        workloads: Vec::new(),
    };
    let placed = if options.free { "free" } else { "handlers and guests on their own cores" };
    println!("{}; {placed}", results.machine);
    interrupt::watch()?;
    let mut snapshots = Snapshots::in_dir(options.dir.as_deref())?;
    let mut failures = Vec::new();
    let others = Others::watch();
    for workload in workloads::ALL.iter().filter(|workload| options.wants(workload.name)) {
        let begin = Instant::now();
        match rounds(options, *workload, &mut snapshots) {
            Ok(measured) => {
                report::workload(&measured, begin.elapsed());
                results.workloads.push(measured);
            }
            Err(_) if interrupt::is_asked_for() => return Err("interrupted".into()),
            Err(error) => {
                eprintln!("{} could not be measured: {error}", workload.name);
                failures.push(workload.name);
            }
        }
    }
    results.others = others.percent();
    report::targets(&results);
    report::save(&results, options)?;
    if failures.is_empty() {
        return Ok(());
    }
    Err(format!("could not be measured: {}", failures.join(", ")).into())
}

fn rounds(
    options: &Options,
    workload: Workload,
    snapshots: &mut Snapshots,
) -> Result<WorkloadResults> {
    let scale = Scale { quick: options.quick };
    let first = (workload.contenders)(scale, 0);
    let huge = first.iter().filter(|contender| contender.snapshot.page_size > 4096);
    let pool = match huge.map(|contender| contender.snapshot.pages).max() {
        // One to spare: copying from a file that is not in the page table takes two for a moment.
        Some(pages) => Some(HugePages::reserve(pages + 1)?),
        None => None,
    };
    if pool.is_some() {
        // Memory that no guest has used yet may have to be got from a hypervisor first.
        run::run(&first[0], snapshots, !options.free)?;
    }
    let mut contenders: Vec<_> = first
        .iter()
        .map(|contender| ContenderResults { name: contender.name, rounds: Vec::new() })
        .collect();
    for round in 0..options.rounds() {
        let plans = (workload.contenders)(scale, round);
        for turn in 0..plans.len() {
            if interrupt::is_asked_for() {
                return Err("interrupted".into());
            }
            let at = (turn + usize::try_from(round)?) % plans.len();
            progress(&format!(
                "{} {}/{}: {}",
                workload.name,
                round + 1,
                options.rounds(),
                plans[at].name
            ));
            let measure = run::run(&plans[at], snapshots, !options.free);
            progress("");
            let measure = measure.map_err(|error| format!("{}: {error}", plans[at].name))?;
            contenders[at].rounds.push(measure);
        }
    }
    Ok(WorkloadResults { workload, contenders })
}

/// Says what is going on, where somebody looks.
fn progress(what: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[K{what}");
        let _ = out.flush();
    }
}
