//! Who is let in: so many guests in all, so many of one process, and none twice.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::os::fd::AsFd;

use uffd_core::server::{AdmissionError, Refusal, ServerOptions};
use uffd_guest::protocol::Expect;
use uffd_guest::strangers;
use uffd_proof::{Case, Peer, SMALL, Setting, Stage, Wanderer, until};

const PAGES: u64 = 4;

fn open(change: impl FnOnce(&mut ServerOptions)) -> Setting {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let case = Case { guest, page_size: SMALL, tracking: false };
    case.open_with(case.pattern(), &[PAGES], |stage| stage.server(change))
}

fn wanderer(stage: &Stage) -> Wanderer {
    Wanderer::start(|socket| stage.start_guest(|options| options.socket = socket.to_owned()))
}

fn refused(setting: &Setting) -> AdmissionError {
    match setting.next_refusal() {
        Refusal::Admission(error) => error,
        other => panic!("{other:?}"),
    }
}

fn serves(setting: &Setting) {
    let guest = setting.guest();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

#[test]
fn a_server_has_so_many_guests_and_one_more_when_one_has_ended() {
    let setting = open(|options| options.max_guests = Some(2));
    let (mut one, _other) = (setting.guest(), setting.guest());
    let refusal = setting.refusal(|_| {});
    assert_eq!(refusal.code(), "ERR_UFFD_MAX_GUESTS");
    let Refusal::Admission(AdmissionError::TooManyGuests { limit: 2 }) = refusal else {
        panic!("{refusal:?}")
    };
    one.guest.kill().unwrap();
    one.end();
    // Its thread has a few steps left.
    until("there to be room", || {
        let _guest = setting.start_guest(|_| {});
        setting.next_guest_or_refusal().is_ok()
    });
}

#[test]
fn a_process_hands_off_so_many_guests_and_others_are_not_held_to_account() {
    let setting = open(|options| options.max_guests_per_process = 2);
    let path = setting.server().path();
    let guests: Vec<_> = (0..3).map(|_| wanderer(&setting)).collect();
    let peers: Vec<_> = guests.iter().map(|guest| guest.hand_off(path).unwrap()).collect();
    let arrived: Vec<_> = (0..3).map(|_| setting.next_guest_or_refusal()).collect();
    let (mut sessions, refused): (Vec<_>, Vec<_>) = arrived.into_iter().partition(Result::is_ok);
    let [Err(refusal)] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(refusal.code(), "ERR_UFFD_MAX_GUESTS_PER_PROCESS");
    assert!(refusal.to_string().contains(&format!("process {}", std::process::id())), "{refusal}");
    (0..3).for_each(|_| serves(&setting));

    // The place of one that has ended is free.
    drop(sessions.pop());
    until("there to be room", || {
        let guest = wanderer(&setting);
        let _peer = guest.hand_off(path).unwrap();
        setting.next_guest_or_refusal().is_ok()
    });
    drop(peers);
}

#[test]
fn what_is_served_is_not_served_twice_whoever_hands_it_off() {
    let (setting, other) = (open(|_| {}), open(|_| {}));
    let guest = wanderer(&setting);
    let _peer = guest.hand_off(setting.server().path()).unwrap();
    let session = setting.next_guest_or_refusal().unwrap();
    for server in [&setting, &other] {
        let _again = guest.hand_off(server.server().path()).unwrap();
        assert_eq!(refused(server), AdmissionError::Twice);
        assert_eq!(AdmissionError::Twice.code(), "ERR_UFFD_HANDOFF_TWICE");
    }
    let thread = guest.guest.thread(0);
    assert_eq!(thread.verify(0, 2, &[Expect::Source]).unwrap().wrong, 0);

    // Once its session has ended it may be handed off again.
    session.stop();
    until("the first session's thread to end", || {
        let _again = guest.hand_off(other.server().path()).unwrap();
        match other.next_guest_or_refusal() {
            Ok(session) => {
                assert_eq!(thread.verify(2, 2, &[Expect::Source]).unwrap().wrong, 0);
                session.stop();
                true
            }
            Err(refusal) => {
                assert_eq!(refusal.code(), "ERR_UFFD_HANDOFF_TWICE");
                false
            }
        }
    });
}

#[test]
fn of_many_handoffs_of_one_guest_at_once_one_is_served() {
    let setting = open(|options| options.max_guests_per_process = 100);
    let guest = wanderer(&setting);
    let path = setting.server().path();
    let _peers: Vec<_> = std::thread::scope(|scope| {
        let peers: Vec<_> = (0..20).map(|_| scope.spawn(|| guest.hand_off(path))).collect();
        peers.into_iter().map(|peer| peer.join().unwrap().unwrap()).collect()
    });
    let arrived: Vec<_> = (0..20).map(|_| setting.next_guest_or_refusal()).collect();
    let (served, refused): (Vec<_>, Vec<_>) = arrived.into_iter().partition(Result::is_ok);
    assert_eq!((served.len(), refused.len()), (1, 19));
    for refusal in refused {
        assert_eq!(refusal.unwrap_err().code(), "ERR_UFFD_HANDOFF_TWICE");
    }
    assert_eq!(guest.guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

/// The kernel is asked there whether a guest still is, and whose it is: that would take the protection
/// of its page, or its registration.
#[test]
fn memory_where_no_guest_has_any_is_refused() {
    let setting = open(|_| {});
    let refusal = setting.refusal(|options| {
        options.raw_json = Some(
            r#"[{"base_host_virt_addr":1044480,"size":8192,"offset":0,"page_size":4096}]"#.into(),
        );
    });
    assert_eq!(refusal.code(), "ERR_UFFD_HANDOFF_REGION");
    assert!(refusal.to_string().contains("0xff000"), "{refusal}");
    serves(&setting);
}

#[test]
fn a_userfaultfd_for_the_servers_own_memory_is_refused() {
    let setting = open(|options| options.max_guests_per_process = 100);
    let regions = r#"[{"base_host_virt_addr":1099511627776,"size":16384,"offset":0}]"#;
    for _ in 0..6 {
        let peer = Peer::connect(setting.server().path()).unwrap();
        let uffd = strangers::own_userfaultfd().unwrap();
        peer.send(regions, &[uffd.as_fd()]).unwrap();
        assert_eq!(refused(&setting), AdmissionError::OwnMemory);
    }
    assert_eq!(AdmissionError::OwnMemory.code(), "ERR_UFFD_HANDOFF_OWN_MEMORY");
    serves(&setting);
}
