//! Copies of the page states for exports: made piece by piece, with faults in between. All else about
//! an export happens on a thread of its own.

use std::collections::VecDeque;

use crossbeam_channel::TryRecvError;

use super::guest::Guest;
use super::next::Next;
use super::{FaultLoop, Turn};
use crate::contract::{Copied, ExportJob};
use crate::install::GuestMemory;

/// How many pages are copied at once: some microseconds.
const AT_ONCE: usize = 64 << 10;

/// Those that were asked for, in order.
#[derive(Default)]
pub(super) struct Exports(VecDeque<ExportJob>);

impl Exports {
    pub(super) fn add(&mut self, job: ExportJob) {
        self.0.push_back(job);
    }

    pub(super) fn next(&self, guest: &Guest) -> Next {
        let has_room = self.0.front().is_some_and(|job| !job.room.is_empty());
        if has_room || guest.memory.states.is_being_copied() { Next::Now } else { Next::Never }
    }

    /// Whether the next one can begin; nobody waits for one whose room cannot come any more.
    fn room(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.0.front()?.room.try_recv() {
                Ok(room) => return Some(room),
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Disconnected) => drop(self.0.pop_front()),
            }
        }
    }

    fn deliver(&mut self, memory: &GuestMemory, states: Vec<u8>) {
        let Some(ExportJob { deliver, .. }) = self.0.pop_front() else { return };
        crate::kill_point!("export copied");
        deliver(Copied {
            states,
            counts: memory.states.counts(),
            tracking: memory.rules().tracking,
            unprotected_zeros: memory.rules().unprotected_zeros(),
            identity: memory.identity().clone(),
            layout: memory.layout().clone(),
        });
    }
}

impl FaultLoop {
    /// A piece of the export that is under way, or the beginning of the next.
    pub(super) fn export(&mut self) -> Turn {
        if !self.guest.memory.states.is_being_copied() {
            let Some(room) = self.exports.room() else { return Ok(()) };
            self.catch_up()?;
            self.guest.memory.states.begin_copy(room);
        }
        let memory = &mut self.guest.memory;
        if let Some(states) = memory.states.go_on_copying(AT_ONCE) {
            self.exports.deliver(memory, states);
        }
        Ok(())
    }

    /// The loop ends: what was asked for before is answered.
    pub(super) fn finish_exports(&mut self) {
        let Self { exports, guest, .. } = self;
        let memory = &mut guest.memory;
        while let Some(job) = exports.0.front() {
            if !memory.states.is_being_copied() {
                let pages = usize::try_from(memory.layout().page_end().0).unwrap_or_default();
                let room = job.room.try_recv().unwrap_or_else(|_| vec![0; pages]);
                memory.states.begin_copy(room);
            }
            if let Some(states) = memory.states.go_on_copying(usize::MAX) {
                exports.deliver(memory, states);
            }
        }
    }
}
