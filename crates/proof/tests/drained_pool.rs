//! The pool of huge pages is one for the whole host. Others use it up and give pages back at any
//! moment, and a control group may refuse what the pool has: what the pool holds now says nothing
//! about why an install failed a moment before.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::time::Duration;

use uffd_core::units::PageRange;
use uffd_guest::options::UserModeOnly;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::Expect;
use uffd_proof::{
    Apart, ApartStage, Cast, Drain, HUGE, HugeLimit, HugePages, Serving, Sight, StageBuilder, until,
};

/// Users that are not root and not each other.
const HANDLER: u32 = 65_533;
const GUEST: u32 = 65_534;

fn cast() -> Cast {
    Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"))
}

fn open(pages: u64, apart: Apart) -> ApartStage {
    let (program, pattern) = (env!("CARGO_BIN_EXE_uffd-proof-guest"), Pattern::new(9, HUGE));
    StageBuilder::new(program, pattern, &[pages]).open_apart(&cast(), apart)
}

/// Touches one page after the other while there is a single one to be had, which others take and
/// give back all the time: each of them has to hold the snapshot.
fn every_page_is_the_snapshot(sight: Sight, user: Option<u32>) {
    const PAGES: u64 = 150;
    /// Installs that met an empty pool, after which all is said.
    const ENOUGH: u64 = 40;
    let _pool = HugePages::reserve(1).unwrap();
    let stage = open(PAGES, Apart { sight, ..Apart::default() });
    let guest = stage.guest_with(|options| {
        options.user = user;
        options.user_mode_only = UserModeOnly::Auto;
    });
    // More than one, so that one is at work on another core than the handler.
    let _drains = [(); 3].map(|()| Drain::start(&cast(), 1, Duration::ZERO));
    for page in 0..PAGES {
        let verified = guest.thread(0).verify(page, 1, &[Expect::Source]).unwrap();
        let figures = guest.figures().get().unwrap();
        assert_eq!(verified.examples, [], "{figures:?}");
        guest.thread(0).madvise(page, 1).unwrap();
        if figures.out_of_memory + figures.wakes > ENOUGH {
            break;
        }
    }
}

#[test]
fn a_drained_pool_makes_no_page_wrong() {
    every_page_is_the_snapshot(Sight::Full, None);
}

#[test]
fn a_drained_pool_makes_no_page_wrong_where_the_guest_is_in_another_namespace() {
    every_page_is_the_snapshot(Sight::OtherNamespace, None);
}

#[test]
fn a_drained_pool_makes_no_page_wrong_where_the_guest_is_another_users() {
    for guest in [None, Some(GUEST)] {
        every_page_is_the_snapshot(Sight::OtherUser(HANDLER), guest);
    }
}

/// The pool has pages, and this handler may have no more of them.
fn a_limit_is_waited_for_like_an_empty_pool(sight: Sight) {
    const PAGES: u64 = 6;
    let pool = HugePages::reserve(PAGES).unwrap();
    let limit = match HugeLimit::of(&pool, 2) {
        Ok(limit) => limit,
        Err(error) => return eprintln!("not tried, as this host limits no huge pages: {error}"),
    };
    let stage =
        open(PAGES, Apart { sight, cgroup: Some(limit.group().into()), ..Apart::default() });
    let guest = stage.guest();
    assert_eq!(guest.thread(0).verify(0, 2, &[Expect::Source]).unwrap().wrong, 0);

    let read = guest.thread(1).start_read(2, 1);
    let write = guest.thread(2).start_write_word(3, 1, 7, 0);
    let mut figures = guest.figures().get().unwrap();
    until("installs to find no memory", || {
        figures = guest.figures().get().unwrap();
        // Waking again and again would be a spin, and guessing that the page is there as well.
        assert!(figures.wakes < 30, "{figures:?}");
        figures.out_of_memory > 6
    });
    assert!(!read.is_done() && !write.is_done());
    // What is given back may be had again.
    guest.thread(0).madvise(0, 1).unwrap();
    until("one to be served", || read.is_done() || write.is_done());
    limit.set(PAGES).unwrap();
    assert!(read.get().unwrap().all(|content| *content == Content::Source));
    write.get().unwrap();
    let base = Box::new(Content::Source);
    let written = Content::Patched { base, at: 0, stamp: 7 };
    assert_eq!(guest.thread(0).read_page(3).unwrap(), written);
    assert_eq!(guest.thread(0).read_page(0).unwrap(), Content::Zeros);
    assert_eq!(guest.thread(0).verify(4, 2, &[Expect::Source]).unwrap().wrong, 0);
}

#[test]
fn a_limit_on_the_handler_is_waited_for() {
    a_limit_is_waited_for_like_an_empty_pool(Sight::Full);
}

#[test]
fn a_limit_on_the_handler_is_waited_for_where_the_guest_is_in_another_namespace() {
    a_limit_is_waited_for_like_an_empty_pool(Sight::OtherNamespace);
}

#[test]
fn a_limit_on_the_handler_is_waited_for_where_the_guest_is_another_users() {
    a_limit_is_waited_for_like_an_empty_pool(Sight::OtherUser(HANDLER));
}

/// Nothing was ever installed for the guest, and so nothing has shown yet whose page map it is that
/// tells an empty pool from a page that is there.
#[test]
fn a_prefault_of_a_guest_that_has_nothing_yet_waits_for_pages() {
    let pool = HugePages::reserve(0).unwrap();
    let stage = open(4, Apart::default());
    let guest = stage.guest();
    let asked = guest.prefault(vec![PageRange::new(0, 2)]);
    until("tries in vain", || guest.figures().get().unwrap().out_of_memory > 5 || asked.is_done());
    assert!(!asked.is_done(), "{:?}", asked.get());
    pool.resize(2).unwrap();
    assert_eq!(asked.get().unwrap().installed, 2);
    assert_eq!(guest.thread(0).verify(0, 2, &[Expect::Source]).unwrap().wrong, 0);
}
