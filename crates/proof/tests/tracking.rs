//! Dirty tracking: whether it is on, and that an export names exactly the pages that were written.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use crossbeam_channel::bounded;
use roaring::RoaringBitmap;
use uffd_core::policy::Tracking;
use uffd_core::session::{DirtyTracking, Export, Owner, Reply};
use uffd_core::units::PageRange;
use uffd_guest::options::{Options, Register};
use uffd_guest::pattern::Content;
use uffd_guest::protocol::Expect;
use uffd_proof::sources::{Broken, Failure};
use uffd_proof::{Case, DEADLINE, HUGE, SMALL, Served, Setting, StageBuilder};
use userfaultfd_sys as sys;

const GUEST: &str = env!("CARGO_BIN_EXE_uffd-proof-guest");
const PAGES: u64 = 10;

fn open(page_size: u64, tracking: DirtyTracking) -> Setting {
    open_with(page_size, tracking, |stage| stage)
}

fn open_with(
    page_size: u64,
    tracking: DirtyTracking,
    change: impl FnOnce(StageBuilder) -> StageBuilder,
) -> Setting {
    let case = Case { guest: GUEST, page_size, tracking: false };
    let pattern = case.pattern().with_lone_zeros(200);
    case.open_with(pattern, &[PAGES - 3, 3], |stage| {
        change(stage.session(|options| options.dirty_tracking = tracking))
    })
}

fn stock(_: &mut Options) {}

fn registered(options: &mut Options) {
    options.register = Register::WriteProtect;
    options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    if options.pattern.page_size == HUGE {
        options.features |= sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
    }
}

fn kernel_tracks(options: &mut Options) {
    registered(options);
    options.features |= sys::UFFD_FEATURE_WP_ASYNC | sys::UFFD_FEATURE_WP_UNPOPULATED;
}

/// The option, the guest, and what comes of the two.
type Row = (DirtyTracking, fn(&mut Options), Tracking);

#[test]
fn whether_pages_are_tracked_follows_the_option_and_the_registration() {
    use DirtyTracking::{Auto, Off, On};
    for page_size in [SMALL, HUGE] {
        let table: [Row; 9] = [
            (Auto, stock, Tracking::Off),
            (Auto, registered, Tracking::Sync),
            (Auto, kernel_tracks, Tracking::Async),
            (On, stock, Tracking::Sync),
            (On, registered, Tracking::Sync),
            (On, kernel_tracks, Tracking::Async),
            (Off, stock, Tracking::Off),
            (Off, registered, Tracking::Off),
            (Off, kernel_tracks, Tracking::Off),
        ];
        for (option, guest, expected) in table {
            let setting = open(page_size, option);
            let guest = setting.guest_with(guest);
            assert_eq!(guest.session.tracking(), expected, "{option:?}");
            guest.thread(0).touch(0, 3).unwrap();
            let on = expected != Tracking::Off;
            let tables = guest.pagemap(0, 3).unwrap();
            // Of the shared zero page the page map tells whether it was written.
            assert!(tables.all(|page| page.wp == on || page.zero), "{option:?}: {tables:?}");
        }
    }
}

/// What a guest does, and what an export must say of it.
fn a_life(guest: &Served) -> (RoaringBitmap, RoaringBitmap) {
    let thread = guest.thread(0);
    thread.touch(0, 2).unwrap(); // read
    thread.write(2, 1, 4).unwrap(); // written whole
    thread.touch(3, 1).unwrap();
    thread.write_word(3, 1, 4, 64).unwrap(); // read, then written
    thread.write(4, 2, 4).unwrap();
    thread.madvise(4, 2).unwrap(); // given back, and 5 read again
    thread.touch(5, 1).unwrap();
    thread.madvise(6, 2).unwrap(); // never touched and given back, over the border; 7 written
    thread.write_word(7, 1, 4, 0).unwrap();
    let removed = PageRange::new(8, 9); // 8 prefaulted, 9 left alone
    guest.session.prefault(vec![removed]).unwrap();
    let read: Vec<u32> = [0_u32, 1, 3, 8].into();
    let zero = |page: &u32| thread.read_page(u64::from(*page)).unwrap() == Content::Zeros;
    let zeros = read.into_iter().filter(zero);
    (RoaringBitmap::from([2, 3, 7]), RoaringBitmap::from_iter([4, 5, 6].into_iter().chain(zeros)))
}

fn check(export: &Export) {
    assert!(export.dirty.is_disjoint(&export.empty), "{export:?}");
    for bitmap in [&export.dirty, &export.empty] {
        let mut bytes = Vec::new();
        bitmap.serialize_into(&mut bytes).unwrap();
        // The portable format begins with a cookie that other implementations know.
        let cookie = u16::from_le_bytes([bytes[0], bytes[1]]);
        assert!(matches!(cookie, 12346 | 12347), "{cookie}");
        assert_eq!(&RoaringBitmap::deserialize_from(&bytes[..]).unwrap(), bitmap);
    }
}

