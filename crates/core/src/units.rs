//! The units memory is counted in. A page index is not an address is not an offset: each has a
//! type, and only a [`Layout`](crate::layout::Layout) turns one into another.

use std::fmt;

/// The page size of a guest, one for all of its regions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageSize {
    /// 4096 bytes, anonymous memory.
    Small,
    /// 2 MiB, anonymous hugetlb memory.
    Huge,
}

impl PageSize {
    /// The page size of `bytes`, if it is one that can be served.
    pub const fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            4096 => Some(Self::Small),
            0x20_0000 => Some(Self::Huge),
            _ => None,
        }
    }

    /// Bytes in one page.
    pub const fn bytes(self) -> u64 {
        1 << self.shift()
    }

    /// The base-2 logarithm of the page size.
    pub const fn shift(self) -> u32 {
        match self {
            Self::Small => 12,
            Self::Huge => 21,
        }
    }

    /// Rounds down to a page boundary.
    pub const fn floor(self, value: u64) -> u64 {
        value & !(self.bytes() - 1)
    }

    /// Whether `value` lies on a page boundary.
    pub const fn is_aligned(self, value: u64) -> bool {
        value & (self.bytes() - 1) == 0
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Small => "4 KiB",
            Self::Huge => "2 MiB",
        })
    }
}

/// An address in the guest process (Firecracker), in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestAddr(pub u64);

impl fmt::Debug for GuestAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for GuestAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A page of the snapshot: its offset in the memory file divided by the page size.
///
/// Indices are dense over all regions, whatever the order of their addresses, and mean the same
/// in every restore of one snapshot. That makes them the currency of states, traces and exports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(pub u64);

impl PageIndex {
    /// The byte at which this page starts in the snapshot.
    pub const fn offset(self, page_size: PageSize) -> u64 {
        self.0 << page_size.shift()
    }

    /// The next page.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for PageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Pages `start..end`; empty where `start >= end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageRange {
    /// The first page.
    pub start: PageIndex,
    /// The page after the last.
    pub end: PageIndex,
}

impl PageRange {
    /// Pages `start..end`.
    pub const fn new(start: u64, end: u64) -> Self {
        Self { start: PageIndex(start), end: PageIndex(end) }
    }

    /// The one page `page`.
    pub const fn single(page: PageIndex) -> Self {
        Self { start: page, end: page.next() }
    }

    /// How many pages there are in the range.
    pub const fn len(self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether the range has no pages.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether `page` lies in the range.
    pub fn contains(self, page: PageIndex) -> bool {
        self.start <= page && page < self.end
    }

    /// The pages that lie in both ranges.
    pub fn intersect(self, other: Self) -> Self {
        Self { start: self.start.max(other.start), end: self.end.min(other.end) }
    }

    /// Each page of the range, in order.
    pub fn pages(self) -> impl DoubleEndedIterator<Item = PageIndex> {
        (self.start.0..self.end.0).map(PageIndex)
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}
