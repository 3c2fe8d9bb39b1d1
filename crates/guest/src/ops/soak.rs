//! Random accesses by many threads, every byte checked against what its page went through.
//!
//! Every page has one owner, which alone writes it and gives it back. Each such act is a new
//! *version* of the page; versions count from 1, and 0 is the snapshot. A write of version v is
//! stamped v, so that a word tells its version: the snapshot, v, or zero for a page given back.
//! The owner keeps three numbers for each page:
//!
//! - `begun`: the last version begun, stored before the act;
//! - `zapped`: the last version begun that gave the page back, stored before the act;
//! - `base`: the last version *ended* that concerned the whole page, stored after the act.
//!
//! A version after `base` wrote a single word, at a place given by page and base. So the owner
//! knows each byte of its pages exactly. Anybody else loads `base` before reading the page, and
//! `begun` and `zapped` after it; then a word is legal
//!
//! - from the snapshot, if `base` was 0: nothing had replaced the page when the reading began;
//! - of version v, if `base <= v <= begun`;
//! - zero, if the page was given back by a version from `base` to `begun`, that is if
//!   `zapped >= base` and there is such a version, or if the snapshot has zeros and `base` was 0.

use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

use super::Random;
use super::access::{EXAMPLES, existing, fill, madvise, store};
use crate::memory::OutOfRange;
use crate::protocol::{Refusal, Soak, SoakMistake, SoakReport};
use crate::worker::{Guest, refusal};

/// What a page went through, kept from one soak to the next.
#[derive(Debug, Default)]
pub(crate) struct History {
    base: AtomicU32,
    begun: AtomicU32,
    zapped: AtomicU32,
}

/// A history at some time.
#[derive(Clone, Copy, Debug, Default)]
struct Versions {
    base: u32,
    begun: u32,
    zapped: u32,
}

impl History {
    /// As its owner sees it.
    fn now(&self) -> Versions {
        Versions {
            base: self.base.load(Ordering::Acquire),
            begun: self.begun.load(Ordering::Relaxed),
            zapped: self.zapped.load(Ordering::Relaxed),
        }
    }

    /// Begins a version, and returns its number.
    fn begin(&self, zaps: bool) -> u32 {
        let version = self.begun.load(Ordering::Relaxed) + 1;
        if zaps {
            self.zapped.store(version, Ordering::Relaxed);
        }
        self.begun.store(version, Ordering::Relaxed);
        // Whoever sees a word of this version sees that it has begun.
        fence(Ordering::Release);
        version
    }

    /// Ends a version that concerned the whole page.
    fn end(&self, version: u32) {
        self.base.store(version, Ordering::Release);
    }
}

impl Versions {
    /// Whether `word` at byte `offset` of the snapshot, in `page`, can be there.
    fn allow(self, guest: &Guest, page: u64, offset: u64, word: u64) -> bool {
        let hole = guest.pattern.is_zero(page);
        if word == 0 {
            return (self.zapped > 0 && self.zapped >= self.base) || (self.base == 0 && hole);
        }
        match guest.pattern.stamp_of(offset, word) {
            Some(0) => self.base == 0 && !hole,
            Some(version) => (self.base..=self.begun).contains(&version),
            None => false,
        }
    }

    /// The word at `offset`, if nobody is at work on the page.
    fn word(self, guest: &Guest, page: u64, offset: u64) -> u64 {
        if self.begun > self.base && offset % guest.memory.page_size == self.patched(guest, page) {
            return guest.pattern.word(offset, self.begun);
        }
        let zero = match self.base {
            0 => guest.pattern.is_zero(page),
            base => base == self.zapped,
        };
        if zero { 0 } else { guest.pattern.word(offset, self.base) }
    }

    /// Which byte of the page its single words are written to.
    fn patched(self, guest: &Guest, page: u64) -> u64 {
        Random::new(page, u64::from(self.base)).below(guest.memory.page_size / 8) * 8
    }
}

