//! A page that was given back holds zeros, whatever it held before, and only such a page does.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_core::states::PublicState;
use uffd_guest::pattern::Content;
use uffd_guest::protocol::Expect;
use uffd_proof::{Case, Served, in_all_modes};

in_all_modes!(
    remove_then_read,
    remove_then_write,
    remove_of_pages_never_touched,
    remove_over_a_mix,
    remove_next_to_live_pages,
    remove_of_part_of_a_page,
    remove_again_and_again,
    remove_across_regions,
    a_page_that_vanishes_without_an_event_is_filled_with_zeros,
    the_page_tables_follow_the_table_of_the_design,
);

const PAGES: u64 = 8;

fn states(guest: &Served) -> Vec<PublicState> {
    let export = guest.session.export().unwrap();
    export.regions.into_iter().flat_map(|region| region.states).collect()
}

fn remove_then_read(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.touch(0, PAGES).unwrap();
    thread.madvise(2, 3).unwrap();
    assert_eq!(states(&guest)[2..5], [PublicState::Removed; 3]);
    assert!(!guest.pagemap(2, 3).unwrap().all(|page| page.present));
    assert_eq!(thread.verify(2, 3, &[Expect::Zeros]).unwrap().wrong, 0);
    assert_eq!(states(&guest)[2..5], [PublicState::Faulted; 3]);
    let counters = guest.stats().counters;
    assert_eq!((counters.remove_events, counters.removed_pages), (1, 3));
}

fn remove_then_write(case: Case) {
    let setting = case.open(2);
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.write(0, 2, 3).unwrap();
    thread.madvise(0, 2).unwrap();
    thread.write_word(1, 1, 4, 16).unwrap();
    let patched = Content::Patched { base: Box::new(Content::Zeros), at: 16, stamp: 4 };
    assert_eq!(thread.read_page(1).unwrap(), patched);
    assert_eq!(thread.read_page(0).unwrap(), Content::Zeros);
    let export = guest.session.export().unwrap();
    assert!(export.dirty.contains(1) && !export.empty.contains(1));
    assert_eq!(export.exact, case.tracking);
    assert_eq!(export.empty.contains(0), case.tracking, "{export:?}");
}

fn remove_of_pages_never_touched(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    guest.thread(0).madvise(1, PAGES - 1).unwrap();
    assert_eq!(guest.stats().pages.removed, PAGES - 1);
    assert_eq!(guest.thread(1).verify(1, PAGES - 1, &[Expect::Zeros]).unwrap().wrong, 0);
    assert_eq!(guest.thread(1).read_page(0).unwrap(), Content::Source);
}

fn remove_over_a_mix(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    let thread = guest.thread(0);
    // 0 clean, 1 unfaulted, 2 dirty, 3 removed, 4 zero, 5 removed and written, 6 unfaulted.
    thread.touch(0, 1).unwrap();
    thread.madvise(3, 3).unwrap();
    thread.touch(4, 1).unwrap();
    thread.write(5, 1, 8).unwrap();
    thread.write(2, 1, 8).unwrap();
    thread.madvise(0, 7).unwrap();
    assert_eq!(thread.verify(0, 7, &[Expect::Zeros]).unwrap().wrong, 0);
    assert_eq!(thread.read_page(7).unwrap(), Content::Source);
}

fn remove_next_to_live_pages(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.touch(0, 1).unwrap();
    thread.write(2, 1, 6).unwrap();
    thread.madvise(1, 1).unwrap();
    thread.madvise(3, 1).unwrap();
    let contents = [Content::Source, Content::Zeros, Content::Stamp(6), Content::Zeros];
    for (page, content) in (0..).zip(contents) {
        assert_eq!(thread.read_page(page).unwrap(), content, "page {page}");
    }
    assert_eq!(thread.read_page(4).unwrap(), Content::Source);
}

fn remove_of_part_of_a_page(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.write(0, 4, 2).unwrap();
    // The kernel itself refuses a start inside a page.
    let refused = thread.madvise_bytes(0, case.page_size / 2, case.page_size);
    if case.is_huge() {
        assert!(refused.is_err());
    } else {
        assert_eq!(refused.unwrap_err().errno(), Some(22));
    }
    // It rounds a small end up, and a huge one down: the page belongs to what is given back or
    // stays, and never loses a part.
    thread.madvise_bytes(1, 0, case.page_size + 100).unwrap();
    let third = if case.is_huge() { Content::Stamp(2) } else { Content::Zeros };
    let contents = [Content::Stamp(2), Content::Zeros, third, Content::Stamp(2)];
    for (page, content) in (0..).zip(contents) {
        assert_eq!(thread.read_page(page).unwrap(), content, "page {page}");
    }
}

