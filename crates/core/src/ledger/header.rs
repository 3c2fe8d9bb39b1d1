//! What is written into a ledger once, at the handoff, and never changed: which guest it is, and
//! what it takes to serve it.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, StatxFlags, StatxTimestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::contract::{DirtyTracking, FaultAround, SessionOptions, Unservable};
use crate::layout::{Layout, LayoutError, Region};
use crate::source::FileSource;
use crate::trace::{Fingerprint, SnapshotId, open_regular};
use crate::units::{GuestAddr, PageRange, PageSize};

/// The version of the format. A successor that does not know it touches nothing.
pub(super) const VERSION: u32 = 3;

const MAGIC: &[u8; 8] = b"uffd-led";

/// Magic, version, length of the text, its checksum, length of the file.
const PRELUDE: usize = 8 + 4 + 4 + 4 + 8;

/// The longest text: a guest with hundreds of regions.
const MOST: usize = 1 << 20;

/// Why the header of a ledger cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// It is no ledger.
    #[error("it is no ledger: it begins with other bytes")]
    Magic,
    /// It was written by a version that is not known here.
    #[error(
        "its format is version {found}, and this is uffd-rs with version {VERSION}: let the version that wrote it serve its guest"
    )]
    Version {
        /// The version found.
        found: u32,
    },
    /// It is shorter or longer than it says.
    #[error("it has {found} bytes and says {said}: it was cut or added to")]
    Length {
        /// Bytes of the file.
        found: u64,
        /// Bytes it says it has.
        said: u64,
    },
    /// Its checksum is not that of its text.
    #[error("its checksum is wrong: it was damaged or changed")]
    Checksum,
    /// Its text is not what a ledger has.
    #[error("its text is wrong: {0}")]
    Text(String),
    /// Its regions are not those of a guest.
    #[error("its layout is wrong: {0}")]
    Layout(#[from] LayoutError),
}

/// One guest, as its ledger tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Header {
    /// The guest's id.
    pub(crate) id: String,
    /// `/proc/sys/kernel/random/boot_id`: no process of another boot is alive.
    pub(crate) boot: String,
    /// The inode of the pid namespace in which the number means this process.
    pub(crate) pid_namespace: u64,
    /// The inode of the time namespace in which the start time is that of this process.
    pub(crate) time_namespace: u64,
    pub(crate) pid: i32,
    /// As `/proc/PID/stat` has it, in clock ticks since the boot.
    pub(crate) started: u64,
    /// The number of the userfaultfd in that process, where it may be known.
    pub(crate) uffd: Option<i32>,
    /// Bytes of a page.
    pub(crate) page_size: u64,
    regions: Vec<LedgerRegion>,
    pub(crate) snapshot: SnapshotPlace,
    /// Nanoseconds of CLOCK_BOOTTIME at the handoff.
    pub(crate) handed_off: u64,
    options: LedgerOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerRegion {
    base: u64,
    first: u64,
    end: u64,
}

/// The snapshot a guest was restored from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotPlace {
    /// Where it is, absolute.
    pub path: PathBuf,
    /// Its length in bytes.
    pub length: u64,
    /// What its samples hold, as in a trace: 32 hexadecimal digits. Others may have the same samples.
    pub fingerprint: String,
    /// The very file.
    file: FileId,
}

/// Tells a file that nobody has written to from all others, whatever it is called and on whichever
/// mount. The device is left out: its number may be another one after a remount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileId {
    inode: u64,
    /// When it was written to last, in nanoseconds.
    modified: i64,
    /// When it was made, where its file system knows: an inode is given to other files later.
    made: Option<i64>,
}

impl FileId {
    fn of(file: &File) -> io::Result<Self> {
        let about = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::ALL)?;
        let nanos = |at: StatxTimestamp| {
            at.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(at.tv_nsec))
        };
        Ok(Self {
            inode: about.stx_ino,
            modified: nanos(about.stx_mtime),
            made: (about.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| nanos(about.stx_btime)),
        })
    }
}

/// Bytes that are compared at once.
const COMPARED: usize = 1 << 20;

impl SnapshotPlace {
    /// The snapshot that `source` serves: the very file that is open, whatever is at its path by
    /// now. Up to 4 MiB of it are read.
    pub fn of(source: &FileSource) -> io::Result<Self> {
        let id = SnapshotId::of_source(source, PageSize::Small)?;
        let path = std::path::absolute(source.path())?;
        let file = FileId::of(source.file())?;
        Ok(Self { path, length: id.length, fingerprint: id.fingerprint.to_string(), file })
    }

    /// Whether both look the same, as far as their samples tell.
    pub fn looks_like(&self, other: &Self) -> bool {
        (self.length, &self.fingerprint) == (other.length, &other.fingerprint)
    }

