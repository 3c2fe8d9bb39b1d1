//! A snapshot, a server, and the guests it serves.

use std::fmt::Debug;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use tempfile::TempDir;
use uffd_core::handoff::AcceptError;
use uffd_core::server::{Arriving, Refusal, Server, ServerObserver, ServerOptions};
use uffd_core::session::{End, Notice, Observer, Reply, Session, SessionOptions};
use uffd_core::source::{Fetcher, FileSource, Source};
use uffd_core::stats::Stats;
use uffd_guest::driver::{Guest, GuestBuilder};
use uffd_guest::options::Options;
use uffd_guest::pattern::Pattern;
use uffd_guest::snapshot::{self, ZeroPages};

/// How long anything may take before a proof fails instead of hanging.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// What is to be staged.
pub struct StageBuilder {
    guest: PathBuf,
    leading: Vec<String>,
    pattern: Pattern,
    regions: Vec<u64>,
    zeros: ZeroPages,
    options: ServerOptions,
    source: Option<SourceMaker>,
}

type SourceMaker = Box<dyn FnOnce(FileSource) -> Arc<dyn Source>>;

impl StageBuilder {
    /// Guests are run by the program `guest` and have `regions` (in pages) of `pattern`.
    pub fn new(guest: impl Into<PathBuf>, pattern: Pattern, regions: &[u64]) -> Self {
        Self {
            guest: guest.into(),
            leading: Vec::new(),
            pattern,
            regions: regions.to_vec(),
            zeros: ZeroPages::Holes,
            options: ServerOptions::default(),
            source: None,
        }
    }

    /// Puts an argument before those of the guest.
    #[must_use]
    pub fn leading_arg(mut self, arg: &str) -> Self {
        self.leading.push(arg.to_owned());
        self
    }

    /// Stores zero pages as data, not as holes.
    #[must_use]
    pub const fn zeros_as_data(mut self) -> Self {
        self.zeros = ZeroPages::Data;
        self
    }

    /// Changes the options of every session.
    #[must_use]
    pub fn session(mut self, change: impl FnOnce(&mut SessionOptions)) -> Self {
        change(&mut self.options.session);
        self
    }

