//! Fault-around: how many pages are filled when one is missed.

use crate::units::{PageIndex, PageRange, PageSize};

/// What is known of the pages near a fault.
pub(crate) trait Nearby {
    /// How many pages at the start of `range` are installed, without a gap.
    fn installed_from(&self, range: PageRange) -> usize;
    /// How many pages at the end of `range` are installed, without a gap.
    fn installed_until(&self, range: PageRange) -> usize;
    /// How many pages of `range` are installed.
    fn installed_in(&self, range: PageRange) -> usize;
    /// How many pages of `range` were touched while they were missing.
    fn touched_in(&self, range: PageRange) -> usize;
}

/// The widest window, in bytes.
const WIDEST: u64 = 256 << 10;

/// How far is looked for signs of an access pattern, in pages; also the widest dense window.
const LOOK: u64 = 64;

/// Windows, in pages, and how many pages besides the missed one must have been touched there for
/// the rest to be worth filling. A page in ten touched at random hardly ever gets there.
const DENSE: [(u64, usize); 5] = [(64, 14), (32, 8), (16, 5), (8, 3), (4, 2)];

/// The pages to fill for a fault on `page`: an aligned window around it, inside `region`.
///
/// Only the states decide, so there is nothing to keep for each stream of accesses. Where the
/// pages right before (or behind) the fault are installed, somebody walks through this memory,
/// and the window is as wide as the walk is long. Where many pages nearby were touched, in
/// whatever order, it is as wide as they lie dense. Otherwise the page is filled on its own.
pub(crate) fn around(
    known: &impl Nearby,
    region: PageRange,
    page: PageIndex,
    widest: u64,
) -> PageRange {
    if widest <= 1 {
        return PageRange::single(page);
    }
    let window = |width| aligned(region, page, width);
    let back = PageRange::new(page.0.saturating_sub(LOOK), page.0).intersect(region);
    let ahead = PageRange::new(page.0 + 1, page.0 + 1 + LOOK).intersect(region);
    let walked = known.installed_until(back).max(known.installed_from(ahead)) as u64;
    let width = (walked + 1).next_power_of_two();
    let is_dense = |(width, touched): &&(u64, usize)| known.touched_in(window(*width)) >= *touched;
    let dense = DENSE.iter().find(is_dense).map_or(1, |(width, _)| *width);
    window(width.max(dense).min(widest))
}

/// The widest window of zeros, in bytes: they cost no memory and hardly any time.
const WIDEST_ZEROS: u64 = 2 << 20;

/// The widest window of pages that were given back and get memory of their own, since they are
/// written again or their zeros have to be protected, in bytes: the guest has just given it back.
const WIDEST_WRITTEN: u64 = 64 << 10;

/// The fewest pages that are filled at once of memory that was given back: it may be written next.
pub(crate) const FEWEST_GIVEN_BACK: u64 = 8;

/// The same of a hole of the source.
pub(crate) const FEWEST_OF_HOLES: u64 = LOOK;

/// A range of [`WIDEST_ZEROS`] is in use when so many of its pages are installed.
const IN_USE: usize = 64;

/// The pages of zeros to fill for a fault on `page`: an aligned window around it, inside `region`,
/// of `fewest` pages to `widest`. Memory that was given back is mostly used again in runs.
pub(crate) fn of_zeros(
    known: &impl Nearby,
    region: PageRange,
    page: PageIndex,
    fewest: u64,
    widest: u64,
) -> PageRange {
    if widest <= 1 {
        return PageRange::single(page);
    }
    let whole = aligned(region, page, widest);
    let back = PageRange { start: whole.start, end: page };
    let ahead = PageRange { start: page.next(), end: whole.end };
    let walked = known.installed_until(back).max(known.installed_from(ahead)) as u64;
    if known.installed_in(whole) >= IN_USE {
        return whole;
    }
    let width = ((walked + 1) * fewest).next_power_of_two();
    aligned(region, page, width.min(widest))
}

/// Pages of 2 MiB that are installed ahead of somebody who walks, at the most.
const MOST_AHEAD: u64 = 2;

/// The most pages that are installed ahead, of guests with pages of this size: smaller ones have
/// their window.
pub(crate) const fn most_ahead(page_size: PageSize) -> u64 {
    match page_size {
        PageSize::Small => 0,
        PageSize::Huge => MOST_AHEAD,
    }
}

