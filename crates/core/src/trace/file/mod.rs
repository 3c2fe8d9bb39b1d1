//! A trace as a whole: of one snapshot, kept in a file (docs/trace-format.md), merged and replayed.

mod disk;
mod error;
mod format;
mod json;
mod merge;
mod replay;
#[cfg(test)]
mod tests;
mod varint;

use std::time::Duration;

use roaring::RoaringBitmap;

pub(super) use disk::open_regular;
pub use error::{EntryError, FormatError, TraceError};
pub use format::MAX_FILE_BYTES;
pub use merge::Merge;
pub use replay::TraceStats;

use super::{SnapshotId, TraceEntry, WrongSnapshot};
use crate::units::PageIndex;

/// Which pages of a snapshot a guest touched first, in order: every page at most once, and each a
/// page of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    snapshot: SnapshotId,
    created_by: String,
    entries: Vec<TraceEntry>,
}

impl Trace {
    /// A trace of `snapshot` with these entries, in the order of the touches. Their times are
    /// rounded down to whole microseconds, which is what a file keeps.
    pub fn new(snapshot: SnapshotId, mut entries: Vec<TraceEntry>) -> Result<Self, EntryError> {
        let mut pages = Pages::of(&snapshot);
        for (number, entry) in entries.iter_mut().enumerate() {
            pages.add(number, entry.page())?;
            *entry = whole_micros(*entry);
        }
        Ok(Self { snapshot, created_by: this_program(), entries })
    }

    /// Names the program that made the trace, instead of this one and its version.
    #[must_use]
    pub fn with_created_by(self, created_by: impl Into<String>) -> Self {
        Self { created_by: created_by.into(), ..self }
    }

    /// The snapshot the trace belongs to.
    pub const fn snapshot(&self) -> SnapshotId {
        self.snapshot
    }

    /// The program that made the trace, and its version.
    pub fn created_by(&self) -> &str {
        &self.created_by
    }

    /// The first touches, in order.
    pub fn entries(&self) -> &[TraceEntry] {
        &self.entries
    }

    /// Refuses any snapshot but the one the trace belongs to.
    pub fn check(&self, snapshot: &SnapshotId) -> Result<(), WrongSnapshot> {
        if self.snapshot == *snapshot {
            return Ok(());
        }
        Err(WrongSnapshot { recorded: self.snapshot, given: *snapshot })
    }
}

fn this_program() -> String {
    concat!("uffd-rs ", env!("CARGO_PKG_VERSION")).to_owned()
}

fn whole_micros(entry: TraceEntry) -> TraceEntry {
    let time = Duration::from_micros(micros(entry));
    TraceEntry::new(entry.page(), entry.is_write(), entry.filled_with(), time)
}

/// The time of an entry, in the unit of the file.
fn micros(entry: TraceEntry) -> u64 {
    // An entry's time is 64 bits of nanoseconds.
    u64::try_from(entry.time().as_micros()).unwrap_or(MOST_MICROS)
}

/// The latest time an entry can have.
const MOST_MICROS: u64 = u64::MAX / 1000;

/// A guest has at most so many pages; every state and export counts on it.
const MOST_PAGES: u64 = 1 << 32;

/// The pages a trace has so far, to find those that do not belong.
struct Pages {
    count: u64,
    seen: RoaringBitmap,
}

impl Pages {
    fn of(snapshot: &SnapshotId) -> Self {
        Self { count: snapshot.page_count().min(MOST_PAGES), seen: RoaringBitmap::new() }
    }

    /// Takes in the page of the entry with this number, counted from 0.
    fn add(&mut self, entry: usize, page: PageIndex) -> Result<(), EntryError> {
        match u32::try_from(page.0) {
            Ok(_) if page.0 >= self.count => {}
            Ok(number) if self.seen.insert(number) => return Ok(()),
            Ok(_) => return Err(EntryError::Repeated { entry, page }),
            Err(_) => {}
        }
        Err(EntryError::NoSuchPage { entry, page, count: self.count })
    }
}
