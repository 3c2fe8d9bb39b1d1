//! How a session ends, and what it can fail with.

use std::time::Duration;

use thiserror::Error;

use crate::kernel::FeaturesError;
use crate::metrics::Ending;
use crate::source::SourceError;
use crate::units::{GuestAddr, PageIndex};

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The guest's process exited.
    GuestExited,
    /// [`Session::stop`](super::Session::stop) was called.
    Stopped,
    /// The guest was left to a successor, by [`Session::begin_hand_over`](crate::session::Session::begin_hand_over).
    HandedOver,
    /// The guest has all it needs and is not served by anybody, by
    /// [`Session::release`](crate::session::Session::release).
    Released,
    /// The guest cannot be served any longer. Unless it was killed, its threads wait at the next
    /// page they miss or give back: the orchestrator has to end it. One with a ledger whose handler
    /// failed by itself, by a panic say, is left to a successor.
    Failed(SessionError),
}

impl End {
    /// Whether what ended the session is no fault of the guest's: with a ledger it is left, and
    /// whoever finds it there serves it on.
    pub(crate) const fn is_no_fault_of_the_guest(&self) -> bool {
        matches!(
            self,
            Self::HandedOver
                | Self::Failed(
                    SessionError::Panicked(_)
                        | SessionError::Events { .. }
                        | SessionError::Resources { .. }
                )
        )
    }
}

impl From<&End> for Ending {
    fn from(end: &End) -> Self {
        match end {
            End::GuestExited => Self::GuestExited,
            End::Stopped => Self::Stopped,
            End::HandedOver => Self::HandedOver,
            End::Released => Self::Released,
            End::Failed(_) => Self::Failed,
        }
    }
}

/// Why a page cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The source did not answer.
    #[error("the snapshot's source did not answer for {waited:?}")]
    SlowSource {
        /// How long was waited.
        waited: Duration,
    },
    /// There was no memory.
    #[error("there was no {} for it for {waited:?}", if *huge { "free 2 MiB page" } else { "memory" })]
    NoMemory {
        /// Whether a 2 MiB page was needed.
        huge: bool,
        /// How long was waited.
        waited: Duration,
    },
}

/// Why a guest cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The descriptor was created with features that cannot be served.
    #[error(transparent)]
    Features(#[from] FeaturesError),
    /// Something the session needs of the host could not be had.
    #[error("cannot serve the guest: {what}: {cause}")]
    Resources {
        /// What was needed.
        what: &'static str,
        /// What the system said.
        cause: String,
    },
    /// The guest gives memory back without end, and the kernel refuses to be asked meanwhile.
    #[error(
        "cannot find out whether the guest's writes are tracked: it has been giving memory back for \
         {waited:?}, and the kernel answers EAGAIN meanwhile; set dirtyTracking to 'off', or end \
         the storm before the handoff"
    )]
    Busy {
        /// How long was asked.
        waited: Duration,
    },
    /// Dirty tracking was asked for and the kernel will not.
    #[error(
        "dirty tracking is on, but the region at {base} cannot be registered for write protection: {cause}; \
         set dirtyTracking to 'auto' or 'off', or use a kernel with userfaultfd write protection"
    )]
    DirtyTracking {
        /// The region's address in the guest process.
        base: GuestAddr,
        /// What the kernel said.
        cause: String,
    },
    /// Events could not be read.
    #[error("reading the guest's page faults failed: {cause}")]
    Events {
        /// What the system said.
        cause: String,
    },
    /// An event arrived that the descriptor's features exclude.
    #[error("the userfaultfd reported a {0} event, which cannot be served")]
    UnexpectedEvent(&'static str),
    /// A thread touched memory that the handoff did not name.
    #[error("a guest thread faulted at {addr}, which lies in no region of the handoff")]
    Stray {
        /// Where.
        addr: GuestAddr,
    },
    /// The kernel refused to install a page.
    #[error(
        "the kernel refused to {operation} page {page} (snapshot offset {offset}): {cause}; \
         does the page size in the handoff match the guest's memory?"
    )]
    Refused {
        /// What was tried.
        operation: &'static str,
        /// The page.
        page: PageIndex,
        /// Its offset in the snapshot, in bytes.
        offset: u64,
        /// What the kernel said.
        cause: String,
    },
    /// A page could not be had, and that is configured to end the session.
    #[error("page {page} (snapshot offset {offset}) cannot be had: {cause}{}", if *killed { "; the guest was killed" } else { "" })]
    Unservable {
        /// The page.
        page: PageIndex,
        /// Its offset in the snapshot, in bytes.
        offset: u64,
        /// Why it could not be had.
        cause: Cause,
        /// Whether the guest was killed because of it.
        killed: bool,
    },
    /// A defect of this program.
    #[error("the fault loop panicked: {0}; this is a defect of uffd-rs, please report it")]
    Panicked(String),
}

impl SessionError {
    /// A code that stays the same from version to version.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Features(_) => "ERR_UFFD_FEATURES",
            Self::Resources { .. } => "ERR_UFFD_RESOURCES",
            Self::Busy { .. } => "ERR_UFFD_BUSY",
            Self::DirtyTracking { .. } => "ERR_UFFD_DIRTY_TRACKING",
            Self::Events { .. } | Self::UnexpectedEvent(_) => "ERR_UFFD_EVENTS",
            Self::Stray { .. } => "ERR_UFFD_STRAY_FAULT",
            Self::Refused { .. } => "ERR_UFFD_REFUSED",
            Self::Unservable { .. } => "ERR_UFFD_PAGE",
            Self::Panicked(_) => "ERR_UFFD_INTERNAL",
        }
    }
}
