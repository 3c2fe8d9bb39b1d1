//! Step 3: the faults in hand are served, by page state and source.

use std::time::Instant;

use super::hand::{Fault, Kind, Phase, Trouble};
use super::pause::{CHANGING, TROUBLED};
use super::{FaultLoop, Halt, Turn};
use crate::memory::Obstacle;
use crate::policy::{self, Access, Content};
use crate::session::{Cause, Notice, SessionError, Unservable};
use crate::source::{Chunk, SourceError};
use crate::states::PageState;
use crate::trace::{FilledWith, TraceEntry};
use crate::units::{PageIndex, PageRange, PageSize};
use crate::window;

/// Which pages around a fault are filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    All,
    /// Those that the source has as zeros.
    Zeros,
}

impl FaultLoop {
    pub(super) fn serve(&mut self) -> Turn {
        if !self.fetches.arrived.is_empty() {
            self.install_arrived()?;
        }
        if self.hand.is_empty() {
            return Ok(());
        }
        let mut clock = None;
        for index in 0..self.hand.len() {
            let fault = self.hand.get(index);
            let ready = match fault.phase {
                Phase::Ready => true,
                Phase::Deferred(due) => {
                    let now = *clock.get_or_insert_with(Instant::now);
                    now >= due || (fault.trouble.is_none() && self.memory.is_gap_due(now))
                }
                // A REMOVE made it a page of zeros, for which there is nothing to wait.
                Phase::Parked => self.memory.states.get(fault.page) != PageState::Unfaulted,
                Phase::Served => false,
            };
            if ready {
                if fault.attempts > 0 {
                    self.memory.counters.retried += 1;
                }
                self.serve_one(index)?;
            } else {
                self.check_deadline(index)?;
            }
        }
        self.hand.drop_served();
        Ok(())
    }

    fn serve_one(&mut self, index: usize) -> Turn {
        let Fault { page, kind, alone, .. } = *self.hand.get(index);
        let state = self.memory.states.get(page);
        match (kind, policy::content(state)) {
            (Kind::Protect, _) => self.serve_protect(index, page, state),
            (Kind::Missing { .. }, Content::Zeros) => {
                let put = self.memory.put_zeros(PageRange::single(page), kind.access());
                match put {
                    Ok(done) => {
                        self.settle(done, FilledWith::Zeros);
                    }
                    Err(obstacle) => return self.obstructed(index, obstacle),
                }
                Ok(())
            }
            (Kind::Missing { .. }, Content::Poison) => self.poison(index),
            (Kind::Missing { .. }, Content::Source) => {
                let run = if alone { PageRange::single(page) } else { self.run_around(page) };
                self.serve_from_source(index, run)
            }
        }
    }

    /// The unfaulted pages that are worth filling together with `page`, its own among them.
    fn run_around(&self, page: PageIndex) -> PageRange {
        let widest = self.options.fault_around.pages(self.memory.page_size());
        let region = self.memory.layout().region_of(page);
        let Some(region) = region.filter(|_| widest > 1) else { return PageRange::single(page) };
        let states = &self.memory.states;
        let mut window = window::around(states, region.pages, page, widest);
        if states.is_wanted(page) {
            let ahead = PageRange { start: page, end: self.widest_window(page).end };
            window.end = window.end.max(states.next_wanted(ahead).map_or(page, |run| run.end));
        }
        states.unfaulted_around(page, window)
    }

    /// The pages around `page` that may be filled together with it.
    fn widest_window(&self, page: PageIndex) -> PageRange {
        let widest = self.options.fault_around.pages(self.memory.page_size());
        let region = self.memory.layout().region_of(page);
        region.map_or(PageRange::single(page), |it| window::aligned(it.pages, page, widest))
    }

    /// The unfaulted pages that are filled together with `page` where they are zeros like it.
    fn zeros_around(&self, page: PageIndex, run: PageRange) -> PageRange {
        if self.memory.page_size() == PageSize::Huge || self.memory.tracking().is_on() {
            return run;
        }
        // The shared zero page costs no memory and hardly any time.
        self.memory.states.unfaulted_around(page, self.widest_window(page))
    }

