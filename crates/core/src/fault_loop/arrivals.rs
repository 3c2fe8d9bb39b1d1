//! What was fetched away from the loop comes back to it here, and is installed where the pages
//! are still unfaulted.

use std::collections::VecDeque;
use std::time::Instant;

use super::hand::{Fault, Kind, Phase, Trouble};
use super::pause::{Blocked, CHANGING, TROUBLED};
use super::{FaultLoop, Halt, Turn, serve::first};
use crate::memory::Obstacle;
use crate::policy::Access;
use crate::session::{Fetched, Message, PrefaultId};
use crate::source::{Chunk, Delivery, FetchJob, Full, SourceError, Ticket, Urgency};
use crate::states::PageState;
use crate::trace::FilledWith;
use crate::units::{PageIndex, PageRange};

/// Bytes that are on their way from the source, or that have arrived.
#[derive(Default)]
pub(super) struct Fetches {
    /// Pages being fetched for a fault.
    wanted: Vec<(PageRange, Ticket)>,
    pub(super) arrived: VecDeque<Arrived>,
}

/// Fetched bytes that are not all installed yet.
pub(super) struct Arrived {
    /// The page the bytes begin with.
    first: PageIndex,
    /// What is left to install.
    pub(super) pages: PageRange,
    bytes: Delivery,
    pub(super) prefault: Option<PrefaultId>,
    /// Something has to pass before they can be.
    blocked: Option<Blocked>,
    /// That is memory.
    short_of_memory: bool,
    /// Page by page, after a longer run did not lie in one mapping.
    singly: bool,
}

impl Fetches {
    /// When the next blocked install is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let due = |arrived: &Arrived| {
            arrived.blocked.as_ref().map_or_else(Instant::now, |blocked| blocked.until)
        };
        self.arrived.iter().map(due).min()
    }

    /// Whether there are bytes that wait for memory.
    pub(super) fn wait_for_memory(&self) -> bool {
        self.arrived.iter().any(|arrived| arrived.short_of_memory)
    }

    pub(super) fn covers(&self, page: PageIndex) -> bool {
        self.wanted.iter().any(|(pages, _)| pages.contains(page))
            || self.arrived.iter().any(|arrived| arrived.pages.contains(page))
    }
}

impl FaultLoop {
    /// Sends for the pages a fault needs, and parks it until they are here.
    pub(super) fn fetch_for_fault(&mut self, index: usize, pages: PageRange) {
        let fault = self.hand.get_mut(index);
        fault.phase = Phase::Parked;
        if self.fetches.covers(fault.page) {
            return;
        }
        // Where there is no room for its bytes the fault waits until it is told.
        if let Ok(ticket) = self.fetch(pages, None) {
            self.fetches.wanted.push((pages, ticket));
        }
    }

    pub(super) fn fetch(
        &mut self,
        pages: PageRange,
        prefault: Option<PrefaultId>,
    ) -> Result<Ticket, Full> {
        let mailbox = self.mailbox.clone();
        let done = Box::new(move |bytes| {
            mailbox.post(Message::Fetched(Fetched { pages, bytes, prefault }));
        });
        let urgency = if prefault.is_none() { Urgency::Demand } else { Urgency::Background };
        let want = self.memory.want(pages);
        let ticket = self.fetcher.try_submit(FetchJob { want, done }, urgency)?;
        self.memory.counters.fetches += 1;
        Ok(ticket)
    }

    /// Fetches that were refused can be asked for again.
    pub(super) fn room_again(&mut self) {
        self.prefaults.room_again();
        for index in 0..self.hand.len() {
            let fault = self.hand.get_mut(index);
            if fault.phase == Phase::Parked && !self.fetches.covers(fault.page) {
                fault.phase = Phase::Ready;
            }
        }
    }

    /// Takes what a fetch thread brought.
    pub(super) fn fetched(&mut self, fetched: Fetched) -> Turn {
        let Fetched { pages, bytes, prefault } = fetched;
        if prefault.is_none()
            && let Some(at) = self.fetches.wanted.iter().position(|(wanted, _)| *wanted == pages)
        {
            drop(self.fetches.wanted.swap_remove(at));
        }
        if let Some(id) = prefault {
            self.prefault_fetch_ended(id, pages);
        }
        // A source may bring only a start of what it was asked for.
        let got = |bytes: &Delivery| first(pages, bytes.piece().len(), self.memory.page_size());
        let brought = bytes.as_ref().map_or(pages, got);
        let rest = PageRange { start: brought.end, end: pages.end };
        match (bytes, prefault) {
            (Ok(_), Some(id)) if self.is_fetched_only(id, brought) => {
                self.prefault_fetch_was_short(id, rest);
                Ok(())
            }
            (Ok(bytes), prefault) => {
                match prefault {
                    Some(id) => self.prefault_fetch_was_short(id, rest),
                    None => self.hand.missing_in(rest).for_each(Fault::unpark),
                }
                self.fetches.arrived.push_back(Arrived {
                    first: pages.start,
                    pages: brought,
                    bytes,
                    prefault,
                    blocked: None,
                    short_of_memory: false,
                    singly: false,
                });
                Ok(())
            }
            (Err(error), Some(id)) => {
                self.memory.counters.failed_fetches += 1;
                self.prefault_fetch_failed(id, pages, &error);
                Ok(())
            }
            (Err(error), None) => {
                self.memory.counters.failed_fetches += 1;
                self.fault_fetch_failed(pages, &error)
            }
        }
    }

