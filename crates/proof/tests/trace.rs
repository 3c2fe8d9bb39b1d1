//! The trace of first touches, and counters that agree with one another.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use uffd_core::session::FaultAround;
use uffd_core::trace::{FilledWith, TraceEntry};
use uffd_core::units::{PageIndex, PageRange};
use uffd_guest::protocol::Soak;
use uffd_proof::sources::{Gate, Gated};
use uffd_proof::{Case, Served, Setting, StageBuilder, in_all_modes, until};

in_all_modes!(
    first_touches_are_recorded_in_order_and_once,
    neighbours_are_recorded_when_they_are_touched,
    a_fault_is_recorded_when_it_is_served_and_not_before,
    what_a_page_was_filled_with_is_recorded,
    a_trace_read_while_it_grows_is_a_start_of_the_whole,
    no_trace_where_none_is_wanted,
    counters_add_up,
);

const PAGES: u64 = 8;

fn one_page_a_fault(stage: StageBuilder) -> StageBuilder {
    stage.session(|options| options.fault_around = FaultAround::Off)
}

fn open(case: Case) -> Setting {
    case.open_with(case.pattern(), &[PAGES], one_page_a_fault)
}

fn trace(guest: &Served) -> Vec<TraceEntry> {
    guest.session.trace(0).unwrap()
}

fn pages(trace: &[TraceEntry]) -> Vec<u64> {
    trace.iter().map(|entry| entry.page().0).collect()
}

fn first_touches_are_recorded_in_order_and_once(case: Case) {
    let setting = open(case);
    let guest = setting.guest();
    let thread = guest.thread(0);
    let order = [5, 2, 7, 0];
    for (page, write) in order.into_iter().zip([false, true, false, true]) {
        if write {
            thread.write_word(page, 1, 3, 0).unwrap();
        } else {
            thread.touch(page, 1).unwrap();
        }
    }
    // Touched again, written later, given back and touched again: first touches no more.
    thread.write_word(5, 1, 3, 0).unwrap();
    thread.madvise(2, 1).unwrap();
    thread.touch(2, 1).unwrap();
    let trace = trace(&guest);
    assert_eq!(pages(&trace), order);
    let writes: Vec<_> = trace.iter().map(|entry| entry.is_write()).collect();
    assert_eq!(writes, [false, true, false, true]);
    assert!(trace.is_sorted_by_key(|entry| entry.time()), "{trace:?}");
    assert!(trace.iter().all(|entry| entry.time() <= guest.stats().uptime));
    assert_eq!(guest.session.trace(3).unwrap(), trace[3..]);
    assert_eq!(guest.session.trace(9).unwrap(), []);
}

/// A page that is there before it is needed raises no fault on its first read; on its first write
/// it does where writes are tracked.
fn neighbours_are_recorded_when_they_are_touched(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    guest.session.prefault(vec![PageRange::new(0, 6)]).unwrap();
    assert_eq!(trace(&guest), []);
    guest.thread(0).touch(0, 3).unwrap();
    guest.thread(0).write_word(3, 1, 2, 0).unwrap();
    guest.thread(0).write_word(6, 1, 2, 0).unwrap();
    let expected: &[u64] = if case.tracking { &[3, 6] } else { &[6] };
    let trace = trace(&guest);
    assert_eq!(pages(&trace), expected);
    assert!(trace.iter().all(|entry| entry.is_write()));
    if case.tracking {
        assert_eq!(trace[0].filled_with(), FilledWith::Present);
    }
}

fn a_fault_is_recorded_when_it_is_served_and_not_before(case: Case) {
    let (gate, size) = (Gate::closed(), case.page_size);
    let through = gate.clone();
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| {
        stage.source(move |file| Gated { file, slow: 6 * size..8 * size, gate: through })
    });
    let guest = setting.guest();
    let read = guest.thread(1).start_read(7, 1);
    until("the fetch to begin", || gate.arrived() > 0);
    guest.thread(0).touch(0, 1).unwrap();
    assert_eq!(pages(&trace(&guest)), [0]);
    gate.open();
    read.get().unwrap();
    assert_eq!(pages(&trace(&guest)), [0, 7]);
}

