//! What a guest maps: its regions, and the page of the snapshot at each address.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::options::Place;
use crate::pattern::Pattern;
use crate::raw::{Mapping, Poisoned};

/// A range of guest memory with consecutive addresses and snapshot offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its address.
    pub address: u64,
    /// Its first page in the snapshot.
    pub page: u64,
    /// How many pages it has.
    pub pages: u64,
}

const SMALL: u64 = 4096;

/// Pages between regions that lie apart.
const GAP: u64 = 16;

/// Where each region of these sizes starts in the mapping, in pages, and the size of the mapping.
fn arrange(sizes: &[u64], place: Place) -> (Vec<u64>, u64) {
    let total: u64 = sizes.iter().sum();
    let gap = if place == Place::Apart { GAP } else { 0 };
    let mut before = 0;
    let mut gaps = 0;
    let starts = sizes.iter().map(|size| {
        let start = match place {
            Place::Falling => total - before - size,
            Place::Rising | Place::Apart => before + gaps,
        };
        before += size;
        gaps += gap;
        start
    });
    let starts = starts.collect();
    (starts, total + gaps.saturating_sub(gap))
}

/// The memory of the guest.
#[derive(Debug)]
pub(crate) struct Memory {
    mapping: Mapping,
    pub(crate) page_size: u64,
    /// In the order of the snapshot.
    pub(crate) regions: Vec<Region>,
}

/// A page of the snapshot which the guest does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfRange;

impl Memory {
    /// Maps regions of these sizes.
    pub(crate) fn map(sizes: &[u64], page_size: u64, place: Place) -> nix::Result<Self> {
        let (starts, pages) = arrange(sizes, place);
        let bytes = NonZeroUsize::new(bytes(pages * page_size)).ok_or(nix::Error::EINVAL)?;
        let mapping = Mapping::anonymous(bytes, page_size)?;
        Self::over(mapping, starts, sizes, page_size, place)
    }

    /// Maps the snapshot itself, as one mapping of small pages.
    pub(crate) fn map_file(sizes: &[u64], file: &File) -> nix::Result<Self> {
        let (starts, pages) = arrange(sizes, Place::Rising);
        let bytes = NonZeroUsize::new(bytes(pages * SMALL)).ok_or(nix::Error::EINVAL)?;
        Self::over(Mapping::of_file(bytes, file)?, starts, sizes, SMALL, Place::Rising)
    }

    fn over(
        mapping: Mapping,
        starts: Vec<u64>,
        sizes: &[u64],
        page_size: u64,
        place: Place,
    ) -> nix::Result<Self> {
        let mut regions = Vec::new();
        let mut page = 0;
        for (&start, &pages) in starts.iter().zip(sizes) {
            let after = start + pages;
            if place == Place::Apart && page + pages < sizes.iter().sum() {
                let gap = self::bytes(GAP * page_size);
                mapping.punch_gap(self::bytes(after * page_size), gap)?;
            }
            let address = mapping.address(self::bytes(start * page_size));
            regions.push(Region { address, page, pages });
            page += pages;
        }
        Ok(Self { mapping, page_size, regions })
    }

    /// Pages of all regions.
    pub(crate) fn pages(&self) -> u64 {
        self.regions.iter().map(|region| region.pages).sum()
    }

    /// The address of a page.
    pub(crate) fn address(&self, page: u64) -> Result<u64, OutOfRange> {
        let region = self.region(page)?;
        Ok(region.address + (page - region.page) * self.page_size)
    }

    /// Parts of `page..page + count` that have consecutive addresses, as (page, count).
    pub(crate) fn spans(&self, page: u64, count: u64) -> Result<Vec<(u64, u64)>, OutOfRange> {
        let end = page.checked_add(count).filter(|&end| end <= self.pages()).ok_or(OutOfRange)?;
        let mut spans = Vec::new();
        let mut page = page;
        while page < end {
            let region = self.region(page)?;
            let span = end.min(region.page + region.pages) - page;
            spans.push((page, span));
            page += span;
        }
        Ok(spans)
    }

