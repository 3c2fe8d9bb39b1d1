//! Carries a plan out.

mod again;
mod figures;
mod fill;
mod idle;
mod removes;
mod touch;
mod touched;
mod waiting;

use std::time::Duration;

use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::{Contender, Script};
use crate::snapshots::Snapshots;
use crate::stand::Ready;

/// One run of one contender.
pub(crate) fn run(
    contender: &Contender,
    snapshots: &mut Snapshots,
    pinned: bool,
) -> Result<Measure> {
    if let Script::Idle { guests, millis } = contender.script {
        return idle::run(contender, guests, Duration::from_millis(millis), snapshots);
    }
    let ahead = touch::ahead(contender, snapshots)?;
    let ready = Ready::open(contender, snapshots, &ahead)?;
    let stand = ready.guest()?;
    if pinned {
        stand.pin()?;
    }
    let mut measure = match &contender.script {
        Script::Touch { bench, .. } => touch::touch(contender, &stand, bench, ahead)?,
        Script::Fill | Script::Idle { .. } => fill::run(contender, &stand)?,
        Script::GiveBack { run } => removes::give_back(contender, &stand, *run)?,
        Script::UseAgain { piece, bench } => again::run(contender, &stand, *piece, bench)?,
        Script::Waiting { threads, seed } => waiting::run(contender, &stand, *threads, *seed)?,
        Script::Churn { bench } => removes::churn(contender, &stand, bench)?,
    };
    measure.set(Metric::StartMs, figures::millis(ready.took));
    stand.take_down()?;
    Ok(measure)
}
