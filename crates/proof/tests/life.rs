//! Beginnings and ends: each session ends exactly once, with the right reason, whatever goes on.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uffd_core::server::{Arriving, Refusal, Server, ServerObserver, ServerOptions};
use uffd_core::session::{End, NotReleased, Observer, Reply, Session, SessionError};
use uffd_core::source::{Fetcher, FileSource};
use uffd_core::stats::Stats;
use uffd_core::trace::TraceEntry;
use uffd_core::units::PageRange;
use uffd_guest::driver::{Guest, GuestBuilder};
use uffd_guest::options::Options;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::{Death, Expect, Soak};
use uffd_guest::snapshot::{self, ZeroPages};
use uffd_proof::sources::{Gate, Gated};
use uffd_proof::{Case, SMALL, in_all_modes, until, waiting_threads};

in_all_modes!(
    a_guest_that_exits_ends_its_session,
    a_guest_whose_process_becomes_another_program_ends_its_session,
    a_guest_that_dies_at_any_moment_ends_its_session,
    a_guest_that_dies_with_faults_parked_ends_its_session,
    a_session_can_be_stopped_when_idle_and_again,
    a_session_can_be_stopped_by_many_at_once_while_its_guest_is_busy,
    a_session_can_be_stopped_with_faults_parked,
    a_session_can_be_stopped_during_a_prefault,
    a_session_that_is_stopped_answers_what_was_asked_before,
    a_session_that_is_dropped_is_stopped,
    what_is_asked_after_the_end_is_answered,
    a_guest_with_an_old_firecrackers_socket_is_seen_to_die,
);

const PAGES: u64 = 8;

/// The kernel unregisters nothing of a range in which it finds memory of another kind.
#[test]
fn a_release_leaves_nothing_registered_beside_what_was_mapped_over_pages() {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let setting = Case { guest, page_size: SMALL, tracking: false }.open(PAGES);
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.touch(0, PAGES).unwrap();
    thread.cover(3, 1).unwrap();
    assert_eq!(guest.session.release(false).unwrap(), Ok(()));
    assert_eq!(guest.end().0, End::Released);
    for page in [0, 2, 4, 7] {
        thread.madvise(page, 1).unwrap();
        assert_eq!(thread.read_page(page).unwrap(), Content::Zeros);
    }
}

