//! A trace as a whole: of one snapshot, kept in a file (docs/trace-format.md), merged and replayed.

mod disk;
mod error;
mod format;
mod json;
mod merge;
mod refault;
mod replay;
#[cfg(test)]
mod tests;
mod varint;

use std::time::Duration;

pub(crate) use disk::open_regular;
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
        for (number, entry) in entries.iter_mut().enumerate() {
            page_of(&snapshot, number, entry.page().0)?;
            *entry = whole_micros(*entry);
        }
        no_page_twice(&entries)?;
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

/// A page number that came from outside, if the snapshot has that page.
fn page_of(snapshot: &SnapshotId, entry: usize, number: u64) -> Result<PageIndex, EntryError> {
    let (page, count) = (PageIndex(number), snapshot.page_count().min(MOST_PAGES));
    if number < count { Ok(page) } else { Err(EntryError::NoSuchPage { entry, page, count }) }
}

/// Refuses entries of which two have the same page.
fn no_page_twice(entries: &[TraceEntry]) -> Result<(), EntryError> {
    // Sorted numbers take less memory than a set, and no choice of pages makes them slow.
    let mut pages: Vec<u32> =
        entries.iter().filter_map(|entry| u32::try_from(entry.page().0).ok()).collect();
    pages.sort_unstable();
    let Some(twice) = pages.windows(2).find(|two| two[0] == two[1]) else { return Ok(()) };
    let page = PageIndex(u64::from(twice[0]));
    let (entry, _) = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.page() == page)
        .nth(1)
        .expect("the page was found twice");
    Err(EntryError::Repeated { entry, page })
}
