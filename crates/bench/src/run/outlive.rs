//! How long a guest waits when whoever serves it is killed, or hands over.

use std::time::Duration;

use uffd_guest::protocol::Bench;
use uffd_proof::{Cast, Keeper, Keeping, until};

use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::{Contender, Interruption};

/// Of computing before each touch, in nanoseconds, so that an interruption falls into the touches.
const WORK: u64 = 5_000;

/// From the first touch to the interruption.
const MIDDLE: Duration = Duration::from_millis(4);

/// Interrupts so many times, and measures the longest touch of each guest around each.
pub(super) fn run(
    contender: &Contender,
    guests: u64,
    times: u64,
    touches: u64,
    by: Interruption,
) -> Result<Measure> {
    let snapshot = contender.snapshot;
    let cast = Cast::new(std::env::current_exe()?);
    let keeping = Keeping::by(cast, snapshot.pattern(), &[snapshot.pages], None)
        .fill_alone()
        .in_memory()
        .guarded();
    let mut keeper = keeping.keeper();
    let guests: Vec<_> = (0..guests).map(|_| keeping.guest(&keeper, |_| {})).collect();
    let mut longest = Vec::new();
    for time in 0..times {
        are_guarded(&mut keeper, guests.len());
        let bench =
            Bench { page: time * touches, count: Some(touches), work: WORK, ..Bench::default() };
        let benches: Vec<_> =
            guests.iter().map(|guest| guest.thread(0).start_bench(bench.clone())).collect();
        std::thread::sleep(MIDDLE);
        match by {
            Interruption::Nothing => {}
            Interruption::Kill => keeper.kill(),
            Interruption::HandOver => {
                keeper.ask("hand over");
                keeper.kill();
                keeper = keeping.keeper();
            }
        }
        for bench in benches {
            longest.push(bench.get()?.latency.max);
        }
        if by == Interruption::Kill {
            keeper = keeping.keeper();
        }
    }
    Ok(figures(longest))
}

fn are_guarded(keeper: &mut Keeper, count: usize) {
    until("the guests to be guarded", || keeper.guardian().guarded.len() == count);
}

/// Of the longest touches, in nanoseconds.
fn figures(mut longest: Vec<u64>) -> Measure {
    longest.sort_unstable();
    let mut measure = Measure::default();
    let at = |percent: usize| longest.get((longest.len() * percent / 100).min(longest.len() - 1));
    for (metric, percent) in [(Metric::P50Us, 50), (Metric::P99Us, 99), (Metric::MaxUs, 100)] {
        if let Some(&nanos) = at(percent) {
            measure.set(metric, nanos as f64 / 1e3);
        }
    }
    measure
}
