//! Carries a plan out.

mod again;
mod figures;
mod fill;
mod idle;
mod outlive;
mod removes;
mod roam;
mod stall;
mod start;
mod together;
mod touch;
mod touched;
mod waiting;

use std::time::Duration;

use uffd_core::units::PageRange;

use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::{Contender, Placement, Script};
use crate::snapshots::Snapshots;
use crate::stand::{Ready, Stand};

/// One run of one contender.
pub(crate) fn run(
    contender: &Contender,
    snapshots: &mut Snapshots,
    pinned: bool,
) -> Result<Measure> {
    if let Script::Idle { guests, millis } = contender.script {
        return idle::run(contender, guests, Duration::from_millis(millis), snapshots);
    }
    if let Script::Outlive { guests, pace, times, touches, by } = contender.script {
        return outlive::run(contender, (guests, pace), times, touches, by);
    }
    let ahead = touch::ahead(contender, snapshots)?;
    let ready = Ready::open(contender, snapshots, &ahead)?;
    let placement = if pinned { contender.script.placement() } else { Placement::Free };
    let mut measure = match &contender.script {
        Script::Together { guests, bench } => together::run(&ready, *guests, bench, placement)?,
        _ => {
            let stand = ready.guest()?;
            stand.place(placement)?;
            let measure = with_one_guest(contender, &stand, ahead)?;
            stand.take_down()?;
            measure
        }
    };
    measure.set(Metric::StartMs, figures::millis(ready.took));
    Ok(measure)
}

fn with_one_guest(contender: &Contender, stand: &Stand, ahead: Vec<PageRange>) -> Result<Measure> {
    match &contender.script {
        Script::Touch { bench, .. } => touch::touch(contender, stand, bench, ahead),
        Script::Fill => fill::run(contender, stand),
        Script::GiveBack { run } => removes::give_back(contender, stand, *run),
        Script::UseAgain { piece, bench } => again::run(contender, stand, *piece, bench),
        Script::Roam { reads, seed } => roam::run(contender, stand, *reads, *seed),
        Script::Churn { bench } => removes::churn(contender, stand, bench),
        Script::Waiting { threads, seed } => waiting::run(contender, stand, *threads, *seed),
        Script::Stall { bench, by } => stall::run(stand, bench, *by),
        Script::Together { .. } | Script::Outlive { .. } | Script::Idle { .. } => {
            Err("this takes several guests".into())
        }
    }
}
