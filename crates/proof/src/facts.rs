//! What a session tells of its guest, as plain data that can pass from process to process.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uffd_core::session::{End, Export, PrefaultReport};
use uffd_core::states::PublicState;
use uffd_core::stats::Stats;

/// A page's state, as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "they are those of the core")]
pub enum State {
    Unfaulted,
    Faulted,
    Removed,
    Poisoned,
}

impl From<PublicState> for State {
    fn from(state: PublicState) -> Self {
        match state {
            PublicState::Unfaulted => Self::Unfaulted,
            PublicState::Faulted => Self::Faulted,
            PublicState::Removed => Self::Removed,
            PublicState::Poisoned => Self::Poisoned,
        }
    }
}

/// What the pages of a guest are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// A state for each page, in page order.
    pub states: Vec<State>,
    /// Pages that differ from the snapshot.
    pub dirty: BTreeSet<u32>,
    /// Pages that read as zeros.
    pub empty: BTreeSet<u32>,
    /// Whether `dirty` holds only pages that were written.
    pub exact: bool,
}

impl From<Export> for Exported {
    fn from(export: Export) -> Self {
        let regions = export.regions.iter().flat_map(|region| region.states.iter().copied());
        Self {
            states: regions.map(State::from).collect(),
            dirty: export.dirty.iter().collect(),
            empty: export.empty.iter().collect(),
            exact: export.exact,
        }
    }
}

/// What a session counted, as far as proofs look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are those of the core")]
pub struct Figures {
    pub read_faults: u64,
    pub write_faults: u64,
    pub protect_faults: u64,
    pub source_pages: u64,
    pub zero_pages: u64,
    pub neighbour_pages: u64,
    pub prefault_pages: u64,
    pub remove_events: u64,
    pub deferred: u64,
    pub retried: u64,
    pub already_present: u64,
    pub wakes: u64,
    pub out_of_memory: u64,
    pub fetches: u64,
    pub faults_in_hand: u64,
    pub latencies: u64,
    pub slowest: Duration,
}

impl Figures {
    /// Faults served, of every kind.
    pub const fn faults(&self) -> u64 {
        self.read_faults + self.write_faults + self.protect_faults
    }
}

impl From<Stats> for Figures {
    fn from(stats: Stats) -> Self {
        let counters = stats.counters;
        Self {
            read_faults: counters.read_faults,
            write_faults: counters.write_faults,
            protect_faults: counters.protect_faults,
            source_pages: counters.source_pages,
            zero_pages: counters.zero_pages,
            neighbour_pages: counters.neighbour_pages,
            prefault_pages: counters.prefault_pages,
            remove_events: counters.remove_events,
            deferred: counters.deferred,
            retried: counters.retried,
            already_present: counters.already_present,
            wakes: counters.wakes,
            out_of_memory: counters.out_of_memory,
            fetches: counters.fetches,
            faults_in_hand: stats.faults_in_hand,
            latencies: stats.latency.count,
            slowest: stats.latency.max,
        }
    }
}

/// What came of a prefault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are those of the core")]
pub struct Prefaulted {
    pub installed: u64,
    pub present: u64,
    pub removed: u64,
    pub failed: u64,
    pub skipped: u64,
    pub requested: u64,
}

impl From<PrefaultReport> for Prefaulted {
    fn from(report: PrefaultReport) -> Self {
        Self {
            installed: report.installed,
            present: report.present,
            removed: report.removed,
            failed: report.failed,
            skipped: report.skipped,
            requested: report.requested(),
        }
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The guest's process exited.
    GuestExited,
    /// It was stopped.
    Stopped,
    /// It was left to a successor.
    HandedOver,
    /// It needs no handler any more.
    Released,
    /// It failed.
    Failed(String),
}

impl From<&End> for Ending {
    fn from(end: &End) -> Self {
        match end {
            End::GuestExited => Self::GuestExited,
            End::Stopped => Self::Stopped,
            End::HandedOver => Self::HandedOver,
            End::Released => Self::Released,
            End::Failed(error) => Self::Failed(error.to_string()),
        }
    }
}
