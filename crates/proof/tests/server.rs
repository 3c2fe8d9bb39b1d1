//! The server: it refuses what is wrong and goes on, and it can be stopped at any time.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use uffd_core::handoff::HandoffError;
use uffd_core::server::Refusal;
use uffd_guest::protocol::Expect;
use uffd_proof::{Case, SMALL, Setting, StageBuilder, until};

fn open(change: impl FnOnce(StageBuilder) -> StageBuilder) -> Setting {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let case = Case { guest, page_size: SMALL, tracking: false };
    case.open_with(case.pattern(), &[4], change)
}

fn connect(setting: &Setting) -> UnixStream {
    UnixStream::connect(setting.server().path()).unwrap()
}

fn serves(setting: &Setting) {
    let guest = setting.guest();
    assert_eq!(guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
}

#[test]
fn peers_that_are_wrong_are_refused_one_by_one() {
    let setting = open(|stage| stage);
    connect(&setting).write_all(b"[").unwrap();
    let refusal = setting.next_refusal();
    assert!(matches!(refusal, Refusal::Handoff(HandoffError::Closed { .. })), "{refusal:?}");
    connect(&setting).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(setting.next_refusal(), Refusal::Handoff(HandoffError::Message(_))));
    serves(&setting);
}

/// As those do who look whether anybody listens.
#[test]
fn who_leaves_without_a_word_is_no_guest() {
    let setting = open(|stage| stage);
    (0..100).for_each(|_| drop(connect(&setting)));
    serves(&setting);
    setting.server().stop();
    assert!(setting.nothing_new());
}

/// What is known of a guest takes up memory until it is heard of, and a peer can make many.
#[test]
fn nobody_is_accepted_while_too_much_waits_to_be_heard_of() {
    let setting = open(|stage| stage);
    serves(&setting);
    setting.fall_behind(true);
    let guest = setting.start_guest(|_| {});
    let read = guest.thread(0).start_read(0, 1);
    let before = setting.asked_whether_behind();
    until("it to be asked for again", || setting.asked_whether_behind() > before + 3);
    assert!(setting.nothing_new() && !read.is_done());
    setting.fall_behind(false);
    let _session = setting.next_guest_or_refusal().unwrap();
    read.get().unwrap();
}

#[test]
fn silence_is_refused_after_the_deadline() {
    let setting =
        open(|stage| stage.server(|options| options.handoff_timeout = Duration::from_millis(100)));
    let _silent = connect(&setting);
    let refusal = setting.next_refusal();
    let Refusal::Handoff(HandoffError::Timeout { timeout, .. }) = refusal else {
        panic!("{refusal:?}")
    };
    assert_eq!(timeout, Duration::from_millis(100));
    serves(&setting);
}

/// More than have a place at once: the others wait for theirs, and so does the guest.
#[test]
fn a_crowd_of_silent_peers_does_not_keep_a_guest_out() {
    const CROWD: usize = 100;
    let setting =
        open(|stage| stage.server(|options| options.handoff_timeout = Duration::from_millis(300)));
    let crowd: Vec<_> = (0..CROWD).map(|_| connect(&setting)).collect();
    let (session, refused) = std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let guest = setting.start_guest(|_| {});
            guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong
        });
        let mut refused = 0;
        let session = loop {
            match setting.next_guest_or_refusal() {
                Ok(session) => break session,
                Err(Refusal::Handoff(HandoffError::Timeout { .. })) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
        };
        assert_eq!(guest.join().unwrap(), 0);
        (session, refused)
    });
    drop(session);
    for _ in refused..CROWD {
        let refusal = setting.next_refusal();
        assert!(matches!(refusal, Refusal::Handoff(HandoffError::Timeout { .. })), "{refusal:?}");
    }
    drop(crowd);
    serves(&setting);
}

#[test]
fn a_server_that_is_stopped_gives_up_handoffs_and_leaves_guests_alone() {
    const PENDING: usize = 20;
    let setting = open(|stage| stage);
    let guest = setting.guest();
    guest.thread(0).touch(0, 1).unwrap();
    let pending: Vec<_> = (0..PENDING).map(|_| connect(&setting)).collect();
    // They are all accepted once another one behind them is refused.
    connect(&setting).write_all(b"[").unwrap();
    assert!(matches!(setting.next_refusal(), Refusal::Handoff(HandoffError::Closed { .. })));
    std::thread::scope(|scope| {
        (0..3).for_each(|_| drop(scope.spawn(|| setting.server().stop())));
    });
    setting.server().stop();
    // All of them were told before it returned, and nobody comes after.
    for _ in 0..PENDING {
        assert!(!setting.nothing_new(), "a handoff goes on behind a stopped server");
        let refusal = setting.next_refusal();
        assert!(matches!(refusal, Refusal::Handoff(HandoffError::Cancelled)), "{refusal:?}");
    }
    assert!(setting.nothing_new());
    drop(pending);
    assert!(!setting.server().path().exists());
    UnixStream::connect(setting.server().path()).unwrap_err();
    assert_eq!(guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap().wrong, 0);
}

#[test]
fn many_clones_of_one_snapshot_are_served_at_once() {
    let setting = open(|stage| stage);
    let guests: Vec<_> = (0..12).map(|_| setting.guest()).collect();
    for (stamp, guest) in (1..).zip(&guests) {
        guest.thread(0).write(0, 2, stamp).unwrap();
    }
    for (stamp, guest) in (1..).zip(&guests) {
        assert_eq!(guest.thread(0).verify(0, 2, &[Expect::Stamp(stamp)]).unwrap().wrong, 0);
        assert_eq!(guest.thread(0).verify(2, 2, &[Expect::Source]).unwrap().wrong, 0);
    }
}
