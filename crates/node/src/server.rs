use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use napi::bindgen_prelude::Float64Array;
use napi::{CleanupEnvHook, Env};
use napi_derive::napi;
use uffd_core::guardian::{Client, GuardianError, Launch};
use uffd_core::kernel::{Waker, stay_behind};
use uffd_core::ledger::{Claim, SnapshotPlace, StateDir, StateDirError};
use uffd_core::metrics::Totals;
use uffd_core::recovery::{Awaited, Keep, Spares, left_in};
use uffd_core::server::{Server, ServerOptions};
use uffd_core::service_manager::{Environment, ServiceManager};
use uffd_core::source::{Fetcher, FileSource};

use crate::bell::Ring;
use crate::error::{ErrorInfo, Thrown};
use crate::event::NativeEvent;
use crate::guardian::Hearing;
use crate::listen_options::{NativeListenOptions, StateDirOptions};
use crate::outbox::{News, Outbox};
use crate::reception::Reception;
use crate::service_manager::{NativeServiceManager, Service, Starting};
use crate::sessions::{Ending, Sessions};
use crate::snapshot::Snapshot;

/// How long it may take to find out that the guardian is ready for guests, or to start another one.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// How long it may take until somebody has each guest that was handed over.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// A server and the guests it received. Starting and closing happen on threads of their own,
/// and nothing here waits.
#[napi]
pub struct NativeServer {
    shared: Arc<Shared>,
    /// JavaScript was told that the socket is gone: no guest will arrive.
    closed: bool,
    /// Nothing more will be told.
    finished: bool,
    /// Called when the environment ends with the server open or guests running.
    hook: Option<CleanupEnvHook<Arc<Shared>>>,
}

struct Shared {
    outbox: Arc<Outbox>,
    sessions: Arc<Sessions>,
    totals: Arc<Totals>,
    phase: Mutex<Phase>,
    /// Guests outlive this process.
    keeps: bool,
    /// Keeps other servers from the state directory, until the last guest has ended.
    claim: Mutex<Option<Claim>>,
    /// The guardian of the state directory, for as long as anybody entrusts guests to it.
    guardian: Mutex<Weak<Client>>,
    /// Questions about guests that are left, or are to be, which are answered by an event and of which
    /// JavaScript has not been told yet.
    telling: AtomicUsize,
    /// Ends a wait for another server to leave the state directory.
    given_up: Waker,
    /// This process as a service, if it is one that this server is a part of.
    service: Option<Arc<Service>>,
}

enum Phase {
    Starting,
    Open(Server),
    Closed,
}

