//! Messages from the rest of the process, and the answers to them.

use super::guest::Guest;
use super::next::Next;
use super::{FaultLoop, Halt, Turn};
use crate::contract::{Command, Inbox, Message, PrefaultMode, Reply};

pub(super) struct Commands {
    pub(super) inbox: Inbox,
    /// Whoever waits for the hand to be empty.
    pub(super) settling: Vec<Reply<()>>,
}

impl Commands {
    pub(super) const fn new(inbox: Inbox) -> Self {
        Self { inbox, settling: Vec::new() }
    }

    pub(super) fn next(&self, guest: &Guest) -> Next {
        let settled = !self.settling.is_empty() && guest.hand.is_empty();
        if settled || self.inbox.has_mail() { Next::Now } else { Next::Never }
    }
}

impl FaultLoop {
    pub(super) fn obey(&mut self) -> Turn {
        if self.commands.inbox.has_mail() {
            self.commands.inbox.waker().clear();
            while let Some(message) = self.commands.inbox.next() {
                match message {
                    Message::Command(command) => self.command(command)?,
                    Message::Fetched(fetched) => {
                        let Self { guest, fetches, prefaults, .. } = self;
                        fetches.take(guest, prefaults, fetched)?;
                    }
                    Message::Collapsed(verdict) => {
                        let Self { guest, collapses, .. } = self;
                        collapses.iter_mut().for_each(|it| it.answered(verdict, guest));
                    }
                    Message::Room => {
                        self.prefaults.room_again();
                        self.fetches.room_again(&mut self.guest);
                    }
                }
            }
            // What was fetched may be what a fault waits for.
            if self.fetches.next() == Next::Now || !self.guest.hand.is_empty() {
                self.serve()?;
            }
        }
        if self.guest.hand.is_empty() {
            self.commands.settling.drain(..).for_each(|reply| reply.send(()));
        }
        Ok(())
    }

    fn command(&mut self, command: Command) -> Turn {
        match command {
            Command::Prefault { id, mode, ranges, reply } => {
                self.prefaults.add(id, mode, ranges, reply);
            }
            Command::CancelPrefault(id) => {
                self.prefaults.cancel(id, &mut self.guest.memory.states);
            }
            Command::Stats(reply) => reply.send(self.stats()),
            Command::Ping(reply) => reply.send(()),
            Command::Trace { from, reply } => reply.send(self.guest.trace_from(from)),
            Command::Export(job) => self.exports.add(job),
            // It is looked for in each turn.
            Command::RoomForExport => {}
            Command::Settle(reply) => {
                self.catch_up()?;
                self.commands.settling.push(reply);
            }
            Command::Report { stats_every, trace } => {
                self.guest.journal.configure(stats_every, trace);
            }
            Command::TraceWanted => self.guest.journal.trace_wanted(),
            Command::Release { id, reply } => {
                if let Some(installed) = self.release.begin(id, reply) {
                    let regions = self.guest.memory.layout().regions();
                    let ranges = regions.iter().map(|region| region.pages).collect();
                    self.prefaults.add(id, PrefaultMode::Release, ranges, installed);
                }
            }
            Command::ReleaseInstalled(report) => {
                self.release.installed(&mut self.guest, &report);
            }
            Command::HandOver => {
                let Some(kept) = &self.kept else { return Err(Halt::Stopped) };
                self.leaving.begin(kept.ward.as_ref())?;
            }
            // Asked for before, and nobody takes it amiss that it is served on.
            Command::Stop if self.leaving.has_begun() => return Err(Halt::HandedOver),
            Command::Stop => return Err(Halt::Stopped),
        }
        Ok(())
    }

    /// The kernel may hold REMOVEs and faults that happened before this moment.
    pub(super) fn catch_up(&mut self) -> Turn {
        self.intake.drain(&mut self.guest)?;
        self.serve()
    }
}
