//! Prefaults so large that several threads install at once, one guest's beside another's, among
//! faults, writes and pages that are given back: every byte is right, and every page is accounted
//! for exactly once.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_core::units::{PageIndex, PageRange};
use uffd_guest::protocol::{Expect, Soak};
use uffd_proof::{Case, in_all_modes};

in_all_modes!(
    a_large_prefault_installs_every_byte,
    large_prefaults_of_two_guests_are_each_their_own,
    a_large_prefault_among_writes_and_removes_accounts_for_every_page,
);

/// Enough for many threads, and more than one slice.
const fn pages(case: Case) -> u64 {
    if case.is_huge() { 12 } else { 6144 }
}

fn a_large_prefault_installs_every_byte(case: Case) {
    let all = pages(case);
    // Two regions: no install may cross from one to the other.
    let setting = case.open_with(case.pattern(), &[all / 3, all - all / 3], |stage| stage);
    let guest = setting.guest();
    let report = guest.session.prefault(vec![PageRange::new(0, all)]).unwrap();
    assert_eq!((report.installed, report.requested()), (all, all), "{report:?}");
    let counters = guest.stats().counters;
    assert_eq!((counters.prefault_pages, counters.source_pages), (all, all));
    assert!(guest.pagemap(0, all).unwrap().all(|page| page.present && page.wp == case.tracking));
    assert_eq!(guest.thread(0).verify(0, all, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(guest.stats().counters.faults(), 0);
}

fn large_prefaults_of_two_guests_are_each_their_own(case: Case) {
    let all = pages(case);
    let setting = case.open(2 * all);
    let (one, other) = (setting.guest(), setting.guest());
    let halves = [PageRange::new(0, all), PageRange::new(all, 2 * all)];
    let reports = std::thread::scope(|scope| {
        let guests = [&one, &other].into_iter().zip(halves);
        let running: Vec<_> = guests
            .map(|(guest, half)| scope.spawn(move || guest.session.prefault(vec![half]).unwrap()))
            .collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    for ((guest, half), report) in [&one, &other].into_iter().zip(halves).zip(reports) {
        assert_eq!((report.installed, report.requested()), (all, all), "{report:?}");
        let map = guest.pagemap(0, 2 * all).unwrap();
        assert!(map.pages().all(|(page, is)| is.present == half.contains(PageIndex(page))));
        let (start, thread) = (half.start.0, guest.thread(0));
        assert_eq!(thread.verify(start, all, &[Expect::Source]).unwrap().wrong, 0);
    }
}

fn a_large_prefault_among_writes_and_removes_accounts_for_every_page(case: Case) {
    let all = pages(case);
    let setting = case.open(all);
    let guest = setting.guest();
    let soak = Soak {
        seed: 5,
        threads: 2,
        chunk: if case.is_huge() { 1 } else { 16 },
        ops: if case.is_huge() { 60 } else { 4000 },
        ..Soak::default()
    };
    let running = guest.thread(0).start_random(soak);
    let mut installed = 0;
    let mut rounds = 0;
    while !running.is_done() || rounds == 0 {
        let report = guest.session.prefault(vec![PageRange::new(0, all)]).unwrap();
        assert_eq!(report.requested(), all, "{report:?}");
        assert_eq!((report.failed, report.skipped), (0, 0), "{report:?}");
        installed += report.installed;
        rounds += 1;
    }
    let report = running.get().unwrap();
    assert_eq!(report.wrong, 0, "{report:?}");
    assert_eq!(guest.stats().counters.prefault_pages, installed);
    assert_eq!(guest.session.prefault(vec![PageRange::new(0, all)]).unwrap().installed, 0);
}
