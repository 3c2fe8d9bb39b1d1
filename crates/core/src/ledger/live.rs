//! The part of a ledger that changes all the time besides states and events: whether dirty pages
//! are tracked, and the counters as far as they were noted.

use crate::kernel::Part;
use crate::policy::Tracking;
use crate::stats::Counters;

/// Whether it was decided that, and how, dirty pages are tracked; then the counters.
#[derive(Debug)]
pub(crate) struct Live(Part);

impl Live {
    pub(super) const BYTES: usize = 4096 - super::Note::BYTES - super::Touches::COUNT;

    pub(super) const fn new(part: Part) -> Self {
        Self(part)
    }

    pub(crate) fn decided(&mut self, tracking: Tracking) {
        self.0.as_mut_slice()[0] = match tracking {
            Tracking::Off => 1,
            Tracking::Sync => 2,
            Tracking::Async => 3,
        };
    }

    /// What was decided; nothing if the process died before.
    pub(crate) fn tracking(&self) -> Option<Tracking> {
        match self.0.as_slice()[0] {
            1 => Some(Tracking::Off),
            2 => Some(Tracking::Sync),
            3 => Some(Tracking::Async),
            _ => None,
        }
    }

    /// Everything is installed, and regions are about to be unregistered one by one.
    pub(crate) fn releasing(&mut self) {
        self.0.as_mut_slice()[1] = 1;
        Part::in_order();
    }

    pub(crate) fn is_releasing(&self) -> bool {
        Self::is_releasing_in(&self.0)
    }

    /// As [`is_releasing`](Self::is_releasing), before the part has an owner.
    pub(super) fn is_releasing_in(part: &Part) -> bool {
        part.as_slice()[1] == 1
    }

    /// Notes what was done so far. A successor may find some counters newer than others.
    pub(crate) fn note(&mut self, counters: &Counters) {
        let words = self.0.as_mut_slice()[8..].chunks_exact_mut(8);
        for (place, word) in words.zip(counters.to_words()) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
    }

    /// What was noted. Nobody counts beyond [`MOST`]: a counter that was damaged goes on from there.
    pub(crate) fn counters(&self) -> Counters {
        let mut words = [0; Counters::COUNT];
        for (word, place) in words.iter_mut().zip(self.0.as_slice()[8..].chunks_exact(8)) {
            *word = u64::from_ne_bytes(place.try_into().expect("eight bytes")).min(MOST);
        }
        Counters::from_words(words)
    }

    /// Whether `part` can have been written by anybody, as far as that shows.
    pub(super) fn is_sound(part: &Part) -> bool {
        matches!(part.as_slice()[..8], [0..=3, 0..=1, 0, 0, 0, 0, 0, 0])
    }
}

/// A count that is added to, and to others, without overflow.
const MOST: u64 = 1 << 56;

const _: () = assert!(8 + 8 * Counters::COUNT <= Live::BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::SharedMemory;

    fn live() -> Live {
        Live::new(SharedMemory::anonymous(Live::BYTES).unwrap().take(Live::BYTES))
    }

    #[test]
    fn what_was_decided_and_counted_is_read_back() {
        let mut live = live();
        assert_eq!((live.tracking(), live.is_releasing()), (None, false));
        for tracking in [Tracking::Off, Tracking::Sync, Tracking::Async] {
            live.decided(tracking);
            assert_eq!(live.tracking(), Some(tracking));
        }
        live.releasing();
        let counters = Counters { read_faults: 7, poisoned_pages: 9, ..Counters::default() };
        live.note(&counters);
        assert!(live.is_releasing() && Live::is_sound(&live.0));
        assert_eq!(live.counters(), counters);
    }

    #[test]
    fn damaged_counters_can_be_added_to() {
        let mut live = live();
        live.0.as_mut_slice()[8..].fill(0xff);
        let mut counters = live.counters();
        counters.read_faults += 1;
        assert_eq!(counters.faults(), 3 * MOST + 1);
    }

    #[test]
    fn what_nobody_can_have_written_is_known() {
        for (at, value) in [(0, 4), (1, 2), (2, 1), (7, 0x80)] {
            let mut live = live();
            live.0.as_mut_slice()[at] = value;
            assert!(!Live::is_sound(&live.0), "{value} at {at}");
        }
    }
}
