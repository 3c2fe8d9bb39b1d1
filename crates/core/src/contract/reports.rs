//! What a session answers with.

use std::time::Duration;

use roaring::RoaringBitmap;
use thiserror::Error;

use crate::layout::Region;
use crate::states::{PublicState, StateCounts};
use crate::units::PageIndex;

/// What came of a prefault. Every page asked for is in exactly one of the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PrefaultReport {
    /// Pages installed by this prefault.
    pub installed: u64,
    /// Pages that are in the host's memory now and were not installed: what a read-ahead does.
    pub fetched: u64,
    /// Pages found installed: by a fault, an earlier prefault or the VMM.
    pub present: u64,
    /// Pages the guest had given back; they read as zeros and were left alone.
    pub removed: u64,
    /// Pages that could not be had.
    pub failed: u64,
    /// Pages not reached: the prefault was cancelled, or the session ended.
    pub skipped: u64,
    /// The lowest page that could not be had.
    pub first_failed: Option<PageIndex>,
    /// What it lacked.
    pub first_lack: Option<Lack>,
}

/// What a page lacks that cannot be had ahead of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Its bytes: the source fails, or has failed before.
    Source,
    /// Memory, for as long as a fault may wait.
    Memory,
    /// A place: the kernel would not have it there.
    Place,
}

impl PrefaultReport {
    /// Pages asked for.
    pub const fn requested(&self) -> u64 {
        self.installed + self.fetched + self.present + self.removed + self.failed + self.skipped
    }
}

/// The state of all pages at one moment.
#[derive(Clone, Debug)]
pub struct Export {
    /// For each region, in the order of snapshot offsets, the states of its pages.
    pub regions: Vec<RegionStates>,
    /// How many pages there are in each state.
    pub counts: StateCounts,
    /// Pages that differ from the snapshot and are not empty: a diff snapshot has to hold them.
    pub dirty: RoaringBitmap,
    /// Pages that read as zeros: a diff snapshot has to say so. Disjoint from `dirty`.
    pub empty: RoaringBitmap,
    /// Whether `dirty` holds only pages that were written. Without dirty tracking it holds every
    /// page that was installed and could have been written since.
    pub exact: bool,
}

/// The page states of one region.
#[derive(Clone, Debug)]
pub struct RegionStates {
    /// The region.
    pub region: Region,
    /// A state for each of its pages, in page order.
    pub states: Vec<PublicState>,
}

/// Why a guest was not released; it is served as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotReleased {
    /// Dirty pages are tracked, and nobody would see writes any more.
    #[error(
        "the guest was not released: its writes are tracked, and nobody would see them any more; \
         allow that by name, or start it with dirtyTracking 'off'"
    )]
    Tracked,
    /// Some pages could not be had.
    #[error(
        "the guest was not released: {} be had for {pages} of its pages, the first of them page \
         {first}; it is served as before",
        match lack {
            Lack::Source => "the bytes of the snapshot cannot",
            Lack::Memory => "memory cannot",
            Lack::Place => "a place cannot",
        }
    )]
    Failed {
        /// How many.
        pages: u64,
        /// The lowest of them.
        first: PageIndex,
        /// What it lacked.
        lack: Lack,
    },
    /// Its process has as many mappings as it may have.
    #[error(
        "the guest was not released: it has as many mappings as it may have, and to unregister its \
         memory took some more for {waited:?}; raise vm.max_map_count, and ask again; it is served on"
    )]
    NoMappings {
        /// How long it was tried.
        waited: Duration,
    },
    /// It was given up.
    #[error("the release was cancelled")]
    Cancelled,
    /// It was asked for before.
    #[error("the guest's release is under way already")]
    UnderWay,
}

impl NotReleased {
    /// A code that stays the same from version to version.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Tracked => "ERR_UFFD_RELEASE_TRACKED",
            Self::Failed { lack: Lack::Source, .. } => "ERR_UFFD_RELEASE_SOURCE",
            Self::Failed { lack: Lack::Memory, .. } => "ERR_UFFD_RELEASE_MEMORY",
            Self::Failed { lack: Lack::Place, .. } => "ERR_UFFD_REFUSED",
            Self::NoMappings { .. } => "ERR_UFFD_RELEASE_MAPPINGS",
            Self::Cancelled => "ERR_UFFD_ABORTED",
            Self::UnderWay => "ERR_UFFD_RELEASE_UNDER_WAY",
        }
    }
}

/// How far a release has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseProgress {
    /// Pages that need no handler any more.
    pub done: u64,
    /// Those of them that the release has installed.
    pub installed: u64,
    /// Pages of the guest.
    pub pages: u64,
}
