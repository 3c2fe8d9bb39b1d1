//! How long faults took, in buckets.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::trace::FilledWith;

/// The upper bounds of the buckets in nanoseconds; one more has no bound.
pub const BOUNDS: [u64; 14] = [
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    10_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// How many buckets there are.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// What a fault was and what answered it: a series of its own each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// A missing page that its thread wanted to read.
    Read(FilledWith),
    /// A missing page that its thread wanted to write.
    Write(FilledWith),
    /// A page that is there and write-protected.
    Protect,
}

impl FaultClass {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// All of them, in the order of [`index`](Self::index).
    pub fn all() -> impl Iterator<Item = Self> {
        let missing = [Self::Read, Self::Write];
        let of_kind = |kind: fn(FilledWith) -> Self| FilledWith::ALL.map(kind);
        missing.into_iter().flat_map(of_kind).chain([Self::Protect])
    }

    /// Its place among all.
    pub const fn index(self) -> usize {
        match self {
            Self::Read(filled) => filled as usize,
            Self::Write(filled) => FilledWith::ALL.len() + filled as usize,
            Self::Protect => 2 * FilledWith::ALL.len(),
        }
    }

    /// Whether its thread wanted to write.
    pub const fn is_write(self) -> bool {
        !matches!(self, Self::Read(_))
    }

    /// What the page was filled with. A protected page is there already.
    pub const fn filled(self) -> FilledWith {
        match self {
            Self::Read(filled) | Self::Write(filled) => filled,
            Self::Protect => FilledWith::Present,
        }
    }

    /// The labels of its series.
    pub const fn labels(self) -> [(&'static str, &'static str); 2] {
        let kind = match self {
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Protect => "protect",
        };
        [("kind", kind), ("filled", self.filled().name())]
    }
}

/// How many faults of a class took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Faults by bucket: each has those that took at most its bound and longer than the last.
    pub counts: [u64; BUCKETS],
    /// How long all of them took together, in nanoseconds.
    pub nanos: u64,
}

impl Distribution {
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, count) in self.counts.iter_mut().zip(other.counts) {
            *sum += count;
        }
        self.nanos += other.nanos;
    }
}

/// The same while it grows: one thread records, any may read.
#[derive(Debug, Default)]
pub(super) struct Growing {
    counts: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Growing {
    /// By the one thread that writes: nothing is locked.
    pub(super) fn record(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| nanos > *bound);
        grow(&self.counts[bucket], 1);
        grow(&self.nanos, nanos);
    }

    pub(super) fn read(&self) -> Distribution {
        let mut counts = [0; BUCKETS];
        for (count, growing) in counts.iter_mut().zip(&self.counts) {
            *count = growing.load(Ordering::Relaxed);
        }
        Distribution { counts, nanos: self.nanos.load(Ordering::Relaxed) }
    }
}

fn grow(value: &AtomicU64, by: u64) {
    value.store(value.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_a_place_and_labels_of_its_own() {
        let all: Vec<_> = FaultClass::all().collect();
        assert_eq!(all.len(), FaultClass::COUNT);
        for (place, class) in all.iter().enumerate() {
            assert_eq!(class.index(), place);
            assert!(all[..place].iter().all(|other| other.labels() != class.labels()));
        }
    }

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_it_does_not_pass() {
        let growing = Growing::default();
        let nanos = [0, 2_500, 2_501, 10_000_000_000, 10_000_000_001];
        for nanos in nanos {
            growing.record(Duration::from_nanos(nanos));
        }
        let Distribution { counts, nanos: sum } = growing.read();
        assert_eq!((counts[0], counts[1], counts[13], counts[14]), (2, 1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), nanos.len() as u64);
        assert_eq!(sum, nanos.iter().sum::<u64>());
        assert!(BOUNDS.is_sorted_by(|one, next| one < next));
    }
}
