//! The sessions of a server, of which each is ended once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use uffd_core::session::Session;

/// The sessions of a server that have not ended, as far as JavaScript knows.
///
/// Kept alive by every session's thread through [`crate::reception::Reception`]. Objects of JavaScript
/// refer to a session weakly: what it holds goes with its end, and not when garbage is collected.
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
    pub(crate) fn add(&self, id: u32, session: Arc<Session>) {
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
