//! The note of the installs in hand. Whether an install that was under way when a process died was
//! done, the page states cannot tell; the note says which pages to ask the page map about.

use crate::kernel::Part;
use crate::units::PageRange;

/// Ranges of one note: as many as a plan has.
const MOST: usize = 16;

/// The note's memory: how many ranges there are, then the ranges.
#[derive(Debug)]
pub(crate) struct Note(Part);

impl Note {
    /// Bytes of a note.
    pub(crate) const BYTES: usize = 512;

    pub(crate) const fn new(part: Part) -> Self {
        Self(part)
    }

    /// Pages are about to be installed. Said before anything of it happens.
    pub(crate) fn begin(&mut self, ranges: impl Iterator<Item = PageRange>) {
        let mut count = 0;
        for pages in ranges {
            assert!(count < MOST, "a plan has at most {MOST} installs");
            count += 1;
            self.put(2 * count - 1, pages.start.0);
            self.put(2 * count, pages.end.0);
        }
        Part::in_order();
        self.put(0, count as u64);
        Part::in_order();
    }

    /// The page states say what has come of it.
    pub(crate) fn end(&mut self) {
        Part::in_order();
        self.put(0, 0);
    }

    /// The pages whose fate the page states may not tell.
    pub(crate) fn ranges(&self) -> Vec<PageRange> {
        let count = usize::try_from(self.get(0)).unwrap_or(MOST).min(MOST);
        let range = |at: usize| PageRange::new(self.get(2 * at + 1), self.get(2 * at + 2));
        (0..count).map(range).collect()
    }

    fn put(&mut self, word: usize, value: u64) {
        self.0.as_mut_slice()[8 * word..][..8].copy_from_slice(&value.to_ne_bytes());
    }

    fn get(&self, word: usize) -> u64 {
        let bytes = &self.0.as_slice()[8 * word..][..8];
        u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
    }
}

const _: () = assert!(8 * (2 * MOST + 1) <= Note::BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::SharedMemory;

    #[test]
    fn a_note_says_what_is_in_hand_and_nothing_after() {
        let mut note = Note::new(SharedMemory::anonymous(Note::BYTES).unwrap().take(Note::BYTES));
        assert_eq!(note.ranges(), []);
        let ranges: Vec<_> = (0..MOST as u64).map(|at| PageRange::new(at, at * 2 + 1)).collect();
        note.begin(ranges.iter().copied());
        assert_eq!(note.ranges(), ranges);
        note.end();
        assert_eq!(note.ranges(), []);
        note.begin(ranges[3..5].iter().copied());
        assert_eq!(note.ranges(), ranges[3..5]);
    }
}
