//! The note of the installs in hand. Whether an install that was under way when a process died was
//! done, the page states cannot tell; the note says which pages to ask the page map about, and what
//! is there if they were installed.

use crate::kernel::Part;
use crate::layout::Layout;
use crate::units::PageRange;

/// Ranges of one note: as many as a plan has.
const MOST: usize = 16;

/// Words of one range: its first page, the page after its last, and its filling.
const WORDS: usize = 3;

/// What pages hold that a note speaks of, if they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Filling {
    /// The source's bytes.
    Source = 0,
    /// Zeros.
    Zeros = 1,
    /// Whatever somebody else has put there: they were to be poisoned.
    Unknown = 2,
}

impl Filling {
    const fn of(word: u64) -> Option<Self> {
        match word {
            0 => Some(Self::Source),
            1 => Some(Self::Zeros),
            2 => Some(Self::Unknown),
            _ => None,
        }
    }
}

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
    pub(crate) fn begin(&mut self, ranges: impl Iterator<Item = (PageRange, Filling)>) {
        let mut count = 0;
        for (at, (pages, filling)) in ranges.enumerate() {
            assert!(at < MOST, "a plan has at most {MOST} installs");
            self.put(1 + WORDS * at, pages.start.0);
            self.put(2 + WORDS * at, pages.end.0);
            self.put(3 + WORDS * at, filling as u64);
            count = at + 1;
        }
        Part::in_order();
        self.put(0, count as u64);
        Part::in_order();
    }

    /// The page states say what has come of it.
    pub(crate) fn end(&mut self) {
        Part::in_order();
        self.put(0, 0);
        Part::in_order();
    }

    /// The pages whose fate the page states may not tell.
    pub(crate) fn left(&self, layout: &Layout) -> Vec<(PageRange, Filling)> {
        let ranges = read(&self.0).unwrap_or_default().into_iter();
        let spans = ranges.flat_map(|(range, filling)| {
            layout.spans(range).map(move |span| (span.pages, filling))
        });
        spans.collect()
    }

    /// Whether `part` is a note that can have been written for such a guest.
    pub(super) fn is_sound(part: &Part, layout: &Layout) -> bool {
        let whole = |(pages, _): &(PageRange, Filling)| {
            let known: u64 = layout.spans(*pages).map(|span| span.pages.len()).sum();
            !pages.is_empty() && known == pages.len()
        };
        read(part).is_some_and(|ranges| ranges.iter().all(whole))
    }

    fn put(&mut self, word: usize, value: u64) {
        self.0.as_mut_slice()[8 * word..][..8].copy_from_slice(&value.to_ne_bytes());
    }
}

/// The ranges of a note; none if nobody can have written it.
fn read(part: &Part) -> Option<Vec<(PageRange, Filling)>> {
    let get = |word: usize| {
        let bytes = &part.as_slice()[8 * word..][..8];
        u64::from_ne_bytes(bytes.try_into().expect("eight bytes"))
    };
    let count = usize::try_from(get(0)).ok().filter(|count| *count <= MOST)?;
    let range = |at: usize| {
        let pages = PageRange::new(get(1 + WORDS * at), get(2 + WORDS * at));
        Some((pages, Filling::of(get(3 + WORDS * at))?))
    };
    (0..count).map(range).collect()
}

const _: () = assert!(8 * (WORDS * MOST + 1) <= Note::BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::SharedMemory;
    use crate::layout::Region;
    use crate::units::{GuestAddr, PageSize};

    fn layout(pages: u64) -> Layout {
        let region = Region { base: GuestAddr(0x10_0000), pages: PageRange::new(0, pages) };
        Layout::new(PageSize::Small, vec![region]).unwrap()
    }

    fn note() -> Note {
        Note::new(SharedMemory::anonymous(Note::BYTES).unwrap().take(Note::BYTES))
    }

    #[test]
    fn a_note_says_what_is_in_hand_and_nothing_after() {
        let (mut note, layout) = (note(), layout(64));
        assert_eq!(note.left(&layout), []);
        let filling = |at| if at % 2 == 0 { Filling::Source } else { Filling::Zeros };
        let ranges: Vec<_> =
            (0..MOST as u64).map(|at| (PageRange::new(at, at * 2 + 1), filling(at))).collect();
        note.begin(ranges.iter().copied());
        assert_eq!(note.left(&layout), ranges);
        note.end();
        assert_eq!(note.left(&layout), []);
        note.begin(ranges[3..5].iter().copied());
        assert_eq!(note.left(&layout), ranges[3..5]);
    }

    #[test]
    fn a_note_that_nobody_can_have_written_is_known() {
        let layout = layout(8);
        let sound = |count: u64, words: [u64; 3]| {
            let mut note = note();
            note.put(0, count);
            (1..).zip(words).for_each(|(at, word)| note.put(at, word));
            (Note::is_sound(&note.0, &layout), note.left(&layout).len())
        };
        assert_eq!(sound(0, [u64::MAX; 3]), (true, 0));
        assert_eq!(sound(1, [2, 8, 1]), (true, 1));
        assert_eq!(sound(1, [2, 9, 1]), (false, 1));
        assert_eq!(sound(1, [u64::MAX, 2, 1]), (false, 0));
        assert_eq!(sound(1, [2, 3, 3]), (false, 0));
        assert_eq!(sound(17, [2, 3, 0]), (false, 0));
        assert_eq!(sound(u64::MAX, [2, 3, 0]), (false, 0));
    }
}
