//! The faults in hand: read from the kernel, which forgets them, and owned until they are served.

use std::time::{Duration, Instant};

use super::next::Next;
use super::pause::Pauses;
use crate::policy::Access;
use crate::units::{PageIndex, PageRange};

/// What a thread waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The page is missing.
    Missing {
        /// Whether it will be written.
        write: bool,
    },
    /// The page is there and write-protected.
    Protect,
}

impl Kind {
    pub(super) const fn access(self) -> Access {
        match self {
            Self::Missing { write: false } => Access::Read,
            Self::Missing { write: true } | Self::Protect => Access::Write,
        }
    }
}

/// What keeps a page from being had, as opposed to what keeps it waiting for a moment.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    NoMemory,
    Source(crate::source::SourceError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// To be served now.
    Ready,
    /// Something stood in the way: to be tried again at this time.
    Deferred(Instant),
    /// Its bytes are being fetched.
    Parked,
    /// Done; leaves the hand at the end of the step.
    Served,
}

#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) page: PageIndex,
    pub(super) kind: Kind,
    pub(super) read_at: Instant,
    /// Of the time since, what does not count: nobody could have served it.
    pub(super) lost: Duration,
    pub(super) phase: Phase,
    /// How often it was put off.
    pub(super) attempts: u32,
    /// Filled on its own, after its neighbourhood made trouble.
    pub(super) alone: bool,
    pub(super) trouble: Option<Trouble>,
}

impl Fault {
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.kind, Kind::Missing { .. })
    }

    /// When it has waited for so long; never, where the clock does not reach that far.
    pub(super) fn due(&self, deadline: Duration) -> Option<Instant> {
        self.read_at.checked_add(deadline)?.checked_add(self.lost)
    }

    /// What it waits for does not come: it is looked up again.
    pub(super) fn unpark(&mut self) {
        if self.phase == Phase::Parked {
            self.phase = Phase::Ready;
        }
    }

    /// Puts the fault off, each time longer.
    pub(super) fn defer(&mut self, now: Instant, pauses: Pauses) {
        self.phase = Phase::Deferred(now + pauses.after(self.attempts));
        self.attempts = self.attempts.saturating_add(1);
    }
}

/// Faults in the order they were read, one for each page and kind: as many as there are threads
/// that wait, at the most.
#[derive(Debug, Default)]
pub(super) struct Hand {
    faults: Vec<Fault>,
}

impl Hand {
    /// Takes a fault in. If its page's is in hand already the two are one, and a write wins. One
    /// that is served answers nobody any more: the page may have been given back since.
    pub(super) fn take(&mut self, page: PageIndex, kind: Kind, read_at: Instant) -> bool {
        let same = |fault: &&mut Fault| {
            fault.page == page
                && fault.is_missing() == matches!(kind, Kind::Missing { .. })
                && fault.phase != Phase::Served
        };
        if let Some(fault) = self.faults.iter_mut().find(same) {
            if kind == (Kind::Missing { write: true }) {
                fault.kind = kind;
            }
            return false;
        }
        let phase = Phase::Ready;
        self.faults.push(Fault {
            page,
            kind,
            read_at,
            lost: Duration::ZERO,
            phase,
            attempts: 0,
            alone: false,
            trouble: None,
        });
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.faults.len()
    }

    pub(super) fn get(&self, index: usize) -> &Fault {
        &self.faults[index]
    }

    pub(super) fn get_mut(&mut self, index: usize) -> &mut Fault {
        &mut self.faults[index]
    }

    /// On whose behalf `page` would be installed now.
    pub(super) fn access_wanted(&self, page: PageIndex) -> Access {
        let wanted = self.faults.iter().find(|fault| fault.is_missing() && fault.page == page);
        wanted.map_or(Access::Ahead, |fault| fault.kind.access())
    }

    /// The start of `run` before the next page, after its first, that a thread waits to write.
    pub(super) fn until_next_write(&self, run: PageRange) -> PageRange {
        let writes = self.faults.iter().filter(|fault| {
            fault.kind == Kind::Missing { write: true }
                && fault.page > run.start
                && run.contains(fault.page)
        });
        let end = writes.map(|fault| fault.page).min().unwrap_or(run.end);
        PageRange { end, ..run }
    }

    /// The missing-page faults in `pages` that are not served yet.
    pub(super) fn missing_in(&mut self, pages: PageRange) -> impl Iterator<Item = &mut Fault> {
        self.faults
            .iter_mut()
            .filter(move |fault| fault.is_missing() && pages.contains(fault.page))
            .filter(|fault| fault.phase != Phase::Served)
    }

    /// The pages of faults that are served and have not left the hand.
    pub(super) fn served(&self) -> impl Iterator<Item = PageIndex> {
        self.faults.iter().filter(|fault| fault.phase == Phase::Served).map(|fault| fault.page)
    }

    /// Whether a fault on one of `pages` waits for its bytes.
    pub(super) fn is_parked_in(&self, pages: PageRange) -> bool {
        self.faults.iter().any(|fault| fault.phase == Phase::Parked && pages.contains(fault.page))
    }

    pub(super) fn drop_served(&mut self) {
        self.faults.retain(|fault| fault.phase != Phase::Served);
    }

    /// When there is something to do for one of them: served now, tried again, or given up.
    pub(super) fn next(&self, deadline: Duration) -> Next {
        self.faults.iter().fold(Next::Never, |next, fault| {
            next.or(|| match fault.phase {
                Phase::Ready | Phase::Served => Next::Now,
                Phase::Deferred(at) => Next::At(at),
                Phase::Parked => fault.due(deadline).into(),
            })
        })
    }

    /// When the next deferred fault is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |fault: &Fault| match fault.phase {
            Phase::Deferred(at) => Some(at),
            _ => None,
        };
        self.faults.iter().filter_map(due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Kind = Kind::Missing { write: false };
    const WRITE: Kind = Kind::Missing { write: true };

    #[test]
    fn one_fault_for_each_page_and_kind_and_a_write_wins() {
        let now = Instant::now();
        let mut hand = Hand::default();
        let page = PageIndex(3);
        assert!(hand.take(page, READ, now));
        assert!(!hand.take(page, READ, now));
        assert_eq!(hand.get(0).kind, READ);
        assert!(!hand.take(page, WRITE, now));
        assert_eq!(hand.get(0).kind, WRITE);
        assert!(!hand.take(page, READ, now));
        assert_eq!(hand.get(0).kind, WRITE);
        assert!(hand.take(page, Kind::Protect, now));
        assert!(!hand.take(page, Kind::Protect, now));
        assert!(hand.take(PageIndex(4), READ, now));
        assert_eq!(hand.len(), 3);
    }

    #[test]
    fn a_served_fault_does_not_stand_for_a_new_one() {
        let now = Instant::now();
        let mut hand = Hand::default();
        hand.take(PageIndex(3), READ, now);
        hand.get_mut(0).phase = Phase::Served;
        assert!(hand.take(PageIndex(3), READ, now));
        hand.drop_served();
        assert_eq!(hand.len(), 1);
    }
}
