//! A guest whose handoff comes through another process, which stays. Whoever connected is not whose
//! memory it is: neither its end, nor its page map, nor its process number says anything of the
//! guest.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::thread;

use roaring::RoaringBitmap;
use uffd_core::server::Refusal;
use uffd_core::session::{DirtyTracking, End, Export, Session, SessionError, Unservable};
use uffd_guest::driver::Guest;
use uffd_guest::options::{Options, Register};
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Expect;
use uffd_proof::sources::{Broken, Failure};
use uffd_proof::{
    Apart, Cast, Ending, HUGE, HugePages, Relay, SMALL, Serving, Stage, StageBuilder, until,
};
use userfaultfd_sys as sys;

const PAGES: u64 = 16;

fn stage(page_size: u64) -> StageBuilder {
    let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
    StageBuilder::new(program, Pattern::new(8, page_size), &[PAGES - 6, 6])
}

/// A guest that hands off to a relay.
struct Relayed {
    guest: Guest,
    relay: Relay,
    /// What the server makes of it.
    outcome: Result<Session, Refusal>,
}

fn relayed(stage: &Stage, change: impl FnOnce(&mut Options)) -> Relayed {
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let relay = Relay::start(&cast, stage.dir(), stage.server().path());
    let guest = stage.start_guest(|options| {
        options.socket = relay.socket().to_owned();
        change(options);
    });
    relay.wait_until_passed_on();
    let outcome = stage.next_guest_or_refusal();
    Relayed { guest, relay, outcome }
}