    /// Whether both are the very same file, which nobody has written to since.
    pub fn is_same_file(&self, other: &Self) -> bool {
        self.looks_like(other) && self.file == other.file
    }

    /// Whether another file holds the same bytes, all of which are read. An error where that cannot be
    /// known, since either is not there as it was.
    pub(crate) fn holds_the_same(&self, other: &Self) -> io::Result<bool> {
        let (mut one, mut two) = (self.open()?, other.open()?);
        let (mut left, mut right) = (vec![0; COMPARED], vec![0; COMPARED]);
        let mut to_go = self.length;
        while to_go > 0 {
            let len = usize::try_from(to_go).unwrap_or(COMPARED).min(COMPARED);
            one.read_exact(&mut left[..len])?;
            two.read_exact(&mut right[..len])?;
            if left[..len] != right[..len] {
                return Ok(false);
            }
            to_go -= len as u64;
        }
        // Neither was written to meanwhile.
        self.is_still(&one)?;
        other.is_still(&two)?;
        Ok(true)
    }

    fn open(&self) -> io::Result<File> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        };
        let file = open_regular(&self.path).map_err(named)?;
        self.is_still(&file)?;
        Ok(file)
    }

    fn is_still(&self, file: &File) -> io::Result<()> {
        if FileId::of(file)? == self.file && file.metadata()?.len() == self.length {
            return Ok(());
        }
        let path = self.path.display();
        Err(io::Error::other(format!("{path} is another file by now, or was written to")))
    }

    fn check(&self) -> Result<(), HeaderError> {
        let text = |error: &dyn std::fmt::Display| HeaderError::Text(error.to_string());
        self.fingerprint.parse::<Fingerprint>().map(drop).map_err(|error| text(&error))
    }
}

/// The options that a session without a user, as the guardian's, goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LedgerOptions {
    /// 0 is off, nothing is adaptive.
    fault_around: Option<u64>,
    on_unservable: OnUnservable,
    fault_deadline_ms: u64,
    trace: bool,
    short_waits: bool,
    #[serde(default)]
    collapse: bool,
    kill_on_failure: bool,
    /// What was asked for: should nothing be decided yet, that is to be done again.
    dirty_tracking: Tracked,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Tracked {
    Auto,
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OnUnservable {
    Poison,
    Kill,
    Fail,
}

impl LedgerOptions {
    fn of(options: SessionOptions) -> Self {
        Self {
            fault_around: match options.fault_around {
                FaultAround::Off => Some(0),
                FaultAround::AtMost(pages) => Some(pages),
                FaultAround::Adaptive => None,
            },
            on_unservable: match options.on_unservable {
                Unservable::Poison => OnUnservable::Poison,
                Unservable::Kill => OnUnservable::Kill,
                Unservable::Fail => OnUnservable::Fail,
            },
            fault_deadline_ms: u64::try_from(options.fault_deadline.as_millis())
                .unwrap_or(u64::MAX),
            trace: options.trace,
            short_waits: options.short_waits,
            collapse: options.collapse,
            kill_on_failure: options.kill_on_failure,
            dirty_tracking: match options.dirty_tracking {
                DirtyTracking::Auto => Tracked::Auto,
                DirtyTracking::On => Tracked::On,
                DirtyTracking::Off => Tracked::Off,
            },
        }
    }

    fn session(self) -> SessionOptions {
        let options = self;
        SessionOptions {
            fault_around: match options.fault_around {
                None => FaultAround::Adaptive,
                Some(0) => FaultAround::Off,
                Some(pages) => FaultAround::AtMost(pages),
            },
            on_unservable: match options.on_unservable {
                OnUnservable::Poison => Unservable::Poison,
                OnUnservable::Kill => Unservable::Kill,
                OnUnservable::Fail => Unservable::Fail,
            },
            fault_deadline: Duration::from_millis(options.fault_deadline_ms),
            trace: options.trace,
            short_waits: options.short_waits,
            collapse: options.collapse,
            kill_on_failure: options.kill_on_failure,
            dirty_tracking: match options.dirty_tracking {
                Tracked::Auto => DirtyTracking::Auto,
                Tracked::On => DirtyTracking::On,
                Tracked::Off => DirtyTracking::Off,
            },
        }
    }
}

/// What the header of a new ledger is made from, besides what it finds out by itself.
pub(crate) struct Subject<'a> {
    pub(crate) id: String,
    pub(crate) boot: String,
    pub(crate) pid_namespace: u64,
    pub(crate) time_namespace: u64,
    pub(crate) pid: i32,
    pub(crate) started: u64,
    pub(crate) uffd: Option<i32>,
    pub(crate) layout: &'a Layout,
    pub(crate) snapshot: SnapshotPlace,
    pub(crate) handed_off: u64,
    pub(crate) options: SessionOptions,
}

