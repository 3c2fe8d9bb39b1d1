//! Ranges of 2 MiB of which every page is installed become transparent huge pages, by option: in the
//! background, one after the other, those that the guest touched most first, and while no fault
//! comes. The kernel does it, on another thread; it changes no byte and fills no page that is
//! missing, so nothing here depends on when.

use std::time::{Duration, Instant};

use super::guest::Guest;
use super::next::Next;
use crate::collapser::{self, Job, Verdict};
use crate::contract::{Mailbox, Message, Notice};
use crate::identity::Owner;
use crate::kernel::Collapse;
use crate::layout::{Layout, Region};
use crate::policy::Tracking;
use crate::states::PageState;
use crate::units::{PageIndex, PageRange, PageSize};

/// Pages of a range.
const PAGES: u64 = Collapse::BYTES / 4096;

/// No fault has come for so long.
const QUIET: Duration = Duration::from_millis(50);

/// Ranges looked at in one turn.
const LOOK: usize = 32;

/// The pause before all ranges are looked at again, while there is something to gain and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(64));

/// Second tries for ranges that were busy, before the next time round.
const RETRIES: u32 = 16;

/// The ranges of one guest.
pub(super) struct Collapses {
    mailbox: Mailbox,
    /// The first page of each range.
    ranges: Box<[PageIndex]>,
    /// Ranges that need no second try, until memory is given back.
    settled: Box<[bool]>,
    /// The next range to look at.
    at: usize,
    /// Complete ranges and how many of their pages were touched, the best last.
    found: Vec<(usize, usize)>,
    /// The one that is being collapsed.
    under_way: Option<usize>,
    /// Nothing is done before.
    due: Instant,
    pause: Duration,
    /// Something was collapsed this time round.
    gained: bool,
    /// Something was not that could be later.
    put_off: bool,
    /// Second tries that are left this time round.
    retries: u32,
    /// Faults, pages given back and pages prefaulted, when the guest was last looked at and when all
    /// of it was looked at for the last time.
    seen: Seen,
    finished: Option<Seen>,
    removed: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    faults: u64,
    removed: u64,
    prefaulted: u64,
}

impl Seen {
    fn of(guest: &Guest) -> Self {
        let counters = &guest.memory.counters;
        Self {
            faults: counters.faults(),
            removed: counters.removed_pages,
            prefaulted: counters.prefault_pages,
        }
    }
}

impl Collapses {
    /// For a guest of small pages that is to have it.
    pub(super) fn new(guest: &Guest, mailbox: Mailbox) -> Option<Self> {
        if !guest.options.collapse || guest.memory.page_size() == PageSize::Huge {
            return None;
        }
        let ranges = ranges_in(guest.memory.layout());
        Some(Self {
            mailbox,
            settled: vec![false; ranges.len()].into(),
            ranges,
            at: 0,
            found: Vec::new(),
            under_way: None,
            due: Instant::now() + QUIET,
            pause: PAUSE.0,
            gained: false,
            put_off: false,
            retries: RETRIES,
            seen: Seen::default(),
            finished: None,
            removed: 0,
        })
    }

    /// When there is something to do, if nothing happens until then.
    pub(super) fn next(&self, guest: &Guest) -> Next {
        let nothing_new = || self.finished == Some(Seen::of(guest));
        if self.ranges.is_empty() || self.under_way.is_some() || nothing_new() {
            return Next::Never;
        }
        Next::At(self.due)
    }

    /// Looks at some ranges, or sends for one.
    pub(super) fn step(&mut self, guest: &mut Guest, prefaulting: bool) {
        if self.next(guest) == Next::Never || Instant::now() < self.due {
            return;
        }
        let seen = Seen::of(guest);
        let before = std::mem::replace(&mut self.seen, seen);
        if prefaulting || !guest.hand.is_empty() || before != seen {
            self.due = Instant::now() + QUIET;
            return;
        }
        if self.at < self.ranges.len() {
            self.look(guest);
        } else if let Some((range, _)) = self.found.pop() {
            self.send_for(range, guest);
        } else {
            self.begin_again(seen);
        }
    }

    fn look(&mut self, guest: &Guest) {
        if self.at == 0
            && std::mem::replace(&mut self.removed, self.seen.removed) != self.seen.removed
        {
            self.settled.fill(false);
        }
        let end = self.ranges.len().min(self.at + LOOK);
        for range in std::mem::replace(&mut self.at, end)..end {
            let pages = self.pages(range);
            if !self.settled[range] && is_complete(guest, pages) {
                self.found.push((range, guest.memory.states.count_touched(pages)));
            }
        }
        if self.at == self.ranges.len() {
            self.found.sort_by_key(|(_, touched)| *touched);
        }
    }

