//! What of a snapshot is at hand, and for how long that is believed.
//!
//! Where the kernel tells us what is in the page cache, *at hand* means: found there and put into
//! this process's page table. Pages in a page table stay in the page cache whatever is done to it
//! (`drop_caches`, POSIX_FADV_DONTNEED); only the kernel itself, short of memory, takes them out
//! of both. So there are two ways left in which a copy may meet a page that has to be read from
//! the device: it was evicted in the microseconds between the question and its mapping, or the
//! kernel ran short of memory and took a page that was in use within [`BELIEVED_MS`].
//!
//! Where it does not tell us nothing is at hand before a fetch thread has read it, and then it is
//! only worth a try: bytes are taken from the page cache by a read that does not wait.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use super::extents::Extents;
use super::to_usize;
use crate::kernel::{FileMap, Resident};

/// What is asked about and remembered at once, at least. The kernel, too, maps this much around a
/// page.
const CHUNK: u64 = 64 << 10;

/// The same where others nearby are in use, and where most are: one question and one request cost
/// less than several. So many chunks of the 2 MiB around are to be at hand, and so much is mapped.
const DENSE: [(usize, u64); 2] = [(12, 512 << 10), (4, 256 << 10)];

/// For how long a chunk that was found at hand is taken to be.
const BELIEVED_MS: u32 = 250;

/// For each chunk, when it was last found at hand, in milliseconds; 0 if it is not.
#[derive(Debug)]
pub(super) struct Residency {
    chunks: Box<[AtomicU32]>,
    len: u64,
}

impl Residency {
    pub(super) fn new(len: u64) -> Self {
        let count = to_usize(len.div_ceil(CHUNK));
        Self { chunks: std::iter::repeat_with(AtomicU32::default).take(count).collect(), len }
    }

    /// How many bytes at the start of `wanted`, which is data, are in this process's page table.
    /// Puts there what is in the page cache: only for those who are told.
    pub(super) fn map(
        &self,
        map: &FileMap,
        extents: &Extents,
        wanted: Range<u64>,
        now: u32,
    ) -> u64 {
        let mut at = wanted.start;
        while at < wanted.end {
            let known = self.end_of(at..wanted.end, |chunk| self.is_believed(chunk, now));
            if known > at {
                at = known;
                continue;
            }
            let there = self.ask(map, extents, at..wanted.end, now);
            let gap = there == at || !there.is_multiple_of(CHUNK);
            at = there;
            if gap {
                break;
            }
        }
        at.min(wanted.end) - wanted.start
    }

    /// Asks about all chunks of `wanted` up to one that is known, in one question, and about those
    /// behind them that are likely to be wanted next. Answers up to where everything from the start
    /// is mapped now, which may be further than was asked.
    fn ask(&self, map: &FileMap, extents: &Extents, wanted: Range<u64>, now: u32) -> u64 {
        let start = wanted.start - wanted.start % CHUNK;
        let end = wanted.end.max(self.likely(start, now));
        let most = end.min(start + Resident::MOST as u64);
        let unknown = self.end_of(wanted.start..most, |chunk| !self.is_believed(chunk, now));
        let stop = unknown.next_multiple_of(CHUNK).min(self.len);
        let resident = map.residency(to_usize(start), to_usize(stop - start));
        let is_there = |part: Range<u64>| {
            resident.run(to_usize(part.start - start)) as u64 >= part.end - part.start
        };
        // Chunks with all of their data in the page cache. Holes never are.
        let is_whole = |chunk: &Range<u64>| extents.within(chunk.clone()).all(is_there);
        let whole = chunks(start..stop).take_while(is_whole).last().map_or(start, |it| it.end);
        if whole > wanted.start {
            // What was mapped once is in the page table still, or was out of the page cache too.
            let is_new = |chunk: &Range<u64>| self.mark(chunk.start).load(Ordering::Relaxed) == 0;
            let mut new = chunks(start..whole).filter(is_new);
            let first = new.next();
            let last = new.last().or_else(|| first.clone());
            if let (Some(first), Some(last)) = (first, last)
                && !populate(map, extents, first.start..last.end)
            {
                return wanted.start;
            }
            self.set(start..whole, now);
            return whole;
        }
        // A chunk with a gap. What is there of it up to the gap can be had.
        let run = resident.run(to_usize(wanted.start - start)) as u64;
        let there = wanted.start + run.min(wanted.end.min(start + CHUNK) - wanted.start);
        self.set(start..start + 1, 0);
        if populate(map, extents, wanted.start..there) { there } else { wanted.start }
    }

    /// The end of what is likely to be wanted together with the chunk at `start`.
    fn likely(&self, start: u64, now: u32) -> u64 {
        let around = block(start, Resident::MOST as u64).start..self.len;
        let count = Resident::MOST / to_usize(CHUNK);
        let near = chunks(around).take(count).filter(|it| self.is_believed(it.start, now)).count();
        let wide = DENSE.into_iter().find(|(least, _)| near >= *least);
        wide.map_or(start, |(_, size)| block(start, size).end.min(self.len))
    }

    /// How many bytes at the start of `range` are worth a try.
    pub(super) fn promising(&self, range: Range<u64>) -> u64 {
        let is_promising = |chunk| self.mark(chunk).load(Ordering::Relaxed) != 0;
        self.end_of(range.clone(), is_promising) - range.start
    }

    /// A fetch thread has read these bytes.
    pub(super) fn note_read(&self, range: Range<u64>, now: u32) {
        self.set(range, now);
    }

    /// Something of these bytes is not there any more.
    pub(super) fn forget(&self, range: Range<u64>) {
        self.set(range, 0);
    }

    /// What the marks mean is something else from now on.
    pub(super) fn forget_all(&self) {
        self.set(0..self.len, 0);
    }

    /// Whether the byte lies in a chunk that was at hand once.
    pub(super) fn was_there(&self, offset: u64) -> bool {
        self.mark(offset).load(Ordering::Relaxed) != 0
    }

    fn is_believed(&self, offset: u64, now: u32) -> bool {
        let seen = self.mark(offset).load(Ordering::Relaxed);
        seen != 0 && now.wrapping_sub(seen) <= BELIEVED_MS
    }

    /// The end of the first bytes of `range` in chunks that are `like` that, each by its start.
    fn end_of(&self, range: Range<u64>, like: impl Fn(u64) -> bool) -> u64 {
        let mut at = range.start;
        while at < range.end && like(at) {
            at = at - at % CHUNK + CHUNK;
        }
        at.min(range.end)
    }

    fn mark(&self, offset: u64) -> &AtomicU32 {
        &self.chunks[to_usize(offset / CHUNK)]
    }

    fn set(&self, range: Range<u64>, to: u32) {
        chunks(range).for_each(|chunk| self.mark(chunk.start).store(to, Ordering::Relaxed));
    }
}

/// Maps the data in `range`. A hole read through a mapping would become a page in the page cache.
fn populate(map: &FileMap, extents: &Extents, range: Range<u64>) -> bool {
    extents
        .within(range)
        .all(|part| map.populate(to_usize(part.start), to_usize(part.end - part.start)))
}

/// The aligned range of `size` bytes that `offset` lies in.
const fn block(offset: u64, size: u64) -> Range<u64> {
    let start = offset - offset % size;
    start..start + size
}

/// The range cut into chunks.
fn chunks(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let first = range.start / CHUNK;
    let behind = range.end.div_ceil(CHUNK);
    (first..behind)
        .map(move |chunk| (chunk * CHUNK).max(range.start)..((chunk + 1) * CHUNK).min(range.end))
}