/// Steps after which somebody is known to walk.
const SURE: u32 = 2;

/// Those who walk through memory a page at a time: the last few that there were.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    known: [Walk; 4],
    oldest: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Walk {
    /// Where it was seen last, and where it is seen next if it goes on: behind what is installed
    /// ahead of it, or in there, if it is quicker.
    last: PageIndex,
    next: PageIndex,
    steps: u32,
}

impl Walks {
    /// The pages of `region` to install ahead of somebody who has come to `page`, `most` of them.
    pub(crate) fn came_to(&mut self, region: PageRange, page: PageIndex, most: u64) -> PageRange {
        let goes_on = |walk: &&mut Walk| walk.last < page && page <= walk.next;
        let walk = match self.known.iter_mut().find(goes_on) {
            Some(walk) => {
                walk.steps = walk.steps.saturating_add(1);
                walk
            }
            None => {
                let walk = &mut self.known[self.oldest];
                self.oldest = (self.oldest + 1) % 4;
                *walk = Walk::default();
                walk
            }
        };
        let count = if walk.steps >= SURE { most } else { 0 };
        let ahead = PageRange::new(page.0 + 1, page.0 + 1 + count).intersect(region);
        (walk.last, walk.next) = (page, ahead.end.max(page.next()));
        ahead
    }
}

/// The aligned window of `width` pages around `page`, inside `region`.
pub(crate) fn aligned(region: PageRange, page: PageIndex, width: u64) -> PageRange {
    let start = page.0 - page.0 % width.max(1);
    PageRange::new(start, start + width.max(1)).intersect(region)
}

/// The widest window for guests with pages of this size, in pages.
pub(crate) const fn widest(page_size: PageSize) -> u64 {
    WIDEST >> page_size.shift()
}

/// The widest window of pages that were given back and get memory of their own, in pages.
pub(crate) const fn widest_of_written(page_size: PageSize) -> u64 {
    WIDEST_WRITTEN >> page_size.shift()
}

/// The widest window of zeros, in pages.
pub(crate) const fn widest_of_zeros(page_size: PageSize) -> u64 {
    WIDEST_ZEROS >> page_size.shift()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pages of which these are installed, and nothing was touched.
    struct Installed(&'static [u64]);

    impl Nearby for Installed {
        fn installed_from(&self, range: PageRange) -> usize {
            range.pages().take_while(|page| self.0.contains(&page.0)).count()
        }

        fn installed_until(&self, range: PageRange) -> usize {
            let before = (range.start.0..range.end.0).rev();
            before.take_while(|page| self.0.contains(page)).count()
        }

        fn installed_in(&self, range: PageRange) -> usize {
            range.pages().filter(|page| self.0.contains(&page.0)).count()
        }

        fn touched_in(&self, _range: PageRange) -> usize {
            0
        }
    }

    #[test]
    fn pages_are_installed_ahead_of_those_who_walk_and_of_nobody_else() {
        let mut walks = Walks::default();
        let mut ahead = |page| {
            let pages = walks.came_to(PageRange::new(0, 16), PageIndex(page), 2);
            (pages.start.0..pages.end.0).collect::<Vec<_>>()
        };
        // Two walk at once, and somebody jumps.
        assert_eq!([ahead(3), ahead(9), ahead(0), ahead(4), ahead(10)].concat(), [0; 0]);
        assert_eq!((ahead(5), ahead(11)), (vec![6, 7], vec![12, 13]));
        // The one was there in time, the other was not.
        assert_eq!((ahead(8), ahead(12)), (vec![9, 10], vec![13, 14]));
        // Nothing lies behind the last page.
        assert_eq!((ahead(15), ahead(15)), (vec![], vec![]));
    }

    #[test]
    fn holes_are_filled_as_wide_at_first_as_somebody_who_walks_is_looked_for() {
        let region = PageRange::new(0, 1024);
        let window = |installed, fewest| {
            of_zeros(&Installed(installed), region, PageIndex(300), fewest, 512)
        };
        assert_eq!(window(&[], FEWEST_OF_HOLES), PageRange::new(256, 320));
        assert_eq!(window(&[], FEWEST_GIVEN_BACK), PageRange::new(296, 304));
        // Somebody walks.
        assert_eq!(window(&[299], FEWEST_OF_HOLES), PageRange::new(256, 384));
        assert_eq!(window(&[299], FEWEST_GIVEN_BACK), PageRange::new(288, 304));
    }
}
