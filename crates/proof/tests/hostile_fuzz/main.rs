//! Random attacks on a server: whatever peers say and send, guests are served, the server stops,
//! and nothing of it is left. `PROPTEST_CASES` says how many; an attack that is not survived is
//! made smaller and kept.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

mod attacks;

use std::os::fd::AsFd;
use std::sync::Once;
use std::sync::mpsc::channel;
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence};
use uffd_core::session::Session;
use uffd_guest::driver::Guest;
use uffd_guest::protocol::Expect;
use uffd_guest::strangers::own_userfaultfd;
use uffd_proof::malice::Attack;
use uffd_proof::{Attacker, Case, Cast, DEADLINE, SMALL, Setting, Wanderer, until};

use attacks::attack;

/// Of a guest, and of the snapshot.
pub(crate) const PAGES: u64 = 512;

/// How many attacks, unless `PROPTEST_CASES` says it.
const CASES: u32 = 48;

fn config() -> Config {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/hostile_fuzz.txt");
    let usual = Config::default();
    Config {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { CASES },
        max_shrink_iters: 100,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(kept))),
        ..usual
    }
}

/// What this process has open and has running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn now() -> Self {
        let count = |path| std::fs::read_dir(path).unwrap().count();
        Self { descriptors: count("/proc/self/fd"), threads: count("/proc/self/task") }
    }

    fn is_back(self) -> bool {
        let now = Self::now();
        now.descriptors <= self.descriptors && now.threads <= self.threads
    }
}

fn open() -> Setting {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let case = Case { guest, page_size: SMALL, tracking: false };
    case.open_with(case.pattern(), &[PAGES], |stage| stage)
}

/// Waits for the session of `guest`, and keeps those that came before it.
fn session_of(guest: &Guest, setting: &Setting, others: &mut Vec<Session>) -> Session {
    loop {
        match setting.next_guest_or_refusal() {
            Ok(session) if session.pid() == Some(guest.pid()) => return session,
            Ok(session) => others.push(session),
            Err(_) => {}
        }
    }
}

fn reads(guest: &Guest, page: u64) {
    assert_eq!(guest.thread(0).verify(page, 8, &[Expect::Source]).unwrap().wrong, 0);
}

/// Stops the server, which nothing may keep from it.
fn stop(setting: Setting) -> Setting {
    let (stopped, is_stopped) = channel();
    thread::spawn(move || {
        setting.server().stop();
        let _ = stopped.send(setting);
    });
    is_stopped.recv_timeout(DEADLINE).expect("the server stops")
}

/// What a process keeps once it has served its first guest does not count.
fn warm_up() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| under_attack(&Attack { visits: Vec::new() }, false));
}

fn survives(attack: &Attack, stops_first: bool) {
    warm_up();
    let before = Held::now();
    under_attack(attack, stops_first);
    until(&format!("what is left to go: {before:?} before"), || before.is_back());
}

fn under_attack(attack: &Attack, stops_first: bool) {
    let setting = open();
    let served =
        Wanderer::start(|socket| setting.start_guest(|options| options.socket = socket.to_owned()));
    let _peer = served.hand_off(setting.server().path()).unwrap();
    let session = setting.next_guest_or_refusal().unwrap();

    let own = own_userfaultfd().unwrap();
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let theirs = [own.as_fd(), served.uffd.as_fd()];
    let attacker = Attacker::start(&cast, attack, setting.server().path(), theirs);
    attacker.wait_until_sent().expect("the server listens to it or refuses it");

    let mut others = Vec::new();
    let guest = setting.start_guest(|_| {});
    let second = session_of(&guest, &setting, &mut others);
    reads(&guest, 0);
    reads(&served.guest, 0);

    let setting = if stops_first { stop(setting) } else { setting };
    attacker.end();
    let setting = if stops_first { setting } else { stop(setting) };
    // Those that it handed off itself go with it.
    while !setting.nothing_new() {
        others.extend(setting.next_guest_or_refusal());
    }
    until("its sessions to end", || others.iter().all(|other| other.end().is_some()));
    for (guest, session) in [(&served.guest, session), (&guest, second)] {
        reads(guest, 8);
        assert_eq!(session.end(), None);
        session.stop();
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_peers_send_guests_are_served_and_nothing_is_left(
        attack in attack(),
        stops_first in any::<bool>(),
    ) {
        survives(&attack, stops_first);
    }
}
