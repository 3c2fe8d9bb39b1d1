//! What of a snapshot is at hand, and for how long that is believed.
//!
//! Where the kernel tells us what is in the page cache, *at hand* means: found there and put into
//! this process's page table. Pages in a page table stay in the page cache whatever is done to it
//! (`drop_caches`, POSIX_FADV_DONTNEED); only the kernel itself, short of memory, takes them out
//! of both. So there are two ways left in which a copy may meet a page that has to be read from
//! the device: it was evicted in the microseconds between the question and its mapping, or the
//! kernel ran short of memory and took a page that was in use within [`BELIEVED_MS`].
//!
//! The first page of a chunk is taken by a read that does not wait, and not mapped: that takes a third
//! of the time, and of a guest that touches little no second page is ever wanted.
//!
//! Where it does not tell us nothing is at hand before a fetch thread has read it, and then it is
//! only worth a try: bytes are taken from the page cache by a read that does not wait.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::extents::Extents;
use super::{HOST_PAGE, to_usize};
use crate::kernel::{FileMap, Resident};

/// What is remembered together. The kernel, too, maps this much around a page, as far as the page
/// cache has it.
const CHUNK: u64 = 64 << 10;

/// Of less than this only the very pages are asked for and mapped: what the kernel maps with them
/// is asked of the page table, which takes a third of the time.
const NARROW: u64 = CHUNK / 2;

/// For how long a chunk that was found at hand is taken to be.
const BELIEVED_MS: u32 = 250;

/// What is known of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mark {
    /// A page of it was wanted before, and was read.
    wanted: bool,
    /// A bit for each page that was found at hand.
    pages: u16,
    /// When that was, in milliseconds.
    seen: u32,
}

/// For each chunk, what was last found at hand of it.
#[derive(Debug)]
pub(super) struct Residency {
    chunks: Box<[AtomicU64]>,
    len: u64,
}

impl Mark {
    const fn of(bits: u64) -> Self {
        let [a, b, c, d, e, f, wanted, _] = bits.to_ne_bytes();
        let (seen, pages) = (u32::from_ne_bytes([a, b, c, d]), u16::from_ne_bytes([e, f]));
        Self { wanted: wanted != 0, pages, seen }
    }

    const fn bits(self) -> u64 {
        let ([a, b, c, d], [e, f]) = (self.seen.to_ne_bytes(), self.pages.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, self.wanted as u8, 0])
    }
}

impl Residency {
    pub(super) fn new(len: u64) -> Self {
        let count = to_usize(len.div_ceil(CHUNK));
        Self { chunks: std::iter::repeat_with(AtomicU64::default).take(count).collect(), len }
    }

    /// How many bytes at the start of `wanted`, which is data, are in this process's page table.
    /// Puts there what is in the page cache, where that `is_told`, which is only asked if needed.
    pub(super) fn map(
        &self,
        map: &FileMap,
        extents: &Extents,
        wanted: Range<u64>,
        now: u32,
        is_told: &dyn Fn() -> bool,
    ) -> u64 {
        let mut at = wanted.start;
        while at < wanted.end {
            let known = self.believed_until(at..wanted.end, now);
            let there = if known > at {
                known
            } else {
                self.ask(map, extents, at..wanted.end, now, is_told)
            };
            if there == at {
                break;
            }
            at = there;
        }
        at.min(wanted.end) - wanted.start
    }

    /// Asks about what is not known of `wanted`, up to a chunk that is, and maps what is there.
    /// Answers up to where everything from the start is mapped now, perhaps further than was asked.
    fn ask(
        &self,
        map: &FileMap,
        extents: &Extents,
        wanted: Range<u64>,
        now: u32,
        is_told: &dyn Fn() -> bool,
    ) -> u64 {
        let start = wanted.start - wanted.start % CHUNK;
        let most = wanted.end.min(start + Resident::MOST as u64);
        let is_known = |chunk| self.is_believed(chunk..(chunk + CHUNK).min(most), now);
        let unknown = chunks(start..most).skip(1).find(|chunk| is_known(chunk.start));
        let end = unknown.map_or(most, |chunk| chunk.start);
        let stop = end.next_multiple_of(CHUNK).min(self.len);
        // Mapped once, or with others, it is in the page table still, unless the kernel took it.
        if chunks(start..stop).any(|chunk| self.mark(chunk.start).pages != 0)
            && let Some(table) = map.mapped(to_usize(start), to_usize(stop - start))
        {
            self.note_found(start..stop, &table, now);
            let run = table.run(to_usize(wanted.start - start)) as u64;
            if run > 0 {
                return wanted.start + run;
            }
        }
        if !is_told() {
            return wanted.start;
        }
        let end = if end - wanted.start < NARROW { end } else { stop };
        self.put(map, extents, wanted.start..end, now)
    }