#[napi]
impl NativeServer {
    /// Opens the snapshot and binds the socket; an event tells how that went. `ring` is called
    /// when there is something to collect.
    #[napi(
        constructor,
        catch_unwind,
        ts_args_type = "options: NativeListenOptions, ring: () => void"
    )]
    pub fn new(env: Env, options: NativeListenOptions, ring: Ring) -> Result<Self, Thrown> {
        let (socket, snapshot) = options.paths();
        let state_dir = options.state_dir();
        let environment = options
            .systemd
            .as_ref()
            .map(|told| Environment::of(|name| told.get(name).map(OsString::from)));
        let service = environment.as_ref().and_then(Service::of_process);
        let options = options.server()?;
        let given_up = Waker::new().map_err(internal)?;
        let shared = Arc::new(Shared {
            outbox: Outbox::new(ring),
            sessions: Arc::default(),
            totals: Arc::default(),
            phase: Mutex::new(Phase::Starting),
            keeps: state_dir.is_some(),
            claim: Mutex::default(),
            guardian: Mutex::default(),
            telling: AtomicUsize::new(0),
            given_up,
            service,
        });
        let hook = env
            .add_env_cleanup_hook(Arc::clone(&shared), |shared| shared.abandon())
            .map_err(|error| internal(error.reason))?;
        let starting = Arc::clone(&shared);
        let begun =
            shared.service.as_ref().map(|service| service.begin(&shared.sessions, &shared.outbox));
        let started = thread::Builder::new()
            .name("uffd-listen".to_owned())
            .spawn(move || starting.start(&socket, &snapshot, state_dir, options, begun));
        if let Err(error) = started {
            let message = format!("cannot start a thread to listen on: {error}");
            shared.fail(ErrorInfo::resources(message));
        }
        Ok(Self { shared, closed: false, finished: false, hook: Some(hook) })
    }

    /// What happened since the last time, in order.
    #[napi(catch_unwind)]
    pub fn collect(&mut self, env: Env) -> Vec<NativeEvent> {
        let news = self.shared.outbox.collect();
        for news in &news {
            match news {
                News::Ended(about, _) => {
                    self.shared.sessions.remove(about.id);
                    // It can only fail if the environment is ending.
                    let _ = about.held_by(&env);
                }
                News::Closed => self.closed = true,
                News::GuardianAsked(_) | News::HandedOver { .. } => {
                    self.shared.telling.fetch_sub(1, Ordering::AcqRel);
                }
                _ => {}
            }
        }
        let events = news.into_iter().filter_map(NativeEvent::of).collect();
        let is_telling = self.shared.telling.load(Ordering::Acquire) > 0;
        if self.closed && self.shared.sessions.is_empty() && !is_telling {
            self.shared.outbox.finish();
            self.finished = true;
            // Whoever waits for the directory finds all guests there.
            self.shared.let_go();
            if let Some(hook) = self.hook.take() {
                // It can only fail if the environment is ending.
                let _ = env.remove_env_cleanup_hook(hook);
            }
        }
        events
    }

    /// The values of all metrics, in the order of `metrics()`. Asks no guest.
    #[napi(catch_unwind)]
    pub fn figures(&self) -> Float64Array {
        let mut reading = self.shared.totals.read();
        let guardian = self.shared.client();
        reading.holdings.guarded_guests = guardian.map_or(0, |client| client.guarded());
        reading.values().into()
    }

    /// What is known of the service manager, if this server has to do with one.
    #[napi(catch_unwind)]
    pub fn service_manager(&self) -> Option<NativeServiceManager> {
        self.shared.service.as_ref().map(|service| service.known())
    }

    /// Has the service manager told that the service ends.
    #[napi(catch_unwind)]
    pub fn service_stops(&self) {
        self.shared.service.iter().for_each(|service| service.stops());
    }

    /// Stops accepting and removes the socket; an event tells when that is done.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        let shared = Arc::clone(&self.shared);
        let close = move || shared.close();
        let closing = close.clone();
        if thread::Builder::new().name("uffd-close".to_owned()).spawn(closing).is_err() {
            // Slower for the event loop, and just as right.
            close();
        }
    }

    /// Finds out whether guests can be left: to a guardian that is not frozen, or is replaced first. An
    /// event tells. Not so if nothing is told any more.
    #[napi(catch_unwind)]
    pub fn ask_guardian(&self) -> bool {
        if !self.finished {
            self.shared.ask_guardian();
        }
        !self.finished
    }

    /// Stops accepting and leaves all guests to a successor; their ends are events, and that
    /// somebody has them, or nobody. Not so if nothing is told any more: then there are none.
    #[napi(catch_unwind)]
    pub fn hand_over(&self) -> bool {
        if !self.finished {
            self.shared.hand_over();
        }
        !self.finished
    }

    /// The process exits: ends everything, or leaves the guests that are kept to a successor, and
    /// tells nobody.
    #[napi(catch_unwind)]
    pub fn abandon(&self) {
        self.shared.abandon();
    }
}

