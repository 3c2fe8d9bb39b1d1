//! Ranges of pages that are gone through once, in order, a part at a time.

use std::collections::VecDeque;

use crate::units::PageRange;

/// What of some ranges is still to come.
pub(super) struct Upcoming(VecDeque<PageRange>);

impl Upcoming {
    pub(super) fn of(ranges: impl IntoIterator<Item = PageRange>) -> Self {
        Self(ranges.into_iter().collect())
    }

    /// The next pages in one range, at most so many; at least one, while there are any.
    pub(super) fn take(&mut self, most: u64) -> Option<PageRange> {
        let range = self.0.front_mut()?;
        let part = PageRange::new(range.start.0, range.start.0 + most.max(1)).intersect(*range);
        range.start = part.end;
        if range.is_empty() {
            self.0.pop_front();
        }
        Some(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_comes_once_and_in_order() {
        let mut upcoming = Upcoming::of([PageRange::new(7, 10), PageRange::new(0, 2)]);
        let parts = [2, 9, 0, 1].map(|most| upcoming.take(most));
        let expected = [(7, 9), (9, 10), (0, 1), (1, 2)];
        assert_eq!(parts, expected.map(|(start, end)| Some(PageRange::new(start, end))));
        assert_eq!(upcoming.take(1), None);
    }
}