pub(super) fn run(guest: &Guest, soak: &Soak) -> Result<SoakReport, Refusal> {
    let count = soak.count.unwrap_or_else(|| guest.memory.pages().saturating_sub(soak.page));
    let pages = existing(guest, soak.page, count)?;
    if count == 0 || soak.threads == 0 || soak.chunk == 0 {
        return Err(refusal("a soak needs threads, pages, and chunks of pages"));
    }
    let start = Instant::now();
    let deadline = soak.millis.map(|millis| start + Duration::from_millis(millis));
    let reports = thread::scope(|scope| {
        let work = |thread| {
            let (worker, deadline) = (Worker { guest, soak, count, thread }, deadline);
            move || worker.run(deadline)
        };
        let running: Vec<_> = (0..soak.threads).map(|thread| scope.spawn(work(thread))).collect();
        let ended = running.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(refusal("a thread of the soak panicked")))
        });
        ended.collect::<Result<Vec<_>, Refusal>>()
    })?;

    let mut report = reports.into_iter().fold(SoakReport::default(), add);
    let last = Worker { guest, soak, count, thread: 0 };
    for page in pages.filter(|&page| history(guest, page).now().begun > 0) {
        report.final_reads += 1;
        last.read_own(page, &mut report)?;
    }
    report.nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(report)
}

fn history(guest: &Guest, page: u64) -> &History {
    &guest.histories[crate::memory::bytes(page)]
}

fn add(mut sum: SoakReport, more: SoakReport) -> SoakReport {
    sum.reads += more.reads;
    sum.writes += more.writes;
    sum.words += more.words;
    sum.madvises += more.madvises;
    sum.removed_pages += more.removed_pages;
    sum.peeks += more.peeks;
    sum.wrong += more.wrong;
    let room = EXAMPLES.saturating_sub(sum.examples.len());
    sum.examples.extend(more.examples.into_iter().take(room));
    sum
}

/// One thread of a soak.
#[derive(Clone, Copy)]
struct Worker<'a> {
    guest: &'a Guest,
    soak: &'a Soak,
    count: u64,
    thread: u32,
}

