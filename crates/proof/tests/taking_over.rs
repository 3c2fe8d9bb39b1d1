//! A server that takes over guests, and those that come meanwhile.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use uffd_core::kernel::Process;
use uffd_core::ledger::{SnapshotPlace, StateDir};
use uffd_core::recovery::{Keep, Spares};
use uffd_core::server::{Arriving, Bound, Refusal, Server, ServerObserver, ServerOptions};
use uffd_core::session::{End, NoObserver, Observer, Session};
use uffd_core::source::{Fetcher, FileSource};
use uffd_core::stats::Stats;
use uffd_guest::driver::{Guest, GuestBuilder};
use uffd_guest::options::Options;
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Expect;
use uffd_guest::snapshot::{self, ZeroPages};
use uffd_proof::{DEADLINE, Peer, SMALL};

const PAGES: u64 = 8;

/// What a server has told.
#[derive(Debug)]
enum Told {
    Arrived(Session),
    Recovered(Session),
    Refused(Refusal),
}

struct Telling(Mutex<Sender<Told>>);

impl Telling {
    fn tell(&self, told: fn(Session) -> Told, observer: Box<dyn Observer>) -> Arriving {
        let sender = self.0.lock().unwrap().clone();
        let served = move |session| sender.send(told(session)).unwrap_or_default();
        Arriving { observer, served: Box::new(served) }
    }
}

impl ServerObserver for Telling {
    fn arriving(&self) -> Arriving {
        self.tell(Told::Arrived, Box::new(NoObserver))
    }

    fn recovering(&self) -> Arriving {
        self.tell(Told::Recovered, Box::new(NoObserver))
    }

    fn refused(&self, refusal: Refusal) {
        self.0.lock().unwrap().send(Told::Refused(refusal)).unwrap_or_default();
    }
}

/// Says that a guest is about to be taken over.
struct Expecting(Telling, Mutex<Sender<()>>);

impl ServerObserver for Expecting {
    fn arriving(&self) -> Arriving {
        self.0.arriving()
    }

    fn recovering(&self) -> Arriving {
        self.1.lock().unwrap().send(()).unwrap_or_default();
        self.0.recovering()
    }

    fn refused(&self, refusal: Refusal) {
        self.0.refused(refusal);
    }
}

/// Whose guests' sessions tell their end, and go no further until they are told to.
struct Halting {
    telling: Telling,
    ended: Sender<End>,
    go_on: Mutex<Option<Receiver<()>>>,
}

struct HaltedAtItsEnd {
    ended: Sender<End>,
    go_on: Option<Receiver<()>>,
}

impl ServerObserver for Halting {
    fn arriving(&self) -> Arriving {
        let go_on = self.go_on.lock().unwrap().take();
        let observer = HaltedAtItsEnd { ended: self.ended.clone(), go_on };
        self.telling.tell(Told::Arrived, Box::new(observer))
    }

    fn refused(&self, refusal: Refusal) {
        self.telling.refused(refusal);
    }
}

impl Observer for HaltedAtItsEnd {
    fn ended(&mut self, end: &End, _: Stats) {
        self.ended.send(end.clone()).unwrap_or_default();
        let _ = self.go_on.take().map(|go_on| go_on.recv_timeout(DEADLINE));
    }
}

/// A snapshot, and a directory in which guests are kept.
struct Place {
    dir: tempfile::TempDir,
    pattern: Pattern,
}

impl Place {
    fn new() -> Self {
        let (dir, pattern) = (tempfile::tempdir().unwrap(), Pattern::new(5, SMALL));
        snapshot::create(&dir.path().join("mem"), &pattern, PAGES, ZeroPages::Holes).unwrap();
        Self { dir, pattern }
    }

    fn bind(&self) -> (Bound, Receiver<Told>) {
        let (sender, told) = channel();
        let observer = Arc::new(Telling(Mutex::new(sender)));
        (self.bind_for(observer, None), told)
    }

