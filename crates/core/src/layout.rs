//! Where guest memory lies: its regions, and the only way from an address to a page of the
//! snapshot and back.

use thiserror::Error;

use crate::units::{GuestAddr, PageIndex, PageRange, PageSize};

#[cfg(test)]
mod tests;

/// Up to this many regions are looked through in order; a guest rarely has more than two.
const FEW: usize = 8;

/// A run of guest memory that is contiguous both in the guest process and in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Where the region starts in the guest process.
    pub base: GuestAddr,
    /// Its pages of the snapshot.
    pub pages: PageRange,
}

impl Region {
    /// Bytes in the region.
    pub const fn size(&self, page_size: PageSize) -> u64 {
        self.pages.len() << page_size.shift()
    }

    /// The address after the region's last byte.
    pub const fn end(&self, page_size: PageSize) -> GuestAddr {
        GuestAddr(self.base.0 + self.size(page_size))
    }

    /// The byte at which the region starts in the snapshot.
    pub const fn offset(&self, page_size: PageSize) -> u64 {
        self.pages.start.offset(page_size)
    }
}

/// Pages that follow each other both in the guest process and in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where the first page starts in the guest process.
    pub addr: GuestAddr,
    /// The pages; never none.
    pub pages: PageRange,
}

/// Why regions do not make up a guest's memory. Regions are numbered from 0, in the order given.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// There is no memory to serve.
    #[error("the list of regions is empty: a guest has at least one")]
    NoRegions,
    /// A region has no bytes.
    #[error("region {region}: size is 0: leave the region out, or give it its size in bytes")]
    Empty {
        /// The region's number.
        region: usize,
    },
    /// A region starts in the middle of a page.
    #[error(
        "region {region}: base_host_virt_addr {base} is no multiple of the page size, \
         {page_size}: the VMM has to map the region on a page boundary"
    )]
    UnalignedBase {
        /// The region's number.
        region: usize,
        /// Where it starts.
        base: GuestAddr,
        /// The guest's page size.
        page_size: PageSize,
    },
    /// A region would end beyond the last address there is.
    #[error(
        "region {region}: base_host_virt_addr {base} + size {size} runs past the end of the \
         address space: one of the two is wrong"
    )]
    AddressOverflow {
        /// The region's number.
        region: usize,
        /// Where it starts.
        base: GuestAddr,
        /// Its size in bytes.
        size: u64,
    },
    /// A region would end beyond the last offset a file can have.
    #[error("region {region}: pages {pages} lie past any offset a file can have")]
    OffsetOverflow {
        /// The region's number.
        region: usize,
        /// Its pages of the snapshot.
        pages: PageRange,
    },
    /// Two regions share addresses.
    #[error(
        "region {region}: base_host_virt_addr {base} lies inside region {other}, which ends at \
         {end}: two regions cannot share an address"
    )]
    AddressOverlap {
        /// The number of the region that starts inside the other.
        region: usize,
        /// Where it starts.
        base: GuestAddr,
        /// The number of the other region.
        other: usize,
        /// The address after the other's last byte.
        end: GuestAddr,
    },
    /// Two regions share bytes of the snapshot.
    #[error(
        "region {region}: offset {offset} lies inside region {other}, which ends at offset {end}: \
         two regions cannot share bytes of the snapshot"
    )]
    OffsetOverlap {
        /// The number of the region that starts inside the other.
        region: usize,
        /// The byte at which it starts in the snapshot.
        offset: u64,
        /// The number of the other region.
        other: usize,
        /// The byte of the snapshot after the other's last.
        end: u64,
    },
}

/// The memory of one guest: where each page of the snapshot lies in the guest process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    page_size: PageSize,
    /// In order of snapshot offset.
    by_page: Box<[Region]>,
    /// The same regions in order of address, which need not be the order of their offsets.
    by_addr: Box<[Region]>,
}

impl Layout {
    /// Puts regions together, which may come in any order and leave gaps, but share nothing.
    pub fn new(page_size: PageSize, regions: Vec<Region>) -> Result<Self, LayoutError> {
        if regions.is_empty() {
            return Err(LayoutError::NoRegions);
        }
        for (number, region) in regions.iter().enumerate() {
            check_region(number, region, page_size)?;
        }

        let mut numbered: Vec<(usize, Region)> = regions.into_iter().enumerate().collect();
        let in_order = |numbered: &[(usize, Region)]| numbered.iter().map(|(_, r)| *r).collect();

        numbered.sort_by_key(|(_, r)| r.base);
        for ((other, low), (region, high)) in neighbours(&numbered) {
            let end = low.end(page_size);
            if high.base < end {
                return Err(LayoutError::AddressOverlap { region, base: high.base, other, end });
            }
        }
        let by_addr = in_order(&numbered);

        numbered.sort_by_key(|(_, r)| r.pages.start);
        for ((other, low), (region, high)) in neighbours(&numbered) {
            if high.pages.start < low.pages.end {
                let (offset, end) = (high.offset(page_size), low.pages.end.offset(page_size));
                return Err(LayoutError::OffsetOverlap { region, offset, other, end });
            }
        }
        Ok(Self { page_size, by_page: in_order(&numbered), by_addr })
    }

