//! How long a guest waits when whoever serves it is killed, or hands over.

use std::time::Duration;

use uffd_guest::protocol::Bench;
use uffd_proof::{Cast, Keeper, Keeping, until};

use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::{Contender, Interruption, Pace};

impl Pace {
    /// Touches, and when in the middle of them it is.
    fn touches(self) -> (Bench, Duration) {
        match self {
            Self::Work => (Bench { work: 5_000, ..Bench::default() }, Duration::from_millis(4)),
            Self::Pause => {
                (Bench { pause: 4_000_000, ..Bench::default() }, Duration::from_millis(100))
            }
        }
    }
}

/// Interrupts so many times, and measures the longest touch of each guest around each.
pub(super) fn run(
    contender: &Contender,
    (guests, pace): (u64, Pace),
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
        let (bench, middle) = pace.touches();
        let bench = Bench { page: time * touches, count: Some(touches), ..bench };
        // As it is deployed: whoever takes over is ready before the other one leaves.
        let mut next = (by == Interruption::HandOver).then(|| {
            let next = keeping.begin_keeper(|_| {});
            next.awaits(guests.len());
            next
        });
        let benches: Vec<_> =
            guests.iter().map(|guest| guest.thread(0).start_bench(bench.clone())).collect();
        std::thread::sleep(middle);
        match by {
            Interruption::Nothing => {}
            Interruption::Kill => keeper.kill(),
            Interruption::HandOver => keeper.tell("leave"),
        }
        for bench in benches {
            longest.push(bench.get()?.latency.max);
        }
        if by == Interruption::Kill {
            keeper = keeping.keeper();
        }
        if let Some(mut next) = next.take() {
            assert!(next.gets_ready(), "a keeper gets ready");
            keeper = next;
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