    /// Serves the fault first, with the run from its page on; then the part of the run before it.
    fn serve_from_source(&mut self, index: usize, run: PageRange) -> Turn {
        let Fault { page, kind, alone, .. } = *self.hand.get(index);
        let access = kind.access();
        let ahead = PageRange { start: page, end: run.end };
        let page_size = self.memory.page_size();
        let wanted = !alone && self.memory.states.is_wanted(page);
        let mut zeros = run;
        let put = match self.source.lookup(self.memory.want(ahead), &mut self.scratch) {
            Chunk::Zeros(len) => {
                if !alone {
                    zeros = self.zeros_around(page, run);
                }
                let mut pages = first(ahead, len, page_size);
                let wider = PageRange { start: page, end: zeros.end };
                if pages == ahead
                    && wider != ahead
                    && let Chunk::Zeros(len) =
                        self.source.lookup(self.memory.want(wider), &mut self.scratch)
                {
                    pages = first(wider, len, page_size);
                }
                self.memory.put_zeros(pages, access).map(|done| (done, FilledWith::SourceZeros))
            }
            Chunk::Ready(bytes) => {
                let pages = first(ahead, bytes.len(), page_size);
                let put = self.memory.put_bytes(pages, bytes, access);
                put.map(|done| (done, FilledWith::Source))
            }
            Chunk::Absent(len) => {
                self.fetch_for_fault(index, first(ahead, len, page_size));
                return Ok(());
            }
        };
        match put {
            Ok((done, filled)) => {
                self.settle_around(done, filled);
                self.fill_neighbours(PageRange { start: done.end, end: run.end }, Fill::All)?;
                self.fill_neighbours(PageRange { start: run.start, end: page }, Fill::All)?;
                let before = PageRange { start: zeros.start, end: run.start };
                self.fill_neighbours(before, Fill::Zeros)?;
                if wanted {
                    self.fill_wanted(page)?;
                }
                Ok(())
            }
            // The map could not be read: reading the file tells why, away from the loop.
            Err(Obstacle::Unreadable) => {
                self.fetch_for_fault(index, PageRange::single(page));
                Ok(())
            }
            Err(Obstacle::Unmapped) if zeros.len() > 1 => {
                self.hand.get_mut(index).alone = true;
                self.serve_from_source(index, PageRange::single(page))
            }
            Err(obstacle) => self.obstructed(index, obstacle),
        }
    }

    /// Fills what a prefault was asked for around a fault, which is now needed the sooner: first
    /// what lies ahead.
    fn fill_wanted(&mut self, page: PageIndex) -> Turn {
        let PageRange { start, end } = self.widest_window(page);
        for mut rest in [PageRange { start: page, end }, PageRange { start, end: page }] {
            while let Some(run) = self.memory.states.next_wanted(rest) {
                self.fill_neighbours(run, Fill::All)?;
                rest.start = run.end;
            }
        }
        Ok(())
    }

