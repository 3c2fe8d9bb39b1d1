//! Many guests of one snapshot, all at work at once.

use std::time::Instant;

use uffd_guest::protocol::Bench;

use super::figures::{Meter, millis};
use super::start::{tell, when_told};
use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::Placement;
use crate::stand::{Ready, Stand};

/// Has so many guests touch pages, each with a seed of its own, until all are done.
pub(super) fn run(
    ready: &Ready<'_>,
    guests: u64,
    bench: &Bench,
    placement: Placement,
) -> Result<Measure> {
    let stands = (0..guests).map(|_| ready.guest()).collect::<Result<Vec<_>>>()?;
    stands.iter().try_for_each(|stand| stand.place(placement))?;
    let seeds = bench.seed * guests..;
    let touches: Vec<_> = stands
        .iter()
        .zip(seeds)
        .map(|(stand, seed)| when_told(&stand.guest, 0, &Bench { seed, ..bench.clone() }))
        .collect();

    let mut measure = Measure::default();
    let meter = Meter::of_all(&stands)?;
    let begin = Instant::now();
    stands.iter().try_for_each(|stand| tell(&stand.guest))?;
    for touch in touches {
        touch.get()?;
    }
    measure.set(Metric::TimeMs, millis(begin.elapsed()));
    meter.stop_with_faults(&mut measure)?;
    stands.into_iter().try_for_each(Stand::take_down)?;
    Ok(measure)
}
