//! How long touches and madvise calls take.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::access::{existing, madvise, store};
use super::order;
use crate::guest::Guest;
use crate::memory::OutOfRange;
use crate::protocol::{Bench, BenchReport, Cost, Latency, Refusal};
use crate::random::Random;

pub(super) fn touches(guest: &Guest, bench: &Bench) -> Result<BenchReport, Refusal> {
    let count = bench.count.unwrap_or_else(|| guest.memory.pages().saturating_sub(bench.page));
    existing(guest, bench.page, count)?;
    let order = order::pages(&bench.order, bench.seed, count)?;
    let threads = bench.threads.max(1);
    let gate = Barrier::new(threads as usize + 1);

    let (start, before, histograms) = thread::scope(|scope| {
        let toucher = |thread: u32| {
            let (order, gate) = (&order, &gate);
            move || {
                let latencies = histogram();
                let mut random = Random::new(bench.seed, u64::from(thread) + 1);
                gate.wait();
                let mut latencies = latencies?;
                for &page in order.iter().skip(thread as usize).step_by(threads as usize) {
                    let page = bench.page + page;
                    guest.about_to_touch(page);
                    let writes = random.below(1000) < bench.write_per_mille;
                    let stamp = bench.stamp.filter(|_| writes);
                    if bench.pause > 0 {
                        thread::sleep(Duration::from_nanos(bench.pause));
                    }
                    work(bench.work);
                    let start = Instant::now();
                    touch(guest, page, stamp)?;
                    latencies.saturating_record(nanos(start.elapsed()));
                }
                Ok::<_, Refusal>(latencies)
            }
        };
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(toucher(thread))).collect();
        // Nothing may fail before the gate: the threads wait there.
        let (start, before) = (Instant::now(), usage());
        gate.wait();
        let ended = running.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Refusal::new("a thread of the benchmark panicked")))
        });
        let histograms = ended.collect::<Result<Vec<_>, Refusal>>()?;
        Ok::<_, Refusal>((start, before?, histograms))
    })?;
    let nanos = nanos(start.elapsed());

    let mut latencies = histogram()?;
    for one in &histograms {
        latencies.add(one).map_err(|error| Refusal::new(error.to_string()))?;
    }
    Ok(report(&latencies, nanos, cost(&before, &usage()?)))
}

/// Keeps the processor busy.
fn work(nanos: u64) {
    let until = Duration::from_nanos(nanos);
    let start = (nanos > 0).then(Instant::now);
    while start.is_some_and(|start| start.elapsed() < until) {
        std::hint::spin_loop();
    }
}

fn touch(guest: &Guest, page: u64, stamp: Option<u32>) -> Result<(), OutOfRange> {
    // A poisoned page counts as touched: whoever measures that wants to know how long it takes.
    match stamp {
        Some(stamp) => store(guest, page, 0, stamp).map(|_| ()),
        None => guest.memory.load(page, 0).map(|_| ()),
    }
}

pub(super) fn roam(
    guest: &Guest,
    page: u64,
    count: u64,
    reads: u64,
    seed: u64,
) -> Result<BenchReport, Refusal> {
    let pages = existing(guest, page, count)?;
    let words = guest.memory.page_size / 8;
    let mut random = Random::new(seed, 0);
    let (begin, before) = (Instant::now(), usage()?);
    // What was read decides where to go next, so that no two reads overlap.
    let mut last = 0;
    for _ in 0..reads {
        let word = (random.below((pages.end - pages.start) * words) ^ (last & 1)).max(1) - 1;
        let at = word % words * 8;
        last = guest.memory.load(pages.start + word / words, at)?.unwrap_or_default();
    }
    std::hint::black_box(last);
    let report = report(&histogram()?, nanos(begin.elapsed()), cost(&before, &usage()?));
    Ok(BenchReport { touches: reads, ..report })
}

pub(super) fn madvises(
    guest: &Guest,
    page: u64,
    count: u64,
    run: u64,
) -> Result<BenchReport, Refusal> {
    let pages = existing(guest, page, count)?;
    let run = run.max(1);
    let step = usize::try_from(run).unwrap_or(usize::MAX);
    let mut latencies = histogram()?;
    let (begin, before) = (Instant::now(), usage()?);
    for first in pages.clone().step_by(step) {
        let start = Instant::now();
        madvise(guest, first, run.min(pages.end - first))?;
        latencies.saturating_record(nanos(start.elapsed()));
    }
    Ok(report(&latencies, nanos(begin.elapsed()), cost(&before, &usage()?)))
}

/// Latencies of up to a minute, to three digits.
fn histogram() -> Result<Histogram<u64>, Refusal> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3)
        .map_err(|error| Refusal::new(error.to_string()))
}

fn report(latencies: &Histogram<u64>, nanos: u64, cost: Cost) -> BenchReport {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "under a minute")]
    let mean = latencies.mean() as u64;
    let latency = Latency {
        min: latencies.min(),
        p50: latencies.value_at_quantile(0.5),
        p90: latencies.value_at_quantile(0.9),
        p99: latencies.value_at_quantile(0.99),
        p999: latencies.value_at_quantile(0.999),
        max: latencies.max(),
        mean,
    };
    BenchReport { touches: latencies.len(), nanos, latency, cost }
}

fn usage() -> Result<Usage, Refusal> {
    Ok(getrusage(UsageWho::RUSAGE_SELF)?)
}

fn cost(before: &Usage, after: &Usage) -> Cost {
    let grown = |of: fn(&Usage) -> i64| (of(after) - of(before)).unsigned_abs();
    Cost {
        user_micros: grown(|usage| usage.user_time().num_microseconds()),
        system_micros: grown(|usage| usage.system_time().num_microseconds()),
        voluntary_switches: grown(Usage::voluntary_context_switches),
        involuntary_switches: grown(Usage::involuntary_context_switches),
        minor_faults: grown(Usage::minor_page_faults),
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
