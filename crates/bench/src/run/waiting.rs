//! What a fault costs while many threads wait for theirs.

use std::time::{Duration, Instant};

use uffd_guest::protocol::Op;
use uffd_proof::waiting_threads;

use super::figures::Meter;
use crate::Result;
use crate::boot::shuffled;
use crate::measure::Measure;
use crate::plan::Contender;
use crate::stand::Stand;

/// How long threads may take until all of them wait.
const DEADLINE: Duration = Duration::from_secs(60);

/// So many threads share all pages in random order. Nothing is served before all of them wait, and
/// whoever got its page waits for the next at once.
pub(super) fn run(
    contender: &Contender,
    stand: &Stand,
    threads: u32,
    seed: u64,
) -> Result<Measure> {
    let all = contender.snapshot.pages;
    let mut measure = Measure::default();
    let meter = Meter::start(stand)?;
    let held = stand.hold()?;
    let touches: Vec<_> = (0..threads)
        .zip(shuffled(all, all, seed).chunks(usize::try_from(all / u64::from(threads))?))
        .map(|(thread, pages)| {
            let touch = |page: &u64| Op::Touch { page: *page, count: 1 };
            stand.guest.thread(thread).start_program(pages.iter().map(touch).collect())
        })
        .collect();
    let begin = Instant::now();
    while waiting_threads(stand.guest.pid()) < touches.len() {
        if begin.elapsed() > DEADLINE {
            return Err(format!("not all of {threads} threads wait after {DEADLINE:?}").into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(held);
    for touch in touches {
        touch.get()?;
    }
    meter.stop_with_faults(&mut measure)?;
    Ok(measure)
}
