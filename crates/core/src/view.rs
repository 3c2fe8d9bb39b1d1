//! What can be seen of a guest without asking its fault loop: its figures, and its memory as a
//! picture that is as small as whoever looks wants it. Both cost the loop nothing.

use std::io;
use std::sync::Arc;

use crate::kernel::Onlooker;
use crate::layout::Layout;
use crate::metrics::Figures;
use crate::states::PageState;

/// Bytes that are looked at together.
const AT_ONCE: usize = 64 << 10;

/// How a guest looks from outside. Goes on showing its last moment once it has ended.
#[derive(Debug)]
pub struct View {
    figures: Arc<Figures>,
    layout: Arc<Layout>,
    states: Onlooker,
}

/// A guest's memory, in cells of as many pages each, in the order of pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// How many pages a cell stands for; the last may have fewer.
    pub pages_per_cell: u64,
    /// For each cell, how many of its pages are in each of [`PageState::ALL`]. A page that no
    /// region has is counted nowhere.
    pub cells: Vec<[u64; PageState::ALL.len()]>,
}

impl View {
    pub(crate) fn new(layout: Arc<Layout>, states: Onlooker) -> Self {
        Self { figures: Arc::default(), layout, states }
    }

    /// The guest's figures.
    pub const fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// The guest's regions.
    pub const fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The memory in at most so many cells, one at least. Each page is seen as it is at some moment
    /// of the look. Takes a millisecond for a million pages: not for the thread of an event loop.
    pub fn picture(&self, cells: usize) -> io::Result<Picture> {
        let pages = self.layout.page_end().0;
        let pages_per_cell = pages.div_ceil(cells.max(1) as u64).max(1);
        let count = usize::try_from(pages.div_ceil(pages_per_cell)).map_err(io::Error::other)?;
        let mut cells = vec![[0; PageState::ALL.len()]; count];
        let mut bytes = vec![0; AT_ONCE];
        let place = |page: u64| usize::try_from(page).map_err(io::Error::other);
        for region in self.layout.regions() {
            let (mut at, end) = (region.pages.start.0, region.pages.end.0);
            while at < end {
                let cell = at / pages_per_cell;
                let cell_end = ((cell + 1) * pages_per_cell).min(end);
                let len = place(cell_end - at)?.min(AT_ONCE);
                self.states.read(place(at)?, &mut bytes[..len])?;
                let counts = &mut cells[place(cell)?];
                for byte in &bytes[..len] {
                    counts[PageState::from_byte(*byte) as usize] += 1;
                }
                at += len as u64;
            }
        }
        Ok(Picture { pages_per_cell, cells })
    }
}

impl Picture {
    /// Six bytes a cell: the share of each state in its pages, out of 255. A state that any page is
    /// in has a share of at least 1, and a cell without pages has none.
    pub fn shares(&self) -> Vec<u8> {
        let share = |cell: &[u64; PageState::ALL.len()]| {
            let pages: u64 = cell.iter().sum();
            cell.map(|count| match count {
                0 => 0,
                count => u8::try_from((count * 255 / pages).max(1)).unwrap_or(u8::MAX),
            })
        };
        self.cells.iter().flat_map(share).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::SharedMemory;
    use crate::layout::Region;
    use crate::states::PageStates;
    use crate::units::{GuestAddr, PageIndex, PageRange, PageSize};

    fn view(regions: &[(u64, u64)]) -> (PageStates, View) {
        let region = |&(start, end): &(u64, u64)| Region {
            base: GuestAddr((1 << 32) + start * 4096),
            pages: PageRange::new(start, end),
        };
        let layout = Layout::new(PageSize::Small, regions.iter().map(region).collect()).unwrap();
        let pages = usize::try_from(layout.page_end().0).unwrap();
        let part = SharedMemory::anonymous(pages).unwrap().take(pages);
        let states = PageStates::new(part, layout.page_count());
        let view = View::new(Arc::new(layout), states.onlooker());
        (states, view)
    }

    #[test]
    fn every_page_is_in_the_cell_it_lies_in() {
        let (mut states, view) = view(&[(0, 100)]);
        states.set(PageRange::new(0, 25), PageState::Clean);
        states.set(PageRange::new(25, 60), PageState::Removed);
        states.set_one(PageIndex(99), PageState::Poisoned);
        states.touch(PageIndex(99));
        let picture = view.picture(10).unwrap();
        assert_eq!((picture.pages_per_cell, picture.cells.len()), (10, 10));
        assert_eq!(picture.cells[0], [0, 10, 0, 0, 0, 0]);
        assert_eq!(picture.cells[2], [0, 5, 0, 0, 5, 0]);
        assert_eq!(picture.cells[9], [9, 0, 0, 0, 0, 1]);
        assert_eq!(view.picture(3).unwrap().cells.len(), 3);
        assert_eq!(view.picture(0).unwrap().cells, [[39, 25, 0, 0, 35, 1]]);
        assert_eq!(view.picture(1000).unwrap().cells.len(), 100);
    }

    #[test]
    fn pages_of_no_region_are_counted_nowhere() {
        let (_states, view) = view(&[(0, 10), (30, 40)]);
        let picture = view.picture(4).unwrap();
        let counted: Vec<u64> = picture.cells.iter().map(|cell| cell.iter().sum()).collect();
        assert_eq!(counted, [10, 0, 0, 10]);
        assert_eq!(&picture.shares()[6..12], [0; 6]);
    }

    #[test]
    fn a_single_page_of_many_is_still_seen() {
        let (mut states, view) = view(&[(0, 1 << 20)]);
        states.set_one(PageIndex(70_000), PageState::Dirty);
        let shares = view.picture(4).unwrap().shares();
        assert_eq!(&shares[..6], [254, 0, 0, 1, 0, 0]);
        assert_eq!(&shares[6..12], [255, 0, 0, 0, 0, 0]);
    }
}