fn remove_again_and_again(case: Case) {
    let setting = case.open(2);
    let guest = setting.guest();
    let thread = guest.thread(0);
    for stamp in 1..20 {
        thread.write(0, 1, stamp).unwrap();
        assert_eq!(thread.read_page(0).unwrap(), Content::Stamp(stamp));
        thread.madvise(0, 1).unwrap();
        thread.madvise(0, 1).unwrap();
        assert_eq!(thread.read_page(0).unwrap(), Content::Zeros);
    }
    assert_eq!(thread.read_page(1).unwrap(), Content::Source);
}

fn remove_across_regions(case: Case) {
    let setting = case.open_with(case.pattern(), &[3, 2, 3], |stage| stage);
    let falling = |options: &mut uffd_guest::options::Options| {
        options.place = uffd_guest::options::Place::Falling;
    };
    let guest = setting.guest_with(falling);
    let thread = guest.thread(0);
    thread.touch(0, 4).unwrap();
    thread.madvise(2, 4).unwrap();
    assert_eq!(thread.verify(2, 4, &[Expect::Zeros]).unwrap().wrong, 0);
    assert_eq!(thread.verify(0, 2, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(thread.verify(6, 2, &[Expect::Source]).unwrap().wrong, 0);
}

/// A zap after the install looks like this to the handler: the tracker says that the page is
/// there, and the kernel that it is not.
fn a_page_that_vanishes_without_an_event_is_filled_with_zeros(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest_with(|options| options.features = 0);
    let thread = guest.thread(0);
    // Clean, dirty and zero pages: all of them vanish, twice.
    thread.touch(0, 2).unwrap();
    thread.write(2, 2, 5).unwrap();
    for stamp in [6, 7] {
        thread.madvise(0, 4).unwrap();
        assert_eq!(thread.verify(0, 3, &[Expect::Zeros]).unwrap().wrong, 0);
        thread.write_word(3, 1, stamp, 0).unwrap();
        let patched = Content::Patched { base: Box::new(Content::Zeros), at: 0, stamp };
        assert_eq!(thread.read_page(3).unwrap(), patched);
    }
    assert_eq!(thread.verify(4, 4, &[Expect::Source]).unwrap().wrong, 0);
}

/// The bits that bytes do not show: present, protected, and the shared page of zeros.
fn the_page_tables_follow_the_table_of_the_design(case: Case) {
    use uffd_core::session::FaultAround;
    let off = |stage: uffd_proof::StageBuilder| {
        stage.session(|options| options.fault_around = FaultAround::Off)
    };
    let setting = case.open_with(case.pattern(), &[6], off);
    let guest = setting.guest();
    let thread = guest.thread(0);
    let bits = |page| {
        let state = *guest.pagemap(page, 1).unwrap().at(page).unwrap();
        (state.present, state.wp, state.zero)
    };
    let small = !case.is_huge();
    assert_eq!(bits(0), (false, false, false));
    thread.touch(0, 1).unwrap();
    assert_eq!(bits(0), (true, case.tracking, false), "source for a read");
    thread.write_word(1, 1, 1, 0).unwrap();
    assert_eq!(bits(1), (true, false, false), "source for a write");
    thread.madvise(2, 2).unwrap();
    assert!(!bits(2).0 && !bits(3).0, "given back");
    thread.touch(2, 1).unwrap();
    // The page map tells whether they were written, so that they need no protection.
    assert_eq!(bits(2), (true, case.tracking && !small, small), "zeros for a read");
    thread.write_word(3, 1, 1, 0).unwrap();
    assert_eq!(bits(3), (true, false, false), "zeros for a write");
    // A write to what was filled for a read takes the protection away, and only there.
    thread.write_word(0, 1, 1, 0).unwrap();
    assert_eq!(bits(0), (true, false, false), "written later");
    assert_eq!(bits(2).1, case.tracking && !small);
    // Ahead of any access: as for a read.
    guest.session.prefault(vec![uffd_core::units::PageRange::new(4, 6)]).unwrap();
    assert_eq!(bits(4), (true, case.tracking, false), "prefault");
    assert_eq!(bits(5), bits(4));
}
