//! Where a page's bytes come from. A source answers at once for what it has at hand; what it
//! has not is fetched on another thread and comes back to the fault loop as a message.

mod budget;
mod fetcher;
mod file;
mod piece;
mod scratch;
mod urgency;

use thiserror::Error;

pub use budget::{Budget, Limits};
pub use fetcher::{Client, Delivery, FetchJob, Fetcher, Full, Ticket};
pub use file::{FileSource, SnapshotError};
pub use piece::Piece;
pub use scratch::Scratch;
pub use urgency::Urgency;

use crate::kernel::Bytes;
use crate::units::{PageRange, PageSize};

/// Pages of a snapshot that are asked for: `len` bytes from `offset` on, of `page` bytes each. All
/// are multiples of `page`, and there is one page at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub len: u64,
    /// Bytes of a page.
    pub page: u64,
}

impl Want {
    /// What these pages are in a source.
    pub const fn of(pages: PageRange, page_size: PageSize) -> Self {
        let len = pages.len() << page_size.shift();
        Self { offset: pages.start.offset(page_size), len, page: page_size.bytes() }
    }

    /// The byte behind the last.
    pub const fn end(&self) -> u64 {
        self.offset + self.len
    }
}

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

/// The contents of a snapshot, which never change while a guest is served.
pub trait Source: Send + Sync + 'static {
    /// The length of the snapshot in bytes.
    fn len(&self) -> u64;

    /// Whether the snapshot is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is at hand for a start of the pages in `want`: one of them at least, and perhaps more
    /// than was asked for. Bytes that lie nowhere in memory that stays may be put into `scratch`.
    /// Called by fault loops for every fault: waits for no device and no network, and allocates
    /// nothing.
    fn lookup<'a>(&'a self, want: Want, scratch: &'a Scratch) -> Chunk<'a>;

    /// Gets a start of the pages in `want`, at least the first. Called on a fetch thread; may take
    /// long.
    fn fetch(&self, want: Want) -> Result<Piece, SourceError>;

    /// These bytes may be asked for next: makes look-ups of what is at hand cheap, and brings
    /// nothing that is not. Called on fetch threads, and by fault loops while others work for them:
    /// waits for no device and no network.
    fn prepare(&self, _offset: u64, _len: u64) {}

    /// Announces that the range will be asked for soon. Called on a fetch thread.
    fn will_need(&self, _offset: u64, _len: u64) {}

    /// Announces that a fault needs the range, so that what lies around it will be asked for soon
    /// too. Called on a fetch thread, before `fetch`.
    fn will_need_around(&self, _offset: u64, _len: u64) {}
}
