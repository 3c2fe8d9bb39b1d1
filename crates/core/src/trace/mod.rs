//! The trace: which pages a guest touched first, in order. Recorded by the fault loop, kept in a
//! file, and replayed as a prefault of the next restore.
//!
//! ```no_run
//! use std::path::Path;
//! use uffd_core::trace::{SnapshotId, Trace};
//! use uffd_core::units::PageSize;
//!
//! # fn main() -> Result<(), uffd_core::trace::TraceError> {
//! let snapshot = SnapshotId::of_path(Path::new("/snapshots/base/mem"), PageSize::Small)?;
//! let trace = Trace::load_for(Path::new("/snapshots/base/boot.trace"), &snapshot)?;
//! let pages = trace.ranges_with_neighbours(); // what `Session::prefault` takes
//! # drop(pages); Ok(())
//! # }
//! ```

mod entry;
mod file;
mod identity;

pub use entry::{FilledWith, TraceEntry};
pub(crate) use file::open_regular;
pub use file::{EntryError, FormatError, MAX_FILE_BYTES, Merge, Trace, TraceError, TraceStats};
pub use identity::{Fingerprint, SnapshotId, WrongSnapshot};
