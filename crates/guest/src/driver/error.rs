//! Why a guest did not answer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::protocol::{Refusal, Whereabouts};

/// Why a guest did not answer.
#[derive(Debug, Error)]
pub enum DriverError {
    /// The program could not be started.
    #[error("cannot start {program}: {error}")]
    Start {
        /// Which program.
        program: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The guest gave up before its handoff.
    #[error("the guest gave up: {0}")]
    GaveUp(Refusal),
    /// There was no answer in time.
    #[error(
        "no answer to {what} in {waited:?}; waiting for pages {:?}; threads: {waiting:?}; \
        the guest printed: {printed}",
        pages(waiting)
    )]
    Timeout {
        /// What was asked.
        what: String,
        /// How long was waited.
        waited: Duration,
        /// Where its threads are.
        waiting: Vec<Whereabouts>,
        /// Its standard error.
        printed: String,
    },
    /// The guest ended before it answered.
    #[error("the guest ended ({status}) before it answered {what}; it printed: {printed}")]
    Gone {
        /// What was asked.
        what: String,
        /// How it ended.
        status: String,
        /// Its standard error.
        printed: String,
    },
    /// The guest refused.
    #[error("the guest refused {what}: {why}")]
    Refused {
        /// What was asked.
        what: String,
        /// Why.
        why: Refusal,
    },
    /// The guest speaks another language.
    #[error("cannot read the answer to {what}: {error}")]
    Garbled {
        /// What was asked.
        what: String,
        /// Why.
        error: serde_json::Error,
    },
}

/// The pages that are waited for.
fn pages(threads: &[Whereabouts]) -> Vec<u64> {
    let waiting = threads.iter().filter(|thread| thread.waits_for_page());
    waiting.map(|thread| thread.page).collect()
}

impl DriverError {
    /// The errno with which the guest refused, if it did.
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { why, .. } | Self::GaveUp(why) => why.errno,
            _ => None,
        }
    }
}