fn what_a_page_was_filled_with_is_recorded(case: Case) {
    let pattern = case.pattern().with_lone_zeros(300);
    let zero = (0..PAGES).find(|page| pattern.is_zero(*page)).unwrap();
    let full: Vec<u64> = (0..PAGES).filter(|page| !pattern.is_zero(*page)).take(2).collect();
    let setting = case.open_with(pattern, &[PAGES], one_page_a_fault);
    let guest = setting.guest();
    guest.thread(0).madvise(full[0], 1).unwrap();
    for page in [full[0], full[1], zero] {
        guest.thread(0).touch(page, 1).unwrap();
    }
    let filled: Vec<_> = trace(&guest).iter().map(|entry| entry.filled_with()).collect();
    assert_eq!(filled, [FilledWith::Zeros, FilledWith::Source, FilledWith::SourceZeros]);
}

fn a_trace_read_while_it_grows_is_a_start_of_the_whole(case: Case) {
    let count = if case.is_huge() { 16 } else { 512 };
    let setting = case.open(count);
    let guest = setting.guest();
    let soak = Soak { threads: 4, ops: count * 4, madvise: 5, chunk: 4, ..Soak::default() };
    let running = guest.thread(0).start_random(soak);
    let mut looks = Vec::new();
    while !running.is_done() {
        looks.push(trace(&guest));
    }
    assert_eq!(running.get().unwrap().wrong, 0);
    let whole = trace(&guest);
    assert!(looks.iter().all(|look| whole.starts_with(look)));
    let distinct: HashSet<PageIndex> = whole.iter().map(|entry| entry.page()).collect();
    assert_eq!(distinct.len(), whole.len());
    assert!(whole.iter().all(|entry| entry.page().0 < count));
}

fn no_trace_where_none_is_wanted(case: Case) {
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| {
        stage.session(|options| options.trace = false)
    });
    let guest = setting.guest();
    guest.thread(0).touch(0, 1).unwrap();
    guest.thread(0).write_word(0, 2, 1, 0).unwrap();
    assert_eq!(trace(&guest), []);
}

/// At every moment, and in the end.
fn counters_add_up(case: Case) {
    let count = if case.is_huge() { 16 } else { 512 };
    let (gate, size) = (Gate::closed(), case.page_size);
    gate.open();
    // Half of the pages have to be fetched.
    let pattern = case.pattern().with_lone_zeros(100);
    let setting = case.open_with(pattern, &[count], |stage| {
        stage.source(move |file| Gated { file, slow: 0..count / 2 * size, gate })
    });
    let guest = setting.guest();
    let soak = Soak { threads: 3, ops: count * 3, chunk: 4, ..Soak::default() };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                let stats = guest.stats();
                assert_eq!(stats.counters.faults(), stats.latency.count);
                let pages = stats.pages;
                let known = pages.unfaulted + pages.faulted() + pages.removed + pages.poisoned;
                assert_eq!(known, count);
            }
        });
        let report = guest.thread(0).random(soak).unwrap();
        over.store(true, Ordering::Release);
        assert_eq!(report.wrong, 0);
    });
    guest.session.settle().unwrap();
    let stats = guest.stats();
    let counters = &stats.counters;
    assert_eq!(counters.faults(), stats.latency.count);
    assert_eq!(counters.protect_faults > 0, case.tracking);
    // Every install was asked for by a fault, or is a neighbour; and every fault got one, but
    // those that found their page there.
    let installed = counters.source_pages + counters.zero_pages;
    let answered = counters.read_faults + counters.write_faults + counters.neighbour_pages;
    assert_eq!(installed + counters.already_present, answered, "{stats:?}");
    assert!(counters.fetches > 0 && counters.failed_fetches == 0);
    assert!(counters.copied_bytes >= counters.source_pages * size);
    assert!(counters.remove_events > 0 && counters.removed_pages >= counters.remove_events);
    let latency = stats.latency;
    assert!(latency.p50 <= latency.p99 && latency.p99 <= latency.max, "{latency:?}");
}