impl Worker<'_> {
    fn run(self, deadline: Option<Instant>) -> Result<SoakReport, Refusal> {
        let soak = self.soak;
        let mut report = SoakReport::default();
        let mut random = Random::new(soak.seed, u64::from(self.thread) + 1);
        let weights = [soak.read, soak.write, soak.word, soak.madvise, soak.peek].map(u64::from);
        for _ in 0..soak.ops {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break;
            }
            let anywhere = soak.page + random.below(self.count);
            let choice = choose(weights, random.below(weights.iter().sum()));
            match (self.own_page(&mut random), choice) {
                (Some(page), 0) => {
                    report.reads += 1;
                    self.read_own(page, &mut report)?;
                }
                (Some(page), 1) => {
                    report.writes += 1;
                    self.write(page)?;
                }
                (Some(page), 2) => {
                    report.words += 1;
                    self.write_word(page)?;
                }
                (Some(page), 3) => {
                    let run = 1 + random.below(self.end_of_chunk(page) - page);
                    report.madvises += 1;
                    report.removed_pages += run;
                    self.give_back(page, run)?;
                }
                _ => {
                    report.peeks += 1;
                    self.peek(anywhere, &mut report)?;
                }
            }
        }
        Ok(report)
    }

    /// A page this thread owns, if it owns any.
    fn own_page(self, random: &mut Random) -> Option<u64> {
        let chunks = self.count.div_ceil(self.soak.chunk);
        let (threads, thread) = (u64::from(self.soak.threads), u64::from(self.thread));
        let own = (chunks + threads - 1).checked_sub(thread)? / threads;
        if own == 0 {
            return None;
        }
        let first = (random.below(own) * threads + thread) * self.soak.chunk;
        let pages = self.soak.chunk.min(self.count - first);
        Some(self.soak.page + first + random.below(pages))
    }

    /// The page after the last of the chunk of `page`.
    fn end_of_chunk(self, page: u64) -> u64 {
        let end = ((page - self.soak.page) / self.soak.chunk + 1) * self.soak.chunk;
        self.soak.page + end.min(self.count)
    }

    fn write(self, page: u64) -> Result<(), OutOfRange> {
        self.guest.about_to_touch(page);
        let history = history(self.guest, page);
        let version = history.begin(false);
        fill(self.guest, page, version)?;
        history.end(version);
        Ok(())
    }

    fn write_word(self, page: u64) -> Result<(), Refusal> {
        self.guest.about_to_touch(page);
        let history = history(self.guest, page);
        let at = history.now().patched(self.guest, page);
        let version = history.begin(false);
        let poisoned = |_| refusal(format!("page {page} is poisoned"));
        store(self.guest, page, at, version)?.map_err(poisoned)
    }

    fn give_back(self, page: u64, count: u64) -> Result<(), Refusal> {
        let versions: Vec<_> = (page..page + count)
            .map(|page| (page, history(self.guest, page).begin(true)))
            .collect();
        madvise(self.guest, page, count)?;
        for (page, version) in versions {
            history(self.guest, page).end(version);
        }
        Ok(())
    }

    /// Reads a page on which nobody is at work, and checks each word exactly.
    fn read_own(self, page: u64, report: &mut SoakReport) -> Result<(), OutOfRange> {
        self.guest.about_to_touch(page);
        let versions = history(self.guest, page).now();
        let start = page * self.guest.memory.page_size;
        for (offset, word) in (start..).step_by(8).zip(self.guest.memory.values(page)?) {
            let expected = versions.word(self.guest, page, offset);
            if word != expected {
                let expected = self.describe(offset, expected);
                self.report(report, page, (offset, word), expected);
                break;
            }
        }
        Ok(())
    }

    /// Reads a page whoever is at work on it, and checks that each word is legal.
    fn peek(self, page: u64, report: &mut SoakReport) -> Result<(), OutOfRange> {
        self.guest.about_to_touch(page);
        let history = history(self.guest, page);
        let base = history.base.load(Ordering::Acquire);
        let words: Vec<u64> = self.guest.memory.values(page)?.collect();
        fence(Ordering::Acquire);
        let versions = Versions { base, ..history.now() };
        let start = page * self.guest.memory.page_size;
        for (offset, word) in (start..).step_by(8).zip(words) {
            if !versions.allow(self.guest, page, offset, word) {
                let Versions { base, begun, zapped } = versions;
                let expected =
                    format!("versions {base} to {begun}, last given back by version {zapped}");
                self.report(report, page, (offset, word), expected);
                break;
            }
        }
        Ok(())
    }

    fn report(self, report: &mut SoakReport, page: u64, at: (u64, u64), expected: String) {
        let (offset, word) = at;
        report.wrong += 1;
        if report.examples.len() < EXAMPLES {
            report.examples.push(SoakMistake {
                page,
                at: offset % self.guest.memory.page_size,
                word: format!("{word:#018x}"),
                found: self.describe(offset, word),
                expected,
                thread: self.thread,
            });
        }
    }

    /// What a word means at byte `offset` of the snapshot.
    fn describe(self, offset: u64, word: u64) -> String {
        if word == 0 {
            return "zeros".into();
        }
        match (self.guest.pattern.stamp_of(offset, word), self.guest.pattern.origin(word)) {
            (Some(0), _) => "the snapshot".into(),
            (Some(version), _) => format!("version {version}"),
            (None, Some(origin)) => format!("the snapshot at byte {origin}"),
            (None, None) => "nothing known".into(),
        }
    }
}

/// Which weight a number below their sum falls into.
fn choose(weights: [u64; 5], mut number: u64) -> usize {
    for (choice, weight) in weights.into_iter().enumerate() {
        if number < weight {
            return choice;
        }
        number -= weight;
    }
    weights.len()
}
