//! What was fetched has come: it is installed where the pages are still unfaulted.

use std::time::Instant;

use super::fetches::{Arrived, Fetches};
use super::guest::{Answer, Asker, Guest, NO_MEMORY};
use super::hand::{Fault, Phase, Trouble};
use super::pause::Blocked;
use super::prefaults::Prefaults;
use super::{Turn, faults};
use crate::contract::{Fetched, Lack};
use crate::install::{Fill, Install, Plan, Stopped, first};
use crate::source::{Chunk, Delivery};
use crate::states::PageState;
use crate::units::{PageIndex, PageRange};

impl Fetches {
    /// Takes what a fetch thread brought.
    pub(super) fn take(
        &mut self,
        guest: &mut Guest,
        prefaults: &mut Prefaults,
        fetched: Fetched,
    ) -> Turn {
        let Fetched { pages, bytes, prefault } = fetched;
        let waited_for = match prefault {
            Some(id) => prefaults.fetch_ended(id, pages),
            None => self.ended(pages),
        };
        if !waited_for {
            // It was taken back at the moment in which it came.
            return Ok(());
        }
        // A source may bring only a start of what it was asked for.
        let size = guest.memory.page_size();
        let got = |bytes: &Delivery| first(pages, bytes.piece().len(), size);
        let brought = bytes.as_ref().map_or(pages, got);
        let rest = PageRange { start: brought.end, end: pages.end };
        match (bytes, prefault) {
            (Ok(_), Some(id)) if prefaults.is_fetched_only(id, brought) => {
                prefaults.fetch_was_short(id, rest);
            }
            (Ok(bytes), prefault) => {
                match prefault {
                    Some(id) => prefaults.fetch_was_short(id, rest),
                    None => guest.hand.missing_in(rest).for_each(Fault::unpark),
                }
                self.arrived.push_back(Arrived {
                    first: pages.start,
                    pages: brought,
                    bytes,
                    prefault,
                    blocked: None,
                    short_of_memory: false,
                    singly: false,
                });
            }
            (Err(error), Some(id)) => {
                guest.memory.counters.failed_fetches += 1;
                prefaults.fetch_failed(id, pages, &error, guest.memory.page_size());
            }
            (Err(error), None) => {
                guest.memory.counters.failed_fetches += 1;
                return faults::fetch_failed(guest, pages, &error);
            }
        }
        Ok(())
    }

    /// Installs what has arrived, as far as its pages are still unfaulted.
    pub(super) fn install(&mut self, guest: &mut Guest, prefaults: &mut Prefaults) -> Turn {
        if self.arrived.is_empty() {
            return Ok(());
        }
        for _ in 0..self.arrived.len() {
            let Some(mut arrived) = self.arrived.pop_front() else { break };
            let waits = arrived.blocked.as_ref().is_some_and(|it| Instant::now() < it.until);
            if waits || !arrived.install(guest, prefaults)? {
                self.arrived.push_back(arrived);
            }
        }
        self.drop_served(&mut guest.hand);
        self.share_trouble(&mut guest.hand);
        Ok(())
    }
}

impl Arrived {
    /// Installs what is left; false if something has to pass first.
    fn install(&mut self, guest: &mut Guest, prefaults: &mut Prefaults) -> Turn<bool> {
        while !self.pages.is_empty() {
            let (run, state) = guest.memory.states.runs(self.pages).next().expect("not empty");
            if state != PageState::Unfaulted {
                prefaults.count_found(self.prefault, run, state);
                self.pages.start = run.end;
                continue;
            }
            let run = if self.singly {
                PageRange::single(run.start)
            } else {
                guest.hand.until_next_write(run)
            };
            let access = guest.hand.access_wanted(run.start);
            let page_bytes = guest.memory.page_size().bytes();
            let from = (run.start.0 - self.first.0) * page_bytes;
            let chunk = self.bytes.piece().chunk(from, guest.memory.bytes_of(run), page_bytes);
            let run = first(run, chunk.len(), guest.memory.page_size());
            let fill = match chunk {
                Chunk::Ready(bytes) => Fill::Bytes(bytes),
                Chunk::Zeros(_) | Chunk::Absent(_) => Fill::SourceZeros,
            };
            let mut plan = Plan::default();
            plan.push(guest.memory.rules(), Install { pages: run, fill, access });
            let asker = if self.prefault.is_some() { Asker::Prefault } else { Asker::Fault };
            let (installed, result) = guest.install(plan.as_slice(), asker);
            drop(plan);
            if installed > 0 {
                self.blocked = None;
                self.short_of_memory = false;
                self.pages.start = PageIndex(run.start.0 + installed);
                prefaults.count_installed(self.prefault, installed);
            }
            if let Err(stopped) = result
                && !self.obstructed(guest, prefaults, stopped, run)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What to do with fetched pages whose install met an obstacle; false if it has to pass first.
    fn obstructed(
        &mut self,
        guest: &mut Guest,
        prefaults: &mut Prefaults,
        stopped: Stopped,
        run: PageRange,
    ) -> Turn<bool> {
        let one = PageRange::single(stopped.page);
        match guest.answer(stopped.obstacle, PageRange { start: stopped.page, end: run.end })? {
            // Its state says so now.
            Answer::There => {}
            Answer::Later(pauses) => {
                Blocked::again(&mut self.blocked, pauses);
                return Ok(false);
            }
            Answer::NoMemory if self.wait_for_memory(guest, prefaults) => return Ok(false),
            // Whoever comes to them asks for them again.
            Answer::NoMemory => self.pages.start = self.pages.end,
            Answer::Singly => self.singly = true,
            Answer::LetGo | Answer::Read => {
                guest.memory.wake(one.start);
                guest.hand.missing_in(one).for_each(|fault| fault.phase = Phase::Served);
                prefaults.count_failed(self.prefault, one, Lack::Place);
                self.pages.start = one.end;
            }
        }
        Ok(true)
    }

    /// Whether the bytes are worth keeping until there is memory.
    fn wait_for_memory(&mut self, guest: &mut Guest, prefaults: &mut Prefaults) -> bool {
        let mut wanted = false;
        for fault in guest.hand.missing_in(self.pages) {
            fault.trouble = Some(Trouble::NoMemory);
            wanted = true;
        }
        self.short_of_memory = true;
        let since = Blocked::again(&mut self.blocked, NO_MEMORY);
        if wanted || since.elapsed() < guest.options.fault_deadline {
            return wanted || self.prefault.is_some();
        }
        prefaults.count_failed(self.prefault, self.pages, Lack::Memory);
        false
    }
}
