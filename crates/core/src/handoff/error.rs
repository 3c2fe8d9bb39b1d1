//! What can go wrong between a socket's path and a guest: each with a stable code, the value at
//! fault and the way out.

use std::{fmt, io, path::PathBuf, time::Duration};

use thiserror::Error;

use super::{message::MessageError, visit::MAX_AT_ONCE};

/// Why no socket could be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// The path is empty or has a zero byte: no file can have it.
    #[error("{path:?} cannot be the path of a socket: give the path of a file, without zero bytes")]
    NotAPath {
        /// The path as given.
        path: PathBuf,
    },
    /// The kernel has room for 107 bytes of path.
    #[error(
        "the socket path {path:?} has {len} bytes and may have 107: use a shorter directory, or a \
         path relative to the working directory"
    )]
    PathTooLong {
        /// The path as given.
        path: PathBuf,
        /// Its length in bytes.
        len: usize,
    },
    /// A directory on the way does not exist, or is no directory.
    #[error("the directory of the socket {path:?} does not exist: create it first")]
    NoDirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// This user may not create the socket, or not take over the one that is there.
    #[error(
        "no permission for the socket {path:?} ({source}): this user needs write permission for \
         its directory, and for the socket if there is one already"
    )]
    Denied {
        /// The path as given.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The socket could not be given to this user and group.
    #[error(
        "cannot give the socket {path:?} to user {uid} and group {gid}: {source}; that takes root or \
         CAP_CHOWN: without, run as that user, or let a group that both are in have the socket"
    )]
    Owner {
        /// The path as given.
        path: PathBuf,
        /// The user it was to belong to.
        uid: u32,
        /// The group.
        gid: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Something else has that name, and is not removed for the sake of a socket.
    #[error("{path:?} exists and is not a socket: remove it, or choose another path")]
    NotASocket {
        /// The path as given.
        path: PathBuf,
    },
    /// Another process, or this one, listens there.
    #[error(
        "somebody already listens on {path:?}: stop that process, or choose another path \
         (`ss -xlp` shows who it is)"
    )]
    InUse {
        /// The path as given.
        path: PathBuf,
    },
    /// Whoever else may write to its directory has put something in the socket's place.
    #[error(
        "somebody has removed the socket {path:?}, or put something else in its place, the moment that it \
         was bound: choose a directory that only those may write to whom you trust"
    )]
    Replaced {
        /// The path as given.
        path: PathBuf,
    },
    /// What the service manager has handed over for this path cannot be used as it is.
    #[error("the service manager's socket {path:?} cannot be used: {cause}")]
    Inherited {
        /// The path as given.
        path: PathBuf,
        /// Why, and what would have to change.
        cause: String,
    },
    /// The kernel refused for another reason.
    #[error("cannot listen on {path:?}: {source}")]
    Io {
        /// The path as given.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl BindError {
    /// A code that stays the same whatever the message says.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotAPath { .. } => "ERR_UFFD_SOCKET_PATH",
            Self::PathTooLong { .. } => "ERR_UFFD_SOCKET_PATH_TOO_LONG",
            Self::NoDirectory { .. } => "ERR_UFFD_SOCKET_NO_DIRECTORY",
            Self::Denied { .. } => "ERR_UFFD_SOCKET_DENIED",
            Self::Owner { .. } => "ERR_UFFD_SOCKET_OWNER",
            Self::NotASocket { .. } => "ERR_UFFD_SOCKET_NOT_A_SOCKET",
            Self::InUse { .. } => "ERR_UFFD_SOCKET_IN_USE",
            Self::Replaced { .. } => "ERR_UFFD_SOCKET_REPLACED",
            Self::Inherited { .. } => "ERR_UFFD_SOCKET_INHERITED",
            Self::Io { .. } => "ERR_UFFD_SOCKET_IO",
        }
    }
}

