//! What can be wrong with a trace and its file: each with a stable code, the value at fault and
//! the way out.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::super::WrongSnapshot;
use super::MAX_FILE_BYTES;
use super::format::MAGIC;
use crate::units::PageIndex;

/// An entry does not belong into the trace. Entries are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// The snapshot ends before the page.
    #[error(
        "entry {entry}: the snapshot has no page {page}, only {count} pages: is this the snapshot \
         the entries were recorded on?"
    )]
    NoSuchPage {
        /// The entry's number.
        entry: usize,
        /// Its page.
        page: PageIndex,
        /// How many pages there are.
        count: u64,
    },
    /// A page is first touched only once.
    #[error("entry {entry}: page {page} is in the trace already: keep the first of its entries")]
    Repeated {
        /// The entry's number.
        entry: usize,
        /// Its page.
        page: PageIndex,
    },
}

impl EntryError {
    /// A code that stays the same whatever the message says.
    pub const fn code(&self) -> &'static str {
        "ERR_UFFD_TRACE_ENTRY"
    }
}

/// Why bytes or a text are no trace. Offsets are those of bytes from the start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// It does not start like a trace.
    #[error("it is no trace file: {}", started(start))]
    NotATrace {
        /// Its first bytes.
        start: Vec<u8>,
    },
    /// It starts like a trace's JSON view.
    #[error("it is text, perhaps a trace's JSON view: turn that into a trace file first")]
    Text,
    /// It was written in a later version of the format.
    #[error(
        "it has version {found} of the format and version 1 can be read: use a newer uffd-rs, \
             or record the trace again"
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// It uses something of a later version of the format that a reader may not ignore.
    #[error(
        "byte {at}: it needs the section {tag:?}, which this version does not know: use a newer \
             uffd-rs, or record the trace again"
    )]
    UnknownSection {
        /// Where the section starts.
        at: usize,
        /// Its name.
        tag: String,
    },
    /// It is not as long as it says.
    #[error(
        "it should have {says} bytes and has {has}: it was not copied or written \
             completely; record the trace again"
    )]
    Length {
        /// What its header says.
        says: u64,
        /// What there is.
        has: u64,
    },
    /// Its bytes are not those that were written.
    #[error(
        "byte {at}: its checksum is {says:08x} and its bytes give {has:08x}: it was damaged; \
             record the trace again"
    )]
    Checksum {
        /// Where the checksum is.
        at: usize,
        /// What the checksum is.
        says: u32,
        /// What it should be.
        has: u32,
    },
    /// A field has a value it cannot have, although the file is as its writer left it.
    #[error(
        "byte {at}: {field} is {found}, and should be {expected}: the program that wrote it \
             is at fault; record the trace again"
    )]
    Field {
        /// Where the field is.
        at: usize,
        /// Its name.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// An entry does not belong into the trace.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// The JSON view is not one.
    #[error("the JSON view cannot be read: {0}")]
    Json(String),
}

/// How the file starts that is no trace.
fn started(start: &[u8]) -> String {
    if start.is_empty() {
        return "it is empty".to_owned();
    }
    let bytes = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>();
    let (here, there) = (bytes(start).join(" "), bytes(&MAGIC).join(" "));
    format!("a trace starts with the bytes {there}, and this starts with {here}")
}

impl FormatError {
    /// A code that stays the same whatever the message says.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotATrace { .. } | Self::Text => "ERR_UFFD_TRACE_NOT_A_TRACE",
            Self::Version { .. } | Self::UnknownSection { .. } => "ERR_UFFD_TRACE_VERSION",
            Self::Length { .. } | Self::Checksum { .. } => "ERR_UFFD_TRACE_DAMAGED",
            Self::Field { .. } => "ERR_UFFD_TRACE_INVALID",
            Self::Entry(error) => error.code(),
            Self::Json(_) => "ERR_UFFD_TRACE_JSON",
        }
    }
}

/// Why a trace could not be loaded, saved or told to belong to a snapshot.
#[derive(Debug, Error)]
pub enum TraceError {
    /// The file could not be opened or read.
    #[error("cannot load the trace {}: {cause}", path.display())]
    Load {
        /// The trace's file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The file is too large to be a trace.
    #[error(
        "cannot load the trace {}: it has {len} bytes and a trace at most {MAX_FILE_BYTES}: is it \
         perhaps the snapshot?",
        path.display()
    )]
    TooLarge {
        /// The trace's file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// What is in the file is no trace.
    #[error("cannot load the trace {}: {error}", path.display())]
    Format {
        /// The trace's file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: FormatError,
    },
    /// The trace belongs to another snapshot.
    #[error("the trace {} was {mismatch}", path.display())]
    WrongSnapshot {
        /// The trace's file.
        path: PathBuf,
        /// The two snapshots.
        #[source]
        mismatch: WrongSnapshot,
    },
    /// There was no room to save the trace. What was there before is still there.
    #[error(
        "no room to save the trace {} ({len} bytes): {cause}: make room, or choose another \
         directory; a trace saved there before is unchanged", path.display()
    )]
    NoSpace {
        /// The trace's file.
        path: PathBuf,
        /// How many bytes the trace takes.
        len: u64,
        /// What the system said.
        cause: io::Error,
    },
    /// The trace could not be saved. What was there before is still there.
    #[error(
        "cannot save the trace {}: {cause}; a trace saved there before is unchanged",
        path.display()
    )]
    Save {
        /// The trace's file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The snapshot could not be read to tell which it is.
    #[error("cannot tell which snapshot {} is: {cause}", path.display())]
    Snapshot {
        /// The snapshot's file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

impl TraceError {
    /// A code that stays the same whatever the message says.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Load { .. } => "ERR_UFFD_TRACE_LOAD",
            Self::TooLarge { .. } => "ERR_UFFD_TRACE_TOO_LARGE",
            Self::Format { error, .. } => error.code(),
            Self::WrongSnapshot { mismatch, .. } => mismatch.code(),
            Self::NoSpace { .. } => "ERR_UFFD_TRACE_NO_SPACE",
            Self::Save { .. } => "ERR_UFFD_TRACE_SAVE",
            Self::Snapshot { .. } => "ERR_UFFD_TRACE_SNAPSHOT",
        }
    }
}