    fn fault_fetch_failed(&mut self, pages: PageRange, error: &SourceError) -> Turn {
        for index in 0..self.hand.len() {
            let fault = self.hand.get_mut(index);
            if fault.phase != Phase::Parked || !pages.contains(fault.page) {
                continue;
            }
            if pages.len() > 1 {
                // A neighbour may be what could not be read.
                fault.alone = true;
                fault.phase = Phase::Ready;
            } else {
                self.troubled(index, Trouble::Source(error.clone()))?;
            }
        }
        Ok(())
    }

    /// Installs what has arrived, as far as its pages are still unfaulted.
    pub(super) fn install_arrived(&mut self) -> Turn {
        for _ in 0..self.fetches.arrived.len() {
            let Some(mut arrived) = self.fetches.arrived.pop_front() else { break };
            let waits = arrived.blocked.as_ref().is_some_and(|it| Instant::now() < it.until);
            if waits || !self.install(&mut arrived)? {
                self.fetches.arrived.push_back(arrived);
            }
        }
        Ok(())
    }

    /// Installs fetched bytes; false if something has to pass first.
    fn install(&mut self, arrived: &mut Arrived) -> Turn<bool> {
        let page_bytes = self.memory.page_size().bytes();
        while !arrived.pages.is_empty() {
            let (run, state) = self.memory.states.runs(arrived.pages).next().expect("not empty");
            if state != PageState::Unfaulted {
                self.count_found(arrived.prefault, run, state);
                arrived.pages.start = run.end;
                continue;
            }
            let from = (run.start.0 - arrived.first.0) * page_bytes;
            let access = self.access_wanted(run.start);
            let run = if arrived.singly {
                PageRange::single(run.start)
            } else {
                self.until_next_write(run)
            };
            let chunk = arrived.bytes.piece().chunk(from, self.memory.bytes_of(run), page_bytes);
            let run = first(run, chunk.len(), self.memory.page_size());
            let (put, filled) = match chunk {
                Chunk::Ready(bytes) => {
                    (self.memory.put_bytes(run, bytes, access), FilledWith::Source)
                }
                Chunk::Zeros(_) | Chunk::Absent(_) => {
                    (self.memory.put_zeros(run, access), FilledWith::SourceZeros)
                }
            };
            match put {
                Ok(done) => {
                    arrived.blocked = None;
                    arrived.short_of_memory = false;
                    self.count_arrived(arrived.prefault, done);
                    if arrived.prefault.is_some() {
                        self.settle(done, filled);
                    } else {
                        self.settle_around(done, filled);
                    }
                    arrived.pages.start = done.end;
                }
                Err(Obstacle::Present) => {
                    let page = run.start;
                    self.memory.adopt(page);
                    self.memory.wake(page);
                    self.settle(PageRange::single(page), FilledWith::Present);
                }
                Err(Obstacle::Gone) => return Err(Halt::GuestExited),
                Err(Obstacle::Changing) => {
                    self.memory.counters.deferred += 1;
                    Blocked::again(&mut arrived.blocked, CHANGING);
                    return Ok(false);
                }
                Err(Obstacle::NoMemory) => {
                    self.warn_of_memory(run.start);
                    return Ok(!self.wait_for_memory(arrived));
                }
                Err(Obstacle::Refused(errno)) => {
                    return Err(self.refused("install", run.start, errno));
                }
                Err(Obstacle::Unmapped) if run.len() > 1 => arrived.singly = true,
                Err(Obstacle::Unmapped | Obstacle::Unreadable | Obstacle::Unsure) => {
                    // Woken, the threads find out for themselves what became of the page.
                    self.memory.wake(run.start);
                    let one = PageRange::single(run.start);
                    self.hand.missing_in(one).for_each(|fault| fault.phase = Phase::Served);
                    self.prefault_failed(arrived.prefault, one);
                    arrived.pages.start = one.end;
                }
            }
        }
        Ok(true)
    }

    /// Whether the bytes are worth keeping until there is memory.
    fn wait_for_memory(&mut self, arrived: &mut Arrived) -> bool {
        let mut wanted = false;
        arrived.short_of_memory = true;
        for fault in self.hand.missing_in(arrived.pages) {
            fault.trouble = Some(Trouble::NoMemory);
            wanted = true;
        }
        let since = Blocked::again(&mut arrived.blocked, TROUBLED);
        if wanted || since.elapsed() < self.options.fault_deadline {
            return wanted || arrived.prefault.is_some();
        }
        self.prefault_failed(arrived.prefault, arrived.pages);
        false
    }

    fn access_wanted(&self, page: PageIndex) -> Access {
        let wanted = self.hand.iter().find(|fault| fault.is_missing() && fault.page == page);
        wanted.map_or(Access::Ahead, |fault| fault.kind.access())
    }

    /// The start of `run` before the next page, after its first, that a thread waits to write.
    fn until_next_write(&self, run: PageRange) -> PageRange {
        let writes = self.hand.iter().filter(|fault| {
            fault.kind == Kind::Missing { write: true }
                && fault.page > run.start
                && run.contains(fault.page)
        });
        let end = writes.map(|fault| fault.page).min().unwrap_or(run.end);
        PageRange { end, ..run }
    }
}
