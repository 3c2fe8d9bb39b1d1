//! Pages that are there before the handoff, and protected, as by a VMM that tracks dirty pages by
//! itself: whoever looks whether tracking is on must not take that protection away.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use roaring::RoaringBitmap;
use uffd_core::policy::Tracking;
use uffd_core::session::{DirtyTracking, SessionOptions};
use uffd_guest::options::{Options, Register};
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Expect;
use uffd_proof::{HUGE, HugePages, SMALL, Served, Stage, StageBuilder};
use userfaultfd_sys as sys;

/// Pages of each region.
const REGIONS: [u64; 3] = [8, 4, 4];
const PAGES: u64 = 16;

/// The first pages of the regions.
const FIRST: [u32; 3] = [0, 8, 12];

/// A guest of which `populate` pages of each region are there.
struct Setting {
    guest: Served,
    _stage: Stage,
    _pool: Option<HugePages>,
}

/// The handler is told of writes.
const SYNC: u64 = sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP | sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM;

/// The kernel does the tracking.
const ASYNC: u64 = SYNC | sys::UFFD_FEATURE_WP_UNPOPULATED | sys::UFFD_FEATURE_WP_ASYNC;

fn open(page_size: u64, tracking: DirtyTracking, features: u64) -> Setting {
    let pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
    let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let stage = StageBuilder::new(program, Pattern::new(2, page_size), &REGIONS)
        .session(|options: &mut SessionOptions| options.dirty_tracking = tracking)
        .open();
    let guest = stage.guest_with(|options: &mut Options| {
        options.populate = 2;
        options.register = Register::WriteProtect;
        options.features |= features;
    });
    let expected = if features == ASYNC { Tracking::Async } else { Tracking::Sync };
    assert_eq!(guest.session.tracking(), expected);
    Setting { guest, _stage: stage, _pool: pool }
}

#[test]
fn pages_stay_protected_through_the_handoff() {
    for page_size in [SMALL, HUGE] {
        for (tracking, features) in [
            (DirtyTracking::Auto, SYNC),
            (DirtyTracking::On, SYNC),
            (DirtyTracking::Auto, ASYNC),
            (DirtyTracking::On, ASYNC),
        ] {
            let setting = open(page_size, tracking, features);
            for (page, state) in setting.guest.pagemap(0, PAGES).unwrap().pages() {
                assert_eq!(state.wp, state.present, "page {page} of {page_size} bytes");
            }
        }
    }
}

#[test]
fn the_next_write_to_a_protected_page_is_reported() {
    for page_size in [SMALL, HUGE] {
        for tracking in [DirtyTracking::Auto, DirtyTracking::On] {
            let setting = open(page_size, tracking, SYNC);
            let guest = &setting.guest;
            // Of the pages that were there, the first of each region and one other are written.
            let thread = guest.thread(0);
            let mut written = RoaringBitmap::from_iter(FIRST);
            written.insert(9);
            for page in &written {
                thread.write_word(page.into(), 1, 3, 64).unwrap();
            }
            let export = guest.session.export().unwrap();
            assert!(export.exact);
            assert_eq!(export.dirty, written, "pages of {page_size} bytes, {tracking:?}");
            assert!(export.empty.is_empty());
            let counters = guest.stats().counters;
            assert_eq!(counters.protect_faults, written.len());
            // Everything else is filled and tracked as ever.
            assert_eq!(thread.verify(2, 6, &[Expect::Source]).unwrap().wrong, 0);
            thread.write_word(3, 1, 3, 0).unwrap();
            written.insert(3);
            assert_eq!(guest.session.export().unwrap().dirty, written);
        }
    }
}

/// As stock Firecracker registers its memory: then nothing protects what is there, and whoever writes
/// to it is not seen. It may have been written, and nobody knows.
#[test]
fn a_page_that_was_there_unprotected_counts_as_written() {
    for page_size in [SMALL, HUGE] {
        let pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
        let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
        let stage = StageBuilder::new(program, Pattern::new(2, page_size), &REGIONS)
            .session(|options| options.dirty_tracking = DirtyTracking::On)
            .open();
        let guest = stage.guest_with(|options| options.populate = 2);
        assert_eq!(guest.session.tracking(), Tracking::Sync);
        let thread = guest.thread(0);
        thread.write_word(0, 1, 3, 64).unwrap();
        thread.write_word(4, 1, 3, 64).unwrap();
        let export = guest.session.export().unwrap();
        assert!(!export.exact);
        assert_eq!(export.dirty, RoaringBitmap::from([0, 1, 4, 8, 9, 12, 13]), "{page_size}");

        // What was given back since is known again.
        thread.madvise(0, PAGES).unwrap();
        thread.write_word(9, 1, 3, 64).unwrap();
        let export = guest.session.export().unwrap();
        assert!(export.exact);
        assert_eq!(export.dirty, RoaringBitmap::from([9]), "{page_size}");
        drop((guest, stage, pool));
    }
}

/// Nobody asked for it to be filled, and it may differ from the snapshot all the same: who leaves it
/// out of a diff snapshot loses it.
#[test]
fn a_page_that_was_there_counts_as_written_without_tracking_too() {
    for page_size in [SMALL, HUGE] {
        let pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
        let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
        let stage = StageBuilder::new(program, Pattern::new(2, page_size), &REGIONS)
            .session(|options| options.dirty_tracking = DirtyTracking::Off)
            .open();
        let guest = stage.guest_with(|options| options.populate = 2);
        let thread = guest.thread(0);
        thread.write_word(0, 1, 3, 64).unwrap();
        thread.write_word(4, 1, 3, 64).unwrap();
        let export = guest.session.export().unwrap();
        assert!(!export.exact);
        for page in [0, 1, 4, 8, 9, 12, 13] {
            assert!(export.dirty.contains(page), "{page} of {page_size} bytes: {:?}", export.dirty);
        }
        assert!(!export.dirty.contains(15) && export.empty.is_empty(), "{export:?}");

        thread.madvise(8, 8).unwrap();
        let export = guest.session.export().unwrap();
        assert!((8..16).all(|page| export.empty.contains(page)), "{:?}", export.empty);
        drop((guest, stage, pool));
    }
}

/// A page that lost its protection looks like one that was written.
#[test]
fn what_the_kernel_tracked_before_the_handoff_stays_known() {
    for page_size in [SMALL, HUGE] {
        for tracking in [DirtyTracking::Auto, DirtyTracking::On] {
            let setting = open(page_size, tracking, ASYNC);
            let guest = &setting.guest;
            let export = guest.session.export().unwrap();
            assert!(export.exact && export.dirty.is_empty(), "{:?}", export.dirty);
            guest.thread(0).write_word(8, 2, 3, 64).unwrap();
            let export = guest.session.export().unwrap();
            assert_eq!(export.dirty, RoaringBitmap::from([8, 9]), "of {page_size} bytes");
        }
    }
}

/// Under 'off' nobody asks, and nothing may be touched either.
#[test]
fn without_tracking_the_vmm_keeps_its_protection() {
    let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let stage = StageBuilder::new(program, Pattern::new(2, SMALL), &REGIONS)
        .session(|options| options.dirty_tracking = DirtyTracking::Off)
        .open();
    let guest = stage.guest_with(|options| {
        options.populate = 1;
        options.register = Register::WriteProtect;
        options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    });
    assert_eq!(guest.pagemap(0, PAGES).unwrap().count(|page| page.wp), 3);
    guest.thread(0).write_word(8, 1, 3, 64).unwrap();
    assert!(guest.session.export().unwrap().dirty.contains(8));
}
