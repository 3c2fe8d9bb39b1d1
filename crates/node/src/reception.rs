//! Receives the guests of a server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uffd_core::handoff::AcceptError;
use uffd_core::metrics::Totals;
use uffd_core::recovery::NotRecovered;
use uffd_core::server::{Arriving, Refusal, ServerObserver};
use uffd_core::session::Session;

use crate::error::ErrorInfo;
use crate::outbox::{News, Outbox};
use crate::reporter::Reporter;
use crate::service_manager::Service;
use crate::snapshot::Snapshot;

/// The sessions of a server that have not ended, as far as JavaScript knows.
///
/// Kept alive by every session's thread through [`Reception`]. Objects of JavaScript refer to a
/// session weakly: what it holds goes with its end, and not when garbage is collected.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Register>);

#[derive(Default)]
struct Register {
    running: HashMap<u32, Arc<Session>>,
    /// They have ended, and their threads may have a few steps left: dropping one waits for those.
    leaving: Vec<Arc<Session>>,
    ending: Option<Ending>,
}

/// What is to become of sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// They are stopped.
    Stop,
    /// They are left to a successor, where they are kept.
    HandOver,
}

impl Ending {
    fn begin(self, session: &Session) {
        match self {
            Self::Stop => session.begin_stop(),
            Self::HandOver => session.begin_hand_over(),
        }
    }
}

impl Sessions {
    fn add(&self, id: u32, session: Arc<Session>) {
        let mut register = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ending) = register.ending {
            ending.begin(&session);
        }
        register.running.insert(id, session);
    }

    /// JavaScript was told of the end of this one.
    pub(crate) fn remove(&self, id: u32) {
        let mut register = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = register.running.remove(&id);
        register.leaving.extend(ended);
        register.leaving.retain(|session| session.end().is_none());
    }

    /// Those that have not ended, as far as JavaScript knows.
    pub(crate) fn running(&self) -> Vec<Arc<Session>> {
        let register = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        register.running.values().cloned().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).running.is_empty()
    }

    /// Ends all sessions, and those that are still to come. Waits for none.
    pub(crate) fn begin(&self, ending: Ending) {
        let mut register = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        register.ending = Some(ending);
        register.running.values().for_each(|session| ending.begin(session));
    }
}

pub(crate) struct Reception {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) totals: Arc<Totals>,
    /// This process as a service, if it is one.
    pub(crate) service: Option<Arc<Service>>,
}

impl Reception {
    fn receive(&self, recovered: bool) -> Arriving {
        let about = self.outbox.new_guest();
        let (totals, service) = (Arc::clone(&self.totals), self.service.clone());
        let reporter = Reporter::new(Arc::clone(&about), totals, service, recovered);
        let observer = Box::new(reporter);
        let (outbox, sessions) = (Arc::clone(&self.outbox), Arc::clone(&self.sessions));
        let snapshot = Arc::clone(&self.snapshot);
        let served = move |session| {
            let session = Arc::new(session);
            sessions.add(about.id, Arc::clone(&session));
            outbox.tell(News::Arrived { about, session, snapshot, recovered });
        };
        Arriving { observer, served: Box::new(served) }
    }
}

impl ServerObserver for Reception {
    fn arriving(&self) -> Arriving {
        self.receive(false)
    }

    fn recovering(&self) -> Arriving {
        self.receive(true)
    }

    fn not_recovered(&self, other: NotRecovered) {
        if !other.why.is_ended() {
            self.totals.not_recovered();
        }
        self.outbox.tell(News::NotRecovered(other));
    }

    fn refused(&self, refusal: Refusal) {
        self.totals.refused();
        self.outbox.refused(ErrorInfo::from(&refusal));
    }

    fn troubled(&self, error: AcceptError) {
        let for_good = error.retry_after().is_none();
        self.outbox.troubled(ErrorInfo::from(&error), for_good);
    }
}