    /// Maps what the page cache has of the start of `range`, and says up to where that is.
    fn put(&self, map: &FileMap, extents: &Extents, range: Range<u64>, now: u32) -> u64 {
        let resident = map.residency(to_usize(range.start), to_usize(range.end - range.start));
        // Holes never are.
        let gap = extents.within(range.clone()).find_map(|data| {
            let run = resident.run(to_usize(data.start - range.start)) as u64;
            (run < data.end - data.start).then_some(data.start + run)
        });
        let there = range.start..gap.unwrap_or(range.end);
        if there.is_empty() || !populate(map, extents, there.clone()) {
            return range.start;
        }
        self.note(there.clone(), now);
        there.end
    }

    /// How many bytes at the start of `range` are worth a try.
    pub(super) fn promising(&self, range: Range<u64>) -> u64 {
        self.end_of(range.clone(), |chunk| self.mark(chunk.start).pages != 0) - range.start
    }

    /// A fetch thread has read these bytes. They are worth a try, and nobody is to believe that they
    /// are mapped, should we be told from now on.
    pub(super) fn note_read(&self, range: Range<u64>, now: u32) {
        let seen = now.wrapping_sub(BELIEVED_MS + 1);
        let mark = Mark { wanted: true, pages: u16::MAX, seen };
        chunks(range).for_each(|chunk| self.set(chunk.start, mark));
    }

    /// Something of these bytes is not there any more.
    pub(super) fn forget(&self, range: Range<u64>) {
        chunks(range).for_each(|chunk| self.set(chunk.start, Mark::default()));
    }

    /// What the marks mean is something else from now on.
    pub(super) fn forget_all(&self) {
        self.forget(0..self.len);
    }

    /// Whether the byte lies in a chunk of which something was at hand once.
    pub(super) fn was_there(&self, offset: u64) -> bool {
        let mark = self.mark(offset);
        mark.wanted || mark.pages != 0
    }

    /// A page of this chunk was found in the page cache, and is read from there.
    pub(super) fn note_wanted(&self, offset: u64) {
        self.set(offset, Mark { wanted: true, ..Mark::default() });
    }

    fn believed_until(&self, range: Range<u64>, now: u32) -> u64 {
        self.end_of(range, |part| self.is_believed(part, now))
    }

    /// Whether all pages of a part of a chunk are believed to be at hand.
    fn is_believed(&self, part: Range<u64>, now: u32) -> bool {
        let Mark { pages, seen, .. } = self.mark(part.start);
        now.wrapping_sub(seen) <= BELIEVED_MS && pages_of(&part) & !pages == 0
    }

    /// The end of the first bytes of `range` in parts of chunks that are `like` that.
    fn end_of(&self, range: Range<u64>, like: impl Fn(Range<u64>) -> bool) -> u64 {
        chunks(range.clone()).find(|part| !like(part.clone())).map_or(range.end, |it| it.start)
    }

    /// The pages of `range`, which are whole chunks, that the page table has.
    fn note_found(&self, range: Range<u64>, table: &Resident, now: u32) {
        for chunk in chunks(range.clone()) {
            let pages = (chunk.start..chunk.end).step_by(to_usize(HOST_PAGE));
            let found = pages.filter(|page| table.has(to_usize(page - range.start)));
            let pages = found.fold(0, |pages, page| pages | pages_of(&(page..page + 1)));
            self.set(chunk.start, Mark { wanted: true, pages, seen: now });
        }
    }

    /// These bytes were just mapped; what was known besides is as old as it was.
    fn note(&self, range: Range<u64>, now: u32) {
        for part in chunks(range) {
            let (new, before) = (pages_of(&part), self.mark(part.start));
            let pages = if before.seen == now { before.pages | new } else { new };
            self.set(part.start, Mark { wanted: true, pages, seen: now });
        }
    }

    fn mark(&self, offset: u64) -> Mark {
        Mark::of(self.chunks[to_usize(offset / CHUNK)].load(Ordering::Relaxed))
    }

    fn set(&self, offset: u64, mark: Mark) {
        self.chunks[to_usize(offset / CHUNK)].store(mark.bits(), Ordering::Relaxed);
    }
}

/// Maps the data in `range`. A hole read through a mapping would become a page in the page cache.
fn populate(map: &FileMap, extents: &Extents, range: Range<u64>) -> bool {
    extents
        .within(range)
        .all(|part| map.populate(to_usize(part.start), to_usize(part.end - part.start)))
}

/// The range cut into parts of chunks.
fn chunks(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let first = range.start / CHUNK;
    let behind = range.end.div_ceil(CHUNK);
    (first..behind)
        .map(move |chunk| (chunk * CHUNK).max(range.start)..((chunk + 1) * CHUNK).min(range.end))
}

/// The pages of a part of a chunk, a bit each.
fn pages_of(part: &Range<u64>) -> u16 {
    let page = |byte: u64| byte % CHUNK / HOST_PAGE;
    (page(part.start)..=page(part.end - 1)).fold(0, |pages, page| pages | 1 << page)
}
