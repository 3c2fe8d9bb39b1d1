//! What every word of guest memory is, as a function of where it is and who wrote it.
//!
//! A word mixes its offset in the snapshot with the stamp of its writer; stamp 0 is the snapshot
//! itself. The mix can be undone, so a wrong word tells where it came from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Pages that are zero by rule come in runs of this many bytes, or of one page if that is larger.
const ZERO_RUN: u64 = 64 << 10;

/// The contents of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pattern {
    /// Two seeds have no word in common.
    pub seed: u64,
    /// Bytes in a page.
    pub page_size: u64,
    /// How many of 1000 runs of pages are zero.
    pub zero_per_mille: u64,
    /// How many of 1000 pages are zero on their own.
    pub lone_zero_per_mille: u64,
}

/// What a page was found to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// The bytes of the snapshot.
    Source,
    /// Zeros only. A page which is zero in the snapshot too is reported as this.
    Zeros,
    /// Written whole with this stamp.
    Stamp(u32),
    /// One word written over a page which is otherwise intact.
    Patched {
        /// What the rest of the page holds.
        base: Box<Content>,
        /// The offset of the word in the page.
        at: u64,
        /// Its stamp.
        stamp: u32,
    },
    /// The access raised SIGBUS.
    Poisoned,
    /// None of these.
    Other(Mismatch),
}

/// The first wrong word of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// Its offset in the page.
    pub at: u64,
    /// What it is, in hexadecimal.
    pub word: String,
    /// What it would be if the page were as its other words say.
    pub expected: String,
    /// Where in the snapshot it belongs, if it is a word of the snapshot.
    pub origin: Option<u64>,
}

impl Pattern {
    /// A snapshot of `page_size` pages without any zero page.
    pub const fn new(seed: u64, page_size: u64) -> Self {
        Self { seed, page_size, zero_per_mille: 0, lone_zero_per_mille: 0 }
    }

    /// Makes `per_mille` of the runs of pages zero.
    pub const fn with_zero_runs(self, per_mille: u64) -> Self {
        Self { zero_per_mille: per_mille, ..self }
    }

    /// Makes `per_mille` of the pages zero, each on its own.
    pub const fn with_lone_zeros(self, per_mille: u64) -> Self {
        Self { lone_zero_per_mille: per_mille, ..self }
    }

    /// Whether page `page` of the snapshot is zero.
    pub const fn is_zero(&self, page: u64) -> bool {
        let run = if self.page_size > ZERO_RUN { self.page_size } else { ZERO_RUN };
        let of_run = mix(self.salt() ^ (page * self.page_size / run));
        let of_page = mix(mix(self.salt()) ^ page);
        of_run % 1000 < self.zero_per_mille || of_page % 1000 < self.lone_zero_per_mille
    }

    /// What a read of page `page` finds if it was never written nor removed.
    pub const fn source(&self, page: u64) -> Content {
        if self.is_zero(page) { Content::Zeros } else { Content::Source }
    }

    /// The word at byte `offset` of the snapshot as written with `stamp`; stamp 0 is the
    /// snapshot's own word, its zero pages aside.
    pub const fn word(&self, offset: u64, stamp: u32) -> u64 {
        mix(self.key(offset) ^ stamp as u64)
    }

    /// The stamp with which `word` was written at `offset`, if it was: 0 for the snapshot.
    pub const fn stamp_of(&self, offset: u64, word: u64) -> Option<u32> {
        let stamp = unmix(word) ^ self.key(offset);
        if stamp >> 32 == 0 {
            #[allow(clippy::cast_possible_truncation, reason = "the upper half is zero")]
            return Some(stamp as u32);
        }
        None
    }

    /// Where in the snapshot `word` is found, if it is a word of a snapshot of less than 1 PiB.
    pub const fn origin(&self, word: u64) -> Option<u64> {
        let index = unmix(word).wrapping_sub(self.salt()).wrapping_mul(inverse(STEP));
        if index < 1 << 47 { Some(index * 8) } else { None }
    }

