//! What a server and a guardian say to each other: one JSON object a message, told apart by its
//! only key.

use serde::{Deserialize, Serialize};

/// The version of the protocol. Who speaks another one is refused by name.
pub const PROTOCOL: u32 = 1;

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// The first message. What else a later version says with it is passed over.
    Hello {
        /// The version that the server speaks.
        version: u32,
    },
    /// The server serves this guest. Its userfaultfd comes with the message.
    Entrust {
        /// The guest's id.
        id: String,
    },
    /// The guest is none of the guardian's any more: it has ended, or is to have no guardian.
    Forget {
        /// The guest's id.
        id: String,
    },
    /// The server has let go of the guest: it is to be served.
    Left {
        /// The guest's id.
        id: String,
        /// Or is about to, and says so again when it has. A version that does not know this tries at
        /// once, and again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        soon: bool,
    },
    /// The userfaultfds of all guests are wanted, for a server that cannot take them itself.
    Copies,
    /// The guest is to be let go of: the server is ready to take it.
    Give {
        /// The guest's id.
        id: String,
    },
}

/// What a guardian says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// The first message, whatever was said: the versions may differ.
    Welcome {
        /// The version that the guardian speaks.
        version: u32,
    },
    /// The peer is not heard, and why not.
    Refused {
        /// In words.
        why: String,
    },
    /// The guest would be served at once.
    Guarded {
        /// The guest's id.
        id: String,
    },
    /// The guest could not be served.
    Unguarded {
        /// The guest's id.
        id: String,
        /// In words.
        why: String,
    },
    /// A guest's userfaultfd, which comes with the message.
    Copy {
        /// The guest's id.
        id: String,
    },
    /// All copies have been sent.
    AllCopies,
    /// The guardian does not serve the guest: it has let go of it, or never did.
    Given {
        /// The guest's id.
        id: String,
    },
}
