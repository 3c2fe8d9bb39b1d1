//! The state of all pages at one moment, put together away from the fault loop: from a copy of the
//! page states, and from what the guest's page map says of pages that tell nobody of a write.

use std::io;

use roaring::RoaringBitmap;

use crate::contract::{Copied, Export, RegionStates};
use crate::kernel::{InPieces, Pagemap};
use crate::policy::Tracking;
use crate::states::{PageState, PublicState, is_doubted};
use crate::units::{GuestAddr, PageIndex, PageRange};

impl Copied {
    /// Turns the copy into what users get. `again` takes another copy of the states, if it still
    /// can; where nothing can have changed since the first there is nothing to ask.
    pub(crate) fn export(self, again: Option<Again<'_>>) -> Export {
        crate::kill_point!("exporting");
        let mut pieces = InPieces::begin();
        let pages = self.by_state(&self.states, &mut pieces);
        // Where the kernel does the tracking it alone knows what was written.
        let kernel_knows = self.tracking == Tracking::Async;
        let ask_for_writes = kernel_knows || self.unprotected_zeros;
        let mut ask = |scan| self.ask(scan, &mut pieces);
        let written = if ask_for_writes { ask(Pagemap::written) } else { None };
        let there = if pages.removed.is_empty() { None } else { ask(Pagemap::populated) };
        // Where the kernel does the tracking all that was written is told apart from what was not.
        let others = match self.tracking {
            Tracking::Async => None,
            Tracking::Sync => written.as_ref().map(|written| written & &pages.unfaulted),
            Tracking::Off => ask(Pagemap::there).map(|there| there & &pages.unfaulted),
        };
        let others = others.map_or_else(RoaringBitmap::new, |found| {
            self.still(found, again, &mut pieces, |states| states.unfaulted)
        });

        let (mut dirty, mut empty) = (pages.dirty, RoaringBitmap::new());
        // Somebody else has installed them, and whether they are as the snapshot has them is not known.
        let mut exact = self.tracking.is_on() && others.is_empty();
        dirty |= others;
        match written {
            Some(written) if kernel_knows => {
                // A poisoned page has a mark in the page table that looks like a written page.
                let written = written - &pages.removed - pages.poisoned;
                let left = self.left(&pages.clean, again, &mut pieces) - &written;
                exact &= left.is_empty();
                empty |= pages.zero - &written;
                dirty |= written | left;
            }
            Some(written) => {
                dirty |= &written & &pages.zero;
                empty |= pages.zero - written;
            }
            None if self.tracking == Tracking::Sync && !ask_for_writes => empty |= pages.zero,
            // Nobody saw whether they were written.
            None => {
                dirty |= pages.zero;
                if self.tracking != Tracking::Sync {
                    dirty |= pages.clean;
                }
                exact = false;
            }
        }
        match there {
            // Given back and yet there: MADV_FREE keeps a page until memory is short.
            Some(there) => {
                dirty |= &there & &pages.removed;
                empty |= pages.removed - there;
            }
            None if pages.removed.is_empty() => {}
            // Nothing proves that they are gone, and to save a page of zeros loses nothing.
            None => {
                dirty |= pages.removed;
                exact = false;
            }
        }
        if !pages.doubted.is_empty() {
            // They may be there, and then whoever installed them may have written them.
            empty -= &pages.doubted;
            dirty |= pages.doubted;
            exact = false;
        }
        let regions = self.layout.regions().iter().map(|region| {
            let bytes = of_pages(&self.states, region.pages);
            let mut states = Vec::with_capacity(bytes.len());
            for some in bytes.chunks(AT_ONCE) {
                states.extend(some.iter().map(|byte| public(*byte)));
                pieces.done();
            }
            RegionStates { region: *region, states }
        });
        Export { regions: regions.collect(), counts: self.counts, dirty, empty, exact }
    }

    /// Which of the pages that were clean at the time of the copy were given back until the page map
    /// was looked at: it does not tell any more whether they were written before.
    fn left(
        &self,
        clean: &RoaringBitmap,
        again: Option<Again<'_>>,
        pieces: &mut InPieces,
    ) -> RoaringBitmap {
        match again.filter(|_| !clean.is_empty()) {
            None => RoaringBitmap::new(),
            Some(again) => match again() {
                Some(states) => clean - self.by_state(&states, pieces).clean,
                None => clean.clone(),
            },
        }
    }