    /// Writes bytes `offset..` of the snapshot, zero pages included.
    ///
    /// # Panics
    /// If offset or length are not those of whole pages.
    pub fn fill(&self, offset: u64, bytes: &mut [u8]) {
        assert!(offset.is_multiple_of(self.page_size), "{offset} starts no page");
        let page_size = usize::try_from(self.page_size).expect("a page fits in memory");
        let pages = bytes.chunks_exact_mut(page_size);
        for (page, bytes) in (offset / self.page_size..).zip(pages) {
            if self.is_zero(page) {
                bytes.fill(0);
                continue;
            }
            let offsets = (page * self.page_size..).step_by(8);
            for (offset, word) in offsets.zip(bytes.chunks_exact_mut(8)) {
                word.copy_from_slice(&self.word(offset, 0).to_ne_bytes());
            }
        }
    }

    /// Tells what page `page` holds, given its words.
    pub fn classify(
        &self,
        page: u64,
        words: impl DoubleEndedIterator<Item = u64> + Clone,
    ) -> Content {
        // Two words of opposite ends cannot both be patched: one of them tells the base.
        let ends = [words.clone().next_back(), words.clone().next()];
        let last = page * self.page_size + self.page_size - 8;
        let guesses = [last, page * self.page_size].into_iter().zip(ends);
        let mut answer = None;
        for base in guesses.filter_map(|(offset, word)| self.guess(offset, word?)) {
            let found = self.compare(page, &base, words.clone());
            if !matches!(found, Content::Other(_)) {
                return found;
            }
            answer = answer.or(Some(found));
        }
        answer.unwrap_or_else(|| self.compare(page, &self.source(page), words))
    }

    /// What the page is which has `word` at `offset`.
    fn guess(&self, offset: u64, word: u64) -> Option<Content> {
        if word == 0 {
            return Some(Content::Zeros);
        }
        self.stamp_of(offset, word).map(|stamp| match stamp {
            0 => Content::Source,
            stamp => Content::Stamp(stamp),
        })
    }

    /// `base` if the page is that, or the first difference.
    fn compare(&self, page: u64, base: &Content, words: impl Iterator<Item = u64>) -> Content {
        let start = page * self.page_size;
        let stamp = match base {
            Content::Stamp(stamp) => Some(*stamp),
            Content::Source => Some(0),
            _ => None,
        };
        let mut patch = None;
        for (offset, word) in (start..).step_by(8).zip(words) {
            let expected = stamp.map_or(0, |stamp| self.word(offset, stamp));
            if word == expected {
                continue;
            }
            match self.stamp_of(offset, word) {
                Some(stamp) if stamp != 0 && patch.is_none() => {
                    patch = Some((offset - start, stamp))
                }
                _ => {
                    return Content::Other(Mismatch {
                        at: offset - start,
                        word: format!("{word:#018x}"),
                        expected: format!("{expected:#018x}"),
                        origin: self.origin(word),
                    });
                }
            }
        }
        match patch {
            Some((at, stamp)) => Content::Patched { base: Box::new(base.clone()), at, stamp },
            None => base.clone(),
        }
    }

    const fn salt(&self) -> u64 {
        mix(self.seed ^ 0x6775_6573_7421)
    }

    const fn key(&self, offset: u64) -> u64 {
        (offset / 8).wrapping_mul(STEP).wrapping_add(self.salt())
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source => f.write_str("the snapshot"),
            Self::Zeros => f.write_str("zeros"),
            Self::Stamp(stamp) => write!(f, "stamp {stamp}"),
            Self::Patched { base, at, stamp } => {
                write!(f, "{base} with stamp {stamp} at byte {at}")
            }
            Self::Poisoned => f.write_str("SIGBUS"),
            Self::Other(Mismatch { at, word, expected, origin }) => {
                write!(f, "{word} at byte {at} instead of {expected}")?;
                origin.map_or(Ok(()), |origin| write!(f, ", which belongs at byte {origin}"))
            }
        }
    }
}

