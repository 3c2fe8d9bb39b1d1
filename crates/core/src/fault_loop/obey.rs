//! Step 4: messages from the rest of the process, and the answers to them.

use roaring::RoaringBitmap;

use super::{FaultLoop, Halt, Turn};
use crate::policy::Tracking;
use crate::session::{Command, Export, Message, RegionStates};
use crate::states::PageState;
use crate::units::{PageIndex, PageRange};

impl FaultLoop {
    pub(super) fn obey(&mut self) -> Turn {
        if self.inbox.has_mail() {
            self.inbox.waker().clear();
            while let Some(message) = self.inbox.next() {
                match message {
                    Message::Command(command) => self.command(command)?,
                    Message::Fetched(fetched) => self.fetched(fetched)?,
                    Message::Room => self.room_again(),
                }
            }
            // What was fetched may be what a fault waits for.
            if !self.fetches.arrived.is_empty() || !self.hand.is_empty() {
                self.serve()?;
            }
        }
        if self.hand.is_empty() {
            self.settling.drain(..).for_each(|reply| reply.send(()));
        }
        Ok(())
    }

    fn command(&mut self, command: Command) -> Turn {
        match command {
            Command::Prefault { id, mode, ranges, reply } => {
                self.prefaults.add(id, mode, ranges, reply);
            }
            Command::CancelPrefault(id) => self.prefaults.cancel(id, &mut self.memory.states),
            Command::Stats(reply) => reply.send(self.stats()),
            Command::Trace { from, reply } => {
                reply.send(self.trace.get(from..).unwrap_or_default().to_vec());
            }
            Command::Export(reply) => {
                // The kernel may hold REMOVEs that happened before this moment.
                self.drain()?;
                self.serve()?;
                reply.send(self.export());
            }
            Command::Settle(reply) => {
                self.drain()?;
                self.serve()?;
                self.settling.push(reply);
            }
            Command::Report { stats_every, trace } => self.reporting.configure(stats_every, trace),
            Command::TraceWanted => self.reporting.trace_wanted(),
            Command::Stop => return Err(Halt::Stopped),
        }
        Ok(())
    }

    fn export(&self) -> Export {
        let states = &self.memory.states;
        let regions =
            self.memory.layout().regions().iter().map(|region| RegionStates {
                region: *region,
                states: states.public(region.pages),
            });
        let written = match self.memory.tracking() {
            Tracking::Async => self.written(),
            Tracking::Off | Tracking::Sync => None,
        };
        let exact = match self.memory.tracking() {
            Tracking::Off => false,
            Tracking::Sync => true,
            Tracking::Async => written.is_some(),
        };
        let (mut dirty, mut empty) = (RoaringBitmap::new(), RoaringBitmap::new());
        for region in self.memory.layout().regions() {
            for (run, state) in states.runs(region.pages) {
                match state {
                    PageState::Dirty => insert(&mut dirty, run),
                    PageState::Removed => insert(&mut empty, run),
                    PageState::Zero if exact => insert(&mut empty, run),
                    // Nobody saw whether it was written.
                    PageState::Clean | PageState::Zero if !exact => insert(&mut dirty, run),
                    _ => {}
                }
            }
        }
        if let Some(mut written) = written {
            for region in self.memory.layout().regions() {
                for (run, state) in states.runs(region.pages) {
                    // A poisoned page has a mark in the page table that looks like a written page.
                    if matches!(state, PageState::Removed | PageState::Poisoned) {
                        remove(&mut written, run);
                    }
                }
            }
            empty -= &written;
            dirty |= written;
        }
        Export { regions: regions.collect(), counts: states.counts(), dirty, empty, exact }
    }

    /// What the kernel saw being written, where it does the tracking (PAGEMAP_SCAN).
    fn written(&self) -> Option<RoaringBitmap> {
        let (pagemap, layout) = (self.memory.pagemap()?, self.memory.layout());
        let mut written = RoaringBitmap::new();
        for region in layout.regions() {
            let end = crate::units::GuestAddr(region.base.0 + self.memory.bytes_of(region.pages));
            let scan = pagemap.written(region.base, end, |start, end| {
                let last = crate::units::GuestAddr(end.0 - 1);
                if let (Some(first), Some(last)) = (layout.page_at(start), layout.page_at(last)) {
                    insert(&mut written, PageRange { start: first, end: last.next() });
                }
            });
            scan.ok()?;
        }
        Some(written)
    }
}

fn insert(bitmap: &mut RoaringBitmap, pages: PageRange) {
    bitmap.insert_range(number(pages.start)..number(pages.end));
}

fn remove(bitmap: &mut RoaringBitmap, pages: PageRange) {
    bitmap.remove_range(number(pages.start)..number(pages.end));
}

/// Sessions of more than 2^32 pages are refused at their start.
fn number(page: PageIndex) -> u32 {
    u32::try_from(page.0).unwrap_or(u32::MAX)
}
