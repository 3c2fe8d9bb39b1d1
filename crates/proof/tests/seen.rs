//! What is seen of a guest without asking its fault loop is what the loop itself says, and goes on
//! being seen after the end.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::sync::{Arc, mpsc};

use uffd_core::metrics::{FaultClass, Totals};
use uffd_core::session::{DirtyTracking, Reply};
use uffd_core::states::StateCounts;
use uffd_core::trace::FilledWith;
use uffd_core::units::PageRange;
use uffd_core::view::View;
use uffd_proof::sources::{Gate, Gated};
use uffd_proof::{Case, Served, in_all_modes, until};

in_all_modes!(
    figures_and_picture_are_those_of_the_fault_loop,
    every_fault_is_in_one_bucket_of_its_class,
    a_prefault_that_waits_is_seen_to_wait,
);

const PAGES: u64 = 24;

/// Waits until the figures are those of a guest that has nothing to do.
fn until_shown(guest: &Served) {
    let stats = guest.stats();
    until("the loop to show its figures", || {
        let read = guest.session.view().figures().read();
        (read.counters, read.pages) == (stats.counters.clone(), stats.pages)
    });
}

fn sum_of_cells(view: &View, cells: usize) -> StateCounts {
    let mut sums = [0; StateCounts::COUNT];
    for cell in view.picture(cells).unwrap().cells {
        sums.iter_mut().zip(cell).for_each(|(sum, count)| *sum += count);
    }
    StateCounts::from_words(sums)
}

fn figures_and_picture_are_those_of_the_fault_loop(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.touch(0, 4).unwrap();
    thread.write(4, 4, 1).unwrap();
    thread.madvise(2, 4).unwrap();
    thread.touch(2, 1).unwrap();
    guest.session.prefault(vec![PageRange::new(10, 14)]).unwrap();
    thread.madvise(20, 2).unwrap();
    until_shown(&guest);
    let view = Arc::clone(guest.session.view());
    let (_, stats) = {
        guest.session.begin_stop();
        guest.end()
    };
    assert_eq!(view.figures().read().counters, stats.counters);
    for cells in [1, 5, 24, 1000] {
        assert_eq!(sum_of_cells(&view, cells), stats.pages, "{cells} cells");
    }
    assert!(stats.pages.removed > 0 && stats.pages.faulted() > 0, "{:?}", stats.pages);
}

fn every_fault_is_in_one_bucket_of_its_class(case: Case) {
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| {
        stage.session(|options| options.dirty_tracking = DirtyTracking::On)
    });
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.touch(0, PAGES).unwrap();
    thread.write(0, PAGES, 1).unwrap();
    thread.madvise(0, PAGES).unwrap();
    thread.write(0, PAGES, 2).unwrap();
    until_shown(&guest);
    let read = guest.session.view().figures().read();
    let count = |class: FaultClass| read.latencies[class.index()].counts.iter().sum::<u64>();
    let of_kind = |kind: fn(FilledWith) -> FaultClass| {
        FilledWith::ALL.into_iter().map(|filled| count(kind(filled))).sum::<u64>()
    };
    let counters = &read.counters;
    assert_eq!(of_kind(FaultClass::Read), counters.read_faults);
    assert_eq!(of_kind(FaultClass::Write), counters.write_faults);
    assert_eq!(count(FaultClass::Protect), counters.protect_faults);
    assert!(count(FaultClass::Read(FilledWith::Source)) > 0, "{read:?}");
    assert!(count(FaultClass::Write(FilledWith::Zeros)) > 0, "{read:?}");
    assert!(count(FaultClass::Protect) > 0, "{read:?}");
}

fn a_prefault_that_waits_is_seen_to_wait(case: Case) {
    let (gate, size) = (Gate::closed(), case.page_size);
    let through = gate.clone();
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| {
        stage.source(move |file| Gated { file, slow: 4 * size..8 * size, gate: through })
    });
    let guest = setting.guest();
    let totals = Arc::<Totals>::default();
    let member = totals.join(Arc::clone(guest.session.view().figures()), false);
    let pending = || totals.read().guests.ahead.prefault_pending_pages;
    let (answer, answered) = mpsc::channel();
    let reply = Reply::new(move |report| answer.send(report).unwrap_or(()));
    guest.session.prefault_with(vec![PageRange::new(4, 8)], reply).unwrap();
    until("the fetch to begin", || gate.arrived() > 0);
    until("it to be seen", || pending() == 4);
    gate.open();
    assert_eq!(answered.recv().unwrap().unwrap().installed, 4);
    until("nothing to be left", || pending() == 0);
    assert_eq!(totals.read().holdings.guests, 1);
    drop(member);
    assert_eq!(totals.read().guests.counters.prefault_pages, 4);
}