/// Why a connection could not be accepted.
#[derive(Debug, Error)]
pub enum AcceptError {
    /// No descriptor or memory is left for one more connection, which waits in the queue. The
    /// socket stays readable all the while, so pause before the next try.
    #[error(
        "cannot accept a guest on {path:?} yet ({source}): it waits until a descriptor is free; \
         raise the limit of open files (`ulimit -n`) to serve more guests at once"
    )]
    Exhausted {
        /// The listener's path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// So much that peers have sent cannot be closed that there shall not be more of it.
    #[error(
        "cannot accept a guest on {path:?} yet: {count} processes wait until what peers have sent \
         is closed; end the VMM whose file system or memory does not answer"
    )]
    Crowded {
        /// The listener's path.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// One connection was lost while it was accepted; the next can be accepted at once.
    #[error("a connection to {path:?} was lost while it was accepted: {source}")]
    Lost {
        /// The listener's path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The listener will never accept again.
    #[error("cannot accept guests on {path:?} any more ({source}): bind it again")]
    Broken {
        /// The listener's path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl AcceptError {
    /// How long to leave the listener alone before it is asked again, or `None` if there is no
    /// point in asking.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Exhausted { .. } | Self::Crowded { .. } => Some(Duration::from_millis(50)),
            Self::Lost { .. } => Some(Duration::ZERO),
            Self::Broken { .. } => None,
        }
    }

    /// A code that stays the same whatever the message says.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Exhausted { .. } => "ERR_UFFD_ACCEPT_EXHAUSTED",
            Self::Crowded { .. } => "ERR_UFFD_ACCEPT_CROWDED",
            Self::Lost { .. } => "ERR_UFFD_ACCEPT_LOST",
            Self::Broken { .. } => "ERR_UFFD_ACCEPT",
        }
    }
}

/// What a handoff still lacked when it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The regions are there and the descriptor is not.
    Descriptor,
    /// A descriptor is there and the array is cut short.
    ArrayEnd,
    /// Both.
    Both,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptor => "the userfaultfd (SCM_RIGHTS)",
            Self::ArrayEnd => "the end of the JSON array",
            Self::Both => "the end of the JSON array and the userfaultfd (SCM_RIGHTS)",
        })
    }
}

/// Why a guest was refused. Everything it sent is closed again.
#[derive(Debug, Error)]
pub enum HandoffError {
    /// The regions are not those of a guest that can be served.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// Descriptors came, and none is a userfaultfd.
    #[error(
        "the descriptor that came with the regions is {found}, not a userfaultfd: the VMM has to \
         send the one its guest's memory is registered with"
    )]
    NotUserfaultfd {
        /// What `/proc/self/fd` says the first one is.
        found: String,
    },
    /// Two userfaultfds came: which one has the guest's memory cannot be told.
    #[error("two userfaultfds came with the regions: a guest has to send exactly one")]
    SeveralUserfaultfds,
    /// The kernel dropped a part of what was sent.
    #[error(
        "only {taken} of the descriptors that came could be taken: a guest may send {MAX_AT_ONCE} \
         at once, and they have to fit under this process's limit of open files (`ulimit -n`)"
    )]
    Truncated {
        /// How many descriptors arrived with the part that was cut.
        taken: usize,
    },
    /// The message is longer than any list of regions should be.
    #[error("the handoff is longer than the limit of {limit} bytes: this is not a list of regions")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The guest kept silent.
    #[error(
        "the handoff was not complete after {timeout:?}: {received} bytes came, {missing} did \
         not: the VMM has to send both as soon as it has connected"
    )]
    Timeout {
        /// How long it was waited for.
        timeout: Duration,
        /// How many bytes had come.
        received: usize,
        /// What had not.
        missing: Missing,
    },
    /// The guest closed the connection, or died.
    #[error(
        "the connection was closed before the handoff was complete: {received} bytes came, \
         {missing} did not: see the VMM's own log for why it gave up"
    )]
    Closed {
        /// How many bytes had come.
        received: usize,
        /// What had not.
        missing: Missing,
    },
    /// The wait was called off from this side.
    #[error("the handoff was called off: the listener is being stopped")]
    Cancelled,
    /// The kernel failed at something that has nothing to do with the guest.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl HandoffError {
    /// Whether there was no guest at all: somebody connected and left without a word, as those do
    /// who look whether anybody listens.
    pub fn is_nobody(&self) -> bool {
        matches!(self, Self::Closed { received: 0, .. })
    }

    /// A code that stays the same whatever the message says.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Message(error) => error.code(),
            Self::NotUserfaultfd { .. } | Self::SeveralUserfaultfds => {
                "ERR_UFFD_HANDOFF_DESCRIPTOR"
            }
            Self::Truncated { .. } => "ERR_UFFD_HANDOFF_TRUNCATED",
            Self::TooLarge { .. } => "ERR_UFFD_HANDOFF_TOO_LARGE",
            Self::Timeout { .. } => "ERR_UFFD_HANDOFF_TIMEOUT",
            Self::Closed { .. } => "ERR_UFFD_HANDOFF_CLOSED",
            Self::Cancelled => "ERR_UFFD_HANDOFF_CANCELLED",
            Self::Io { .. } => "ERR_UFFD_HANDOFF_IO",
        }
    }
}
