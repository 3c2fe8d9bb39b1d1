//! Why a server could not be started, and why it does not serve a guest.

use std::path::PathBuf;

use thiserror::Error;

use crate::handoff::{BindError, HandoffError};
use crate::kernel::LOWEST_OF_GUESTS;
use crate::session::SessionError;
use crate::units::GuestAddr;

/// Why a server could not be started.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The socket could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// An eventfd or a thread could not be had.
    #[error("cannot start a server on {}: {cause}", path.display())]
    Resources {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
}

impl ServerError {
    /// A code that stays the same from version to version.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Bind(error) => error.code(),
            Self::Resources { .. } => "ERR_UFFD_RESOURCES",
        }
    }
}

/// Why a guest is not served.
#[derive(Debug, Error)]
pub enum Refusal {
    /// Its handoff was not right.
    #[error(transparent)]
    Handoff(#[from] HandoffError),
    /// Its handoff was right, and it is one too many.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// Its handoff was right, and still it cannot be served.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl Refusal {
    /// A code that stays the same from version to version.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Handoff(error) => error.code(),
            Self::Admission(error) => error.code(),
            Self::Session(error) => error.code(),
        }
    }
}

/// Why a guest is not let in whose handoff was right.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AdmissionError {
    /// The server has as many guests as it may have.
    #[error(
        "this server has {limit} guests, and maxGuests allows no more: raise it, or start another \
         server"
    )]
    TooManyGuests {
        /// How many it may have.
        limit: usize,
    },
    /// The process that connected has handed off as many guests as it may.
    #[error(
        "{} has handed off {limit} guests that are being served, and maxGuestsPerProcess allows no \
         more: raise it if one process hands off many",
        process(*pid)
    )]
    TooManyGuestsOfProcess {
        /// The process, where it can be seen from here.
        pid: Option<i32>,
        /// How many it may have.
        limit: usize,
    },
    /// The userfaultfd was handed off before.
    #[error(
        "its userfaultfd is that of a guest that is being served: hand off each guest once, and \
         stop the first one's session before it is handed off again"
    )]
    Twice,
    /// It cannot be known whether the userfaultfd was handed off before.
    #[error(
        "it cannot be known whether its userfaultfd is that of a guest that is being served: {cause}; \
         allow kcmp(2), or use Linux 5.12 or later"
    )]
    NotToldApart {
        /// What the kernel said.
        cause: String,
    },
    /// A region lies where the kernel is asked about addresses that no guest has.
    #[error(
        "its region at {base} begins below {LOWEST_OF_GUESTS}, where no guest has memory: the VMM has to map \
         it higher"
    )]
    TooLow {
        /// The region's address in the guest process.
        base: GuestAddr,
    },
    /// The userfaultfd is for the memory of the process that would serve it.
    #[error(
        "its userfaultfd is for the memory of this very process, which would wait for itself: hand \
         off from another process"
    )]
    OwnMemory,
}

fn process(pid: Option<i32>) -> String {
    pid.map_or_else(|| "its process".to_owned(), |pid| format!("process {pid}"))
}

impl AdmissionError {
    /// A code that stays the same from version to version.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooManyGuests { .. } => "ERR_UFFD_MAX_GUESTS",
            Self::TooManyGuestsOfProcess { .. } => "ERR_UFFD_MAX_GUESTS_PER_PROCESS",
            Self::Twice | Self::NotToldApart { .. } => "ERR_UFFD_HANDOFF_TWICE",
            Self::TooLow { .. } => "ERR_UFFD_HANDOFF_REGION",
            Self::OwnMemory => "ERR_UFFD_HANDOFF_OWN_MEMORY",
        }
    }
}
