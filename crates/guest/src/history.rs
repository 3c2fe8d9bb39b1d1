//! What a page went through while a soak was at work on it, and which words it may hold.
//!
//! Every page has one owner, which alone writes it and gives it back. Each such act is a new
//! *version* of the page; versions count from 1, and 0 is the snapshot. A write of version v is
//! stamped v, so that a word tells its version: the snapshot, v, or zero for a page given back.
//! The owner keeps three numbers for each page:
//!
//! - `begun`: the last version begun, stored before the act;
//! - `zapped`: the last version begun that gave the page back, stored before the act;
//! - `base`: the last version *ended* that concerned the whole page, stored after the act.
//!
//! A version after `base` wrote a single word, at a place given by page and base. So the owner
//! knows each byte of its pages exactly. Anybody else loads `base` before reading the page, and
//! `begun` and `zapped` after it; then a word is legal
//!
//! - from the snapshot, if `base` was 0: nothing had replaced the page when the reading began;
//! - of version v, if `base <= v <= begun`;
//! - zero, if the page was given back by a version from `base` to `begun`, that is if
//!   `zapped >= base` and there is such a version, or if the snapshot has zeros and `base` was 0.

use std::sync::atomic::{AtomicU32, Ordering, fence};

use crate::pattern::Pattern;
use crate::random::Random;

/// What a page went through, kept from one soak to the next.
#[derive(Debug, Default)]
pub(crate) struct History {
    base: AtomicU32,
    begun: AtomicU32,
    zapped: AtomicU32,
}

/// A history at some time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Versions {
    pub(crate) base: u32,
    pub(crate) begun: u32,
    pub(crate) zapped: u32,
}

impl History {
    /// As its owner sees it.
    pub(crate) fn now(&self) -> Versions {
        Versions {
            base: self.base(),
            begun: self.begun.load(Ordering::Relaxed),
            zapped: self.zapped.load(Ordering::Relaxed),
        }
    }

    /// As somebody else sees it who has read the page since it had this base.
    pub(crate) fn since(&self, base: u32) -> Versions {
        fence(Ordering::Acquire);
        Versions { base, ..self.now() }
    }

    /// The last version that ended and concerned the whole page.
    pub(crate) fn base(&self) -> u32 {
        self.base.load(Ordering::Acquire)
    }

    /// Begins a version, and returns its number.
    pub(crate) fn begin(&self, zaps: bool) -> u32 {
        let version = self.begun.load(Ordering::Relaxed) + 1;
        if zaps {
            self.zapped.store(version, Ordering::Relaxed);
        }
        self.begun.store(version, Ordering::Relaxed);
        // Whoever sees a word of this version sees that it has begun.
        fence(Ordering::Release);
        version
    }

    /// Ends a version that concerned the whole page.
    pub(crate) fn end(&self, version: u32) {
        self.base.store(version, Ordering::Release);
    }
}

impl Versions {
    /// Whether `word` at byte `offset` of the snapshot, in `page`, can be there.
    pub(crate) fn allow(self, pattern: &Pattern, page: u64, offset: u64, word: u64) -> bool {
        let hole = pattern.is_zero(page);
        if word == 0 {
            return (self.zapped > 0 && self.zapped >= self.base) || (self.base == 0 && hole);
        }
        match pattern.stamp_of(offset, word) {
            Some(0) => self.base == 0 && !hole,
            Some(version) => (self.base..=self.begun).contains(&version),
            None => false,
        }
    }

    /// The word at `offset`, if nobody is at work on the page.
    pub(crate) fn word(self, pattern: &Pattern, page: u64, offset: u64) -> u64 {
        if self.begun > self.base && offset % pattern.page_size == self.patched(pattern, page) {
            return pattern.word(offset, self.begun);
        }
        let zero = match self.base {
            0 => pattern.is_zero(page),
            base => base == self.zapped,
        };
        if zero { 0 } else { pattern.word(offset, self.base) }
    }

    /// Which byte of the page its single words are written to.
    pub(crate) fn patched(self, pattern: &Pattern, page: u64) -> u64 {
        Random::new(page, u64::from(self.base)).below(pattern.page_size / 8) * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: Pattern = Pattern::new(3, 4096);

    #[test]
    fn a_page_holds_what_its_last_version_says() {
        let history = History::default();
        let word = || history.now().word(&PATTERN, 2, 2 * 4096);
        assert_eq!(word(), PATTERN.word(2 * 4096, 0));
        let written = history.begin(false);
        history.end(written);
        assert_eq!(word(), PATTERN.word(2 * 4096, written));
        let given_back = history.begin(true);
        history.end(given_back);
        assert_eq!(word(), 0);
    }

    #[test]
    fn a_reader_meets_versions_that_were_under_way_and_no_others() {
        let history = History::default();
        let offset = 8;
        let legal = |versions: Versions, word| versions.allow(&PATTERN, 0, offset, word);
        let of = |version| PATTERN.word(offset, version);
        let before = history.base();
        let written = history.begin(false);
        let during = history.since(before);
        assert!(legal(during, of(0)) && legal(during, of(written)));
        assert!(!legal(during, 0) && !legal(during, of(written + 1)));
        history.end(written);
        let after = history.since(history.base());
        assert!(!legal(after, of(0)) && legal(after, of(written)));
        let given_back = history.begin(true);
        let during = history.since(written);
        assert!(legal(during, 0) && legal(during, of(written)));
        history.end(given_back);
        assert!(!legal(history.since(given_back), of(written)));
    }
}