#[test]
fn an_export_names_exactly_what_was_written_and_what_is_empty() {
    for page_size in [SMALL, HUGE] {
        for guest in [stock as fn(&mut Options), registered, kernel_tracks] {
            let setting = open(page_size, DirtyTracking::On);
            let guest = setting.guest_with(guest);
            let (dirty, empty) = a_life(&guest);
            let export = guest.session.export().unwrap();
            check(&export);
            assert!(export.exact);
            assert_eq!(export.dirty, dirty, "{:?}", guest.session.tracking());
            assert_eq!(export.empty, empty, "{:?}", guest.session.tracking());
            // Taken again, it says the same.
            assert_eq!(guest.session.export().unwrap().dirty, dirty);
        }
    }
}

#[test]
fn without_tracking_an_export_names_all_that_could_have_been_written_and_says_so() {
    for page_size in [SMALL, HUGE] {
        let setting = open(page_size, DirtyTracking::Off);
        let guest = setting.guest();
        let (dirty, _) = a_life(&guest);
        let export = guest.session.export().unwrap();
        check(&export);
        assert!(!export.exact);
        assert!(export.dirty.is_superset(&dirty));
        let installed = RoaringBitmap::from([0, 1, 2, 3, 5, 7, 8]);
        assert!(export.dirty.is_superset(&installed), "{:?}", export.dirty);
        // What was given back together with a page that is used again may be filled with it, if
        // nothing else is given back at that moment.
        let (removed, filled) = (RoaringBitmap::from([4, 6]), RoaringBitmap::from([4]));
        assert!(export.empty.is_subset(&removed) && export.empty.contains(6));
        let rest = &removed - &export.empty;
        assert!(rest.is_subset(&export.dirty));
        assert!(rest.is_subset(&filled) && (page_size == SMALL || rest.is_empty()));
    }
}

/// Several are asked for at once, and all are zeros: the first fault fills the others too.
#[test]
fn without_tracking_a_page_that_a_thread_waited_to_write_is_dirty_whoever_filled_it() {
    let case = Case { guest: GUEST, page_size: SMALL, tracking: false };
    let pattern = case.pattern().with_lone_zeros(1000);
    let setting = case.open_with(pattern, &[PAGES], |stage| stage);
    let guest = setting.guest();
    let held = guest.hold();
    let writes: Vec<_> =
        (0..3).map(|page| guest.thread(page).start_write_word(page.into(), 1, 4, 0)).collect();
    let read = guest.thread(3).start_touch(3, 1);
    uffd_proof::until("all to wait", || uffd_proof::waiting_threads(guest.pid()) == 4);
    drop(held);
    writes.into_iter().chain([read]).for_each(|it| assert_eq!(it.get().unwrap().pages, 1));
    let stats = guest.stats();
    assert!(stats.counters.neighbour_pages > 0, "{stats:?}");
    assert_eq!(stats.pages.dirty, 3);
    assert_eq!(stats.pages.zero, stats.counters.zero_pages - 3);
}

#[test]
fn each_page_raises_one_protect_fault_however_often_it_is_written() {
    for page_size in [SMALL, HUGE] {
        let setting = open(page_size, DirtyTracking::On);
        let guest = setting.guest();
        let thread = guest.thread(0);
        thread.touch(0, PAGES).unwrap();
        for stamp in 1..4 {
            thread.write_word(0, PAGES, stamp, 8).unwrap();
        }
        // Writes to pages of zeros are seen by the page map alone, after the first of all pages.
        let tables = guest.pagemap(0, PAGES).unwrap();
        assert!(tables.all(|page| !page.wp && !page.zero));
        let protected = guest.stats().pages.dirty;
        let counters = guest.stats().counters;
        assert_eq!((counters.protect_faults, counters.write_faults), (protected, 0));
        let export = guest.session.export().unwrap();
        assert!(export.exact && export.empty.is_empty());
        assert_eq!(export.dirty.len(), PAGES);
        // Given back and read again, the page reports its next write.
        thread.madvise(1, 1).unwrap();
        thread.touch(1, 1).unwrap();
        let export = guest.session.export().unwrap();
        assert!(!export.dirty.contains(1) && export.empty.contains(1));
        thread.write_word(1, 1, 9, 8).unwrap();
        let export = guest.session.export().unwrap();
        assert!(export.dirty.contains(1) && !export.empty.contains(1));
        let again = u64::from(page_size == HUGE);
        assert_eq!(guest.stats().counters.protect_faults, protected + again);
    }
}

#[test]
fn many_threads_that_write_one_protected_page_all_go_on() {
    for page_size in [SMALL, HUGE] {
        let setting = open(page_size, DirtyTracking::On);
        let guest = setting.guest();
        guest.thread(0).touch(0, 1).unwrap();
        let held = guest.hold();
        let writes: Vec<_> =
            (0..6).map(|number| guest.thread(number).start_write_word(0, 1, 3, 0)).collect();
        uffd_proof::until("all writers to wait", || uffd_proof::waiting_threads(guest.pid()) == 6);
        drop(held);
        for write in writes {
            assert_eq!(write.get().unwrap().pages, 1);
        }
        let counters = guest.stats().counters;
        assert_eq!((counters.protect_faults, counters.duplicate_faults), (1, 5));
    }
}

