//! What a serving process is told and says: one JSON object a line.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uffd_core::session::{DirtyTracking, FaultAround, SessionOptions};

use crate::facts::{Ending, Figures};

/// What the process that serves sees of its guests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sight {
    /// What this process sees.
    #[default]
    Full,
    /// It is in another pid namespace: it knows no process and no page map.
    OtherNamespace,
    /// It is this user, who is not the guest's: it knows the process, and may not look into it.
    OtherUser(u32),
}

/// What a process is to serve, and as whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Role {
    pub(crate) socket: PathBuf,
    pub(crate) snapshot: PathBuf,
    pub(crate) sight: Sight,
    pub(crate) cgroup: Option<PathBuf>,
    pub(crate) cold: bool,
    pub(crate) held_by: Option<PathBuf>,
    pub(crate) fault_deadline: Duration,
    pub(crate) tracking: Tracking,
    pub(crate) fault_around: bool,
}

/// Whether dirty pages are tracked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Tracking {
    Auto,
    On,
    Off,
}

impl From<DirtyTracking> for Tracking {
    fn from(tracking: DirtyTracking) -> Self {
        match tracking {
            DirtyTracking::Auto => Self::Auto,
            DirtyTracking::On => Self::On,
            DirtyTracking::Off => Self::Off,
        }
    }
}

impl Role {
    /// How its sessions are to behave.
    pub(crate) fn session(&self) -> SessionOptions {
        let mut options = SessionOptions {
            dirty_tracking: match self.tracking {
                Tracking::Auto => DirtyTracking::Auto,
                Tracking::On => DirtyTracking::On,
                Tracking::Off => DirtyTracking::Off,
            },
            fault_deadline: self.fault_deadline,
            ..SessionOptions::default()
        };
        if !self.fault_around {
            options.fault_around = FaultAround::Off;
        }
        options
    }
}

/// A line to the process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    /// Which guest's session is asked.
    pub(crate) guest: u64,
    pub(crate) ask: Ask,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ask {
    Export,
    Figures,
    Settle,
    Prefault { ranges: Vec<(u64, u64)> },
    Stop,
    Kill,
}

/// A line from the process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// Guests can connect.
    Ready,
    /// A guest is served from now on.
    Guest { number: u64, pid: Option<i32> },
    /// A guest is not served.
    Refused { code: String, text: String },
    /// Something happened to a guest.
    Notice { guest: u64, text: String },
    /// A session is over.
    Ended { guest: u64, ending: Ending, figures: Figures },
    /// A question is answered.
    Answer { id: u64, answer: Value },
    /// A question has no answer: the session had ended.
    EndedBefore { id: u64 },
}
