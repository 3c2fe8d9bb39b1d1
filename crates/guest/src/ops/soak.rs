//! Random accesses by many threads, every byte checked against what its page went through.

use std::thread;
use std::time::{Duration, Instant};

use super::access::{EXAMPLES, existing, madvise, store};
use crate::guest::Guest;
use crate::history::Versions;
use crate::memory::OutOfRange;
use crate::protocol::{Refusal, Soak, SoakMistake, SoakReport};
use crate::random::Random;

pub(super) fn run(guest: &Guest, soak: &Soak) -> Result<SoakReport, Refusal> {
    let count = soak.count.unwrap_or_else(|| guest.memory.pages().saturating_sub(soak.page));
    let pages = existing(guest, soak.page, count)?;
    if count == 0 || soak.threads == 0 || soak.chunk == 0 {
        return Err(Refusal::new("a soak needs threads, pages, and chunks of pages"));
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
            thread.join().unwrap_or_else(|_| Err(Refusal::new("a thread of the soak panicked")))
        });
        ended.collect::<Result<Vec<_>, Refusal>>()
    })?;

    let mut report = reports.into_iter().fold(SoakReport::default(), add);
    let last = Worker { guest, soak, count, thread: 0 };
    for page in pages.filter(|&page| guest.history(page).now().begun > 0) {
        report.final_reads += 1;
        last.read_own(page, &mut report)?;
    }
    report.nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Ok(report)
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
        let history = self.guest.history(page);
        let version = history.begin(false);
        self.guest.memory.fill(page, &self.guest.pattern, version)?;
        history.end(version);
        Ok(())
    }

    fn write_word(self, page: u64) -> Result<(), Refusal> {
        self.guest.about_to_touch(page);
        let history = self.guest.history(page);
        let at = history.now().patched(&self.guest.pattern, page);
        let version = history.begin(false);
        let poisoned = |_| Refusal::new(format!("page {page} is poisoned"));
        store(self.guest, page, at, version)?.map_err(poisoned)
    }

    fn give_back(self, page: u64, count: u64) -> Result<(), Refusal> {
        let versions: Vec<_> =
            (page..page + count).map(|page| (page, self.guest.history(page).begin(true))).collect();
        madvise(self.guest, page, count)?;
        for (page, version) in versions {
            self.guest.history(page).end(version);
        }
        Ok(())
    }

    /// Reads a page on which nobody is at work, and checks each word exactly.
    fn read_own(self, page: u64, report: &mut SoakReport) -> Result<(), OutOfRange> {
        self.guest.about_to_touch(page);
        let versions = self.guest.history(page).now();
        let start = page * self.guest.memory.page_size;
        for (offset, word) in (start..).step_by(8).zip(self.guest.memory.values(page)?) {
            let expected = versions.word(&self.guest.pattern, page, offset);
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
        let history = self.guest.history(page);
        let base = history.base();
        let words: Vec<u64> = self.guest.memory.values(page)?.collect();
        let versions = history.since(base);
        let start = page * self.guest.memory.page_size;
        for (offset, word) in (start..).step_by(8).zip(words) {
            if !versions.allow(&self.guest.pattern, page, offset, word) {
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
