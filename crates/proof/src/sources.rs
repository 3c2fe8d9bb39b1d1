//! Sources that misbehave on purpose, each in front of a real snapshot file.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uffd_core::source::{Chunk, FileSource, Piece, Scratch, Source, SourceError, Want};

/// A gate that fetches wait at.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    open: bool,
    arrived: u64,
}

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self::default()
    }

    /// Lets all through, from now on.
    pub fn open(&self) {
        self.lock().open = true;
        self.0.1.notify_all();
    }

    /// How many fetches have arrived here.
    pub fn arrived(&self) -> u64 {
        self.lock().arrived
    }

    fn pass(&self) {
        let mut state = self.lock();
        state.arrived += 1;
        while !state.open {
            state = self.0.1.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A source of which some bytes have to be fetched, through a gate.
#[derive(Debug)]
pub struct Gated {
    /// The snapshot.
    pub file: FileSource,
    /// The bytes that are not at hand.
    pub slow: Range<u64>,
    /// What fetches wait at.
    pub gate: Gate,
}

impl Source for Gated {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn lookup<'a>(&'a self, want: Want, scratch: &'a Scratch) -> Chunk<'a> {
        lookup_except(&self.file, &self.slow, want, scratch)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        if self.slow.contains(&want.offset) {
            self.gate.pass();
        }
        self.file.fetch(want)
    }
}

/// A source that has nothing at hand, as one at the other end of a network, and counts what it has
/// fetched for as long as somebody keeps it.
#[derive(Debug)]
pub struct Remote {
    /// The snapshot.
    pub file: File,
    /// Its bytes that have to pass the gate.
    pub stuck: Range<u64>,
    /// What their fetches wait at.
    pub gate: Gate,
    /// What is kept.
    pub kept: Kept,
}

/// Bytes that are in memory, now and at the most.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<(AtomicU64, AtomicU64)>);

impl Kept {
    /// Bytes in memory now.
    pub fn now(&self) -> u64 {
        self.0.0.load(Ordering::Acquire)
    }

    /// The most bytes that ever were in memory.
    pub fn most(&self) -> u64 {
        self.0.1.load(Ordering::Acquire)
    }
}

struct Counted {
    bytes: Vec<u8>,
    kept: Kept,
}

impl Counted {
    fn new(bytes: Vec<u8>, kept: Kept) -> Self {
        let len = bytes.len() as u64;
        let now = kept.0.0.fetch_add(len, Ordering::AcqRel) + len;
        kept.0.1.fetch_max(now, Ordering::AcqRel);
        Self { bytes, kept }
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.kept.0.0.fetch_sub(self.bytes.len() as u64, Ordering::AcqRel);
    }
}

impl Source for Remote {
    fn len(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }
    fn lookup<'a>(&'a self, want: Want, _: &'a Scratch) -> Chunk<'a> {
        Chunk::Absent(want.len)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        let Want { offset, len, .. } = want;
        if self.stuck.contains(&offset) {
            self.gate.pass();
        }
        let len = usize::try_from(len).expect("what is fetched fits in memory");
        let mut bytes = vec![0; len];
        let read = self.file.read_exact_at(&mut bytes, offset);
        read.map_err(|error| SourceError::Io { offset, cause: error.to_string() })?;
        Ok(Piece::part_of(Arc::new(Counted::new(bytes, self.kept.clone())), 0..len))
    }
}

/// A source that has nothing at hand, ever: everything has to be fetched.
#[derive(Debug)]
pub struct Cold(pub FileSource);

impl Source for Cold {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn lookup<'a>(&'a self, want: Want, _: &'a Scratch) -> Chunk<'a> {
        Chunk::Absent(want.len)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        self.0.fetch(want)
    }
}

/// A source that has nothing at hand, and brings nothing before a file is there.
#[derive(Debug)]
pub struct Held {
    /// The snapshot.
    pub file: FileSource,
    /// What fetches wait for.
    pub until: PathBuf,
}

impl Source for Held {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn lookup<'a>(&'a self, want: Want, _: &'a Scratch) -> Chunk<'a> {
        Chunk::Absent(want.len)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        while !self.until.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.file.fetch(want)
    }
}

/// How a source fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Reading says EIO.
    Io,
    /// Reading says that the file ends earlier, which is not true.
    Truncated,
    /// Reading panics.
    Panic,
}

/// A source of which some bytes cannot be read until it is mended.
#[derive(Debug)]
pub struct Broken {
    /// The snapshot.
    pub file: FileSource,
    /// The bytes that cannot be read.
    pub bad: Range<u64>,
    /// How that fails.
    pub failure: Failure,
    /// Whether it works again.
    pub mended: Arc<AtomicBool>,
    /// How often a bad byte was asked for.
    pub tries: Arc<AtomicU64>,
}

impl Broken {
    /// Bytes `bad` of `file` cannot be read.
    pub fn new(file: FileSource, bad: Range<u64>, failure: Failure) -> Self {
        Self { file, bad, failure, mended: Arc::default(), tries: Arc::default() }
    }
}

impl Source for Broken {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn lookup<'a>(&'a self, want: Want, scratch: &'a Scratch) -> Chunk<'a> {
        if self.mended.load(Ordering::Acquire) {
            return self.file.lookup(want, scratch);
        }
        lookup_except(&self.file, &self.bad, want, scratch)
    }
    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        let offset = want.offset;
        let hit = offset < self.bad.end && self.bad.start < want.end();
        if !hit || self.mended.load(Ordering::Acquire) {
            return self.file.fetch(want);
        }
        self.tries.fetch_add(1, Ordering::AcqRel);
        match self.failure {
            Failure::Io => Err(SourceError::Io { offset, cause: "the disk is on fire".into() }),
            Failure::Truncated => Err(SourceError::Truncated { offset, len: self.file.len() }),
            Failure::Panic => panic!("a source that panics on purpose"),
        }
    }
}

/// All at hand but the bytes `absent`.
fn lookup_except<'a>(
    file: &'a FileSource,
    absent: &Range<u64>,
    want: Want,
    scratch: &'a Scratch,
) -> Chunk<'a> {
    let Want { offset, len, page } = want;
    if absent.contains(&offset) {
        return Chunk::Absent(len.min(absent.end - offset).max(page));
    }
    let before = absent.start.saturating_sub(offset);
    let len = if before == 0 { len } else { len.min(before) };
    file.lookup(Want { len, ..want }, scratch)
}
