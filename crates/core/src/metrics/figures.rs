//! The figures of one guest, for whoever looks: its fault loop writes them and asks nobody, readers
//! cost it nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::distribution::{Distribution, FaultClass, Growing};
use super::{Ahead, Counters, StateCounts};

/// Numbers that one thread writes and any may read. Each is right by itself; together they may be
/// of two moments that follow each other.
#[derive(Debug)]
struct Words<const N: usize>([AtomicU64; N]);

impl<const N: usize> Words<N> {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }

    fn set(&self, words: [u64; N]) {
        for (place, word) in self.0.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    fn get(&self) -> [u64; N] {
        let mut words = [0; N];
        for (word, place) in words.iter_mut().zip(&self.0) {
            *word = place.load(Ordering::Relaxed);
        }
        words
    }
}

/// What a guest's fault loop shows. One thread writes.
#[derive(Debug)]
pub struct Figures {
    counters: Words<{ Counters::COUNT }>,
    /// What a predecessor had counted before this process took the guest over.
    before: Words<{ Counters::COUNT }>,
    pages: Words<{ StateCounts::COUNT }>,
    ahead: Words<{ Ahead::COUNT }>,
    latencies: [Growing; FaultClass::COUNT],
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            counters: Words::new(),
            before: Words::new(),
            pages: Words::new(),
            ahead: Words::new(),
            latencies: Default::default(),
        }
    }
}

impl Figures {
    /// The guest was taken over with these counters.
    pub(crate) fn begin(&self, counters: &Counters) {
        self.before.set(counters.to_words());
        self.counters.set(counters.to_words());
    }

    /// A fault was served, this long after it was read.
    pub(crate) fn served(&self, class: FaultClass, time: Duration) {
        self.latencies[class.index()].record(time);
    }

    /// Shows how things stand.
    pub(crate) fn show(&self, counters: &Counters, pages: &StateCounts, ahead: &Ahead) {
        self.counters.set(counters.to_words());
        self.pages.set(pages.to_words());
        self.ahead.set(ahead.to_words());
    }

    /// What this process did for the guest, and how it stands.
    pub fn read(&self) -> Reading {
        let before = self.before.get();
        let mut counters = self.counters.get();
        for (count, before) in counters.iter_mut().zip(before) {
            *count = count.saturating_sub(before);
        }
        let mut latencies = [Distribution::default(); FaultClass::COUNT];
        for (read, growing) in latencies.iter_mut().zip(&self.latencies) {
            *read = growing.read();
        }
        Reading {
            counters: Counters::from_words(counters),
            pages: StateCounts::from_words(self.pages.get()),
            ahead: Ahead::from_words(self.ahead.get()),
            latencies,
        }
    }
}

/// Figures as they were read, of one guest or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// What was done.
    pub counters: Counters,
    /// Pages by state, now.
    pub pages: StateCounts,
    /// What is still to be done, now.
    pub ahead: Ahead,
    /// How long faults took, by class.
    pub latencies: [Distribution; FaultClass::COUNT],
}

impl Reading {
    /// Adds those of another guest.
    pub fn add(&mut self, other: &Self) {
        self.add_lasting(other);
        let pages = sum(self.pages.to_words(), other.pages.to_words());
        self.pages = StateCounts::from_words(pages);
        self.ahead = Ahead::from_words(sum(self.ahead.to_words(), other.ahead.to_words()));
    }

    /// Adds those of a guest that has ended: what it did, and not how it stood.
    pub(super) fn add_lasting(&mut self, other: &Self) {
        let counters = sum(self.counters.to_words(), other.counters.to_words());
        self.counters = Counters::from_words(counters);
        for (sum, other) in self.latencies.iter_mut().zip(&other.latencies) {
            sum.add(other);
        }
    }
}

fn sum<const N: usize>(mut one: [u64; N], other: [u64; N]) -> [u64; N] {
    for (sum, other) in one.iter_mut().zip(other) {
        *sum = sum.wrapping_add(other);
    }
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(faults: u64) -> Counters {
        Counters { read_faults: faults, ..Counters::default() }
    }

    #[test]
    fn what_a_predecessor_did_is_not_counted_again() {
        let figures = Figures::default();
        figures.begin(&counters(100));
        assert_eq!(figures.read(), Reading::default());
        let pages = StateCounts { clean: 7, ..StateCounts::default() };
        let ahead = Ahead { faults_in_hand: 2, ..Ahead::default() };
        figures.show(&counters(103), &pages, &ahead);
        let read = figures.read();
        assert_eq!((read.counters, read.pages, read.ahead), (counters(3), pages, ahead));
    }

    #[test]
    fn of_a_guest_that_ended_only_what_it_did_is_added() {
        let figures = Figures::default();
        figures.served(FaultClass::Protect, Duration::from_micros(3));
        let pages = StateCounts { clean: 7, ..StateCounts::default() };
        let ahead = Ahead { faults_in_hand: 2, ..Ahead::default() };
        figures.show(&counters(5), &pages, &ahead);
        let one = figures.read();
        let mut all = one.clone();
        all.add(&one);
        all.add_lasting(&one);
        assert_eq!(
            (all.counters, all.pages.clean, all.ahead.faults_in_hand),
            (counters(15), 14, 4)
        );
        let protect = all.latencies[FaultClass::Protect.index()];
        assert_eq!((protect.counts[1], protect.nanos), (3, 9_000));
    }
}
