//! The trace of first touches as far as it was noted, so that a crash does not cost it. Room for its
//! entries is had when there are some: a guest that touches little takes little.

use crate::kernel::Part;
use crate::layout::Layout;
use crate::trace::TraceEntry;

/// Bytes of one entry: two words.
const ENTRY: usize = 16;

/// Room is had for so many bytes of entries at once.
const AT_ONCE: usize = 16 << 10;

/// The trace's memory: how many entries are whole, and the entries. Nobody writes to the entries
/// where the file system may have no room for them: that would end the process.
#[derive(Debug)]
pub(crate) struct Touches {
    count: Part,
    entries: Part,
    written: usize,
    /// Bytes of the entries that are known to be there.
    room: usize,
    /// There was no room: what is touched from now on is not noted.
    is_full: bool,
}

impl Touches {
    /// Bytes of the count.
    pub(super) const COUNT: usize = 64;

    /// Bytes of the entries of a guest with so many pages: each is touched for the first time once.
    pub(super) fn bytes(pages: usize) -> std::io::Result<usize> {
        pages.checked_mul(ENTRY).ok_or_else(|| std::io::Error::other("too many pages"))
    }

    /// Goes on after the entries that are there, of which [`is_sound`](Self::is_sound) is known.
    pub(super) fn new(count: Part, entries: Part) -> Self {
        let written = count_in(&count, &entries).unwrap_or_default();
        Self { count, entries, written, room: written * ENTRY, is_full: false }
    }

    /// Notes an entry. Where there is no room any more, the trace that a successor finds ends.
    pub(crate) fn note(&mut self, entry: TraceEntry) {
        let (start, end) = (self.written * ENTRY, (self.written + 1) * ENTRY);
        if end > self.room && !self.make_room(end) {
            return;
        }
        let places = self.entries.as_mut_slice()[start..end].chunks_exact_mut(8);
        for (place, word) in places.zip(entry.to_words()) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        Part::in_order();
        self.written += 1;
        self.count.as_mut_slice()[..8].copy_from_slice(&(self.written as u64).to_ne_bytes());
    }

    /// What was noted, in order. What nobody can have noted for a guest of `layout` is passed over; of
    /// a copy with holes there may be no room for any of it.
    pub(crate) fn entries(&self, layout: &Layout) -> impl Iterator<Item = TraceEntry> {
        // Where the file has holes and its file system no room, a look at them would end the process.
        let is_there = self.entries.populate(0..self.written * ENTRY).is_ok();
        read(&self.entries, if is_there { self.written } else { 0 })
            .filter(|entry| entry.is_whole() && layout.region_of(entry.page()).is_some())
    }

    fn make_room(&mut self, end: usize) -> bool {
        let all = self.entries.as_slice().len();
        let room = end.next_multiple_of(AT_ONCE).min(all);
        let has_room = !self.is_full && end <= all;
        self.is_full = !has_room || self.entries.populate(self.room..room).is_err();
        if !self.is_full {
            self.room = room;
        }
        !self.is_full
    }

    /// Whether there can be so many entries. These are looked at when they are asked for: there are
    /// many, and a guest that is taken over would wait.
    pub(super) fn is_sound(count: &Part, entries: &Part) -> bool {
        count_in(count, entries).is_some()
    }
}

fn count_in(count: &Part, entries: &Part) -> Option<usize> {
    let (word, rest) = count.as_slice().split_at(8);
    let count = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
    let most = entries.as_slice().len() / ENTRY;
    let count = usize::try_from(count).ok().filter(|count| *count <= most)?;
    rest.iter().all(|byte| *byte == 0).then_some(count)
}

fn read(entries: &Part, count: usize) -> impl Iterator<Item = TraceEntry> {
    let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("eight bytes"));
    entries.as_slice()[..count * ENTRY]
        .chunks_exact(ENTRY)
        .map(move |entry| TraceEntry::from_words([word(&entry[..8]), word(&entry[8..])]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::kernel::SharedMemory;
    use crate::layout::Region;
    use crate::trace::FilledWith;
    use crate::units::{GuestAddr, PageIndex, PageRange, PageSize};

    fn layout(pages: u64) -> Layout {
        let region = Region { base: GuestAddr(0x10_0000), pages: PageRange::new(0, pages) };
        Layout::new(PageSize::Small, vec![region]).unwrap()
    }

    fn parts(pages: usize) -> (Part, Part) {
        let entries = Touches::bytes(pages).unwrap();
        let mut memory = SharedMemory::anonymous(4096 + entries).unwrap();
        let count = memory.take(Touches::COUNT);
        memory.take(4096 - Touches::COUNT);
        (count, memory.take(entries))
    }

    fn entry(page: u64) -> TraceEntry {
        let (filled, time) = (FilledWith::Zeros, Duration::from_micros(page));
        TraceEntry::new(PageIndex(page), page.is_multiple_of(2), filled, time)
    }

    #[test]
    fn what_was_noted_is_read_back_in_order() {
        let (count, entries) = parts(4096);
        let mut touches = Touches::new(count, entries);
        let pages: Vec<u64> = (0..4096).rev().collect();
        pages.iter().for_each(|page| touches.note(entry(*page)));
        // There are no more pages.
        touches.note(entry(7));
        let all = layout(4096);
        assert!(touches.entries(&all).eq(pages.iter().map(|page| entry(*page))));
        let Touches { count, entries, .. } = touches;
        assert!(Touches::is_sound(&count, &entries));
        let again = Touches::new(count, entries);
        assert_eq!((again.entries(&all).count(), again.is_full), (4096, false));
    }

    #[test]
    fn nobody_needs_room_before_there_are_entries() {
        let (count, entries) = parts(1 << 20);
        let mut touches = Touches::new(count, entries);
        assert_eq!(touches.room, 0);
        touches.note(entry(3));
        assert_eq!(touches.room, AT_ONCE);
    }

    #[test]
    fn what_nobody_can_have_noted_is_known() {
        let left = |change: &dyn Fn(&mut Part, &mut Part)| {
            let (count, entries) = parts(8);
            let mut touches = Touches::new(count, entries);
            (0..4).for_each(|page| touches.note(entry(page)));
            let Touches { mut count, mut entries, .. } = touches;
            change(&mut count, &mut entries);
            Touches::is_sound(&count, &entries).then(|| {
                let touches = Touches::new(count, entries);
                touches.entries(&layout(8)).map(|entry| entry.page().0).collect::<Vec<_>>()
            })
        };
        assert_eq!(left(&|_, _| {}), Some(vec![0, 1, 2, 3]));
        assert_eq!(left(&|count, _| count.as_mut_slice()[0] = 0), Some(vec![]));
        assert_eq!(left(&|count, _| count.as_mut_slice()[0] = 9), None);
        assert_eq!(left(&|count, _| count.as_mut_slice()[7] = 1), None);
        assert_eq!(left(&|count, _| count.as_mut_slice()[8] = 1), None);
        // A page there is not, and a filling there is not.
        assert_eq!(left(&|_, entries| entries.as_mut_slice()[32] = 8), Some(vec![0, 1, 3]));
        assert_eq!(left(&|_, entries| entries.as_mut_slice()[55] = 8), Some(vec![0, 1, 2]));
    }
}
