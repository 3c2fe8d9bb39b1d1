//! Receives the guests of a server.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uffd_core::handoff::AcceptError;
use uffd_core::server::{Refusal, ServerObserver};
use uffd_core::session::{Observer, Session};

use crate::error::ErrorInfo;
use crate::outbox::{About, News, Outbox};
use crate::reporter::Reporter;

/// The sessions of a server that have not ended, as far as JavaScript knows.
///
/// Kept alive by every session's thread through [`Reception`], so that JavaScript never has the
/// last reference to a running session: dropping that would wait for its end.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<Register>);

#[derive(Default)]
struct Register {
    running: HashMap<u32, Arc<Session>>,
    stopping: bool,
}

impl Sessions {
    fn add(&self, id: u32, session: Arc<Session>) {
        let mut register = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if register.stopping {
            session.begin_stop();
        }
        register.running.insert(id, session);
    }

    pub(crate) fn remove(&self, id: u32) {
        let session = self.0.lock().unwrap_or_else(PoisonError::into_inner).running.remove(&id);
        drop(session);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).running.is_empty()
    }

    /// Ends all sessions, and those that are still to come. Waits for none.
    pub(crate) fn begin_stop(&self) {
        let mut register = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        register.stopping = true;
        register.running.values().for_each(|session| session.begin_stop());
    }
}

pub(crate) struct Reception {
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) sessions: Arc<Sessions>,
}

thread_local! {
    /// The guest that is arriving on this thread: a server asks for its observer, and hands over
    /// its session right after, on the same thread.
    static ARRIVING: RefCell<Option<Arc<About>>> = const { RefCell::new(None) };
}

impl ServerObserver for Reception {
    fn observer(&self) -> Box<dyn Observer> {
        let about = self.outbox.new_guest();
        ARRIVING.with_borrow_mut(|arriving| *arriving = Some(Arc::clone(&about)));
        Box::new(Reporter(about))
    }

    fn guest(&self, session: Session) {
        let session = Arc::new(session);
        if let Some(about) = ARRIVING.with_borrow_mut(Option::take) {
            self.sessions.add(about.id, Arc::clone(&session));
            self.outbox.tell(News::Arrived { about, session });
        }
    }

    fn refused(&self, refusal: Refusal) {
        ARRIVING.with_borrow_mut(Option::take);
        self.outbox.refused(ErrorInfo::from(&refusal));
    }

    fn troubled(&self, error: AcceptError) {
        let for_good = error.retry_after().is_none();
        self.outbox.troubled(ErrorInfo::from(&error), for_good);
    }
}