    /// Which of the pages that were `found` are in a state now, in which they were at the time of the
    /// copy; all of them, where that cannot be asked.
    fn still(
        &self,
        found: RoaringBitmap,
        again: Option<Again<'_>>,
        pieces: &mut InPieces,
        state: impl FnOnce(ByState) -> RoaringBitmap,
    ) -> RoaringBitmap {
        match again.filter(|_| !found.is_empty()).and_then(|again| again()) {
            Some(states) => found & state(self.by_state(&states, pieces)),
            None => found,
        }
    }

    fn by_state(&self, states: &[u8], pieces: &mut InPieces) -> ByState {
        let mut sets = ByState::default();
        let key = |byte: u8| (PageState::from_byte(byte), is_doubted(byte));
        for region in self.layout.regions() {
            let mut at = region.pages.start.0;
            for some in of_pages(states, region.pages).chunks(AT_ONCE) {
                for run in some.chunk_by(|a, b| key(*a) == key(*b)) {
                    let pages = PageRange::new(at, at + run.len() as u64);
                    at = pages.end.0;
                    let (state, doubted) = key(run[0]);
                    match state {
                        _ if doubted => insert(&mut sets.doubted, pages),
                        PageState::Unfaulted => insert(&mut sets.unfaulted, pages),
                        PageState::Clean => insert(&mut sets.clean, pages),
                        PageState::Zero => insert(&mut sets.zero, pages),
                        PageState::Dirty => insert(&mut sets.dirty, pages),
                        PageState::Removed => insert(&mut sets.removed, pages),
                        PageState::Poisoned => insert(&mut sets.poisoned, pages),
                    }
                }
                pieces.done();
            }
        }
        sets
    }

    /// Asks the guest's own page map about all its memory.
    fn ask(&self, scan: Scan, pieces: &mut InPieces) -> Option<RoaringBitmap> {
        self.identity.look_at_maps(&self.layout);
        let map = self.identity.page_map()?;
        let mut found = RoaringBitmap::new();
        for region in self.layout.regions() {
            let mut take = |start: GuestAddr, end: GuestAddr| {
                let last = GuestAddr(end.0 - 1);
                let pages = (self.layout.page_at(start), self.layout.page_at(last));
                if let (Some(first), Some(last)) = pages {
                    insert(&mut found, PageRange { start: first, end: last.next() });
                }
            };
            let (mut at, end) = (region.base, region.end(self.layout.page_size()));
            while at < end {
                let next = GuestAddr(at.0.saturating_add(SCANNED_AT_ONCE)).min(end);
                scan(map, at, next, &mut take).ok()?;
                at = next;
                pieces.done();
            }
        }
        Some(found)
    }
}

/// How many pages are dealt with, and how many bytes of the guest's page map, before the core is
/// offered to others: some ten microseconds. A multiple of every page size.
const AT_ONCE: usize = 512;
const SCANNED_AT_ONCE: u64 = 4 << 20;

type Take<'a> = &'a mut dyn FnMut(GuestAddr, GuestAddr);
type Scan = fn(&Pagemap, GuestAddr, GuestAddr, Take<'_>) -> io::Result<()>;

#[derive(Default)]
struct ByState {
    unfaulted: RoaringBitmap,
    clean: RoaringBitmap,
    zero: RoaringBitmap,
    dirty: RoaringBitmap,
    removed: RoaringBitmap,
    poisoned: RoaringBitmap,
    doubted: RoaringBitmap,
}

/// Takes another copy of the states.
pub(crate) type Again<'a> = &'a dyn Fn() -> Option<Vec<u8>>;

fn of_pages(states: &[u8], pages: PageRange) -> &[u8] {
    &states[index(pages.start)..index(pages.end)]
}

fn public(byte: u8) -> PublicState {
    PageState::from_byte(byte).public()
}

/// Sessions of more than 2^32 pages are refused at their start: the last may be the last there is.
fn insert(bitmap: &mut RoaringBitmap, pages: PageRange) {
    let ends = (u32::try_from(pages.start.0), u32::try_from(pages.end.0.saturating_sub(1)));
    if let (false, (Ok(first), Ok(last))) = (pages.is_empty(), ends) {
        bitmap.insert_range(first..=last);
    }
}

/// A page's place in the copy, which has a byte for each page.
fn index(page: PageIndex) -> usize {
    usize::try_from(page.0).expect("a page index fits in memory, as its state does")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_that_a_guest_can_have_is_in_a_set() {
        const LAST: u64 = u32::MAX as u64;
        let mut pages = RoaringBitmap::new();
        insert(&mut pages, PageRange::new(LAST - 2, LAST + 1));
        insert(&mut pages, PageRange::new(0, 1));
        insert(&mut pages, PageRange::new(7, 7));
        assert_eq!(pages, RoaringBitmap::from([0, u32::MAX - 2, u32::MAX - 1, u32::MAX]));
    }
}