/// To unregister a part of a mapping takes another one: the guest is not left to nobody for that.
#[test]
fn a_guest_with_as_many_mappings_as_it_may_have_is_released_later_and_served_until_then() {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let setting = Case { guest, page_size: SMALL, tracking: true }.open(PAGES);
    let guest = setting.guest();
    let thread = guest.thread(0);
    thread.touch(0, PAGES).unwrap();
    thread.cover(3, 1).unwrap();
    thread.write(6, 1, 9).unwrap();
    thread.crowd(true).unwrap();
    let released = guest.session.release(true).unwrap();
    let Err(NotReleased::NoMappings { .. }) = released else { panic!("{released:?}") };
    // It is served on; what it does with memory that nobody looks after any more is not seen.
    assert_eq!(thread.verify(0, 3, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(thread.verify(6, 1, &[Expect::Stamp(9)]).unwrap().wrong, 0);
    thread.madvise(7, 1).unwrap();
    assert_eq!(thread.read_page(7).unwrap(), Content::Zeros);
    let export = guest.session.export().unwrap();
    assert!(!export.exact && [0, 1, 2, 4, 5, 6].iter().all(|page| export.dirty.contains(*page)));
    thread.crowd(false).unwrap();
    assert_eq!(guest.session.release(true).unwrap(), Ok(()));
    assert_eq!(guest.end().0, End::Released);
    for page in [0, 2, 4, 7] {
        thread.madvise(page, 1).unwrap();
        assert_eq!(thread.read_page(page).unwrap(), Content::Zeros);
    }
}

fn a_guest_that_exits_ends_its_session(case: Case) {
    let setting = case.open(PAGES);
    let mut guest = setting.guest();
    guest.thread(0).touch(0, PAGES).unwrap();
    guest.guest.exit().unwrap();
    let (end, stats) = guest.end();
    assert_eq!(end, End::GuestExited);
    assert_eq!(stats.pages.faulted(), PAGES);
}

/// The process lives on, and has none of that memory any more.
fn a_guest_whose_process_becomes_another_program_ends_its_session(case: Case) {
    let setting = case.open(PAGES);
    // With the handoff's connection, which is closed by that, and without it.
    for closes in [false, true] {
        let guest = setting.guest_with(|options| options.close_socket = closes);
        guest.thread(0).touch(0, PAGES).unwrap();
        let _exec = guest.thread(0).start_exec();
        assert_eq!(guest.end().0, End::GuestExited);
        assert!(std::path::Path::new(&format!("/proc/{}", guest.guest.pid())).exists());
    }
}

fn a_guest_that_dies_at_any_moment_ends_its_session(case: Case) {
    let setting = case.open(PAGES);
    for (number, how) in (0..6).zip([Death::Kill, Death::Exit, Death::Abort].into_iter().cycle()) {
        let guest = setting.guest();
        guest.die_after(how, number * 7).unwrap();
        let soak = Soak { seed: number, threads: 3, ops: 100_000, chunk: 2, ..Soak::default() };
        let _running = guest.thread(0).start_random(soak);
        if number % 2 == 0 {
            // Gone in the middle of it, as a rule.
            let (reply, _report) = mpsc::channel();
            let reply = Reply::new(move |it| reply.send(it).unwrap_or(()));
            guest.session.prefault_with(vec![PageRange::new(0, PAGES)], reply).unwrap();
        }
        assert_eq!(guest.end().0, End::GuestExited);
    }
}

fn gated(case: Case) -> (uffd_proof::Setting, Gate) {
    let (gate, size) = (Gate::closed(), case.page_size);
    let through = gate.clone();
    let setting = case.open_with(case.pattern(), &[PAGES], |stage| {
        stage.source(move |file| Gated { file, slow: 4 * size..8 * size, gate: through })
    });
    (setting, gate)
}

fn a_guest_that_dies_with_faults_parked_ends_its_session(case: Case) {
    let (setting, gate) = gated(case);
    let mut guest = setting.guest();
    let _read = guest.thread(0).start_read(5, 1);
    until("the fetch to begin", || gate.arrived() > 0);
    guest.guest.kill().unwrap();
    assert_eq!(guest.end().0, End::GuestExited);
    // The fetch comes back to nobody.
    gate.open();
    let guest = setting.guest();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

fn a_session_can_be_stopped_when_idle_and_again(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    guest.thread(0).touch(0, 2).unwrap();
    assert_eq!(guest.session.stop(), End::Stopped);
    assert_eq!(guest.session.stop(), End::Stopped);
    assert_eq!(guest.session.end(), Some(End::Stopped));
    assert_eq!(guest.end().0, End::Stopped);
    // The guest is none the worse for it where its pages are.
    assert_eq!(guest.thread(0).read_page(1).unwrap(), Content::Source);
}

fn a_session_can_be_stopped_by_many_at_once_while_its_guest_is_busy(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    let soak = Soak { threads: 3, ops: 1_000_000, chunk: 2, ..Soak::default() };
    let _running = guest.thread(0).start_random(soak);
    until("the guest to be busy", || guest.stats().counters.faults() > 20);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(guest.session.stop(), End::Stopped));
        }
    });
    let (end, stats) = guest.end();
    assert_eq!(end, End::Stopped);
    assert_eq!(stats.counters.faults(), stats.latency.count);
}

fn a_session_can_be_stopped_with_faults_parked(case: Case) {
    let (setting, gate) = gated(case);
    let guest = setting.guest();
    let _read = guest.thread(0).start_read(5, 1);
    let _write = guest.thread(1).start_write(6, 1, 3);
    until("both to wait", || gate.arrived() > 1 && waiting_threads(guest.pid()) == 2);
    // The gate stays closed: nothing that is fetched is waited for.
    assert_eq!(guest.session.stop(), End::Stopped);
    let (_, stats) = guest.end();
    assert_eq!(stats.counters.faults(), 0);
    gate.open();
}

fn a_session_can_be_stopped_during_a_prefault(case: Case) {
    let (setting, gate) = gated(case);
    let guest = setting.guest();
    let (reply, report) = mpsc::channel();
    let reply = Reply::new(move |it| reply.send(it).unwrap_or(()));
    guest.session.prefault_with(vec![PageRange::new(0, PAGES)], reply).unwrap();
    until("the fetch to begin", || gate.arrived() > 0);
    assert_eq!(guest.session.stop(), End::Stopped);
    let report = report.recv().unwrap().unwrap();
    assert_eq!((report.installed, report.skipped), (4, 4), "{report:?}");
    assert_eq!(report.requested(), PAGES);
    gate.open();
}

