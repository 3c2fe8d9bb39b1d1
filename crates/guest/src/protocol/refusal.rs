//! Why a guest did not do as it was told.

use std::io;

use serde::{Deserialize, Serialize};

use crate::memory::OutOfRange;

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// For people.
    pub message: String,
    /// What a system call said.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub errno: Option<i32>,
}

impl Refusal {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), errno: None }
    }
}

impl From<nix::Error> for Refusal {
    fn from(errno: nix::Error) -> Self {
        Self { message: errno.to_string(), errno: Some(errno as i32) }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { message: error.to_string(), errno: error.raw_os_error() }
    }
}

impl From<OutOfRange> for Refusal {
    fn from(_: OutOfRange) -> Self {
        Self::new("the guest does not have all of these pages")
    }
}