    fn bind_for(&self, observer: Arc<dyn ServerObserver>, max_guests: Option<usize>) -> Bound {
        let source = Arc::new(FileSource::open(&self.dir.path().join("mem")).unwrap());
        let dir = Arc::new(StateDir::open(&self.dir.path().join("state")).unwrap());
        let keep = Some(Keep {
            dir,
            snapshot: SnapshotPlace::of(&source).unwrap(),
            guardian: None,
            manager: None,
        });
        let options = ServerOptions { keep, max_guests, ..ServerOptions::default() };
        let socket = self.dir.path().join("uffd.sock");
        let fetcher = Arc::new(Fetcher::new(source));
        Server::bind(&socket, fetcher, options, observer).unwrap()
    }

    /// A guest that a server here has left.
    fn left(&self) -> Guest {
        let (bound, told) = self.bind();
        let server = bound.open();
        let guest = self.guest();
        let Told::Arrived(session) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
        session.begin_hand_over();
        assert_eq!(session.wait(), End::HandedOver);
        server.stop();
        guest
    }

    fn guest(&self) -> Guest {
        let socket = self.dir.path().join("uffd.sock");
        let options = Options::new(socket, [PAGES], self.pattern);
        GuestBuilder::new(env!("CARGO_BIN_EXE_uffd-proof-guest"), options).spawn().unwrap()
    }
}