/// A VMM that looks for dirty pages anew protects all of its memory. Where a page is absent that
/// leaves a mark in the page table, over which the kernel refuses to map the zero page.
#[test]
fn absent_pages_that_the_vmm_has_protected_are_filled_like_others() {
    let synchronous = |options: &mut Options| {
        registered(options);
        options.features |= sys::UFFD_FEATURE_WP_UNPOPULATED;
    };
    for page_size in [SMALL, HUGE] {
        for guest in [synchronous as fn(&mut Options), kernel_tracks] {
            for option in [DirtyTracking::Auto, DirtyTracking::Off] {
                let setting = open(page_size, option);
                let guest = setting.guest_with(guest);
                let thread = guest.thread(0);
                thread.protect(0, PAGES).unwrap();
                assert_eq!(thread.verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
                thread.write(4, 2, 7).unwrap();
                thread.madvise(0, 5).unwrap();
                thread.protect(0, PAGES).unwrap();
                assert_eq!(thread.read_page(0).unwrap(), Content::Zeros);
                thread.write(1, 1, 8).unwrap();
                assert_eq!(thread.read_page(1).unwrap(), Content::Stamp(8));
                let all = vec![PageRange::new(0, PAGES)];
                let report = guest.session.prefault(all).unwrap();
                // The first touch of small pages brings those that were given back with it.
                let removed = if page_size == HUGE { 3 } else { 0 };
                assert_eq!((report.removed, report.failed), (removed, 0), "{report:?}");
                assert_eq!(thread.verify(2, 3, &[Expect::Zeros]).unwrap().wrong, 0);
                assert_eq!(thread.verify(5, 1, &[Expect::Stamp(7)]).unwrap().wrong, 0);
                assert_eq!(thread.verify(6, 4, &[Expect::Source]).unwrap().wrong, 0);
                assert_eq!(guest.session.owner(), Some(Owner::Peer));
            }
        }
    }
}

#[test]
fn an_absent_page_that_the_vmm_has_protected_can_be_poisoned() {
    for page_size in [SMALL, HUGE] {
        let setting = open_with(page_size, DirtyTracking::Auto, |stage| {
            stage
                .source(move |file| Broken::new(file, page_size..2 * page_size, Failure::Truncated))
        });
        let guest = setting.guest_with(kernel_tracks);
        guest.thread(0).protect(0, PAGES).unwrap();
        assert_eq!(guest.thread(0).read_page(1).unwrap(), Content::Poisoned);
        assert_eq!(guest.stats().counters.poisoned_pages, 1);
    }
}

/// The mark of a poisoned page looks like a written page to PAGEMAP_SCAN.
#[test]
fn a_poisoned_page_is_neither_dirty_nor_empty() {
    for guest in [stock as fn(&mut Options), kernel_tracks] {
        let setting = open_with(SMALL, DirtyTracking::On, |stage| {
            stage.source(|file| Broken::new(file, SMALL..2 * SMALL, Failure::Truncated))
        });
        let guest = setting.guest_with(guest);
        assert_eq!(guest.thread(0).read_page(1).unwrap(), Content::Poisoned);
        guest.thread(0).write(2, 1, 5).unwrap();
        let export = guest.session.export().unwrap();
        assert_eq!(export.counts.poisoned, 1);
        assert_eq!(export.dirty, RoaringBitmap::from([2]), "{:?}", guest.session.tracking());
        assert!(!export.empty.contains(1));
    }
}

/// Where the kernel does the tracking, only the guest's page map tells what was written, and it is
/// looked at while the guest goes on. A page that was written and is given back before it is looked
/// at was never since what the snapshot holds.
#[test]
fn a_page_given_back_in_the_middle_of_an_export_is_not_taken_for_the_snapshots() {
    const PAGES: u64 = 600;
    for page_size in [SMALL, HUGE] {
        let pages = if page_size == HUGE { 24 } else { PAGES };
        let case = Case { guest: GUEST, page_size, tracking: false };
        let setting = case.open_with(case.pattern(), &[pages], |stage| {
            stage.session(|options| options.dirty_tracking = DirtyTracking::On)
        });
        let guest = setting.guest_with(kernel_tracks);
        assert_eq!(guest.session.tracking(), Tracking::Async);
        let thread = guest.thread(0);
        thread.touch(0, pages).unwrap();
        for page in 0..pages {
            thread.write_word(page, 1, 5, 0).unwrap();
            let (reply, exported) = bounded(1);
            let ask = Reply::new(move |export| drop(reply.send(export)));
            let given_back = guest.thread(1).start_madvise(page, 1);
            guest.session.export_with(ask);
            // Of huge pages the next fault leaves zeros that are protected, as if not written.
            let read = guest.thread(2).start_touch(page, 1);
            let export = exported.recv_timeout(DEADLINE).unwrap().unwrap();
            let number = u32::try_from(page).unwrap();
            let known = export.dirty.contains(number) || export.empty.contains(number);
            assert!(known, "page {page} of {page_size} bytes is the snapshot's: {export:?}");
            given_back.get().unwrap();
            read.get().unwrap();
        }
    }
}