impl Shared {
    /// The guardian, as long as anybody entrusts guests to it.
    fn client(&self) -> Option<Arc<Client>> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    fn ask_guardian(self: &Arc<Self>) {
        self.telling.fetch_add(1, Ordering::AcqRel);
        let (shared, guardian) = (Arc::clone(self), self.client());
        let ask = move || {
            let asked = guardian.map_or(Ok(()), |guardian| guardian.is_ready(READY_WITHIN));
            shared
                .outbox
                .tell(News::GuardianAsked(asked.err().map(|error| ErrorInfo::from(&error))));
        };
        if let Err(error) = thread::Builder::new().name("uffd-leave".to_owned()).spawn(ask) {
            let message = format!("cannot start a thread to ask the guardian on: {error}");
            self.outbox.tell(News::GuardianAsked(Some(ErrorInfo::resources(message))));
        }
    }

    /// The guardian is kept until somebody has the guests: it may be lost when it has been told.
    fn hand_over(self: &Arc<Self>) {
        self.telling.fetch_add(1, Ordering::AcqRel);
        let guardian = self.client();
        self.sessions.begin(Ending::HandOver);
        let shared = Arc::clone(self);
        let rest = move || {
            shared.close();
            shared.sessions.running().iter().for_each(|session| drop(session.wait()));
            let ownerless = guardian
                .map(|guardian| guardian.see_to_those_left(TAKEN_WITHIN))
                .unwrap_or_default();
            shared.outbox.tell(News::HandedOver { ownerless });
        };
        let rest = Arc::new(Mutex::new(Some(rest)));
        let on_thread = {
            let rest = Arc::clone(&rest);
            move || run_once(&rest)
        };
        if thread::Builder::new().name("uffd-leave".to_owned()).spawn(on_thread).is_err() {
            // Slower for the event loop, and just as right.
            run_once(&rest);
        }
    }

    fn start(
        &self,
        socket: &Path,
        snapshot: &Path,
        state_dir: Option<StateDirOptions>,
        options: ServerOptions,
        begun: Option<Starting>,
    ) {
        // Guests that are taken over are served by another process meanwhile, on the same cores.
        let _behind = stay_behind();
        match self.serve(socket, snapshot, state_dir, options) {
            Ok(server) => {
                let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
                if matches!(*phase, Phase::Closed) {
                    server.stop();
                    self.outbox.tell(News::Closed);
                } else {
                    *phase = Phase::Open(server);
                    drop(phase);
                    begun.into_iter().for_each(Starting::has_opened);
                    self.outbox.tell(News::Listening);
                }
            }
            Err(error) => self.fail(error),
        }
    }

    /// In this order: nobody is taken over by a server that cannot listen, and who connects while
    /// guests are taken over waits for that, and is not refused.
    fn serve(
        &self,
        socket: &Path,
        snapshot: &Path,
        state_dir: Option<StateDirOptions>,
        mut options: ServerOptions,
    ) -> Result<Server, ErrorInfo> {
        options.manager = self.manager();
        let source = FileSource::open(snapshot).map_err(|error| ErrorInfo::from(&error))?;
        let source = Arc::new(source);
        let mut awaited = Awaited::default();
        if let Some(state_dir) = state_dir {
            options.keep = Some(self.keep(&state_dir, &source, &mut awaited)?);
        }
        let shown = Snapshot::new(&source).map_err(ErrorInfo::resources)?;
        let fetcher = Arc::new(Fetcher::new(source));
        let outbox = Arc::clone(&self.outbox);
        let sessions = Arc::clone(&self.sessions);
        let totals = Arc::clone(&self.totals);
        let snapshot = Arc::new(shown);
        let service = self.service.clone();
        let reception = Arc::new(Reception { outbox, sessions, snapshot, totals, service });
        let bound = Server::bind(socket, fetcher, options, reception)
            .map_err(|error| ErrorInfo::from(&error))?;
        bound.take_over_awaited(&mut Spares::new(), awaited).map_err(ErrorInfo::resources)?;
        Ok(bound.open())
    }

