//! A server: one socket, one snapshot, and a session for every guest that connects.

mod acceptor;
mod arrival;
mod bound;
mod claims;
mod error;
mod gate;
mod guests;
mod observer;
mod shared;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use acceptor::Acceptor;
pub use bound::Bound;
pub use error::{AdmissionError, Refusal, ServerError};
use guests::Guests;
pub use observer::{Arriving, ServerObserver};
use shared::Shared;

use crate::handoff::{Listener, SocketAccess};
use crate::recovery::Keep;
use crate::service_manager::ServiceManager;
use crate::session::SessionOptions;
use crate::source::Fetcher;

/// How a server is to behave.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// How long a peer may take from its connection to the end of its handoff. 10 seconds.
    pub handoff_timeout: Duration,
    /// How many guests it may have at once. `None`: as many as half of this process's limit of open
    /// files has room for, at eight a guest, and 4096 at most.
    pub max_guests: Option<usize>,
    /// How many of them one process may have handed off. 4; Firecracker hands off one. Processes
    /// are told apart by their pidfd, which before Linux 6.9 needs a process that can be seen from
    /// this one's pid namespace: of the others it is not known, and there is only `max_guests`.
    pub max_guests_per_process: usize,
    /// Who may connect to the socket.
    pub access: SocketAccess,
    /// For every guest.
    pub session: SessionOptions,
    /// Guests are expected to have pages of 2 MiB: what the source has at hand is made ready before
    /// they come. It does no harm where they have others.
    pub expect_huge_pages: bool,
    /// Where guests are kept, so that they outlive this process.
    pub keep: Option<Keep>,
    /// Whose socket is used, if it listens at the server's path.
    pub manager: Option<Arc<ServiceManager>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            handoff_timeout: Duration::from_secs(10),
            max_guests: None,
            max_guests_per_process: 4,
            access: SocketAccess::default(),
            session: SessionOptions::default(),
            expect_huge_pages: false,
            keep: None,
            manager: None,
        }
    }
}

/// Accepts guests until it is stopped or dropped. Sessions outlive it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Binds the socket and starts to accept: when this returns, Firecracker can connect.
    pub fn start(
        socket: &Path,
        fetcher: Arc<Fetcher>,
        options: ServerOptions,
        observer: Arc<dyn ServerObserver>,
    ) -> Result<Self, ServerError> {
        Ok(Self::bind(socket, fetcher, options, observer)?.open())
    }

    /// Binds the socket, and accepts nobody yet: who connects waits until it is opened. Everything
    /// that can fail has been done by then.
    pub fn bind(
        socket: &Path,
        fetcher: Arc<Fetcher>,
        options: ServerOptions,
        observer: Arc<dyn ServerObserver>,
    ) -> Result<Bound, ServerError> {
        let resources = |cause: String| ServerError::Resources { path: socket.to_owned(), cause };
        let inherited = options.manager.as_ref().and_then(|manager| manager.socket_at(socket));
        let listener = match inherited {
            Some(inherited) => Listener::inherited(socket, options.access, inherited)?,
            None => Listener::bind_for(socket, options.access)?,
        };
        let max_guests = options.max_guests.unwrap_or_else(guests::usual_limit);
        let guests = Guests::new(max_guests, options.max_guests_per_process);
        let shared = Shared::new(guests).map_err(|errno| resources(errno.to_string()))?;
        let shared = Arc::new(shared);
        let acceptor = Acceptor {
            listener,
            fetcher: Arc::clone(&fetcher),
            options: options.clone(),
            observer: Arc::clone(&observer),
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new()
            .name("uffd-accept".to_owned())
            .stack_size(256 << 10)
            .spawn(move || acceptor.run())
            .map_err(|error| resources(error.to_string()))?;
        let thread = Mutex::new(Some(thread));
        if options.expect_huge_pages {
            fetcher.expect_huge_pages();
        }
        let server = Self { path: socket.to_owned(), shared, thread };
        Ok(Bound::new(server, fetcher, options, observer))
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
        // Under the lock, so that whoever else stops it waits as well.
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
