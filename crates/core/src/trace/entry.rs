//! The first touch of a page.

use std::time::Duration;

use crate::units::PageIndex;

/// What a traced page was filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FilledWith {
    /// The snapshot's bytes.
    Source = 0,
    /// Zeros, because the snapshot holds zeros there.
    SourceZeros = 1,
    /// Zeros, because the guest had given the page back: no use to prefault it next time.
    Zeros = 2,
    /// Nothing new: the page was installed already, such as a neighbour that was written.
    Present = 3,
}

impl FilledWith {
    /// Everything a page can be filled with, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Source, Self::SourceZeros, Self::Zeros, Self::Present];

    /// The word for it, as users write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::SourceZeros => "source-zeros",
            Self::Zeros => "zeros",
            Self::Present => "present",
        }
    }

    /// The value with these two bits.
    pub(super) const fn from_bits(bits: u64) -> Self {
        match bits & 3 {
            0 => Self::Source,
            1 => Self::SourceZeros,
            2 => Self::Zeros,
            _ => Self::Present,
        }
    }
}

/// The first touch of a page, noted once it was served.
///
/// 16 bytes: the page in the low 48 bits, flags above it, then the time.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceEntry {
    bits: u64,
    time: u64,
}

const PAGE_BITS: u32 = 48;
const WRITE: u64 = 1 << PAGE_BITS;
const FILL_SHIFT: u32 = PAGE_BITS + 1;

impl TraceEntry {
    /// A first touch of `page`, served `time` after the handoff.
    pub fn new(page: PageIndex, write: bool, filled: FilledWith, time: Duration) -> Self {
        let bits = page.0 | if write { WRITE } else { 0 } | (filled as u64) << FILL_SHIFT;
        // Nanoseconds fill 64 bits after five centuries.
        Self { bits, time: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// The page.
    pub const fn page(self) -> PageIndex {
        PageIndex(self.bits & (WRITE - 1))
    }

    /// Whether the touch was a write, as far as the kernel said: a write may arrive as a read.
    pub const fn is_write(self) -> bool {
        self.bits & WRITE != 0
    }

    /// What the page was filled with.
    pub const fn filled_with(self) -> FilledWith {
        FilledWith::from_bits(self.bits >> FILL_SHIFT)
    }

    /// The time from the handoff until the touch was served.
    pub const fn time(self) -> Duration {
        Duration::from_nanos(self.time)
    }

    /// The entry as two words, page and flags first; [`from_words`](Self::from_words) reads it.
    pub const fn to_words(self) -> [u64; 2] {
        [self.bits, self.time]
    }

    /// Whether it is one that can be, whatever page it is of: words from elsewhere need not be.
    pub(crate) const fn is_whole(self) -> bool {
        self.bits >> FILL_SHIFT < FilledWith::ALL.len() as u64
    }

    /// The entry of two words.
    pub const fn from_words([bits, time]: [u64; 2]) -> Self {
        Self { bits, time }
    }
}

impl std::fmt::Debug for TraceEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceEntry")
            .field("page", &self.page().0)
            .field("write", &self.is_write())
            .field("filled", &self.filled_with())
            .field("time", &self.time())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_entry_keeps_what_it_was_given(
            page in 0..1_u64 << PAGE_BITS, write: bool, fill in 0..4_usize, time: u64
        ) {
            use FilledWith::{Present, Source, SourceZeros, Zeros};
            let filled = [Source, SourceZeros, Zeros, Present][fill];
            let entry = TraceEntry::new(PageIndex(page), write, filled, Duration::from_nanos(time));
            prop_assert_eq!(entry.page(), PageIndex(page));
            prop_assert_eq!(entry.is_write(), write);
            prop_assert_eq!(entry.filled_with(), filled);
            prop_assert_eq!(entry.time(), Duration::from_nanos(time));
            prop_assert_eq!(TraceEntry::from_words(entry.to_words()), entry);
        }
    }
}
