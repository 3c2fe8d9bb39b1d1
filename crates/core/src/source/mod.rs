//! Where a page's bytes come from. A source answers at once for what it has at hand; what it
//! has not is fetched on another thread and comes back to the fault loop as a message.

mod fetcher;
mod file;

use thiserror::Error;

pub use fetcher::{FetchJob, Fetcher, Urgency};
pub use file::{FileSource, SnapshotError};

use crate::kernel::Bytes;

/// What a source has at hand for the start of a range.
#[derive(Clone, Copy, Debug)]
pub enum Chunk<'a> {
    /// The first so many bytes of the range are zeros.
    Zeros(u64),
    /// The first bytes of the range.
    Ready(Bytes<'a>),
    /// The first so many bytes have to be fetched.
    Absent(u64),
}

impl Chunk<'_> {
    /// How many bytes of the range the answer is about.
    pub const fn len(&self) -> u64 {
        match self {
            Self::Zeros(len) | Self::Absent(len) => *len,
            Self::Ready(bytes) => bytes.len(),
        }
    }

    /// Whether the answer is about nothing, which no source may give.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why bytes of a source cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SourceError {
    /// The source ends before the bytes: it was cut short after the guest was restored.
    #[error("the snapshot ends at byte {len}, before offset {offset}: was it truncated?")]
    Truncated {
        /// The byte that was wanted.
        offset: u64,
        /// The length in bytes now.
        len: u64,
    },
    /// Reading failed.
    #[error("reading the snapshot at offset {offset} failed: {cause}")]
    Io {
        /// The byte that was wanted.
        offset: u64,
        /// What the system said.
        cause: String,
    },
}

impl SourceError {
    /// Whether trying again is of no use.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Truncated { .. })
    }
}

/// The contents of a snapshot.
///
/// All offsets and lengths are in bytes, multiples of the guest's page size, and inside
/// `0..len()`. Contents never change while a guest is served.
pub trait Source: Send + Sync + 'static {
    /// The length of the snapshot in bytes.
    fn len(&self) -> u64;

    /// Whether the snapshot is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is at hand for a start of `offset..offset + len`, whole pages of `page` bytes, at
    /// least one. Called by fault loops: never waits for a device or a network.
    fn lookup(&self, offset: u64, len: u64, page: u64) -> Chunk<'_>;

    /// Fills `buffer` with the bytes from `offset` on. Called on a fetch thread; may take long.
    fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError>;

    /// Announces that the range will be asked for soon. Called on a fetch thread.
    fn will_need(&self, _offset: u64, _len: u64) {}

    /// Announces that a fault needs the range, so that what lies around it will be asked for soon
    /// too. Called on a fetch thread, before `fetch`.
    fn will_need_around(&self, _offset: u64, _len: u64) {}
}