    /// Fills unfaulted pages around a fault as far as that goes without trouble: nobody waits
    /// for them.
    fn fill_neighbours(&mut self, pages: PageRange, fill: Fill) -> Turn {
        let mut rest = pages;
        let page_size = self.memory.page_size();
        while !rest.is_empty() {
            let want = self.memory.want(rest);
            let (put, filled) = match self.source.lookup(want, &mut self.scratch) {
                Chunk::Zeros(len) => {
                    let pages = first(rest, len, page_size);
                    (self.memory.put_zeros(pages, Access::Ahead), FilledWith::SourceZeros)
                }
                chunk if fill == Fill::Zeros => {
                    rest.start = first(rest, chunk.len(), page_size).end;
                    continue;
                }
                Chunk::Ready(bytes) => {
                    let pages = first(rest, bytes.len(), page_size);
                    (self.memory.put_bytes(pages, bytes, Access::Ahead), FilledWith::Source)
                }
                Chunk::Absent(_) => return Ok(()),
            };
            match put {
                Ok(done) if done.is_empty() => return Ok(()),
                Ok(done) => {
                    self.settle_around(done, filled);
                    rest.start = done.end;
                }
                Err(Obstacle::Present) => {
                    self.memory.adopt(rest.start);
                    rest.start = rest.start.next();
                }
                Err(Obstacle::Gone) => return Err(Halt::GuestExited),
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// A write to a protected page.
    fn serve_protect(&mut self, index: usize, page: PageIndex, state: PageState) -> Turn {
        let put = match state {
            // The tracker says that it is absent and the kernel that it is present. Where the
            // tracker is right the write comes again, to a page that reports it.
            PageState::Removed => match self.memory.put_protected_zeros(page) {
                Err(Obstacle::Present) => self.memory.unprotect(page),
                put => put,
            },
            _ => self.memory.unprotect(page),
        };
        match put {
            Ok(_) => {
                let now = Instant::now();
                let fault = self.hand.get_mut(index);
                fault.phase = Phase::Served;
                let latency = now.saturating_duration_since(fault.read_at);
                self.latency.record(latency);
                self.memory.counters.protect_faults += 1;
                // A page filled ahead may be touched first by a write.
                if self.options.trace && self.memory.states.touch(page) {
                    let time = now.saturating_duration_since(self.since);
                    self.trace.push(TraceEntry::new(page, true, FilledWith::Present, time));
                }
                Ok(())
            }
            Err(obstacle) => self.obstructed(index, obstacle),
        }
    }

    /// Every missing-page fault in `done` is served: the pages were installed after it was read,
    /// and the install woke its threads. Returns how many there were, each on a page of its own.
    pub(super) fn settle(&mut self, done: PageRange, filled: FilledWith) -> u64 {
        let Self { hand, memory, latency, trace, since, options, .. } = self;
        let mut clock = None;
        let mut served = 0;
        for fault in hand.missing_in(done) {
            let now = *clock.get_or_insert_with(Instant::now);
            fault.phase = Phase::Served;
            latency.record(now.saturating_duration_since(fault.read_at));
            let write = fault.kind == Kind::Missing { write: true };
            if write {
                memory.counters.write_faults += 1;
                memory.written(fault.page);
            } else {
                memory.counters.read_faults += 1;
            }
            if memory.states.touch(fault.page) && options.trace {
                let time = now.saturating_duration_since(*since);
                trace.push(TraceEntry::new(fault.page, write, filled, time));
            }
            served += 1;
        }
        served
    }

    /// Pages were installed for a fault: those that no fault asked for are its neighbours.
    pub(super) fn settle_around(&mut self, done: PageRange, filled: FilledWith) {
        let served = self.settle(done, filled);
        self.memory.counters.neighbour_pages += done.len().saturating_sub(served);
    }

    /// What to do with a fault whose install met an obstacle.
    fn obstructed(&mut self, index: usize, obstacle: Obstacle) -> Turn {
        let page = self.hand.get(index).page;
        match obstacle {
            Obstacle::Present => {
                self.memory.adopt(page);
                self.memory.wake(page);
                self.settle(PageRange::single(page), FilledWith::Present);
                self.hand.get_mut(index).phase = Phase::Served;
                Ok(())
            }
            // Looking again tells: a thread that finds its page does not come back.
            Obstacle::Unsure => {
                self.memory.wake(page);
                self.hand.get_mut(index).phase = Phase::Served;
                Ok(())
            }
            Obstacle::Changing => {
                self.memory.counters.deferred += 1;
                self.hand.get_mut(index).defer(Instant::now(), CHANGING);
                Ok(())
            }
            Obstacle::NoMemory => {
                self.warn_of_memory(page);
                self.troubled(index, Trouble::NoMemory)
            }
            // The thread finds out for itself what became of its memory.
            Obstacle::Unmapped => {
                self.memory.counters.stray_faults += 1;
                self.memory.wake(page);
                self.hand.get_mut(index).phase = Phase::Served;
                Ok(())
            }
            Obstacle::Gone => Err(Halt::GuestExited),
            Obstacle::Unreadable => self.troubled(
                index,
                Trouble::Source(SourceError::Io {
                    offset: self.offset(page),
                    cause: "the kernel could not read the bytes".to_owned(),
                }),
            ),
            Obstacle::Refused(errno) => Err(self.refused("install", page, errno)),
        }
    }

    pub(super) fn warn_of_memory(&mut self, page: PageIndex) {
        if !std::mem::replace(&mut self.reporting.warned_of_memory, true) {
            let huge = self.memory.page_size() == PageSize::Huge;
            self.observer.notice(Notice::OutOfMemory { page, huge });
        }
    }

    /// A page cannot be had for now; after the deadline, not at all.
    pub(super) fn troubled(&mut self, index: usize, trouble: Trouble) -> Turn {
        let hopeless = matches!(&trouble, Trouble::Source(error) if error.is_final());
        let now = Instant::now();
        let fault = self.hand.get_mut(index);
        fault.alone = true;
        fault.trouble = Some(trouble);
        if hopeless || now.saturating_duration_since(fault.read_at) >= self.options.fault_deadline {
            return self.give_up(index);
        }
        fault.defer(now, TROUBLED);
        Ok(())
    }

    /// A fault whose bytes do not come is given up after the deadline.
    fn check_deadline(&mut self, index: usize) -> Turn {
        let fault = self.hand.get(index);
        if fault.phase == Phase::Parked && fault.read_at.elapsed() >= self.options.fault_deadline {
            return self.give_up(index);
        }
        Ok(())
    }

    /// The configured answer to a page that cannot be had.
    fn give_up(&mut self, index: usize) -> Turn {
        let fault = self.hand.get(index);
        let (page, waited) = (fault.page, fault.read_at.elapsed());
        let huge = self.memory.page_size() == PageSize::Huge;
        let cause = match &fault.trouble {
            Some(Trouble::Source(error)) => Cause::Source(error.clone()),
            Some(Trouble::NoMemory) => Cause::NoMemory { huge, waited },
            // There was no room to fetch it, since what was fetched before cannot be installed.
            None if self.fetches.wait_for_memory() && !self.fetches.covers(page) => {
                Cause::NoMemory { huge, waited }
            }
            None => Cause::SlowSource { waited },
        };
        let offset = self.offset(page);
        let killed = match self.options.on_unservable {
            Unservable::Poison => match self.poison(index) {
                Ok(()) => {
                    if self.memory.states.get(page) == PageState::Poisoned {
                        self.observer.notice(Notice::Poisoned { page, offset, cause });
                    }
                    return Ok(());
                }
                // Before Linux 6.6 it cannot be. Why the page cannot be had is worth more.
                Err(Halt::Failed(SessionError::Refused { .. })) => false,
                Err(halt) => return Err(halt),
            },
            Unservable::Kill => self.process.as_ref().is_some_and(|guest| guest.kill().is_ok()),
            Unservable::Fail => false,
        };
        Err(Halt::Failed(SessionError::Unservable { page, offset, cause, killed }))
    }

    fn poison(&mut self, index: usize) -> Turn {
        let page = self.hand.get(index).page;
        match self.memory.poison(page) {
            Ok(done) => {
                self.settle(done, FilledWith::Present);
                self.hand.get_mut(index).phase = Phase::Served;
                Ok(())
            }
            Err(Obstacle::Refused(errno)) => Err(self.refused("poison", page, errno)),
            // Memory for a page table entry: the same pauses, without a deadline.
            Err(Obstacle::NoMemory) => {
                self.hand.get_mut(index).defer(Instant::now(), TROUBLED);
                Ok(())
            }
            Err(obstacle) => self.obstructed(index, obstacle),
        }
    }
}

/// The pages at the start of `pages` that `len` bytes are about. A source may know of more than
/// it was asked for.
pub(super) fn first(pages: PageRange, len: u64, page_size: PageSize) -> PageRange {
    let count = (len >> page_size.shift()).min(pages.len());
    PageRange::new(pages.start.0, pages.start.0 + count)
}
