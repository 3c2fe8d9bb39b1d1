//! Peers who send what takes for ever to close, in every way there is to send it: that holds up no
//! other handoff and no stop.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use uffd_guest::protocol::Expect;
use uffd_proof::{Case, Crowd, Peer, SMALL, Setting, Wanderer};

const PAGES: u64 = 4;
const REGIONS: &str = r#"[{"base_host_virt_addr":1099511627776,"size":16384,"offset":0}]"#;

/// More than have a place at once.
const CROWD: usize = 70;

fn open() -> Setting {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let case = Case { guest, page_size: SMALL, tracking: false };
    case.open_with(case.pattern(), &[PAGES], |stage| stage)
}

fn serves(setting: &Setting) {
    let guest = setting.guest();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

fn holds_up_nobody(code: &str, send: impl Fn(&Peer, BorrowedFd<'_>) + Send + 'static) {
    let setting = open();
    let crowd = Crowd::new(CROWD, setting.server().path(), send);
    for _ in 0..CROWD {
        assert_eq!(setting.next_refusal().code(), code);
    }
    serves(&setting);
    setting.server().stop();
    drop(crowd);
}

#[test]
fn sockets_that_linger_instead_of_a_userfaultfd() {
    holds_up_nobody("ERR_UFFD_HANDOFF_DESCRIPTOR", |peer, socket| {
        peer.send(REGIONS, &[socket]).unwrap();
    });
}

#[test]
fn more_sockets_that_linger_than_are_taken() {
    holds_up_nobody("ERR_UFFD_HANDOFF_TRUNCATED", |peer, socket| {
        peer.send(REGIONS, &[socket; 40]).unwrap();
    });
}

#[test]
fn sockets_that_linger_behind_what_is_refused() {
    holds_up_nobody("ERR_UFFD_HANDOFF_JSON", |peer, socket| {
        peer.send("GET / HTTP/1.1\r\n", &[]).unwrap();
        // Whoever is refused already cannot send it.
        let _ = peer.send(REGIONS, &[socket]);
    });
}

#[test]
fn sockets_that_linger_out_of_band() {
    holds_up_nobody("ERR_UFFD_HANDOFF_JSON", |peer, socket| {
        peer.send("[", &[]).unwrap();
        peer.send_out_of_band("x", &[socket]).unwrap();
        let _ = peer.send("]", &[]);
    });
}

#[test]
fn sockets_that_linger_in_the_queue_of_a_socket() {
    holds_up_nobody("ERR_UFFD_HANDOFF_DESCRIPTOR", |peer, socket| {
        let (one, other) = UnixStream::pair().unwrap();
        Peer::from(one).send("x", &[socket]).unwrap();
        peer.send(REGIONS, &[other.as_fd()]).unwrap();
    });
}

/// The silent ones have all the places, so that those behind them are never accepted.
#[test]
fn sockets_that_linger_of_peers_who_wait_while_the_server_stops() {
    let setting = open();
    let path = setting.server().path();
    let silent: Vec<_> = (0..CROWD).map(|_| Peer::connect(path).unwrap()).collect();
    let crowd = Crowd::new(CROWD, path, |peer, socket| peer.send(REGIONS, &[socket]).unwrap());
    setting.server().stop();
    drop((silent, crowd));
}

/// Its session watches the connection, and closes it at its end.
#[test]
fn nothing_can_be_sent_once_a_guest_is_served() {
    let setting = open();
    let guest =
        Wanderer::start(|socket| setting.start_guest(|options| options.socket = socket.to_owned()));
    let peer = guest.hand_off(setting.server().path()).unwrap();
    let session = setting.next_guest_or_refusal().unwrap();
    let error = peer.send("more", &[std::io::stdout().as_fd()]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    assert_eq!(guest.guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    session.stop();
}
