//! Peers who send files of a system that does not answer: whoever closes one waits for as long as
//! they like, even at the end of its process. That holds up no handoff, no stop, and no end.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use uffd_core::handoff::AcceptError;
use uffd_guest::protocol::Expect;
use uffd_proof::{Case, Peer, SMALL, Setting, SilentFiles, Wanderer, until};

const PAGES: u64 = 4;
const REGIONS: &str = r#"[{"base_host_virt_addr":1099511627776,"size":16384,"offset":0}]"#;

fn open() -> Setting {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let case = Case { guest, page_size: SMALL, tracking: false };
    case.open_with(case.pattern(), &[PAGES], |stage| stage)
}

fn serves(setting: &Setting) {
    let guest = setting.guest();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

/// In one test: what waits is counted for the whole process.
#[test]
fn files_that_cannot_be_closed_hold_up_nobody() {
    let silent = SilentFiles::mount().unwrap();
    let setting = open();
    let path = setting.server().path().to_owned();
    let hand_off = |count: usize| {
        silent.lend(|file| {
            for _ in 0..count {
                Peer::connect(&path).unwrap().send(REGIONS, &[file]).unwrap();
            }
        });
    };
    hand_off(30);
    for _ in 0..30 {
        assert_eq!(setting.next_refusal().code(), "ERR_UFFD_HANDOFF_DESCRIPTOR");
    }
    serves(&setting);

    // Beside a proper userfaultfd it is closed as well, and nobody waits for that.
    let guest =
        Wanderer::start(|socket| setting.start_guest(|options| options.socket = socket.to_owned()));
    silent.lend(|file| {
        let peer = Peer::connect(&path).unwrap();
        peer.send(&guest.regions, &[file, guest.uffd.as_fd()]).unwrap();
    });
    let session = setting.next_guest_or_refusal().unwrap();
    assert_eq!(guest.guest.thread(0).verify(0, 1, &[Expect::Source]).unwrap().wrong, 0);

    // A host full of what waits would serve nobody.
    hand_off(64);
    let trouble = std::iter::from_fn(|| Some(setting.next_refusal_or_trouble()))
        .find_map(|told| told.err())
        .unwrap();
    assert!(matches!(trouble, AcceptError::Crowded { count: 64.., .. }), "{trouble:?}");
    assert_eq!(trouble.code(), "ERR_UFFD_ACCEPT_CROWDED");
    assert_eq!(guest.guest.thread(0).verify(1, 3, &[Expect::Source]).unwrap().wrong, 0);
    setting.server().stop();
    session.stop();

    drop(silent);
    let setting = open();
    let guest = setting.start_guest(|_| {});
    let _session = setting.next_guest_or_refusal().unwrap();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

#[test]
fn a_process_ends_that_was_sent_what_cannot_be_closed() {
    const NAME: &str = "a_process_ends_that_was_sent_what_cannot_be_closed";
    const INSIDE: &str = "UFFD_PROOF_INSIDE";
    const PEERS: usize = 10;
    if std::env::var_os(INSIDE).is_some() {
        let setting = open();
        println!("\nserving {}", setting.server().path().display());
        (0..PEERS).for_each(|_| drop(setting.next_refusal()));
        return;
    }

    let silent = SilentFiles::mount().unwrap();
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let path = lines.find_map(|line| Some(line.strip_prefix("serving ")?.to_owned())).unwrap();
    silent.lend(|file| {
        for _ in 0..PEERS {
            Peer::connect(path.as_ref()).unwrap().send(REGIONS, &[file]).unwrap();
        }
    });
    let mut status = None;
    until("the process to end", || {
        status = process.try_wait().unwrap();
        status.is_some()
    });
    assert!(status.unwrap().success());
    drop(silent);
}
