//! The service manager that started this process, as JavaScript sees it. It is the whole process's,
//! whichever servers it has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use napi_derive::napi;
use uffd_core::service_manager::{Environment, Phase, ServiceManager};
use uffd_core::watchdog;

use crate::outbox::{News, Outbox};
use crate::sessions::Sessions;

/// What is known of it.
#[napi(object, object_from_js = false)]
pub struct NativeServiceManager {
    /// It wants to be told what becomes of the service.
    pub is_told: bool,
    /// How many descriptors it keeps, where it has said so.
    pub store_limit: Option<f64>,
    /// How often it wants a sign of life.
    pub watchdog_ms: Option<f64>,
    /// Sockets it has handed over that no server uses.
    pub unused_sockets: Vec<String>,
}

/// This process as a service.
pub(crate) struct Service {
    manager: Arc<ServiceManager>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Servers that are being started.
    starting: usize,
    /// One listens, or has.
    has_opened: bool,
    is_ready: bool,
    guests: usize,
    servers: Vec<Weak<Sessions>>,
}

static SERVICE: Mutex<Option<Arc<Service>>> = Mutex::new(None);

impl Service {
    /// The service that this process is, if `environment` says so, or one has before.
    pub(crate) fn of_process(environment: &Environment) -> Option<Arc<Self>> {
        let mut known = lock(&SERVICE);
        if known.is_none()
            && let Some(manager) = ServiceManager::of(environment)
        {
            let service = Arc::new(Self { manager, state: Mutex::default() });
            let watched = Arc::downgrade(&service);
            let sessions = move || watched.upgrade().map(|it| it.sessions()).unwrap_or_default();
            // Without a thread for it the manager gets no signs of life, and restarts the service.
            let _ = watchdog::watch(&service.manager, Box::new(sessions));
            *known = Some(service);
        }
        known.clone()
    }

    pub(crate) const fn manager(&self) -> &Arc<ServiceManager> {
        &self.manager
    }

    /// A server is about to start: its sessions have to be alive, and `outbox` is told of troubles.
    pub(crate) fn begin(
        self: &Arc<Self>,
        sessions: &Arc<Sessions>,
        outbox: &Arc<Outbox>,
    ) -> Starting {
        let mut state = lock(&self.state);
        state.servers.retain(|server| server.strong_count() > 0);
        state.servers.push(Arc::downgrade(sessions));
        state.starting += 1;
        drop(state);
        let outbox = Arc::downgrade(outbox);
        self.manager.on_trouble(Box::new(move |trouble| {
            let Some(outbox) = outbox.upgrade().filter(|outbox| outbox.is_heard()) else {
                return Err(trouble);
            };
            outbox.tell(News::ServiceManager(trouble));
            Ok(())
        }));
        Starting { service: Arc::clone(self), has_opened: false }
    }

    /// The service ends.
    pub(crate) fn stops(&self) {
        self.manager.tell(Phase::Stopping);
    }

    /// Counts a guest for as long as it lives.
    pub(crate) fn count(self: &Arc<Self>) -> Counted {
        self.change_guests(|guests| guests + 1);
        Counted(Arc::clone(self))
    }

    pub(crate) fn known(&self) -> NativeServiceManager {
        let manager = &self.manager;
        let paths = manager.unused_sockets();
        NativeServiceManager {
            is_told: manager.is_told(),
            store_limit: manager.store_limit().map(|limit| limit as f64),
            watchdog_ms: manager.watchdog().map(|every| every.as_secs_f64() * 1000.0),
            unused_sockets: paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        }
    }

    fn sessions(&self) -> Vec<Arc<uffd_core::session::Session>> {
        let servers: Vec<_> = lock(&self.state).servers.iter().filter_map(Weak::upgrade).collect();
        servers.iter().flat_map(|sessions| sessions.running()).collect()
    }

    fn change_guests(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = lock(&self.state);
        state.guests = change(state.guests);
        self.tell_status(&state);
    }

    /// Under the lock, so that the last one is true.
    fn tell_status(&self, state: &State) {
        if state.is_ready {
            let plural = if state.guests == 1 { "" } else { "s" };
            self.manager.status(&format!("Serves {} guest{plural}", state.guests));
        }
    }
}

/// A server that is being started.
pub(crate) struct Starting {
    service: Arc<Service>,
    has_opened: bool,
}

impl Starting {
    /// It listens, and serves the guests that were left.
    pub(crate) fn has_opened(mut self) {
        self.has_opened = true;
    }
}

impl Drop for Starting {
    /// The service is ready once no server is being started: of those that are started at once, the
    /// last one decides.
    fn drop(&mut self) {
        let mut state = lock(&self.service.state);
        state.starting -= 1;
        state.has_opened |= self.has_opened;
        if state.starting == 0 && state.has_opened && !state.is_ready {
            state.is_ready = true;
            self.service.manager.tell(Phase::Ready);
            self.service.tell_status(&state);
        }
    }
}

/// A guest that is counted.
pub(crate) struct Counted(Arc<Service>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.change_guests(|guests| guests.saturating_sub(1));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
