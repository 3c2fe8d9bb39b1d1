//! A page that was never touched holds the snapshot's bytes, whoever touches it and how.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_core::session::FaultAround;
use uffd_core::units::PageIndex;
use uffd_guest::options::Place;
use uffd_guest::pattern::Content;
use uffd_guest::protocol::Expect;
use uffd_proof::{Case, in_all_modes, until, waiting_threads};

in_all_modes!(
    reads_find_the_snapshot,
    writes_are_kept,
    a_single_word_is_written_over_the_snapshot,
    threads_share_the_pages,
    one_page_faulted_by_many_threads_is_one_fault,
    the_kernel_reads_as_a_thread_does,
    zeros_of_the_snapshot_need_no_memory,
    regions_may_lie_anywhere,
    one_page_a_fault_where_that_is_asked_for,
);

const PAGES: u64 = 8;

fn reads_find_the_snapshot(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    let verified = guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap();
    assert_eq!((verified.pages, verified.wrong), (PAGES, 0), "{verified:?}");
    let counts = guest.stats().pages;
    assert_eq!((counts.clean, counts.faulted()), (PAGES, PAGES));
}

fn writes_are_kept(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    guest.thread(0).write(0, PAGES, 7).unwrap();
    assert_eq!(guest.thread(1).verify(0, PAGES, &[Expect::Stamp(7)]).unwrap().wrong, 0);
    let export = guest.session.export().unwrap();
    assert!(export.dirty.contains_range(0..8), "{:?}", export.dirty);
}

fn a_single_word_is_written_over_the_snapshot(case: Case) {
    let setting = case.open(2);
    let guest = setting.guest();
    let last = case.page_size - 8;
    guest.thread(0).write_word(1, 1, 5, last).unwrap();
    let patched = Content::Patched { base: Box::new(Content::Source), at: last, stamp: 5 };
    assert_eq!(guest.thread(0).read_page(1).unwrap(), patched);
    assert_eq!(guest.thread(0).read_page(0).unwrap(), Content::Source);
}

fn threads_share_the_pages(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    // Half of the threads write the even pages, all of them read the odd ones.
    let writes: Vec<_> = (0..PAGES / 2)
        .map(|pair| (pair, guest.thread(u32::try_from(pair).unwrap())))
        .map(|(pair, thread)| thread.start_write(pair * 2, 1, 9))
        .collect();
    let reads: Vec<_> = (10..14)
        .flat_map(|thread| (0..PAGES / 2).map(move |pair| (thread, pair)))
        .map(|(thread, pair)| guest.thread(thread).start_verify(pair * 2 + 1, 1, &[Expect::Source]))
        .collect();
    for write in writes {
        assert_eq!(write.get().unwrap().pages, 1);
    }
    for read in reads {
        let verified = read.get().unwrap();
        assert_eq!(verified.wrong, 0, "{verified:?}");
    }
    for pair in 0..PAGES / 2 {
        assert_eq!(guest.thread(0).read_page(pair * 2).unwrap(), Content::Stamp(9));
    }
}

fn one_page_faulted_by_many_threads_is_one_fault(case: Case) {
    const THREADS: u32 = 8;
    let setting = case.open(2);
    let guest = setting.guest();
    let held = guest.hold();
    let reads: Vec<_> = (0..THREADS).map(|thread| guest.thread(thread).start_read(1, 1)).collect();
    until("all threads to wait for the page", || waiting_threads(guest.pid()) == 8);
    drop(held);
    for read in reads {
        assert!(read.get().unwrap().all(|content| *content == Content::Source));
    }
    let counters = guest.stats().counters;
    assert_eq!((counters.read_faults, counters.duplicate_faults), (1, u64::from(THREADS) - 1));
    assert_eq!(counters.source_pages, 1);
}

fn the_kernel_reads_as_a_thread_does(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    let found = guest.thread(0).kernel_read(0, PAGES).unwrap();
    assert!(found.all(|content| *content == Content::Source), "{found:?}");
}

fn zeros_of_the_snapshot_need_no_memory(case: Case) {
    let pattern = case.pattern().with_lone_zeros(1000);
    let setting = case.open_with(pattern, &[PAGES], |stage| stage);
    let guest = setting.guest();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Zeros]).unwrap().wrong, 0);
    let counters = guest.stats().counters;
    assert_eq!((counters.source_pages, counters.zero_pages), (0, PAGES));
    let tables = guest.pagemap(0, PAGES).unwrap();
    assert!(tables.all(|page| page.present), "{tables:?}");
    if case.is_huge() {
        // Hugetlb has no shared page of zeros.
        assert!(tables.all(|page| page.wp == case.tracking && !page.zero), "{tables:?}");
    } else {
        // The page map tells which of them were written, once it is proved to be the guest's own:
        // the first page of a tracked guest is protected all the same.
        let from = u64::from(case.tracking);
        let rest = guest.pagemap(from, PAGES - from).unwrap();
        assert!(rest.all(|page| page.zero && !page.wp), "{tables:?}");
    }
}

fn regions_may_lie_anywhere(case: Case) {
    let regions = [3, 1, 4];
    for place in [Place::Rising, Place::Falling, Place::Apart] {
        let setting = case.open_with(case.pattern(), &regions, |stage| stage);
        let guest = setting.guest_with(|options| options.place = place);
        assert_eq!(guest.thread(0).verify(0, 8, &[Expect::Source]).unwrap().wrong, 0, "{place:?}");
        let export = guest.session.export().unwrap();
        let sizes: Vec<_> = export.regions.iter().map(|region| region.states.len()).collect();
        assert_eq!(sizes, [3, 1, 4]);
        assert_eq!(export.regions[1].region.pages.start, PageIndex(3));
    }
}

fn one_page_a_fault_where_that_is_asked_for(case: Case) {
    let off = |stage: uffd_proof::StageBuilder| {
        stage.session(|options| options.fault_around = FaultAround::Off)
    };
    let setting = case.open_with(case.pattern(), &[PAGES], off);
    let guest = setting.guest();
    guest.thread(0).touch(0, PAGES).unwrap();
    let counters = guest.stats().counters;
    assert_eq!((counters.read_faults, counters.neighbour_pages), (PAGES, 0));
    assert_eq!(counters.copied_bytes, PAGES * case.page_size);

    let limited = |stage: uffd_proof::StageBuilder| {
        stage.session(|options| options.fault_around = FaultAround::AtMost(2))
    };
    let setting = {
        drop(guest);
        drop(setting);
        case.open_with(case.pattern(), &[PAGES], limited)
    };
    let guest = setting.guest();
    guest.thread(0).touch(0, PAGES).unwrap();
    let counters = guest.stats().counters;
    assert_eq!(counters.read_faults + counters.neighbour_pages, PAGES);
    assert!(counters.neighbour_pages <= counters.read_faults, "{counters:?}");
}
