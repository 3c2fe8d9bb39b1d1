//! What a server is told of its guardian.

use super::error::GuardianError;

/// What is heard of the guardian.
#[derive(Debug)]
pub enum News {
    /// It is there and listens.
    Met {
        /// Its process.
        pid: i32,
    },
    /// It was lost, does not answer, or cannot be started. It is tried again, where it can be.
    Troubled(GuardianError),
    /// It would serve the guest at once.
    Guarded {
        /// The guest's id.
        id: String,
    },
    /// It could not serve the guest.
    Unguarded {
        /// The guest's id.
        id: String,
        /// Why not, in words.
        why: String,
    },
}

/// Is told what is heard of the guardian, on a thread of its own; must return at once.
pub trait Observer: Send + Sync + 'static {
    /// Something was heard.
    fn heard(&self, news: News);
}
