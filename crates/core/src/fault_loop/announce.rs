//! What a prefault is about to need from a source that has not got it at hand is announced ahead
//! of it, in few large pieces: a device that knows what comes next is never idle.

use super::upcoming::Upcoming;
use crate::units::{PageRange, PageSize};

/// Bytes announced and not come to yet. A fault that needs the device waits behind them.
const AHEAD: u64 = 4 << 20;

/// Reading so many bytes that are not needed costs less than another request.
const GAP: u64 = 32 << 10;

/// The part of a prefault that is not announced yet.
pub(super) struct Announcer {
    /// In the order in which it will be needed.
    left: Upcoming,
    /// Pages announced and not come to.
    ahead: u64,
    page_size: PageSize,
}

impl Announcer {
    pub(super) fn new(ranges: impl Iterator<Item = PageRange>, page_size: PageSize) -> Self {
        Self { left: Upcoming::of(ranges), ahead: 0, page_size }
    }

    /// The prefault came to so many pages more.
    pub(super) const fn passed(&mut self, pages: u64) {
        self.ahead = self.ahead.saturating_sub(pages);
    }

    /// What is to be announced now: nothing as long as enough is announced.
    pub(super) fn next(&mut self) -> Vec<PageRange> {
        let most = (AHEAD >> self.page_size.shift()).max(1);
        if self.ahead > most / 2 {
            return Vec::new();
        }
        let mut ranges = Vec::new();
        while self.ahead < most
            && let Some(part) = self.left.take(most - self.ahead)
        {
            self.ahead += part.len();
            ranges.push(part);
        }
        joined(ranges, GAP >> self.page_size.shift())
    }
}

/// `ranges` in page order, those joined that are no more than `gap` pages apart.
fn joined(mut ranges: Vec<PageRange>, gap: u64) -> Vec<PageRange> {
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, before| {
        let joins = next.start.0 <= before.end.0 + gap;
        if joins {
            before.end = before.end.max(next.end);
        }
        joins
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = AHEAD / 4096;

    fn ranges(ranges: &[(u64, u64)]) -> Vec<PageRange> {
        ranges.iter().map(|(start, end)| PageRange::new(*start, *end)).collect()
    }

    #[test]
    fn ranges_close_together_are_one() {
        let scattered = ranges(&[(30, 32), (2, 4), (0, 2), (12, 14), (41, 42), (13, 20)]);
        assert_eq!(joined(scattered, 8), ranges(&[(0, 20), (30, 32), (41, 42)]));
        assert_eq!(joined(ranges(&[(10, 11), (0, 2)]), 8), ranges(&[(0, 11)]));
        assert_eq!(joined(ranges(&[(0, 9), (2, 3), (9, 10)]), 0), ranges(&[(0, 10)]));
    }

    #[test]
    fn so_much_is_announced_ahead_and_no_more() {
        let all = PageRange::new(0, 3 * MOST);
        let mut announcer = Announcer::new([all].into_iter(), PageSize::Small);
        assert_eq!(announcer.next(), ranges(&[(0, MOST)]));
        announcer.passed(MOST / 2 - 1);
        assert_eq!(announcer.next(), []);
        announcer.passed(1);
        assert_eq!(announcer.next(), ranges(&[(MOST, MOST + MOST / 2)]));
        announcer.passed(10 * MOST);
        assert_eq!(announcer.next(), ranges(&[(MOST + MOST / 2, 2 * MOST + MOST / 2)]));
        announcer.passed(MOST);
        assert_eq!(announcer.next(), ranges(&[(2 * MOST + MOST / 2, 3 * MOST)]));
        announcer.passed(MOST);
        assert_eq!(announcer.next(), []);
    }

    #[test]
    fn a_huge_page_is_announced_however_large_it_is() {
        let mut announcer = Announcer::new([PageRange::new(7, 20)].into_iter(), PageSize::Huge);
        assert_eq!(announcer.next(), ranges(&[(7, 9)]));
    }
}
