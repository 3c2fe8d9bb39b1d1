//! What every step works on: the guest's memory, the faults in hand, and the journal; and what
//! every asker does alike: install, account for the faults that served, and meet obstacles.

use std::time::Instant;

use super::hand::{Hand, Phase};
use super::journal::Journal;
use super::next::Next;
use super::pause::{CHANGING, Pauses, TROUBLED};
use super::{Halt, Turn};
use crate::contract::{Notice, SessionError, SessionOptions};
use crate::install::{Ahead, GuestMemory, Install, Obstacle, Planner, Stopped};
use crate::source::{Scratch, Source, Want};
use crate::stats::Stats;
use crate::trace::{FilledWith, TraceEntry};
use crate::units::{PageIndex, PageRange, PageSize};

/// For whom pages are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A fault, with bytes at hand or fetched for it: what else is filled are its neighbours.
    Fault,
    /// A prefault.
    Prefault,
}

/// What is to be done about an obstacle. Whoever asked keeps its own books; everything else has
/// been done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// The page is there: whoever waited for it has been woken.
    There,
    /// Try again after a pause.
    Later(Pauses),
    /// Try again after a pause, and give up after the deadline.
    NoMemory,
    /// Read the source's bytes away from the loop, which tells why they cannot be read.
    Read,
    /// Try page by page.
    Singly,
    /// Whoever waited has been woken, to find out for itself what became of the page.
    LetGo,
}

pub(super) struct Guest {
    pub(super) options: SessionOptions,
    pub(super) memory: GuestMemory,
    pub(super) hand: Hand,
    pub(super) journal: Journal,
}

impl Guest {
    /// Executes a plan: each install's pages are accounted for, and every fault in hand that they
    /// serve. How many pages were installed, and what stopped it.
    pub(super) fn install(
        &mut self,
        plan: &[Install<'_>],
        asker: Asker,
    ) -> (u64, Result<(), Stopped>) {
        let Self { memory, hand, journal, .. } = self;
        let mut installed = 0;
        let result = memory.install(plan, |memory, pages, install| {
            let served = journal.settle(memory, hand, pages, install.fill.traced());
            installed += pages.len();
            match asker {
                Asker::Fault => memory.counters.neighbour_pages += pages.len() - served,
                Asker::Prefault => memory.counters.prefault_pages += pages.len(),
            }
        });
        (installed, result)
    }

    /// Executes a plan of a prefault as far as the guest needs nothing in between: how many pages
    /// were installed, and what is left. So many pieces are `wanted`, whatever it needs. Where others
    /// help, `meanwhile` is called between its parts.
    pub(super) fn install_ahead(
        &mut self,
        plan: &[Install<'_>],
        wanted: usize,
        meanwhile: &(dyn Fn() + Sync),
    ) -> (u64, Ahead) {
        let Self { memory, hand, journal, .. } = self;
        let mut installed = 0;
        let ahead = memory.install_ahead(plan, wanted, meanwhile, |memory, pages, install| {
            journal.settle(memory, hand, pages, install.fill.traced());
            installed += pages.len();
            memory.counters.prefault_pages += pages.len();
        });
        (installed, ahead)
    }

    /// Every missing-page fault in `done` is served by what was found there.
    pub(super) fn settle(&mut self, done: PageRange, filled: FilledWith) {
        self.journal.settle(&mut self.memory, &mut self.hand, done, filled);
    }

    /// What to do about an obstacle in the way of `pages`, the first of which it was met at.
    pub(super) fn answer(&mut self, obstacle: Obstacle, pages: PageRange) -> Turn<Answer> {
        let page = pages.start;
        let one = PageRange::single(page);
        Ok(match obstacle {
            Obstacle::Present => {
                // EEXIST wakes nobody.
                self.memory.adopt(page);
                self.memory.wake(page);
                self.settle(one, FilledWith::Present);
                Answer::There
            }
            Obstacle::Changing => {
                self.memory.counters.deferred += 1;
                Answer::Later(CHANGING)
            }
            Obstacle::NoMemory => {
                let huge = self.memory.page_size() == PageSize::Huge;
                self.journal.warn_of_memory(Notice::OutOfMemory { page, huge });
                Answer::NoMemory
            }
            Obstacle::Unreadable => Answer::Read,
            Obstacle::Unmapped if pages.len() > 1 => Answer::Singly,
            Obstacle::Unmapped | Obstacle::Doubtful => {
                if obstacle == Obstacle::Unmapped {
                    self.memory.counters.stray_faults += 1;
                }
                // Looking again tells: a thread that finds its page does not come back.
                self.memory.wake(page);
                self.hand.missing_in(one).for_each(|fault| fault.phase = Phase::Served);
                Answer::LetGo
            }
            Obstacle::Gone => return Err(Halt::GuestExited),
            Obstacle::Refused(errno) => return Err(self.refused("install", page, errno)),
        })
    }

    /// What plans are made from.
    pub(super) fn planner<'a, 's>(
        &'a self,
        source: &'s dyn Source,
        scratch: &'s Scratch,
    ) -> Planner<'a, 's> {
        Planner {
            states: &self.memory.states,
            layout: self.memory.layout(),
            rules: self.memory.rules(),
            fault_around: self.options.fault_around,
            source,
            scratch,
        }
    }

    /// What `pages` are in a source.
    pub(super) fn want(&self, pages: PageRange) -> Want {
        Want::of(pages, self.memory.page_size())
    }

    /// The trace from that entry on.
    pub(super) fn trace_from(&mut self, from: usize) -> Vec<TraceEntry> {
        self.journal.complete_trace(Some(&self.memory));
        self.journal.trace_from(from)
    }

    /// When there is something to do for a fault in hand.
    pub(super) fn next(&self) -> Next {
        self.hand.next(self.options.fault_deadline)
    }

    /// Puts a fault off; nobody waits for anything but the time.
    pub(super) fn defer(&mut self, index: usize, pauses: Pauses) {
        self.hand.get_mut(index).defer(Instant::now(), pauses);
    }

    /// Sends SIGKILL to the guest, if it is known which process that is; whether it did.
    pub(super) fn kill(&self) -> bool {
        self.memory.identity().kill(self.memory.layout())
    }

    pub(super) fn stats(&self) -> Stats {
        self.journal.stats(&self.memory, &self.hand)
    }

    pub(super) fn offset(&self, page: PageIndex) -> u64 {
        page.offset(self.memory.page_size())
    }

    pub(super) fn refused(&self, operation: &'static str, page: PageIndex, errno: i32) -> Halt {
        Halt::Failed(SessionError::Refused {
            operation,
            page,
            offset: self.offset(page),
            cause: std::io::Error::from_raw_os_error(errno).to_string(),
        })
    }
}

/// The pauses of work that waits for a page that cannot be had.
pub(super) const NO_MEMORY: Pauses = TROUBLED;