    fn send_for(&mut self, range: usize, guest: &mut Guest) {
        let first = self.ranges[range];
        let Some(start) = guest.memory.layout().addr_of(first) else { return };
        if !is_complete(guest, self.pages(range)) {
            return;
        }
        let identity = guest.memory.identity().clone();
        match identity.owner() {
            Owner::Peer => {}
            Owner::Unproven => return self.rest(),
            Owner::Other | Owner::Unknowable => {
                return self.give_up(guest, "its process is not known, or may not be looked into");
            }
        }
        let mailbox = self.mailbox.clone();
        let done = Box::new(move |answer| mailbox.post(Message::Collapsed(answer)));
        if collapser::submit(Job { identity, start, done }) {
            self.under_way = Some(range);
        } else {
            self.rest();
        }
    }

    /// What came of the range that was sent for.
    pub(super) fn answered(&mut self, answer: Verdict, guest: &mut Guest) {
        let Some(range) = self.under_way.take() else { return };
        let result = match answer {
            Verdict::Huge => {
                self.settled[range] = true;
                return;
            }
            Verdict::Mixed => {
                // Writes that make it complete need not be seen here.
                self.put_off = true;
                return;
            }
            Verdict::Tried(result) => result,
        };
        if result == Collapse::Done {
            guest.memory.counters.collapsed += 1;
            (self.gained, self.settled[range]) = (true, true);
            return;
        }
        guest.memory.counters.not_collapsed += 1;
        self.put_off = true;
        match result {
            // Neither is there for the others.
            Collapse::NoMemory => self.found.clear(),
            Collapse::NotAllowed(errno) => {
                let why = std::io::Error::from_raw_os_error(errno);
                self.give_up(guest, &format!("process_madvise(2): {why}"));
            }
            Collapse::Busy if self.retries > 0 => {
                self.retries -= 1;
                self.found.insert(0, (range, 0));
            }
            Collapse::Done | Collapse::Busy | Collapse::Refused(_) | Collapse::Gone => {}
        }
    }

    /// Goes on after a pause, which grows as long as nothing is gained.
    fn rest(&mut self) {
        self.pause = if self.gained { PAUSE.0 } else { (self.pause * 2).min(PAUSE.1) };
        self.gained = false;
        self.due = Instant::now() + self.pause;
    }

    /// Everything was looked at: with the next change there may be more to gain.
    fn begin_again(&mut self, seen: Seen) {
        self.finished = (!std::mem::take(&mut self.put_off)).then_some(seen);
        (self.at, self.retries) = (0, RETRIES);
        self.rest();
    }

    /// It cannot be done for this guest.
    fn give_up(&mut self, guest: &mut Guest, why: &str) {
        (self.ranges, self.found) = (Box::default(), Vec::new());
        guest.journal.notice(Notice::NotCollapsed { why: why.to_owned() });
    }

    fn pages(&self, range: usize) -> PageRange {
        let first = self.ranges[range];
        PageRange { start: first, end: PageIndex(first.0 + PAGES) }
    }
}

/// The first page of each range that lies in a region of small pages as a whole.
fn ranges_in(layout: &Layout) -> Box<[PageIndex]> {
    let of_region = |region: &Region| {
        // Behind a region at the very end of the address space there is no multiple any more.
        let skipped = region.base.0.wrapping_neg() % Collapse::BYTES;
        let first = region.pages.start.0 + skipped / 4096;
        let count = region.pages.end.0.saturating_sub(first) / PAGES;
        (0..count).map(move |range| PageIndex(first + range * PAGES))
    };
    layout.regions().iter().flat_map(of_region).collect()
}

/// Whether all pages are installed, and none is protected as far as the states tell.
fn is_complete(guest: &Guest, pages: PageRange) -> bool {
    let tracked = guest.memory.rules().tracking == Tracking::Sync;
    guest.memory.states.iter(pages).all(|state| match state {
        PageState::Dirty => true,
        PageState::Clean | PageState::Zero => !tracked,
        PageState::Unfaulted | PageState::Removed | PageState::Poisoned => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::GuestAddr;

    fn ranges(regions: &[(u64, u64, u64)]) -> Vec<u64> {
        let region = |&(base, start, end): &(u64, u64, u64)| Region {
            base: GuestAddr(base),
            pages: PageRange::new(start, end),
        };
        let layout = Layout::new(PageSize::Small, regions.iter().map(region).collect()).unwrap();
        ranges_in(&layout).iter().map(|page| page.0).collect()
    }

    #[test]
    fn a_range_begins_at_a_multiple_of_its_size_and_lies_in_one_region() {
        assert_eq!(ranges(&[(4 << 20, 0, 1024)]), [0, 512]);
        assert_eq!(ranges(&[(4 << 20, 0, 1023)]), [0]);
        assert!(ranges(&[(4 << 20, 0, 511)]).is_empty());
        assert_eq!(ranges(&[((4 << 20) + 4096, 7, 7 + 1024)]), [7 + 511]);
        assert!(ranges(&[((4 << 20) + 4096, 7, 7 + 511)]).is_empty());
        // Two regions that make up a range between them have none.
        assert!(ranges(&[(4 << 20, 0, 256), (5 << 20, 256, 512)]).is_empty());
    }

    #[test]
    fn a_region_at_the_end_of_the_address_space_has_none() {
        assert!(ranges(&[(u64::MAX - 0x1fff, 0, 1)]).is_empty());
    }
}