/// Whoever waits for an unread REMOVE cannot be woken: it has to be read.
fn a_session_that_is_stopped_answers_what_was_asked_before(case: Case) {
    let setting = case.open(PAGES);
    let one_waits = |guest: &uffd_proof::Served| {
        until("a thread to wait", || waiting_threads(guest.pid()) == 1);
    };
    let guest = setting.guest();
    guest.thread(0).touch(0, 2).unwrap();
    let held = guest.hold();
    let given_back = guest.thread(0).start_madvise(0, 1);
    one_waits(&guest);
    guest.session.begin_stop();
    drop(held);
    assert_eq!(guest.end().0, End::Stopped);
    given_back.get().unwrap();
    drop(guest);

    let guest = setting.guest();
    let held = guest.hold();
    let read = guest.thread(0).start_read(1, 1);
    one_waits(&guest);
    guest.session.begin_stop();
    drop(held);
    assert!(read.get().unwrap().all(|content| *content == Content::Source));
    assert_eq!(guest.end().1.counters.read_faults, 1);
}

fn a_session_that_is_dropped_is_stopped(case: Case) {
    let setting = case.open(PAGES);
    let served = setting.guest();
    served.thread(0).touch(0, 1).unwrap();
    let (told, guest) = served.drop_session();
    assert_eq!(told.0, End::Stopped);
    assert_eq!(guest.thread(0).read_page(0).unwrap(), Content::Source);
}

fn what_is_asked_after_the_end_is_answered(case: Case) {
    let setting = case.open(PAGES);
    let guest = setting.guest();
    guest.session.stop();
    assert!(guest.session.stats().is_err());
    assert!(guest.session.export().is_err());
    assert!(guest.session.settle().is_err());
    assert!(guest.session.trace(0).is_err());
    assert!(guest.session.prefault(vec![PageRange::new(0, 1)]).is_err());
    guest.session.want_trace();
    guest.session.report(Some(Duration::from_secs(1)), true);
}

fn a_guest_with_an_old_firecrackers_socket_is_seen_to_die(case: Case) {
    let setting = case.open(PAGES);
    let mut guest = setting.guest_with(|options| options.close_socket = true);
    guest.thread(0).touch(0, 2).unwrap();
    assert!(guest.session.end().is_none());
    guest.guest.kill().unwrap();
    assert_eq!(guest.end().0, End::GuestExited);
}

/// A server with an observer of the test's own.
struct Own {
    _dir: tempfile::TempDir,
    server: Server,
    pattern: Pattern,
}

impl Own {
    fn start(observer: impl ServerObserver) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pattern = Pattern::new(2, SMALL);
        let file = dir.path().join("mem");
        snapshot::create(&file, &pattern, PAGES, ZeroPages::Holes).unwrap();
        let fetcher = Arc::new(Fetcher::new(Arc::new(FileSource::open(&file).unwrap())));
        let socket = dir.path().join("uffd.sock");
        let options = ServerOptions::default();
        let server = Server::start(&socket, fetcher, options, Arc::new(observer)).unwrap();
        Self { _dir: dir, server, pattern }
    }

    fn guest(&self) -> Guest {
        let options = Options::new(self.server.path(), [PAGES], self.pattern);
        GuestBuilder::new(env!("CARGO_BIN_EXE_uffd-proof-guest"), options).spawn().unwrap()
    }
}

/// What an observer does when it is told something.
type Act = fn(&str);

/// Tells the test of ends, and acts on everything else.
struct Acting {
    act: Act,
    ends: Mutex<Sender<End>>,
    sessions: Mutex<Sender<Session>>,
}

struct ActingOne(Act, Sender<End>);

impl Observer for ActingOne {
    fn stats(&mut self, _: Stats) {
        self.0("stats");
    }
    fn trace(&mut self, entries: &[TraceEntry]) -> usize {
        self.0("trace");
        entries.len()
    }
    fn ended(&mut self, end: &End, _: Stats) {
        self.1.send(end.clone()).unwrap();
        self.0("ended");
    }
}

impl ServerObserver for Acting {
    fn arriving(&self) -> Arriving {
        let observer = Box::new(ActingOne(self.act, self.ends.lock().unwrap().clone()));
        let sessions = self.sessions.lock().unwrap().clone();
        Arriving { observer, served: Box::new(move |session| drop(sessions.send(session))) }
    }
    fn refused(&self, refusal: Refusal) {
        panic!("{refusal}");
    }
}

fn acting(act: Act) -> (Own, mpsc::Receiver<Session>, mpsc::Receiver<End>) {
    let ((ends, ended), (sessions, session)) = (mpsc::channel(), mpsc::channel());
    let (ends, sessions) = (Mutex::new(ends), Mutex::new(sessions));
    (Own::start(Acting { act, ends, sessions }), session, ended)
}

const SOON: Duration = Duration::from_secs(60);

