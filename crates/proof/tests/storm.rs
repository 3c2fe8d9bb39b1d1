//! Guests that give memory back without end, from before their handoff on. While one of their
//! events is unread, or its thread has not run again, the kernel refuses to change anything; with
//! many threads that is always. A session has to begin all the same, and to answer, and what could
//! not be installed meanwhile is installed when the storm is over.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_core::session::DirtyTracking;
use uffd_guest::options::{Options, Register};
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Expect;
use uffd_proof::{Apart, Cast, Ending, HUGE, HugePages, SMALL, Serving, StageBuilder, until};
use userfaultfd_sys as sys;

const PAGES: u64 = 64;

/// A session begins in the storm, and serves the guest.
fn is_served(page_size: u64, tracking: DirtyTracking, threads: u32, change: fn(&mut Options)) {
    let (program, pattern) = (env!("CARGO_BIN_EXE_uffd-proof-guest"), Pattern::new(6, page_size));
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let _pool = (page_size == HUGE).then(|| HugePages::reserve(8).unwrap());
    let stage = StageBuilder::new(program, pattern, &[PAGES])
        .session(|options| options.dirty_tracking = tracking)
        .open_apart(&cast, Apart::default());
    let mut guest = stage.guest_with(|options| {
        options.storm = threads;
        change(options);
    });
    // The storm goes on until it is told to be calm.
    let read = guest.thread(0).start_verify(0, 4, &[Expect::Source]);
    let write = guest.thread(1).start_write(4, 2, 7);
    let events = || guest.figures().get().unwrap().remove_events;
    let before = events();
    until("more events to be read", || events() > before + 1000);
    let rounds = guest.thread(2).calm().unwrap();
    assert_eq!(read.get().unwrap().wrong, 0);
    write.get().unwrap();
    let thread = guest.thread(0);
    assert_eq!(thread.verify(4, 2, &[Expect::Stamp(7)]).unwrap().wrong, 0);
    assert_eq!(thread.verify(PAGES - 1, 1, &[Expect::Zeros]).unwrap().wrong, 0);
    guest.settle().get().unwrap();
    assert!(events() >= rounds, "each round gives one page back");

    let export = guest.export().get().unwrap();
    assert!(export.dirty.is_superset(&[4, 5].into()), "{export:?}");
    if export.exact {
        assert_eq!(export.dirty, [4, 5].into());
    }
    guest.guest.kill().unwrap();
    assert_eq!(guest.end().0, Ending::GuestExited);
}

const fn stock(_: &mut Options) {}

/// As a VMM does that tracks by itself.
fn registered(options: &mut Options) {
    options.register = Register::WriteProtect;
    options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP | sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
}

#[test]
fn a_storm_does_not_keep_a_session_from_beginning() {
    for threads in [8, 32] {
        is_served(SMALL, DirtyTracking::Auto, threads, stock);
    }
}

#[test]
fn a_storm_does_not_keep_a_registration_from_being_seen() {
    for threads in [8, 32] {
        is_served(SMALL, DirtyTracking::Auto, threads, registered);
    }
}

#[test]
fn a_storm_on_huge_pages_does_not_keep_a_session_from_beginning() {
    for guest in [stock as fn(&mut Options), registered] {
        is_served(HUGE, DirtyTracking::Auto, 8, guest);
    }
}

#[test]
fn a_storm_does_not_keep_tracking_from_beginning_or_from_being_left_out() {
    for tracking in [DirtyTracking::On, DirtyTracking::Off] {
        for threads in [8, 32] {
            is_served(SMALL, tracking, threads, stock);
        }
    }
}
