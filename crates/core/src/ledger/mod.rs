//! What must outlive the process that serves a guest: the events it has read and not dealt with,
//! a note of the installs in hand, and the page states. One piece of shared memory a guest.

mod note;

use std::io;

pub(crate) use note::Note;

use crate::kernel::{EventReader, Part, SharedMemory};
use crate::layout::Layout;
use crate::states::PageStates;

/// Bytes of what is written once, at the handoff.
const HEADER: usize = 4096;

/// Bytes of the counters.
const COUNTERS: usize = 4096 - Note::BYTES;

/// The parts of one guest's ledger; each is taken once.
#[derive(Debug)]
pub(crate) struct Ledger {
    _header: Part,
    note: Option<Part>,
    _counters: Part,
    events: Option<Part>,
    states: Option<Part>,
}

impl Ledger {
    /// A ledger that nobody else can see, for a guest that ends with this process.
    pub(crate) fn private(layout: &Layout) -> io::Result<Self> {
        let pages = usize::try_from(layout.page_end().0).map_err(io::Error::other)?;
        let len = (HEADER + 4096 + EventReader::BYTES).checked_add(pages);
        let len = len.ok_or_else(|| io::Error::other("more pages than memory could describe"))?;
        Ok(Self::of(SharedMemory::anonymous(len)?, pages))
    }

    fn of(mut memory: SharedMemory, pages: usize) -> Self {
        Self {
            _header: memory.take(HEADER),
            note: Some(memory.take(Note::BYTES)),
            _counters: memory.take(COUNTERS),
            events: Some(memory.take(EventReader::BYTES)),
            states: Some(memory.take(pages)),
        }
    }

    pub(crate) fn events(&mut self) -> EventReader {
        EventReader::new(self.events.take().expect("one reader of events"))
    }

    pub(crate) fn note(&mut self) -> Note {
        Note::new(self.note.take().expect("one note"))
    }

    pub(crate) fn states(&mut self, layout: &Layout) -> PageStates {
        let bytes = self.states.take().expect("one owner of the page states");
        PageStates::new(bytes, layout.page_count())
    }
}
