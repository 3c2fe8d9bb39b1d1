//! A server: one socket, one snapshot, and a session for every guest that connects.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use thiserror::Error;

use crate::handoff::{AcceptError, BindError, Connection, HandoffError, Limits, Listener, Ticket};
use crate::kernel::Waker;
use crate::session::{Observer, Session, SessionError, SessionOptions};
use crate::source::Fetcher;

/// Handoffs that may be under way at once. More wait in the socket's backlog, so that peers who
/// say nothing cannot use up the process.
const MOST_HANDOFFS: usize = 64;

/// How a server is to behave.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// How long a peer may take from its connection to the end of its handoff. 10 seconds.
    pub handoff_timeout: Duration,
    /// For every guest.
    pub session: SessionOptions,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self { handoff_timeout: Duration::from_secs(10), session: SessionOptions::default() }
    }
}

/// Why a guest is not served.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Its handoff was not right.
    #[error(transparent)]
    Handoff(#[from] HandoffError),
    /// Its handoff was right, and still it cannot be served.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl Refusal {
    /// A code that stays the same from version to version.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Handoff(error) => error.code(),
            Self::Session(error) => error.code(),
        }
    }
}

/// What becomes of a guest whose handoff has arrived. Dropped if it is refused all the same.
pub struct Arriving {
    /// Is told what the guest's session does.
    pub observer: Box<dyn Observer>,
    /// Takes the session once the guest is being served; must return at once.
    pub served: Box<dyn FnOnce(Session)>,
}

/// Is told what a server does. Called on the server's threads; must return at once.
pub trait ServerObserver: Send + Sync + 'static {
    /// A handoff has arrived.
    fn arriving(&self) -> Arriving;

    /// A guest was refused; the server goes on.
    fn refused(&self, refusal: Refusal);

    /// A connection could not be accepted. Unless the error says that the socket is broken, the
    /// server goes on trying.
    fn troubled(&self, _error: AcceptError) {}
}

/// Accepts guests until it is stopped or dropped. Sessions outlive it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    stop: Waker,
    /// A handoff has ended, so that there is room for another.
    room: Waker,
    handoffs: AtomicUsize,
}

/// Why a server could not be started.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The socket could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An eventfd or a thread could not be had.
    #[error("cannot start a server on {}: {cause}", path.display())]
    Resources {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
}

impl ServerError {
    /// A code that stays the same from version to version.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bind(error) => error.code(),
            Self::Resources { .. } => "ERR_UFFD_RESOURCES",
        }
    }
}

impl Server {
    /// Binds the socket and starts to accept: when this returns, Firecracker can connect.
    pub fn start(
        socket: &Path,
        fetcher: Arc<Fetcher>,
        options: ServerOptions,
        observer: Arc<dyn ServerObserver>,
    ) -> Result<Self, ServerError> {
        let resources = |cause: String| ServerError::Resources { path: socket.to_owned(), cause };
        let listener = Listener::bind(socket)?;
        let waker = || Waker::new().map_err(|errno| resources(errno.to_string()));
        let shared =
            Arc::new(Shared { stop: waker()?, room: waker()?, handoffs: AtomicUsize::new(0) });
        let acceptor = Acceptor { listener, fetcher, options, observer, shared: shared.clone() };
        let thread = thread::Builder::new()
            .name("uffd-accept".to_owned())
            .stack_size(256 << 10)
            .spawn(move || acceptor.run())
            .map_err(|error| resources(error.to_string()))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self { path: socket.to_owned(), shared, thread })
    }

    /// The socket's path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stops accepting, gives up handoffs under way and removes the socket. Guests go on being
    /// served. Returns when that is done, so that the observer is told of no guest afterwards;
    /// may be called at any time and again, but not by the observer.
    pub fn stop(&self) {
        self.shared.stop.wake();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Acceptor {
    listener: Listener,
    fetcher: Arc<Fetcher>,
    options: ServerOptions,
    observer: Arc<dyn ServerObserver>,
    shared: Arc<Shared>,
}

impl Acceptor {
    fn run(self) {
        let shared = Arc::clone(&self.shared);
        self.accept();
        // The socket is gone. Whoever was in the middle of a handoff is told to give it up.
        while shared.stop.is_awake() && shared.handoffs.load(Ordering::Acquire) > 0 {
            let mut fds = [PollFd::new(shared.room.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::NONE);
            shared.room.clear();
        }
    }

    fn accept(self) {
        let mut pause = PollTimeout::NONE;
        while !self.shared.stop.is_awake() {
            let full = self.shared.handoffs.load(Ordering::Acquire) >= MOST_HANDOFFS;
            let waits = full || pause != PollTimeout::NONE;
            let (stop, room) = (self.shared.stop.as_fd(), self.shared.room.as_fd());
            let next = if waits { room } else { self.listener.as_fd() };
            let mut fds = [stop, room, next].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let _ = poll(&mut fds, std::mem::replace(&mut pause, PollTimeout::NONE));
            self.shared.room.clear();
            if full || self.shared.stop.is_awake() {
                continue;
            }
            match self.listener.accept() {
                Ok(Some(connection)) => self.hand_over(connection),
                Ok(None) => {}
                Err(error) => {
                    let wait = error.retry_after();
                    self.observer.troubled(error);
                    let Some(wait) = wait else { return };
                    pause = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
                }
            }
        }
    }

    /// A thread for the guest: first for its handoff, then for its faults.
    fn hand_over(&self, connection: Connection) {
        let Self { fetcher, options, observer, shared, .. } = self;
        let (fetcher, observer, shared) = (fetcher.clone(), observer.clone(), shared.clone());
        let options = *options;
        shared.handoffs.fetch_add(1, Ordering::AcqRel);
        let under_way = UnderWay(shared);
        let started = thread::Builder::new()
            .name("uffd-guest".to_owned())
            .stack_size(256 << 10)
            .spawn(move || serve(connection, fetcher, &options, &*observer, under_way));
        if let Err(error) = started {
            self.observer.refused(Refusal::Session(SessionError::Resources {
                what: "a thread for its faults",
                cause: error.to_string(),
            }));
        }
    }
}

/// Counts a handoff for as long as it lives.
struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.handoffs.fetch_sub(1, Ordering::AcqRel);
        self.0.room.wake();
    }
}

fn serve(
    mut connection: Connection,
    fetcher: Arc<Fetcher>,
    options: &ServerOptions,
    observer: &dyn ServerObserver,
    under_way: UnderWay,
) {
    let mut limits = Limits::new(fetcher.source().len());
    limits.timeout = options.handoff_timeout;
    let handoff = match connection.try_receive(&limits, under_way.0.stop.as_fd()) {
        Ok(handoff) => handoff,
        Err(error) => {
            observer.refused(error.into());
            // A userfaultfd that was sent is closed last: that waits for a lock of the peer's.
            drop(under_way);
            let _on_its_way_out = Ticket::new();
            return drop(connection);
        }
    };
    let guest = observer.arriving();
    match Session::prepare(handoff, fetcher, options.session, guest.observer) {
        Ok((session, runner)) => {
            runner.on_this_thread();
            (guest.served)(session);
            drop(under_way);
            runner.run();
        }
        Err(error) => observer.refused(error.into()),
    }
}
