//! Guests whose process cannot be seen from the handler's pid namespace: no pidfd tells of their
//! end, and no page map whether a huge page is there.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::time::Duration;

use uffd_core::session::DirtyTracking;
use uffd_core::units::PageRange;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::Expect;
use uffd_proof::{
    Apart, ApartStage, Cast, Ending, HUGE, HugePages, SMALL, ServedApart, Serving, Sight,
    StageBuilder, until,
};

const PAGES: u64 = 6;

fn open(page_size: u64) -> ApartStage {
    let (guest, pattern) = (env!("CARGO_BIN_EXE_uffd-proof-guest"), Pattern::new(5, page_size));
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let apart = Apart { sight: Sight::OtherNamespace, ..Apart::default() };
    StageBuilder::new(guest, pattern, &[PAGES]).open_apart(&cast, apart)
}

/// A guest in our namespace, which the handler cannot see.
fn guest(stage: &ApartStage) -> ServedApart {
    let guest = stage.guest();
    assert_eq!(guest.seen_as(), None);
    assert_eq!(guest.kill().get(), Ok(false));
    guest
}

#[test]
fn a_guest_in_another_pid_namespace_is_served_and_its_end_is_seen() {
    for page_size in [SMALL, HUGE] {
        let _pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
        let stage = open(page_size);
        for close_socket in [false, true] {
            let mut guest = guest(&stage);
            let thread = guest.thread(0);
            assert_eq!(thread.verify(0, 3, &[Expect::Source]).unwrap().wrong, 0);
            thread.write(3, 1, 9).unwrap();
            thread.madvise(0, 2).unwrap();
            assert_eq!(thread.verify(0, 2, &[Expect::Zeros]).unwrap().wrong, 0);
            if close_socket {
                // As before Firecracker 1.12: it is no sign of the guest's end.
                guest.close_socket().unwrap();
            }
            assert_eq!(thread.verify(4, 2, &[Expect::Source]).unwrap().wrong, 0);
            assert_eq!(thread.read_page(3).unwrap(), Content::Stamp(9));
            guest.guest.kill().unwrap();
            assert_eq!(guest.end().0, Ending::GuestExited);
        }
    }
}

/// Without a page map zeros are copied to be protected: what was given back is not all taken again
/// for one page of it.
#[test]
fn reading_of_what_was_given_back_takes_memory_for_few_pages() {
    const PAGES: u64 = 1024;
    let (guest, pattern) = (env!("CARGO_BIN_EXE_uffd-proof-guest"), Pattern::new(5, SMALL));
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let apart = Apart { sight: Sight::OtherNamespace, ..Apart::default() };
    let stage = StageBuilder::new(guest, pattern, &[PAGES])
        .session(|options| options.dirty_tracking = DirtyTracking::On)
        .open_apart(&cast, apart);
    let guest = stage.guest();
    let thread = guest.thread(0);
    assert_eq!(thread.verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    // Of each 2 MiB a part stays in use.
    thread.madvise(100, 400).unwrap();
    thread.madvise(612, 400).unwrap();
    let zeros = || guest.figures().get().unwrap().zero_pages;
    assert_eq!(zeros(), 0);
    assert_eq!(thread.verify(300, 1, &[Expect::Zeros]).unwrap().wrong, 0);
    guest.settle().get().unwrap();
    assert!((1..=16).contains(&zeros()), "{} pages for one", zeros());
    thread.write(800, 1, 9).unwrap();
    guest.settle().get().unwrap();
    assert!((2..=32).contains(&zeros()), "{} pages for two", zeros());
}

/// EEXIST means that a huge page is there, or that there is none to be had. Without a page map the
/// threads have to find out, once; then the page is waited for like any other.
#[test]
fn a_pool_that_is_used_up_is_waited_for_without_a_page_map() {
    let pool = HugePages::reserve(4).unwrap();
    let stage = open(HUGE);
    let mut guest = guest(&stage);
    // Of several threads that miss one page, some may come too late and find it there.
    let all: Vec<_> = (0..4).map(|thread| guest.thread(thread).start_touch(0, 4)).collect();
    all.into_iter().for_each(|touched| assert_eq!(touched.get().unwrap().pages, 4));

    let read = guest.thread(1).start_read(4, 1);
    let write = guest.thread(2).start_write(5, 1, 9);
    let notice = guest.notice();
    assert!(notice.starts_with("OutOfMemory") && notice.contains("huge: true"), "{notice}");
    assert_eq!(guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
    assert!(!read.is_done() && !write.is_done());

    // What is given back is taken by one of them, and then missed itself.
    guest.thread(0).madvise(0, 1).unwrap();
    until("one to be served", || read.is_done() || write.is_done());
    assert!(!read.is_done() || !write.is_done());
    let given_back = guest.thread(0).start_read(0, 1);

    pool.resize(PAGES + 1).unwrap();
    assert!(read.get().unwrap().all(|content| *content == Content::Source));
    write.get().unwrap();
    assert!(given_back.get().unwrap().all(|content| *content == Content::Zeros));
    assert_eq!(guest.thread(0).read_page(5).unwrap(), Content::Stamp(9));
    guest.guest.kill().unwrap();
    let (ending, figures) = guest.end();
    assert_eq!(ending, Ending::GuestExited);
    // Waking again and again would be a spin.
    assert!(figures.wakes < 30, "{} wakes", figures.wakes);
}

/// A page that is there looks like one for which there is no memory. Of a prefault nobody can find out:
/// that page is told of each time, and the others do not wait for it.
#[test]
fn a_page_that_may_be_there_holds_up_no_prefault_without_a_page_map() {
    const NEVER: Duration = Duration::from_secs(3600);
    let _pool = HugePages::reserve(PAGES).unwrap();
    let (program, pattern) = (env!("CARGO_BIN_EXE_uffd-proof-guest"), Pattern::new(5, HUGE));
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let apart = Apart { sight: Sight::OtherNamespace, ..Apart::default() };
    let stage = StageBuilder::new(program, pattern, &[PAGES])
        .session(|options| options.fault_deadline = NEVER)
        .open_apart(&cast, apart);
    let guest = stage.guest_with(|options| options.populate = 2);
    for installed in [1, 0, 3] {
        let end = if installed == 3 { PAGES } else { 3 };
        let report = guest.prefault(vec![PageRange::new(0, end)]).get().unwrap();
        assert_eq!((report.installed, report.failed), (installed, 2), "{report:?}");
    }
    assert_eq!(guest.figures().get().unwrap().out_of_memory, 0);
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}