fn is_whole(guest: &Guest) {
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

#[test]
fn who_comes_while_guests_are_taken_over_waits_and_is_served_then() {
    let place = Place::new();
    let left = place.left();
    let (bound, told) = place.bind();
    // It has handed off when this returns; nobody has looked at it.
    let early = place.guest();
    bound.take_over(&mut Spares::new()).unwrap();
    let Told::Recovered(taken) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
    is_whole(&left);
    assert!(told.try_recv().is_err(), "nobody comes in before the server is opened");
    let _server = bound.open();
    let Told::Arrived(arrived) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
    is_whole(&early);
    assert_ne!(arrived.id(), taken.id());
}

#[test]
fn a_server_that_is_never_opened_is_stopped_and_serves_on_whom_it_has_taken_over() {
    let place = Place::new();
    let guest = place.left();
    let (bound, told) = place.bind();
    bound.take_over(&mut Spares::new()).unwrap();
    drop(bound);
    let Told::Recovered(taken) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
    assert!(!place.dir.path().join("uffd.sock").exists());
    is_whole(&guest);
    assert_eq!(taken.stop(), End::Stopped);
}

#[test]
fn a_guest_that_was_taken_over_is_not_served_twice() {
    let place = Place::new();
    let guest = place.left();
    let (bound, told) = place.bind();
    bound.take_over(&mut Spares::new()).unwrap();
    let server = bound.open();
    let Told::Recovered(taken) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
    let uffd = userfaultfd_of(guest.pid());
    let hand_off = || {
        let peer = Peer::connect(server.path()).unwrap();
        peer.hand_off(taken.layout(), uffd.as_fd()).unwrap();
        told.recv_timeout(DEADLINE).unwrap()
    };
    let Told::Refused(refusal) = hand_off() else { panic!() };
    assert_eq!(refusal.code(), "ERR_UFFD_HANDOFF_TWICE");
    is_whole(&guest);

    // Once its session has ended it may be handed off again.
    taken.stop();
    assert!(matches!(hand_off(), Told::Arrived(_)));
}

/// Who tells that a guest was taken over, and its end.
#[derive(Clone)]
struct Tellers(Arc<Mutex<Sender<(&'static str, ThreadId)>>>);

impl Tellers {
    fn note(&self, what: &'static str) {
        let who = std::thread::current().id();
        self.0.lock().unwrap().send((what, who)).unwrap_or_default();
    }
}

impl ServerObserver for Tellers {
    fn arriving(&self) -> Arriving {
        unreachable!("nobody comes")
    }

    fn recovering(&self) -> Arriving {
        let this = self.clone();
        let served = move |session: Session| {
            this.note("taken over");
            session.begin_stop();
        };
        Arriving { observer: Box::new(self.clone()), served: Box::new(served) }
    }

    fn refused(&self, refusal: Refusal) {
        panic!("{refusal}");
    }
}

impl Observer for Tellers {
    fn ended(&mut self, _end: &End, _stats: Stats) {
        self.note("ended");
    }
}

/// One thread tells both, so that whoever hears of an end has heard of the guest.
#[test]
fn a_guest_that_ends_as_soon_as_it_is_taken_over_is_told_of_before_its_end() {
    let place = Place::new();
    let _guest = place.left();
    let (sender, told) = channel();
    let bound = place.bind_for(Arc::new(Tellers(Arc::new(Mutex::new(sender)))), None);
    bound.take_over(&mut Spares::new()).unwrap();
    let (first, teller) = told.recv_timeout(DEADLINE).unwrap();
    assert_eq!(first, "taken over");
    assert_eq!(told.recv_timeout(DEADLINE), Ok(("ended", teller)));
}

/// As a server in a worker that was terminated has it, for a moment.
#[test]
fn a_guest_that_another_server_of_this_process_is_leaving_is_waited_for() {
    let place = Place::new();
    let (bound, told) = place.bind();
    let server = bound.open();
    let guest = place.guest();
    let Told::Arrived(session) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
    server.stop();

    let ((sender, told), (expected, expects)) = (channel(), channel());
    let telling = Telling(Mutex::new(sender));
    let bound = place.bind_for(Arc::new(Expecting(telling, Mutex::new(expected))), None);
    std::thread::scope(|scope| {
        let taken = scope.spawn(|| bound.take_over(&mut Spares::new()));
        expects.recv_timeout(DEADLINE).unwrap();
        session.begin_hand_over();
        taken.join().unwrap().unwrap();
    });
    let Told::Recovered(_taken) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
    is_whole(&guest);
}

/// Its session's thread has some steps left when that is told, and may not come to them for long.
#[test]
fn what_a_guest_had_is_free_when_its_end_is_told() {
    let place = Place::new();
    let halting = || {
        let ((sender, told), (ended, ends), (go_on, halted)) = (channel(), channel(), channel());
        let telling = Telling(Mutex::new(sender));
        let observer = Arc::new(Halting { telling, ended, go_on: Mutex::new(Some(halted)) });
        (observer, told, ends, go_on)
    };
    let (observer, told, ends, go_on) = halting();
    let server = place.bind_for(observer, None).open();
    let guest = place.guest();
    let Told::Arrived(session) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
    session.begin_hand_over();
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), End::HandedOver);
    server.stop();
    // For a server of this very process, which takes it over.
    let (bound, recovered) = place.bind();
    bound.take_over(&mut Spares::new()).unwrap();
    let Told::Recovered(taken) = recovered.recv_timeout(DEADLINE).unwrap() else { panic!() };
    is_whole(&guest);
    go_on.send(()).unwrap();
    drop((taken, bound));

    // And for another guest, where there is room for one alone.
    let (observer, told, ends, go_on) = halting();
    let _server = place.bind_for(observer, Some(1)).open();
    let _first = place.guest();
    let Told::Arrived(session) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
    session.begin_stop();
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap(), End::Stopped);
    let second = place.guest();
    let Told::Arrived(_session) = told.recv_timeout(DEADLINE).unwrap() else { panic!() };
    is_whole(&second);
    go_on.send(()).unwrap();
}

/// The guest's own, as a VMM keeps one.
fn userfaultfd_of(pid: i32) -> std::os::fd::OwnedFd {
    let number = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let link = std::fs::read_link(&path).ok()?;
        let number = path.file_name()?.to_str()?.parse::<i32>().ok()?;
        (link.to_str()? == "anon_inode:[userfaultfd]").then_some(number)
    });
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    let started = fields.split_whitespace().nth(19).unwrap().parse().unwrap();
    Process::find(pid, started).unwrap().descriptor(number.unwrap()).unwrap()
}