    /// The words of a page.
    pub(crate) fn words(&self, page: u64) -> Result<&'static [AtomicU64], OutOfRange> {
        Ok(self.mapping.words(self.offset(page)?, bytes(self.page_size)))
    }

    /// The words of a page as they are now.
    pub(crate) fn values(
        &self,
        page: u64,
    ) -> Result<impl DoubleEndedIterator<Item = u64> + Clone + use<>, OutOfRange> {
        Ok(self.words(page)?.iter().map(|word| word.load(Ordering::Relaxed)))
    }

    /// Reads the word at byte `at` of a page.
    pub(crate) fn load(&self, page: u64, at: u64) -> Result<Result<u64, Poisoned>, OutOfRange> {
        Ok(self.mapping.load(self.offset(page)? + self.inside(at)))
    }

    /// Writes the word at byte `at` of a page.
    pub(crate) fn store(
        &self,
        page: u64,
        at: u64,
        word: u64,
    ) -> Result<Result<(), Poisoned>, OutOfRange> {
        Ok(self.mapping.store(self.offset(page)? + self.inside(at), word))
    }

    /// Writes a page whole, as the snapshot has it if `stamp` is 0, its zero pages aside.
    pub(crate) fn fill(&self, page: u64, pattern: &Pattern, stamp: u32) -> Result<(), OutOfRange> {
        let start = page * self.page_size;
        for (offset, word) in (start..).step_by(8).zip(self.words(page)?) {
            word.store(pattern.word(offset, stamp), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Where in the mapping a page lies.
    fn offset(&self, page: u64) -> Result<usize, OutOfRange> {
        Ok(bytes(self.address(page)? - self.mapping.address(0)))
    }

    fn inside(&self, at: u64) -> usize {
        bytes((at % self.page_size) & !7)
    }

    fn region(&self, page: u64) -> Result<&Region, OutOfRange> {
        let after = self.regions.partition_point(|region| region.page + region.pages <= page);
        self.regions.get(after).ok_or(OutOfRange)
    }

    /// The mapping and where in it the page lies, for the system calls.
    pub(crate) fn mapped(&self, page: u64) -> Result<(Mapping, usize), OutOfRange> {
        Ok((self.mapping, self.offset(page)?))
    }
}

/// A count of bytes as the architecture counts them.
pub(crate) fn bytes(count: u64) -> usize {
    usize::try_from(count).expect("memory of a 64-bit process")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_arranged_as_asked() {
        assert_eq!(arrange(&[3, 1, 2], Place::Rising), (vec![0, 3, 4], 6));
        assert_eq!(arrange(&[3, 1, 2], Place::Falling), (vec![3, 2, 0], 6));
        assert_eq!(arrange(&[3, 1, 2], Place::Apart), (vec![0, 19, 36], 38));
    }

    #[test]
    fn a_falling_region_lies_directly_below() {
        let memory = Memory::map(&[8, 4], 4096, Place::Falling).unwrap();
        let [first, second] = memory.regions[..] else { panic!() };
        assert_eq!(second.address + 4 * 4096, first.address);
        assert_eq!(memory.address(8), Ok(second.address));
        assert_eq!(memory.address(12), Err(OutOfRange));
        assert_eq!(memory.spans(6, 4), Ok(vec![(6, 2), (8, 2)]));
        assert_eq!(memory.spans(6, 7), Err(OutOfRange));
    }

    #[test]
    fn words_are_kept() {
        let memory = Memory::map(&[2, 2], 4096, Place::Apart).unwrap();
        memory.store(2, 8, 77).unwrap().unwrap();
        assert_eq!(memory.load(2, 8), Ok(Ok(77)));
        assert_eq!(memory.values(2).unwrap().nth(1), Some(77));
        let (mapping, offset) = memory.mapped(2).unwrap();
        mapping.dont_need(offset, 4096).unwrap();
        assert_eq!(memory.load(2, 8), Ok(Ok(0)));
    }
}