    /// The page size of every region.
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The regions in order of snapshot offset.
    pub fn regions(&self) -> &[Region] {
        &self.by_page
    }

    /// The page after the highest: a table with one entry a page has this many.
    pub fn page_end(&self) -> PageIndex {
        self.by_page.last().map_or(PageIndex(0), |r| r.pages.end)
    }

    /// How many pages belong to a region; fewer than [`page_end`](Self::page_end) where the
    /// snapshot has gaps.
    pub fn page_count(&self) -> u64 {
        self.by_page.iter().map(|r| r.pages.len()).sum()
    }

    /// The page that `addr` lies in, at whichever of its bytes.
    pub fn page_at(&self, addr: GuestAddr) -> Option<PageIndex> {
        let region = last_where(&self.by_addr, |r| r.base <= addr)?;
        let page = PageIndex(region.pages.start.0 + ((addr.0 - region.base.0) >> self.shift()));
        (page < region.pages.end).then_some(page)
    }

    /// Where `page` starts in the guest process.
    pub fn addr_of(&self, page: PageIndex) -> Option<GuestAddr> {
        Some(self.addr_in(self.region_of(page)?, page))
    }

    /// The region `page` belongs to.
    pub fn region_of(&self, page: PageIndex) -> Option<&Region> {
        last_where(&self.by_page, |r| r.pages.start <= page).filter(|r| page < r.pages.end)
    }

    /// The parts of `range` that lie in regions, split at every border between two, in order of
    /// snapshot offset.
    pub fn spans(&self, range: PageRange) -> impl Iterator<Item = Span> {
        let first = self.by_page.partition_point(|r| r.pages.end <= range.start);
        self.by_page[first..]
            .iter()
            .map(move |r| (r, r.pages.intersect(range)))
            .take_while(|(_, pages)| !pages.is_empty())
            .map(|(r, pages)| Span { addr: self.addr_in(r, pages.start), pages })
    }

    /// The pages that lie wholly in the addresses `start..end`, region by region in order of
    /// address. A page that sticks out at either end is left out: its other bytes are not meant.
    pub fn pages_inside(
        &self,
        start: GuestAddr,
        end: GuestAddr,
    ) -> impl Iterator<Item = PageRange> {
        let first = self.by_addr.partition_point(|r| r.end(self.page_size) <= start);
        self.by_addr[first..]
            .iter()
            .take_while(move |r| r.base < end)
            .map(move |r| {
                let skipped = start.0.saturating_sub(r.base.0).div_ceil(self.page_size.bytes());
                let reached = (end.0 - r.base.0) >> self.shift();
                let from = r.pages.start.0;
                // Both ends of a short range can round past each other; that is an empty one.
                PageRange::new(from + skipped, (from + reached).min(r.pages.end.0))
            })
            .filter(|pages| !pages.is_empty())
    }

    fn shift(&self) -> u32 {
        self.page_size.shift()
    }

    fn addr_in(&self, region: &Region, page: PageIndex) -> GuestAddr {
        GuestAddr(region.base.0 + ((page.0 - region.pages.start.0) << self.shift()))
    }
}

fn check_region(number: usize, region: &Region, page_size: PageSize) -> Result<(), LayoutError> {
    let Region { base, pages } = *region;
    if pages.is_empty() {
        return Err(LayoutError::Empty { region: number });
    }
    if !page_size.is_aligned(base.0) {
        return Err(LayoutError::UnalignedBase { region: number, base, page_size });
    }
    if pages.end.0 > u64::MAX >> page_size.shift() {
        return Err(LayoutError::OffsetOverflow { region: number, pages });
    }
    let size = region.size(page_size);
    if base.0.checked_add(size).is_none() {
        return Err(LayoutError::AddressOverflow { region: number, base, size });
    }
    Ok(())
}

/// Each two that follow each other.
fn neighbours<T: Copy>(sorted: &[T]) -> impl Iterator<Item = (T, T)> {
    sorted.iter().copied().zip(sorted.iter().skip(1).copied())
}

/// The last of the sorted `regions` that `starts_by` holds for.
fn last_where(regions: &[Region], starts_by: impl Fn(&Region) -> bool) -> Option<&Region> {
    let count = if regions.len() <= FEW {
        regions.iter().take_while(|r| starts_by(r)).count()
    } else {
        regions.partition_point(starts_by)
    };
    regions.get(count.checked_sub(1)?)
}