#[test]
fn a_guest_is_served_and_its_end_is_seen_while_the_relay_lives() {
    for page_size in [SMALL, HUGE] {
        let _pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
        let stage = stage(page_size).open();
        let Relayed { mut guest, mut relay, outcome } = relayed(&stage, |_| {});
        let session = outcome.unwrap();
        let thread = guest.thread(0);
        assert_eq!(thread.verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
        thread.madvise(3, 2).unwrap();
        assert_eq!(thread.verify(3, 2, &[Expect::Zeros]).unwrap().wrong, 0);
        assert_eq!(session.end(), None);
        guest.kill().unwrap();
        relay.assert_lives();
        until("the guest's end to be seen", || session.end() == Some(End::GuestExited));
        relay.assert_lives();
    }
}

/// Whoever only passes a guest on may be gone before anybody looks who that was. That says nothing of
/// the guest.
#[test]
fn a_guest_is_served_although_its_relay_has_exited() {
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let stage = stage(SMALL).open_apart(&cast, Apart::default());
    let snapshot = stage.snapshot();
    let relay =
        Relay::start(&cast, snapshot.parent().unwrap(), &snapshot.with_file_name("uffd.sock"));
    let socket = relay.socket().to_owned();
    let frozen = stage.freeze();
    let passing_on = thread::spawn(move || {
        relay.wait_until_passed_on();
        drop(relay);
        drop(frozen);
    });
    let mut guest = stage.guest_with(|options| options.socket = socket);
    passing_on.join().unwrap();
    let thread = guest.thread(0);
    assert_eq!(thread.verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    thread.madvise(3, 2).unwrap();
    assert_eq!(thread.verify(3, 2, &[Expect::Zeros]).unwrap().wrong, 0);
    guest.guest.kill().unwrap();
    assert_eq!(guest.end().0, Ending::GuestExited);
}

#[test]
fn a_guest_is_killed_or_nobody_is() {
    let stage = stage(SMALL).open();
    let Relayed { mut guest, mut relay, outcome } = relayed(&stage, |_| {});
    let session = outcome.unwrap();
    assert_eq!(guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
    let killed = session.kill();
    relay.assert_lives();
    if killed {
        guest.wait_exit().unwrap();
        until("the guest's end to be seen", || session.end() == Some(End::GuestExited));
    } else {
        assert_eq!(guest.thread(0).verify(4, 4, &[Expect::Source]).unwrap().wrong, 0);
    }
}

/// By either option that has a guest killed: what is said of it has to be so.
#[test]
fn an_option_kills_the_guest_or_nobody() {
    let options: [fn(&mut uffd_core::session::SessionOptions); 2] = [
        |options| options.on_unservable = Unservable::Kill,
        |options| {
            options.on_unservable = Unservable::Fail;
            options.kill_on_failure = true;
        },
    ];
    for option in options {
        let stage = stage(SMALL)
            .source(|file| Broken::new(file, 4 * SMALL..5 * SMALL, Failure::Truncated))
            .session(option)
            .open();
        let Relayed { mut guest, mut relay, outcome } = relayed(&stage, |_| {});
        let session = outcome.unwrap();
        let read = guest.thread(0).start_read(4, 1);
        let End::Failed(error) = session.wait() else { panic!("{:?}", session.end()) };
        relay.assert_lives();
        if let SessionError::Unservable { killed: true, .. } = error {
            guest.wait_exit().unwrap();
        }
        drop((read, session));
    }
}

/// Registers for write protection, with the kernel to do the tracking.
fn kernel_tracks(options: &mut Options) {
    options.register = Register::WriteProtect;
    options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP
        | sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM
        | sys::UFFD_FEATURE_WP_UNPOPULATED
        | sys::UFFD_FEATURE_WP_ASYNC;
}

/// An export may be less than exact, and may not say that it is.
fn check(export: &Export, written: &RoaringBitmap) {
    if export.exact {
        assert_eq!(export.dirty, *written, "of an export that says it is exact");
    } else {
        assert!(export.dirty.is_superset(written), "{:?} of {written:?}", export.dirty);
    }
    assert!(export.empty.is_disjoint(written) && export.dirty.is_disjoint(&export.empty));
}

#[test]
fn what_the_kernel_tracked_is_not_asked_of_the_wrong_process() {
    for page_size in [SMALL, HUGE] {
        let _pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
        for tracking in [DirtyTracking::Auto, DirtyTracking::On] {
            let stage = stage(page_size).session(|options| options.dirty_tracking = tracking);
            let stage = stage.open();
            let Relayed { guest, relay, outcome } = relayed(&stage, kernel_tracks);
            let session = match outcome {
                Ok(session) => session,
                // It was asked for tracking that nobody can do from here.
                Err(refusal) => {
                    assert_eq!(tracking, DirtyTracking::On, "{refusal}");
                    assert_eq!(refusal.code(), "ERR_UFFD_DIRTY_TRACKING");
                    continue;
                }
            };
            let thread = guest.thread(0);
            thread.touch(0, 12).unwrap();
            thread.write_word(0, 5, 3, 0).unwrap();
            thread.write_word(7, 5, 3, 8).unwrap();
            let written = RoaringBitmap::from_iter((0..5).chain(7..12));
            let export = session.export().unwrap();
            check(&export, &written);
            // What was given back reads as zeros, and may not be left out.
            thread.madvise(2, 1).unwrap();
            let export = session.export().unwrap();
            assert!(export.empty.contains(2) || export.dirty.contains(2), "{export:?}");
            assert!(!export.exact || export.empty.contains(2), "{export:?}");
            drop(relay);
        }
    }
}

/// Synchronous tracking asks nobody: it is as exact as ever.
#[test]
fn what_the_handler_tracks_is_exact_through_a_relay() {
    let stage = stage(SMALL).session(|options| options.dirty_tracking = DirtyTracking::On).open();
    let Relayed { guest, relay, outcome } = relayed(&stage, |_| {});
    let session = outcome.unwrap();
    guest.thread(0).touch(0, 12).unwrap();
    guest.thread(0).write_word(4, 4, 3, 0).unwrap();
    let export = session.export().unwrap();
    assert!(export.exact);
    assert_eq!(export.dirty, RoaringBitmap::from_iter(4..8));
    drop(relay);
}
