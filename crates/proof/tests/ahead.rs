//! Of 2 MiB pages, those that somebody who walks comes to next are there before: no others, never over
//! a page that was given back, and none where the pool could run short.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_core::session::FaultAround;
use uffd_guest::pattern::Content;
use uffd_guest::protocol::Expect;
use uffd_proof::{Case, HUGE, Served, until};

const PAGES: u64 = 9;

const CASES: [Case; 2] = [case(false), case(true)];

const fn case(tracking: bool) -> Case {
    Case { guest: env!("CARGO_BIN_EXE_uffd-proof-guest"), page_size: HUGE, tracking }
}

/// Faults, and pages that were installed without one.
fn served(guest: &Served) -> (u64, u64) {
    let counters = guest.stats().counters;
    (counters.faults(), counters.neighbour_pages)
}

fn is_there(guest: &Served, page: u64) -> bool {
    guest.pagemap(page, 1).unwrap().all(|page| page.present)
}

fn walk(guest: &Served, pages: impl IntoIterator<Item = u64>) {
    for page in pages {
        assert_eq!(guest.thread(0).read_page(page).unwrap(), Content::Source, "{page}");
    }
}

#[test]
fn whoever_walks_finds_the_next_pages() {
    for case in CASES {
        let setting = case.open(PAGES);
        let guest = setting.guest();
        walk(&guest, 0..3);
        until("the next two pages to be there", || served(&guest) == (3, 2));
        assert!((3..5).all(|page| is_there(&guest, page)) && !is_there(&guest, 5));
        assert!(guest.pagemap(3, 2).unwrap().all(|page| page.wp == case.tracking));
        walk(&guest, 3..6);
        until("the two after that", || served(&guest) == (4, 4));
        walk(&guest, 6..8);
        assert_eq!(served(&guest), (4, 4));
        // The last page has no next.
        walk(&guest, 8..9);
        assert_eq!(served(&guest), (5, 4));
        assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
        let counts = guest.stats().pages;
        assert_eq!((counts.clean, counts.faulted()), (PAGES, PAGES));
    }
}

#[test]
fn nobody_else_gets_any() {
    for case in CASES {
        let setting = case.open(PAGES);
        let guest = setting.guest();
        // Each of them once more than a step, or none.
        walk(&guest, [7, 5, 0, 1, 3, 8, 4]);
        for _ in 0..3 {
            assert_eq!(served(&guest), (7, 0));
        }
    }
}

#[test]
fn nobody_at_all_where_pages_are_wanted_one_by_one() {
    let off = |stage: uffd_proof::StageBuilder| {
        stage.session(|options| options.fault_around = FaultAround::Off)
    };
    for case in CASES {
        let setting = case.open_with(case.pattern(), &[PAGES], off);
        let guest = setting.guest();
        walk(&guest, 0..6);
        for _ in 0..3 {
            assert_eq!(served(&guest), (6, 0));
        }
    }
}

#[test]
fn a_page_that_was_given_back_stays_given_back() {
    for case in CASES {
        let setting = case.open(PAGES);
        let guest = setting.guest();
        guest.thread(0).write(3, 1, 7).unwrap();
        guest.thread(0).madvise(3, 1).unwrap();
        walk(&guest, 0..3);
        for _ in 0..3 {
            assert_eq!(served(&guest), (4, 0));
        }
        assert!(!is_there(&guest, 3));
        assert_eq!(guest.thread(0).read_page(3).unwrap(), Content::Zeros);
    }
}

/// What is installed ahead may be the very page that somebody else waits for.
#[test]
fn nobody_where_the_pool_does_not_hold_all_of_the_guest() {
    for case in CASES {
        let setting = case.open(PAGES);
        let pool = setting.pool().unwrap();
        pool.resize(PAGES - 1).unwrap();
        let guest = setting.guest();
        walk(&guest, 0..3);
        for _ in 0..3 {
            assert_eq!(served(&guest), (3, 0));
        }
        pool.resize(PAGES).unwrap();
        walk(&guest, 3..4);
        until("the next two pages to be there", || served(&guest) == (4, 2));
        assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    }
}
