//! Who is told what a server does.

use super::Refusal;
use crate::handoff::AcceptError;
use crate::recovery::NotRecovered;
use crate::session::{Observer, Served};

/// What becomes of a guest whose handoff has arrived. Dropped if it is refused all the same.
pub struct Arriving {
    /// Is told what the guest's session does.
    pub observer: Box<dyn Observer>,
    /// Takes its session before anything is told of it.
    pub served: Served,
}

/// Is told what a server does. Called on the server's threads; must return at once.
pub trait ServerObserver: Send + Sync + 'static {
    /// A handoff has arrived.
    fn arriving(&self) -> Arriving;

    /// A guest that was left is being taken over.
    fn recovering(&self) -> Arriving {
        self.arriving()
    }

    /// A guest that was left is not taken over.
    fn not_recovered(&self, _other: NotRecovered) {}

    /// Whether so much waits to be heard of by others that no guest is to come for now. Asked before
    /// each connection is accepted, and soon again while it is so: who connects waits in the queue.
    fn is_behind(&self) -> bool {
        false
    }

    /// A guest was refused; the server goes on. Who connects and leaves without a word is none.
    fn refused(&self, refusal: Refusal);

    /// A connection could not be accepted. Unless the error says that the socket is broken, the
    /// server goes on trying.
    fn troubled(&self, _error: AcceptError) {}
}