/// The thread that would be waited for is the one that lets go.
#[test]
fn a_session_may_be_let_go_of_by_its_observer() {
    let (own, sessions, ended) = acting(|_| {});
    drop(sessions);
    for _ in 0..3 {
        let _guest = own.guest();
        assert_eq!(ended.recv_timeout(SOON).unwrap(), End::Stopped);
    }
}

#[test]
fn a_session_may_be_let_go_of_by_a_reply() {
    let (own, sessions, ended) = acting(|_| {});
    let _guest = own.guest();
    let session = Arc::new(sessions.recv_timeout(SOON).unwrap());
    let last = Arc::clone(&session);
    let (dropped, is_dropped) = mpsc::channel::<()>();
    session.stats_with(Reply::new(move |_| {
        let _ = is_dropped.recv();
        drop(last);
    }));
    drop(session);
    dropped.send(()).unwrap();
    assert_eq!(ended.recv_timeout(SOON).unwrap(), End::Stopped);
}

/// It is told of its end once all the same, and whoever waits for the session learns of it.
#[test]
fn an_observer_that_panics_ends_its_session_and_no_other() {
    for at in ["stats", "trace", "ended"] {
        let act: Act = match at {
            "stats" => |what| assert_ne!(what, "stats", "on purpose"),
            "trace" => |what| assert_ne!(what, "trace", "on purpose"),
            _ => |what| assert_ne!(what, "ended", "on purpose"),
        };
        let (own, sessions, ended) = acting(act);
        let guest = own.guest();
        let session = sessions.recv_timeout(SOON).unwrap();
        session.report(Some(Duration::from_millis(1)), true);
        let _touch = guest.thread(0).start_touch(0, 2);
        if at == "ended" {
            session.begin_stop();
            assert_eq!(session.wait(), End::Stopped);
            assert_eq!(ended.recv_timeout(SOON).unwrap(), End::Stopped);
        } else {
            let End::Failed(SessionError::Panicked(text)) = session.wait() else { panic!() };
            assert!(text.contains("on purpose"), "{text}");
            assert!(matches!(ended.recv_timeout(SOON).unwrap(), End::Failed(_)));
        }
        assert!(ended.recv_timeout(Duration::from_millis(20)).is_err(), "told twice");
        // The server is unharmed.
        let _guest = own.guest();
        drop(sessions.recv_timeout(SOON).unwrap());
    }
}

#[test]
fn a_reply_that_panics_does_not_keep_the_end_from_those_who_wait() {
    let (own, sessions, ended) = acting(|_| {});
    let _guest = own.guest();
    let session = sessions.recv_timeout(SOON).unwrap();
    // Held, so that the prefault is still to be answered when the session ends.
    let (go, gone) = mpsc::channel::<()>();
    session.stats_with(Reply::new(move |_| gone.recv().unwrap_or(())));
    let reply = Reply::new(|_| panic!("a reply that panics on purpose"));
    session.prefault_with(vec![PageRange::new(0, PAGES)], reply).unwrap();
    session.begin_stop();
    go.send(()).unwrap();
    assert!(matches!(session.wait(), End::Stopped | End::Failed(SessionError::Panicked(_))));
    assert!(ended.recv_timeout(SOON).is_ok());
}

/// Holds whoever tells it of a refusal.
struct Holding {
    told: Mutex<Sender<()>>,
    go: Mutex<mpsc::Receiver<()>>,
}

impl ServerObserver for Holding {
    fn arriving(&self) -> Arriving {
        panic!("no guest hands off in this test");
    }
    fn refused(&self, _: Refusal) {
        self.told.lock().unwrap().send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
    }
}

/// Whoever has stopped it can forget the observer.
#[test]
fn a_server_is_stopped_once_its_observer_is_left_alone() {
    let ((told, is_told), (go, gone)) = (mpsc::channel(), mpsc::channel());
    let own = Own::start(Holding { told: Mutex::new(told), go: Mutex::new(gone) });
    let _silent = std::os::unix::net::UnixStream::connect(own.server.path()).unwrap();
    let _silent_too = std::os::unix::net::UnixStream::connect(own.server.path()).unwrap();
    let mut hangs_up = std::os::unix::net::UnixStream::connect(own.server.path()).unwrap();
    std::io::Write::write_all(&mut hangs_up, b"[").unwrap();
    drop(hangs_up);
    is_told.recv_timeout(SOON).unwrap(); // the one that hung up, behind the others
    let (stopped, is_stopped) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            own.server.stop();
            stopped.send(()).unwrap();
        });
        for _ in 0..3 {
            assert!(is_stopped.recv_timeout(Duration::from_millis(30)).is_err());
            go.send(()).unwrap();
        }
        is_stopped.recv_timeout(SOON).unwrap();
    });
    assert_eq!(is_told.iter().take(2).count(), 2);
}
