//! Sources that misbehave on purpose, each in front of a real snapshot file.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use uffd_core::source::{Chunk, FileSource, Source, SourceError};

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
    fn lookup(&self, offset: u64, len: u64, page: u64) -> Chunk<'_> {
        lookup_except(&self.file, &self.slow, offset, len, page)
    }
    fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        if self.slow.contains(&offset) {
            self.gate.pass();
        }
        self.file.fetch(offset, buffer)
    }
}

/// A source that has nothing at hand, ever: everything has to be fetched.
#[derive(Debug)]
pub struct Cold(pub FileSource);

impl Source for Cold {
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn lookup(&self, _offset: u64, len: u64, _page: u64) -> Chunk<'_> {
        Chunk::Absent(len)
    }
    fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.0.fetch(offset, buffer)
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
    fn lookup(&self, offset: u64, len: u64, page: u64) -> Chunk<'_> {
        if self.mended.load(Ordering::Acquire) {
            return self.file.lookup(offset, len, page);
        }
        lookup_except(&self.file, &self.bad, offset, len, page)
    }
    fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let end = offset + buffer.len() as u64;
        let hit = offset < self.bad.end && self.bad.start < end;
        if !hit || self.mended.load(Ordering::Acquire) {
            return self.file.fetch(offset, buffer);
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
    offset: u64,
    len: u64,
    page: u64,
) -> Chunk<'a> {
    if absent.contains(&offset) {
        return Chunk::Absent(len.min(absent.end - offset).max(page));
    }
    let before = absent.start.saturating_sub(offset);
    let len = if before == 0 { len } else { len.min(before) };
    file.lookup(offset, len, page)
}
