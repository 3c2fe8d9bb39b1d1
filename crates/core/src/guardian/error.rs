//! Why there is no guardian.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::channel::ChannelError;
use super::message::PROTOCOL;
use super::post::PostError;

/// Why there is no guardian, or none that can be used.
#[derive(Debug, Error)]
pub enum GuardianError {
    /// Its program cannot be started.
    #[error("cannot start the guardian {}: {cause}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// Its program gave up.
    #[error("the guardian {} did not start: {said}", program.display())]
    GaveUp {
        /// The program.
        program: PathBuf,
        /// What it said, or how it ended.
        said: String,
    },
    /// Its program takes too long.
    #[error("the guardian {} has not started within {waited:?}", program.display())]
    Slow {
        /// The program.
        program: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// Nobody is there, although it has started.
    #[error("no guardian listens in the state directory")]
    Nobody,
    /// It does not answer; it may do so yet.
    #[error(
        "the guardian, process {pid}, has not answered for {waited:?}: it is frozen or busy; \
         continue it (SIGCONT), or kill it, and another one is started"
    )]
    Silent {
        /// The process.
        pid: i32,
        /// How long was waited.
        waited: Duration,
    },
    /// It was lost, and another one could not be had.
    #[error("the guardian was lost, and there is no other one yet: {why}")]
    NoOther {
        /// What was in the way.
        why: String,
    },
    /// It speaks another version of the protocol.
    #[error(
        "the guardian speaks version {found} of its protocol, and this is uffd-rs with version \
         {PROTOCOL}: its guests stay with it; serve them with the version that started it, or end \
         them"
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// It does not hear us.
    #[error("the guardian refuses this server: {why}")]
    Refused {
        /// Its reason.
        why: String,
    },
    /// It cannot be reached.
    #[error(transparent)]
    Post(#[from] PostError),
    /// It was lost.
    #[error("the guardian was lost: {0}")]
    Lost(#[from] ChannelError),
    /// A thread or a descriptor could not be had.
    #[error("cannot keep in touch with a guardian: {0}")]
    Resources(std::io::Error),
}

impl GuardianError {
    /// Whether another attempt may go better at once: the guardian was about to end.
    pub(super) const fn passes(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Post(PostError::Unproven(_)))
    }

    /// Whether it is there and does not answer: it may do so yet.
    pub(super) const fn is_silence(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Post(PostError::Crowded))
    }

    /// A code that stays the same from version to version.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Version { .. } => "ERR_UFFD_GUARDIAN_VERSION",
            Self::Silent { .. } | Self::Post(PostError::Crowded) => "ERR_UFFD_GUARDIAN_SILENT",
            Self::Resources(_) => "ERR_UFFD_RESOURCES",
            _ => "ERR_UFFD_GUARDIAN",
        }
    }
}