/// Odd, so that multiplying by it loses nothing.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const SCATTER: u64 = 0xd6e8_feb8_6659_fd93;

/// Spreads every bit over the word, without loss.
pub(crate) const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 32)).wrapping_mul(SCATTER);
    x ^ (x >> 29)
}

/// The inverse of [`mix`].
const fn unmix(x: u64) -> u64 {
    let x = (x ^ (x >> 29) ^ (x >> 58)).wrapping_mul(inverse(SCATTER));
    x ^ (x >> 32)
}

/// The number that undoes a multiplication by the odd `x`, by Newton's iteration.
const fn inverse(x: u64) -> u64 {
    let mut y = x;
    let mut round = 0;
    while round < 5 {
        y = y.wrapping_mul(2u64.wrapping_sub(x.wrapping_mul(y)));
        round += 1;
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: Pattern = Pattern::new(7, 4096);

    fn page_of(page: u64, stamp: u32) -> Vec<u64> {
        (0..512).map(|i| PATTERN.word(page * 4096 + i * 8, stamp)).collect()
    }

    fn classify(page: u64, words: &[u64]) -> Content {
        PATTERN.classify(page, words.iter().copied())
    }

    #[test]
    fn mixing_can_be_undone() {
        for x in [0, 1, 42, u64::MAX, 1 << 63, 0x1234_5678_9abc_def0] {
            assert_eq!(unmix(mix(x)), x);
        }
    }

    #[test]
    fn every_kind_of_page_is_recognised() {
        assert_eq!(classify(3, &page_of(3, 0)), Content::Source);
        assert_eq!(classify(3, &page_of(3, 9)), Content::Stamp(9));
        assert_eq!(classify(3, &[0; 512]), Content::Zeros);
    }

    #[test]
    fn a_patched_word_is_recognised_wherever_it_is() {
        for at in [0, 1, 300, 511] {
            for (base, mut words) in
                [(Content::Source, page_of(3, 0)), (Content::Zeros, vec![0; 512])]
            {
                words[at] = PATTERN.word(3 * 4096 + at as u64 * 8, 5);
                let base = Box::new(base);
                let patched = Content::Patched { base, at: at as u64 * 8, stamp: 5 };
                assert_eq!(classify(3, &words), patched);
            }
        }
    }

    #[test]
    fn a_page_in_the_wrong_place_tells_where_it_belongs() {
        let Content::Other(mismatch) = classify(3, &page_of(4, 0)) else { panic!() };
        assert_eq!((mismatch.at, mismatch.origin), (0, Some(4 * 4096)));
    }

    #[test]
    fn a_torn_page_is_neither_half() {
        let mut words = page_of(3, 0);
        words[..256].fill(0);
        assert!(matches!(classify(3, &words), Content::Other(Mismatch { at: 0 | 2048, .. })));
    }

    #[test]
    fn snapshots_of_other_seeds_share_nothing() {
        let other = Pattern::new(8, 4096);
        let words = page_of(3, 0);
        assert!(matches!(other.classify(3, words.into_iter()), Content::Other(_)));
    }

    #[test]
    fn zero_pages_come_in_runs_about_as_often_as_asked() {
        let pattern = PATTERN.with_zero_runs(250);
        let zeros = (0..16_000).filter(|&page| pattern.is_zero(page)).count();
        assert!((3200..4800).contains(&zeros), "{zeros}");
        for run in 0..1000 {
            let first = pattern.is_zero(run * 16);
            assert!((1..16).all(|i| pattern.is_zero(run * 16 + i) == first));
        }
    }

    #[test]
    fn fill_writes_words_and_zero_pages() {
        let pattern = PATTERN.with_lone_zeros(500);
        let mut bytes = vec![1; 64 * 4096];
        pattern.fill(8 * 4096, &mut bytes);
        for (page, bytes) in (8..).zip(bytes.chunks(4096)) {
            let words = bytes.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
            assert_eq!(
                pattern.classify(page, words.collect::<Vec<_>>().into_iter()),
                pattern.source(page)
            );
        }
    }
}
