//! A snapshot, a server, and the guests it serves.

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use uffd_core::handoff::AcceptError;
use uffd_core::server::{Arriving, Refusal, Server, ServerObserver, ServerOptions};
use uffd_core::session::{FaultAround, Session, SessionOptions};
use uffd_core::source::{Fetcher, FileSource, Source};
use uffd_guest::driver::Guest;
use uffd_guest::options::Options;
use uffd_guest::pattern::Pattern;
use uffd_guest::snapshot::ZeroPages;

use crate::apart::{Apart, ApartStage, Role};
use crate::cast::Cast;
use crate::observe::DEADLINE;
use crate::scenery::{Guests, Scenery};
use crate::served::{Served, Teller, Told};
use crate::serving::{Serving, Staged};

/// What is to be staged.
pub struct StageBuilder {
    guest: PathBuf,
    leading: Vec<String>,
    pattern: Pattern,
    regions: Vec<u64>,
    zeros: ZeroPages,
    data_every: Option<u64>,
    options: ServerOptions,
    source: Option<SourceMaker>,
    on_disk: bool,
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
            data_every: None,
            options: ServerOptions::default(),
            source: None,
            on_disk: false,
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

    /// Puts some data into the snapshot every so many bytes, over whatever is there: what would be
    /// zeros has to be read.
    #[must_use]
    pub const fn data_every(mut self, bytes: u64) -> Self {
        self.data_every = Some(bytes);
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

    /// Keeps the snapshot where it can leave the page cache, which it cannot in a tmpfs.
    #[must_use]
    pub const fn on_disk(mut self) -> Self {
        self.on_disk = true;
        self
    }

    /// Puts another source in front of the snapshot file.
    #[must_use]
    pub fn source<S: Source>(mut self, wrap: impl FnOnce(FileSource) -> S + 'static) -> Self {
        self.source = Some(Box::new(|file| Arc::new(wrap(file))));
        self
    }

    /// Writes the snapshot and has another process serve it.
    ///
    /// # Panics
    /// If a source was put in front of the file: it would stay here.
    pub fn open_apart(self, cast: &Cast, apart: Apart) -> ApartStage {
        assert!(self.source.is_none(), "a source of this process cannot serve in another");
        let scenery = self.scenery();
        let session = &self.options.session;
        let role = Role {
            socket: scenery.socket(),
            snapshot: scenery.snapshot(),
            sight: apart.sight,
            cgroup: apart.cgroup,
            cold: apart.cold,
            held_by: apart.held_by,
            fault_deadline: session.fault_deadline,
            tracking: session.dirty_tracking.into(),
            fault_around: session.fault_around != FaultAround::Off,
        };
        ApartStage::open(cast, role, self.guests(&scenery), scenery)
    }

    fn scenery(&self) -> Scenery {
        let pages = self.regions.iter().sum();
        let scenery = Scenery::with(&self.pattern, pages, self.zeros, self.on_disk);
        if let Some(every) = self.data_every {
            scenery.put_data_every(every);
        }
        scenery
    }

    fn guests(self, scenery: &Scenery) -> Guests {
        let options = Options::new(scenery.socket(), self.regions, self.pattern);
        Guests::new(self.guest, self.leading, options)
    }

    /// Writes the snapshot and starts the server.
    pub fn open(mut self) -> Stage {
        let scenery = self.scenery();
        let file = FileSource::open(&scenery.snapshot()).expect("the snapshot just written");
        let source = match self.source.take() {
            Some(wrap) => wrap(file),
            None => Arc::new(file),
        };
        let fetcher = Arc::new(Fetcher::new(source));
        let (sender, arrivals) = unbounded();
        let behind = Arc::<Behind>::default();
        let observer = Arc::new(Arrivals { told: sender, behind: Arc::clone(&behind) });
        let server = Server::start(&scenery.socket(), fetcher, self.options.clone(), observer);
        let server = server.expect("a server");
        Stage { server, arrivals, behind, guests: self.guests(&scenery), scenery }
    }
}

/// A snapshot that is being served.
#[derive(Debug)]
pub struct Stage {
    server: Server,
    arrivals: Receiver<Arrival>,
    behind: Arc<Behind>,
    guests: Guests,
    scenery: Scenery,
}

#[derive(Debug)]
enum Arrival {
    Guest(Session, Receiver<Told>),
    Refused(Refusal),
    Troubled(AcceptError),
}

struct Arrivals {
    told: Sender<Arrival>,
    behind: Arc<Behind>,
}

/// Whether it pretends that too much waits to be heard of, and how often that was asked.
#[derive(Debug, Default)]
struct Behind {
    is: AtomicBool,
    asked: AtomicU64,
}

impl ServerObserver for Arrivals {
    fn arriving(&self) -> Arriving {
        let (sender, told) = unbounded();
        let arrivals = self.told.clone();
        let served = move |session| drop(arrivals.send(Arrival::Guest(session, told)));
        Arriving { observer: Box::new(Teller(sender)), served: Box::new(served) }
    }
    fn is_behind(&self) -> bool {
        self.behind.asked.fetch_add(1, Ordering::AcqRel);
        self.behind.is.load(Ordering::Acquire)
    }
    fn refused(&self, refusal: Refusal) {
        let _ = self.told.send(Arrival::Refused(refusal));
    }
    fn troubled(&self, error: AcceptError) {
        let _ = self.told.send(Arrival::Troubled(error));
    }
}

impl Stage {
    /// The snapshot file.
    pub fn snapshot(&self) -> PathBuf {
        self.scenery.snapshot()
    }

    /// Where its files are.
    pub fn dir(&self) -> &Path {
        self.scenery.dir()
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

    /// Has the server be told that too much waits to be heard of, or no longer.
    pub fn fall_behind(&self, is: bool) {
        self.behind.is.store(is, Ordering::Release);
    }

    /// How often the server has asked whether that is so.
    pub fn asked_whether_behind(&self) -> u64 {
        self.behind.asked.load(Ordering::Acquire)
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
        self.guests = self.guests.by(program.into());
        self
    }

    fn spawn(&self, change: impl FnOnce(&mut Options)) -> Guest {
        self.guests.spawn(change)
    }

    fn next(&self) -> Arrival {
        self.arrivals.recv_timeout(DEADLINE).expect("the server says what became of the guest")
    }
}

impl Staged for Stage {
    fn guest_with(&self, change: &dyn Fn(&mut Options)) -> Box<dyn Serving> {
        Box::new(Self::guest_with(self, change))
    }
}
