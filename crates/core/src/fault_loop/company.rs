//! How many fault loops of this process have something to do. Where there are more of them than cores
//! for them and their guests, whoever keeps a core busy only to wait takes it from another.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The base-2 logarithm of the nanoseconds in which loops are counted together: about a millisecond.
const SLICE: u32 = 20;

/// When the first loop looked.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The loops that were at work in this slice of time, and in the one before.
#[derive(Debug)]
pub(super) struct Company(AtomicU64);

/// What one loop remembers of it: the slice in which it was counted last.
#[derive(Debug, Default)]
pub(super) struct Place(Option<u32>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Count {
    slice: u32,
    before: u16,
    now: u16,
}

impl Company {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// One more loop is at work in `slice`.
    fn enter(&self, slice: u32) {
        let more = |bits| {
            let count = Count::of(bits).at(slice);
            Some(Count { now: count.now.saturating_add(1), ..count }.bits())
        };
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    /// How many are: as many as in the slice before, before all of them have been counted.
    fn size(&self, slice: u32) -> usize {
        let count = Count::of(self.0.load(Ordering::Relaxed)).at(slice);
        count.before.max(count.now).into()
    }
}

impl Place {
    /// The loop has had something to do at this time; how many others have.
    pub(super) fn take(&mut self, company: &Company, now: Instant) -> usize {
        let nanos = now.saturating_duration_since(*BEGAN).as_nanos() >> SLICE;
        // Wraps after seven weeks, and only whether two are the same or next to each other counts.
        self.take_at(company, u32::try_from(nanos & u128::from(u32::MAX)).unwrap_or_default())
    }

    fn take_at(&mut self, company: &Company, slice: u32) -> usize {
        if self.0.replace(slice) != Some(slice) {
            company.enter(slice);
        }
        company.size(slice).saturating_sub(1)
    }
}

impl Count {
    const fn of(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_ne_bytes();
        Self {
            slice: u32::from_ne_bytes([a, b, c, d]),
            before: u16::from_ne_bytes([e, f]),
            now: u16::from_ne_bytes([g, h]),
        }
    }

    const fn bits(self) -> u64 {
        let [a, b, c, d] = self.slice.to_ne_bytes();
        let ([e, f], [g, h]) = (self.before.to_ne_bytes(), self.now.to_ne_bytes());
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// What it is worth in `slice`.
    const fn at(self, slice: u32) -> Self {
        match slice.wrapping_sub(self.slice) {
            0 => self,
            1 => Self { slice, before: self.now, now: 0 },
            // A loop may look at an older time than another that was counted since.
            u32::MAX => self,
            _ => Self { slice, before: 0, now: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loop_counts_once_in_a_slice_and_the_slice_before_is_remembered() {
        let company = Company::new();
        let mut places = [Place::default(), Place::default(), Place::default()];
        let mut others = |slice| places.each_mut().map(|place| place.take_at(&company, slice));
        assert_eq!(others(7), [0, 1, 2]);
        assert_eq!(others(7), [2, 2, 2]);
        // None has to come first to be counted.
        assert_eq!(others(8), [2, 2, 2]);
        let [alone, ..] = &mut places;
        assert_eq!(alone.take_at(&company, 9), 2);
        assert_eq!(alone.take_at(&company, 10), 0);
        // Nothing is left of what was long ago.
        assert_eq!(places.each_mut().map(|place| place.take_at(&company, 99)), [0, 1, 2]);
    }

    #[test]
    fn who_looks_at_an_older_time_takes_nothing_away() {
        let company = Company::new();
        let (mut one, mut other) = (Place::default(), Place::default());
        assert_eq!(one.take_at(&company, 8), 0);
        assert_eq!(other.take_at(&company, 7), 1);
        assert_eq!(one.take_at(&company, 8), 1);
    }

    #[test]
    fn counts_go_on_where_slices_begin_anew() {
        let company = Company::new();
        let (mut one, mut other) = (Place::default(), Place::default());
        one.take_at(&company, u32::MAX - 1);
        one.take_at(&company, u32::MAX);
        assert_eq!(other.take_at(&company, 0), 0);
        assert_eq!(one.take_at(&company, 0), 1);
    }
}