impl Header {
    pub(crate) fn new(subject: Subject<'_>) -> Self {
        let Subject { layout, options, .. } = subject;
        let regions = layout.regions().iter().map(|region| LedgerRegion {
            base: region.base.0,
            first: region.pages.start.0,
            end: region.pages.end.0,
        });
        Self {
            id: subject.id,
            boot: subject.boot,
            pid_namespace: subject.pid_namespace,
            time_namespace: subject.time_namespace,
            pid: subject.pid,
            started: subject.started,
            uffd: subject.uffd,
            page_size: layout.page_size().bytes(),
            regions: regions.collect(),
            snapshot: subject.snapshot,
            handed_off: subject.handed_off,
            options: LedgerOptions::of(options),
        }
    }

    /// The guest's memory; checked like that of a handoff.
    pub(crate) fn layout(&self) -> Result<Layout, HeaderError> {
        let text = |what: &str| HeaderError::Text(what.to_owned());
        let size = PageSize::from_bytes(self.page_size).ok_or_else(|| text("page size"))?;
        let regions = self.regions.iter().map(|region| Region {
            base: GuestAddr(region.base),
            pages: PageRange::new(region.first, region.end),
        });
        let layout = Layout::new(size, regions.collect())?;
        if layout.page_end().offset(size) > self.snapshot.length {
            return Err(text("a region lies past the end of the snapshot"));
        }
        Ok(layout)
    }

    /// The options its session had.
    pub(crate) fn options(&self) -> SessionOptions {
        self.options.session()
    }

    /// The bytes of a file's start, in whole pages, of a file with `rest` bytes after them.
    pub(super) fn encode(&self, rest: usize) -> std::io::Result<Vec<u8>> {
        let text = serde_json::to_vec(self)?;
        let len = (PRELUDE + text.len()).next_multiple_of(4096);
        let total = (len + rest) as u64;
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let text_len = u32::try_from(text.len()).map_err(std::io::Error::other)?;
        bytes.extend_from_slice(&text_len.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&text).to_le_bytes());
        bytes.extend_from_slice(&total.to_le_bytes());
        bytes.extend_from_slice(&text);
        bytes.resize(len, 0);
        Ok(bytes)
    }

    /// Reads a header back from a file of `found` bytes, by `read`: exactly so many bytes from an
    /// offset on. The header, and how many bytes it takes.
    pub(super) fn decode(
        found: u64,
        read: impl Fn(&mut [u8], u64) -> std::io::Result<()>,
    ) -> Result<(Self, usize), HeaderError> {
        let unreadable = |error: std::io::Error| HeaderError::Text(error.to_string());
        if found < PRELUDE as u64 {
            return Err(HeaderError::Magic);
        }
        let mut prelude = [0; PRELUDE];
        read(&mut prelude, 0).map_err(unreadable)?;
        let word = |at: usize| {
            u32::from_le_bytes([prelude[at], prelude[at + 1], prelude[at + 2], prelude[at + 3]])
        };
        if &prelude[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if word(8) != VERSION {
            return Err(HeaderError::Version { found: word(8) });
        }
        let said = u64::from(word(20)) | u64::from(word(24)) << 32;
        if said != found {
            return Err(HeaderError::Length { found, said });
        }
        let len = word(12) as usize;
        let size = (PRELUDE + len.min(MOST)).next_multiple_of(4096);
        if len > MOST || size as u64 > found {
            return Err(HeaderError::Text(format!("it has {len} bytes")));
        }
        let mut text = vec![0; len];
        read(&mut text, PRELUDE as u64).map_err(unreadable)?;
        if crc32fast::hash(&text) != word(16) {
            return Err(HeaderError::Checksum);
        }
        let header: Self =
            serde_json::from_slice(&text).map_err(|error| HeaderError::Text(error.to_string()))?;
        header.snapshot.check()?;
        Ok((header, size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_goes_on_with_the_same_options() {
        let others = SessionOptions {
            dirty_tracking: DirtyTracking::On,
            fault_around: FaultAround::AtMost(7),
            on_unservable: Unservable::Kill,
            fault_deadline: Duration::from_millis(1234),
            trace: false,
            short_waits: false,
            collapse: true,
            kill_on_failure: true,
        };
        for options in [SessionOptions::default(), others] {
            let text = serde_json::to_vec(&LedgerOptions::of(options)).unwrap();
            let read: LedgerOptions = serde_json::from_slice(&text).unwrap();
            assert_eq!(read.session(), options);
        }
    }
}
