//! The service manager that started this process, such as systemd: it is told of what becomes of the
//! service (`sd_notify(3)`), keeps userfaultfds while no server lives (`FDSTORE=1`), hands over
//! sockets (`sd_listen_fds(3)`), and waits for signs of life, which [`crate::watchdog`] gives.
//!
//! What it has said is given, as an [`Environment`]: whoever reads that takes it out of the real one,
//! so that no program that is started from here takes itself for the service.
//!
//! No guest ever waits for the manager: what it does not take in at once is sent by a thread of its
//! own (`post`).

mod environment;
mod inherited;
mod names;
mod notifier;
mod post;
mod store;
mod trouble;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use environment::Environment;
pub(crate) use inherited::InheritedSocket;
pub use notifier::Phase;
pub use trouble::{OnTrouble, Trouble};

use inherited::Sockets;
use post::Post;
use store::Store;
pub(crate) use store::Stored;
use trouble::Troubles;

/// The manager, as far as it has told this process of itself.
#[derive(Debug)]
pub struct ServiceManager {
    post: Option<Arc<Post>>,
    store: Store,
    sockets: Sockets,
    watchdog: Option<Duration>,
    troubles: Arc<Troubles>,
}

impl ServiceManager {
    /// The one that `environment` tells of; none if it tells of none. What is wrong with what it
    /// tells is no reason not to serve: whoever is [told of troubles](Self::on_trouble) hears of it.
    ///
    /// Descriptors are taken once in the life of a process, and only those that are certainly meant:
    /// the userfaultfds of guests, and sockets. All others stay as they are.
    pub fn of(environment: &Environment) -> Option<Arc<Self>> {
        let troubles = Arc::<Troubles>::default();
        let listens = environment.is_for(environment.listen_pid.as_deref());
        let inherited = match environment.listen_fds.as_deref() {
            Some(count) if listens => {
                let names = environment.listen_fd_names.as_deref();
                inherited::take(count, names).map_err(|why| troubles.tell(why)).ok()
            }
            _ => None,
        };
        let post = environment.notify_socket.as_deref().and_then(|address| {
            Post::to(address, &troubles).map_err(|why| troubles.tell(why)).ok()
        });
        if post.is_none() && inherited.is_none() && troubles.is_empty() {
            return None;
        }
        let (copies, sockets) = inherited.unwrap_or_default();
        let limit = environment.fd_store.as_deref().and_then(|limit| limit.parse().ok());
        let store = Store::new(post.clone(), limit, copies, Arc::clone(&troubles));
        let watchdog = environment.watchdog(&troubles).filter(|_| post.is_some());
        Some(Arc::new(Self { post, store, sockets, watchdog, troubles }))
    }

    /// Has somebody told of what is wrong: of what is known already, and of all to come.
    pub fn on_trouble(&self, hear: OnTrouble) {
        self.troubles.on_trouble(hear);
    }

    /// Whether the manager wants to be told anything.
    pub const fn is_told(&self) -> bool {
        self.post.is_some()
    }

    /// How many descriptors it keeps at most (`FileDescriptorStoreMax=`), where it has said so.
    pub fn store_limit(&self) -> Option<usize> {
        self.store.limit()
    }

    /// How often it wants a sign of life at least.
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Says what becomes of the service.
    pub fn tell(&self, phase: Phase) {
        if let Some(post) = &self.post {
            post.send(phase.message(), None);
        }
    }

    /// A line for whoever asks how the service is.
    pub fn status(&self, text: &str) {
        if let Some(post) = &self.post {
            post.send(notifier::Message::status(text), None);
        }
    }

    /// A sign of life.
    pub(crate) fn is_alive(&self) {
        if let Some(post) = &self.post {
            post.send(notifier::Message::alive(), None);
        }
    }

    /// The socket at `path` that the manager listens on for this process, if there is one.
    pub(crate) fn socket_at(&self, path: &Path) -> Option<InheritedSocket> {
        self.sockets.at(path)
    }

    /// The paths of sockets that were handed over and that no server has asked for.
    pub fn unused_sockets(&self) -> Vec<PathBuf> {
        self.sockets.unused()
    }

    pub(crate) const fn store(&self) -> &Store {
        &self.store
    }
}

/// A set of words that several threads change.
type Words = Mutex<HashSet<String>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
