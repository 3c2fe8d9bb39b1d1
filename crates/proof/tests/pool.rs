//! The pool of huge pages is used up: the guest waits, and goes on as soon as there are pages.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::time::Duration;

use uffd_core::session::{Cause, End, Notice, SessionError, Unservable};
use uffd_core::units::{PageIndex, PageRange};
use uffd_guest::pattern::Content;
use uffd_guest::protocol::Expect;
use uffd_proof::{Case, HUGE, Served, Setting, until};

const PAGES: u64 = 6;

const CASES: [Case; 2] = [case(false), case(true)];

const fn case(tracking: bool) -> Case {
    Case { guest: env!("CARGO_BIN_EXE_uffd-proof-guest"), page_size: HUGE, tracking }
}

/// A guest of six huge pages, with four to be had.
fn short_of_pages(
    case: Case,
    change: impl FnOnce(&mut uffd_core::session::SessionOptions),
) -> (Setting, Served) {
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| stage.session(change));
    setting.pool().unwrap().resize(4).unwrap();
    let guest = setting.guest();
    (setting, guest)
}

fn until_out_of_memory(guest: &Served) {
    until("an install to find no memory", || guest.stats().counters.out_of_memory > 2);
}

#[test]
fn a_guest_waits_for_huge_pages_and_goes_on_when_there_are_some() {
    for case in CASES {
        let (setting, guest) = short_of_pages(case, |_| {});
        guest.thread(0).touch(0, 4).unwrap();
        let read = guest.thread(1).start_read(4, 1);
        let write = guest.thread(2).start_write(5, 1, 9);
        until_out_of_memory(&guest);
        let Notice::OutOfMemory { page, huge: true } = guest.notice() else { panic!() };
        assert!((4..6).contains(&page.0));
        // Everything else goes on meanwhile, and what is given back serves those who wait.
        assert_eq!(guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
        assert!(!read.is_done() || !write.is_done());
        guest.thread(0).madvise(0, 1).unwrap();
        until("one of the two to be served", || read.is_done() || write.is_done());
        setting.pool().unwrap().resize(PAGES).unwrap();
        assert!(read.get().unwrap().all(|content| *content == Content::Source));
        write.get().unwrap();
        assert_eq!(guest.thread(0).read_page(5).unwrap(), Content::Stamp(9));
        assert_eq!(guest.thread(0).read_page(0).unwrap(), Content::Zeros);
        assert_eq!(guest.thread(0).verify(1, 3, &[Expect::Source]).unwrap().wrong, 0);
        guest.session.settle().unwrap();
        assert_eq!(guest.session.stop(), End::Stopped);
    }
}

/// The false EEXIST of a used-up pool must not be taken for a page that is there.
#[test]
fn a_page_given_back_and_missed_again_is_waited_for_too() {
    for case in CASES {
        let (setting, guest) = short_of_pages(case, |_| {});
        guest.thread(0).write(0, 4, 3).unwrap();
        guest.thread(0).madvise(3, 1).unwrap();
        guest.thread(0).touch(4, 1).unwrap();
        // All four are in use again: the page that was given back has none.
        let read = guest.thread(1).start_read(3, 1);
        until_out_of_memory(&guest);
        assert!(!read.is_done());
        setting.pool().unwrap().resize(5).unwrap();
        assert!(read.get().unwrap().all(|content| *content == Content::Zeros));
        assert_eq!(guest.thread(0).verify(0, 3, &[Expect::Stamp(3)]).unwrap().wrong, 0);
    }
}

/// Nobody waits for a page any more.
#[test]
fn a_released_guest_is_ended_by_an_empty_pool() {
    for case in CASES {
        let (setting, guest) = short_of_pages(case, |_| {});
        setting.pool().unwrap().resize(PAGES).unwrap();
        guest.thread(0).touch(0, PAGES).unwrap();
        guest.thread(0).madvise(3, 1).unwrap();
        assert_eq!(guest.session.release(true).unwrap(), Ok(()));
        setting.pool().unwrap().resize(PAGES - 1).unwrap();
        // SIGBUS, of the kernel's own.
        assert_eq!(guest.thread(1).read_page(3).unwrap(), Content::Poisoned);
        setting.pool().unwrap().resize(PAGES).unwrap();
        assert_eq!(guest.thread(1).read_page(3).unwrap(), Content::Zeros);
    }
}

#[test]
fn waiting_for_memory_is_no_spin() {
    let (setting, guest) = short_of_pages(case(false), |_| {});
    guest.thread(0).touch(0, 4).unwrap();
    let read = guest.thread(1).start_read(4, 1);
    until_out_of_memory(&guest);
    let before = (guest.stats().counters.out_of_memory, guest.stats().uptime);
    until("time to pass", || guest.stats().uptime - before.1 > Duration::from_millis(500));
    let after = (guest.stats().counters.out_of_memory, guest.stats().uptime);
    // Pauses grow to 100 ms: far fewer tries than one a millisecond.
    let millis = u64::try_from((after.1 - before.1).as_millis()).unwrap();
    assert!(after.0 - before.0 < 20 + millis / 20, "{} tries in {millis} ms", after.0 - before.0);
    setting.pool().unwrap().resize(5).unwrap();
    read.get().unwrap();
}

#[test]
fn after_the_deadline_the_page_is_poisoned() {
    for case in CASES {
        let soon = Duration::from_millis(50);
        let (_setting, guest) = short_of_pages(case, |options| options.fault_deadline = soon);
        guest.thread(0).touch(0, 4).unwrap();
        assert_eq!(guest.thread(1).read_page(4).unwrap(), Content::Poisoned);
        let Notice::OutOfMemory { .. } = guest.notice() else { panic!() };
        let Notice::Poisoned { page, offset, cause } = guest.notice() else { panic!() };
        assert_eq!((page, offset), (PageIndex(4), 4 * HUGE));
        let Cause::NoMemory { huge: true, waited } = cause else { panic!("{cause}") };
        assert!(waited >= soon);
        let export = guest.session.export().unwrap();
        assert_eq!(export.counts.poisoned, 1);
        assert!(!export.dirty.contains(4) && !export.empty.contains(4));
        assert_eq!(guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
    }
}

#[test]
fn after_the_deadline_the_session_fails_where_that_is_asked_for() {
    let (_setting, guest) = short_of_pages(case(false), |options| {
        options.fault_deadline = Duration::from_millis(50);
        options.on_unservable = Unservable::Fail;
    });
    guest.thread(0).touch(0, 4).unwrap();
    let _read = guest.thread(1).start_read(4, 1);
    let (end, _) = guest.end();
    let End::Failed(error @ SessionError::Unservable { page, killed: false, .. }) = end else {
        panic!("{end:?}")
    };
    assert_eq!(page, PageIndex(4));
    let text = error.to_string();
    assert!(text.contains("page 4") && text.contains("2 MiB page"), "{text}");
}

#[test]
fn a_prefault_waits_for_memory_or_says_what_it_could_not_get() {
    for case in CASES {
        // In time: a pause, and all of it.
        let (setting, guest) = short_of_pages(case, |_| {});
        let (reply, report) = std::sync::mpsc::channel();
        let reply = uffd_core::session::Reply::new(move |it| reply.send(it).unwrap_or(()));
        guest.session.prefault_with(vec![PageRange::new(0, PAGES)], reply).unwrap();
        until_out_of_memory(&guest);
        setting.pool().unwrap().resize(PAGES).unwrap();
        assert_eq!(report.recv().unwrap().unwrap().installed, PAGES);
        drop((guest, setting));

        // Not in time: as many as there were, and an end.
        let soon = Duration::from_millis(50);
        let (_setting, guest) = short_of_pages(case, |options| options.fault_deadline = soon);
        let report = guest.session.prefault(vec![PageRange::new(0, PAGES)]).unwrap();
        assert_eq!((report.installed, report.failed), (4, 2), "{report:?}");
        assert_eq!(report.first_failed, Some(PageIndex(4)));
        assert_eq!(guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
    }
}

/// With nothing more to do, the loop must sleep: a time that has passed may not stay due.
#[test]
fn a_prefault_cancelled_while_it_waits_for_memory_leaves_nothing_to_do() {
    let (_setting, guest) = short_of_pages(case(false), |_| {});
    let reply = uffd_core::session::Reply::new(|_| {});
    let id = guest.session.prefault_with(vec![PageRange::new(0, PAGES)], reply).unwrap();
    until_out_of_memory(&guest);
    guest.session.cancel_prefault(id);
    guest.session.settle().unwrap();
    uffd_proof::assert_idle();
}

#[test]
fn a_session_ends_while_its_guest_waits_for_memory() {
    for case in CASES {
        for stop in [true, false] {
            let (setting, mut guest) = short_of_pages(case, |_| {});
            guest.thread(0).touch(0, 4).unwrap();
            let read = guest.thread(1).start_read(4, 1);
            until_out_of_memory(&guest);
            let expected = if stop {
                assert_eq!(guest.session.stop(), End::Stopped);
                assert!(!read.is_done());
                End::Stopped
            } else {
                guest.guest.kill().unwrap();
                End::GuestExited
            };
            let (end, stats) = guest.end();
            assert_eq!(end, expected);
            assert_eq!((stats.counters.read_faults, stats.pages.faulted()), (4, 4));
            drop(guest);
            // What it had is there for the next one.
            let next = setting.guest();
            assert_eq!(next.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
        }
    }
}