    /// Changes the options of the server.
    #[must_use]
    pub fn server(mut self, change: impl FnOnce(&mut ServerOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Puts another source in front of the snapshot file.
    #[must_use]
    pub fn source<S: Source>(mut self, wrap: impl FnOnce(FileSource) -> S + 'static) -> Self {
        self.source = Some(Box::new(|file| Arc::new(wrap(file))));
        self
    }

    /// Writes the snapshot and starts the server.
    pub fn open(self) -> Stage {
        let dir = tempfile::tempdir().expect("a directory for the stage");
        let snapshot = dir.path().join("mem");
        let pages = self.regions.iter().sum();
        snapshot::create(&snapshot, &self.pattern, pages, self.zeros).expect("a snapshot");
        let file = FileSource::open(&snapshot).expect("the snapshot just written");
        let source = match self.source {
            Some(wrap) => wrap(file),
            None => Arc::new(file),
        };
        let fetcher = Arc::new(Fetcher::new(source));
        let socket = dir.path().join("uffd.sock");
        let (sender, arrivals) = unbounded();
        let observer = Arc::new(Arrivals(sender));
        let server =
            Server::start(&socket, Arc::clone(&fetcher), self.options, observer).expect("a server");
        Stage {
            server,
            arrivals,
            snapshot,
            guest: self.guest,
            leading: self.leading,
            options: Options::new(socket, self.regions, self.pattern),
            _dir: dir,
        }
    }
}

/// A snapshot that is being served.
#[derive(Debug)]
pub struct Stage {
    server: Server,
    arrivals: Receiver<Arrival>,
    snapshot: PathBuf,
    guest: PathBuf,
    leading: Vec<String>,
    options: Options,
    _dir: TempDir,
}

#[derive(Debug)]
enum Arrival {
    Guest(Session, Receiver<Told>),
    Refused(Refusal),
    Troubled(AcceptError),
}

/// What an observer was told.
#[derive(Debug)]
enum Told {
    Notice(Notice),
    Ended(End, Box<Stats>),
}

struct Arrivals(Sender<Arrival>);

struct Teller(Sender<Told>);

impl Observer for Teller {
    fn notice(&mut self, notice: Notice) {
        let _ = self.0.send(Told::Notice(notice));
    }
    fn ended(&mut self, end: &End, stats: Stats) {
        let _ = self.0.send(Told::Ended(end.clone(), Box::new(stats)));
    }
}

impl ServerObserver for Arrivals {
    fn arriving(&self) -> Arriving {
        let (sender, told) = unbounded();
        let arrivals = self.0.clone();
        let served = move |session| drop(arrivals.send(Arrival::Guest(session, told)));
        Arriving { observer: Box::new(Teller(sender)), served: Box::new(served) }
    }
    fn refused(&self, refusal: Refusal) {
        let _ = self.0.send(Arrival::Refused(refusal));
    }
    fn troubled(&self, error: AcceptError) {
        let _ = self.0.send(Arrival::Troubled(error));
    }
}

impl Stage {
    /// The snapshot file.
    pub fn snapshot(&self) -> &Path {
        &self.snapshot
    }

    /// The server.
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// A guest as stock Firecracker makes it.
    pub fn guest(&self) -> Served {
        self.guest_with(|_| {})
    }

    /// A guest with other options. One at a time: guests are told apart by their order.
    pub fn guest_with(&self, change: impl FnOnce(&mut Options)) -> Served {
        let guest = self.spawn(change);
        match self.next() {
            Arrival::Guest(session, told) => Served { guest, session, told },
            other => panic!("expected a guest, got {other:?}"),
        }
    }

    /// Why a guest with other options is refused.
    pub fn refusal(&self, change: impl FnOnce(&mut Options)) -> Refusal {
        let _guest = self.spawn(change);
        self.next_refusal()
    }

    /// Waits for the next refusal of a peer that connected by itself.
    pub fn next_refusal(&self) -> Refusal {
        loop {
            match self.next() {
                Arrival::Refused(refusal) => return refusal,
                Arrival::Troubled(_) => {}
                Arrival::Guest(session, _) => panic!("expected a refusal, got {session:?}"),
            }
        }
    }

    /// Waits for the next refusal, or for why a connection could not be accepted.
    pub fn next_refusal_or_trouble(&self) -> Result<Refusal, AcceptError> {
        match self.next() {
            Arrival::Refused(refusal) => Ok(refusal),
            Arrival::Troubled(error) => Err(error),
            Arrival::Guest(session, _) => panic!("expected a refusal, got {session:?}"),
        }
    }

    /// Whether the server has told of nothing that was not asked for here.
    pub fn nothing_new(&self) -> bool {
        self.arrivals.is_empty()
    }

    /// Why a connection could not be accepted, the next time that happens.
    pub fn next_trouble(&self) -> AcceptError {
        match self.next() {
            Arrival::Troubled(error) => error,
            other => panic!("expected trouble, got {other:?}"),
        }
    }

    /// Waits for a guest that was started by [`start_guest`](Self::start_guest), or a refusal.
    pub fn next_guest_or_refusal(&self) -> Result<Session, Refusal> {
        loop {
            match self.next() {
                Arrival::Guest(session, _) => return Ok(session),
                Arrival::Refused(refusal) => return Err(refusal),
                Arrival::Troubled(_) => {}
            }
        }
    }

    /// Starts a guest and does not ask what became of it.
    pub fn start_guest(&self, change: impl FnOnce(&mut Options)) -> Guest {
        self.spawn(change)
    }

    /// Runs guests by another program.
    #[must_use]
    pub fn guests_by(mut self, program: impl Into<PathBuf>) -> Self {
        self.guest = program.into();
        self
    }

    fn spawn(&self, change: impl FnOnce(&mut Options)) -> Guest {
        let mut options = self.options.clone();
        change(&mut options);
        let builder = GuestBuilder::new(&self.guest, options);
        let builder = self.leading.iter().fold(builder, GuestBuilder::leading_arg);
        builder.spawn().expect("a guest")
    }

    fn next(&self) -> Arrival {
        self.arrivals.recv_timeout(DEADLINE).expect("the server says what became of the guest")
    }
}

/// A guest, and the session that serves it.
#[derive(Debug)]
pub struct Served {
    /// The guest process.
    pub guest: Guest,
    /// Its session.
    pub session: Session,
    told: Receiver<Told>,
}

impl Served {
    /// Holds the fault loop until the guard is dropped: what happens meanwhile queues up.
    pub fn hold(&self) -> Held {
        let (entered, inside) = crossbeam_channel::bounded(0);
        let (release, released) = crossbeam_channel::bounded::<()>(0);
        // The answer to a command is given on the loop's own thread.
        self.session.stats_with(Reply::new(move |_| {
            let _ = entered.send(());
            let _ = released.recv();
        }));
        inside.recv_timeout(DEADLINE).expect("the fault loop takes commands");
        Held { _release: release }
    }

    /// Waits for the session's end, as the observer was told: exactly once, with the statistics.
    pub fn end(&self) -> (End, Stats) {
        loop {
            match self.told.recv_timeout(DEADLINE).expect("the session ends") {
                Told::Notice(_) => {}
                Told::Ended(end, stats) => {
                    // The observer is gone with the loop, so that nothing can follow.
                    let more = self.told.recv_timeout(DEADLINE);
                    assert!(more.is_err_and(|error| error.is_disconnected()), "told twice");
                    assert_eq!(self.session.wait(), end);
                    return (end, *stats);
                }
            }
        }
    }

    /// Drops the session; how it ended, and the guest, which lives on.
    pub fn drop_session(self) -> ((End, Stats), Guest) {
        let Self { guest, session, told } = self;
        drop(session);
        let end = loop {
            match told.recv_timeout(DEADLINE).expect("the session ends") {
                Told::Notice(_) => {}
                Told::Ended(end, stats) => break (end, *stats),
            }
        };
        (end, guest)
    }

    /// Waits for the next notice.
    pub fn notice(&self) -> Notice {
        match self.told.recv_timeout(DEADLINE).expect("a notice") {
            Told::Notice(notice) => notice,
            Told::Ended(end, _) => panic!("expected a notice, got {end:?}"),
        }
    }

    /// Counters now.
    pub fn stats(&self) -> Stats {
        self.session.stats().expect("the session is running")
    }
}

impl Deref for Served {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

/// A fault loop that is held.
#[derive(Debug)]
pub struct Held {
    _release: Sender<()>,
}
