//! Receives the guests of a server.

use std::sync::Arc;

use uffd_core::handoff::AcceptError;
use uffd_core::metrics::Totals;
use uffd_core::recovery::NotRecovered;
use uffd_core::server::{Arriving, Refusal, ServerObserver};

use crate::error::ErrorInfo;
use crate::outbox::{News, Outbox};
use crate::reporter::Reporter;
use crate::service_manager::Service;
use crate::sessions::Sessions;
use crate::snapshot::Snapshot;

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

    fn is_behind(&self) -> bool {
        self.outbox.is_behind()
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
