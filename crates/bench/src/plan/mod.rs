//! What is to be measured, as plain data.

mod handler;
mod script;

pub(crate) use handler::{Handler, Plain};
pub(crate) use script::{Ahead, Disturbance, Interruption, Pace, Placement, Script};

/// A guest, whoever serves it, and what it does meanwhile: one bar of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    /// Its name, the same in every round.
    pub(crate) name: &'static str,
    pub(crate) snapshot: Snapshot,
    /// Whether the snapshot is out of the page cache when the guest starts.
    pub(crate) cold: bool,
    pub(crate) handler: Handler,
    pub(crate) script: Script,
}

/// The contents of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Snapshot {
    pub(crate) pages: u64,
    pub(crate) page_size: u64,
    /// Of 1000 runs of 64 KiB, how many are holes of the file.
    pub(crate) zero_per_mille: u64,
}

impl Snapshot {
    pub(crate) const fn small(pages: u64) -> Self {
        Self { pages, page_size: 4096, zero_per_mille: 0 }
    }

    pub(crate) const fn huge(pages: u64) -> Self {
        Self { pages, page_size: 2 << 20, zero_per_mille: 0 }
    }
}