    /// Makes this server the one of the state directory; a wait for another one ends with it.
    /// Guests that are there meanwhile are `awaited`.
    fn keep(
        &self,
        options: &StateDirOptions,
        source: &FileSource,
        awaited: &mut Awaited,
    ) -> Result<Keep, ErrorInfo> {
        let snapshot = SnapshotPlace::of(source).map_err(ErrorInfo::resources)?;
        let dir = StateDir::open(&options.path).map_err(|error| ErrorInfo::from(&error))?;
        if !dir.is_in_memory() {
            self.outbox.tell(News::StateDirOnDisk);
        }
        let claim = if options.wait {
            let mut told = None;
            dir.claim_unless(&self.given_up, || {
                // Who cannot be looked at now is when the directory is ours.
                let _ = awaited.look(&dir);
                let guests = u32::try_from(awaited.count()).unwrap_or(u32::MAX);
                if told.replace(guests) != Some(guests) {
                    self.outbox.tell(News::Waiting { guests });
                }
            })
        } else {
            dir.claim(false)
        };
        let claim = claim.map_err(|error| ErrorInfo::from(&error))?;
        if options.alone {
            let left = left_in(&dir).map_err(ErrorInfo::resources)?;
            if let [first, ..] = &left[..] {
                let (path, count, first) = (dir.path().to_owned(), left.len(), first.clone());
                return Err((&StateDirError::Occupied { path, count, first }).into());
            }
        }
        let dir = Arc::new(dir);
        let guardian = self.guardian(&dir, options.launch.clone())?;
        *self.claim.lock().unwrap_or_else(PoisonError::into_inner) = Some(claim);
        Ok(Keep { dir, snapshot, guardian, manager: self.manager() })
    }

    /// The directory's guardian: one that is there, which may have guests, or one that is started.
    fn guardian(
        &self,
        dir: &Arc<StateDir>,
        launch: Option<Launch>,
    ) -> Result<Option<Arc<Client>>, ErrorInfo> {
        let is_wanted = launch.is_some();
        let hearing = Box::new(Hearing(Arc::clone(&self.outbox)));
        match Client::start(Arc::clone(dir), launch, hearing) {
            Ok(client) => {
                let weak = Arc::downgrade(&client);
                *self.guardian.lock().unwrap_or_else(PoisonError::into_inner) = weak;
                Ok(Some(client))
            }
            Err(GuardianError::Nobody) if !is_wanted => Ok(None),
            Err(error) => Err((&error).into()),
        }
    }

    fn manager(&self) -> Option<Arc<ServiceManager>> {
        self.service.as_ref().map(|service| Arc::clone(service.manager()))
    }

    fn let_go(&self) {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// It serves no guest, and has none.
    fn fail(&self, error: ErrorInfo) {
        self.let_go();
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Phase::Closed;
        self.outbox.tell(News::ListenFailed(error));
        self.outbox.tell(News::Closed);
    }

    /// Waits until the socket is gone, whoever removes it. A server that is just starting sees to
    /// that itself, and leaves again whom it takes over.
    fn close(&self) {
        let mut phase = self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *phase, Phase::Closed) {
            Phase::Open(server) => {
                server.stop();
                self.outbox.tell(News::Closed);
            }
            Phase::Starting => {
                self.sessions.begin(Ending::HandOver);
                self.given_up.wake();
            }
            Phase::Closed => {}
        }
    }

    /// JavaScript is ending, at any moment and without notice.
    fn abandon(&self) {
        self.outbox.abandon();
        let ending = if self.keeps { Ending::HandOver } else { Ending::Stop };
        self.sessions.begin(ending);
        self.close();
    }
}

fn run_once(work: &Mutex<Option<impl FnOnce()>>) {
    let work = work.lock().unwrap_or_else(PoisonError::into_inner).take();
    work.into_iter().for_each(|work| work());
}

fn internal(error: impl std::fmt::Display) -> Thrown {
    Thrown::new("ERR_UFFD_INTERNAL", error.to_string())
}
