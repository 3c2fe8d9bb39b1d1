//! Fault-around: how many pages are filled when one is missed.

use crate::layout::Layout;
use crate::states::{PageState, PageStates};
use crate::units::{PageIndex, PageRange, PageSize};

/// The widest window, in bytes.
const WIDEST: u64 = 256 << 10;

/// How far back is looked for signs of sequential access, in pages.
const LOOK_BACK: u64 = 64;

/// The pages to fill for a fault on `page`: an aligned window around it, inside its region.
///
/// Only the states decide, so there is nothing to keep for each stream of accesses: where the
/// pages right before (or behind) the fault are installed, somebody walks through this memory,
/// and the window is as wide as the walk is long. A page with nothing installed next to it is
/// filled on its own.
pub(super) fn around(
    states: &PageStates,
    layout: &Layout,
    page: PageIndex,
    widest: u64,
) -> PageRange {
    let alone = PageRange::single(page);
    let Some(region) = layout.region_of(page) else { return alone };
    let widest = widest.min(WIDEST >> layout.page_size().shift());
    if widest <= 1 {
        return alone;
    }
    let back = PageRange::new(page.0.saturating_sub(LOOK_BACK), page.0).intersect(region.pages);
    let ahead = PageRange::new(page.0 + 1, page.0 + 1 + LOOK_BACK).intersect(region.pages);
    let installed =
        |state: &PageState| matches!(state, PageState::Clean | PageState::Zero | PageState::Dirty);
    let walked = states
        .iter(back)
        .rev()
        .take_while(installed)
        .count()
        .max(states.iter(ahead).take_while(installed).count());
    let width = (walked as u64 + 1).next_power_of_two().min(widest);
    let start = page.0 - page.0 % width;
    PageRange::new(start, start + width).intersect(region.pages)
}

/// The widest window for guests with pages of this size, in pages.
pub(crate) const fn widest(page_size: PageSize) -> u64 {
    WIDEST >> page_size.shift()
}
