//! The fault loop: one thread a guest, which alone reads its events, holds its page states and
//! accounts for its installs. No install is in flight while events are read, so no stale page can
//! land after a REMOVE was read.
//!
//! A turn of the loop, and the file of each step, which owns what the step needs to remember:
//! events are read and REMOVEs applied (`intake`), bytes that were fetched are installed
//! (`arrivals`), faults are served (`faults`), messages are obeyed (`commands`), a piece of the states
//! is copied (`exports`), a slice of what was asked for ahead is installed (`prefaults`), and what happened is told (`journal`). Then one
//! question, [`FaultLoop::next`], decides whether to sleep (`idle`) and until when. What all steps
//! work on is the guest (`guest`): its memory, the faults in hand, and the journal.

mod ahead;
mod announce;
mod arrivals;
mod clock;
mod collapses;
mod commands;
mod company;
mod exports;
mod faults;
mod fetches;
mod guest;
mod hand;
mod idle;
mod intake;
mod journal;
mod leaving;
mod next;
mod pause;
mod prefaults;
mod release;
mod setup;
mod upcoming;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::{End, SessionError};
use crate::guardian::Ward;
use crate::identity::SharedIdentity;
use crate::layout::Layout;
use crate::ledger::{LedgerFile, Live};
use crate::policy::Tracking;
use crate::recovery::Keep;
use crate::service_manager::Stored;
use crate::source::{Scratch, Source};
use crate::stats::Stats;
use crate::view::View;
use ahead::Ahead;
use collapses::Collapses;
use commands::Commands;
use exports::Exports;
use fetches::Fetches;
use guest::Guest;
use idle::Idle;
use intake::Intake;
use leaving::Leaving;
use next::Next;
use prefaults::Prefaults;
use release::Release;

pub(crate) use setup::Setup;

/// Why the loop ends.
pub(crate) enum Halt {
    GuestExited,
    Stopped,
    HandedOver,
    Released,
    Failed(SessionError),
}

impl From<Halt> for End {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::GuestExited => Self::GuestExited,
            Halt::Stopped => Self::Stopped,
            Halt::HandedOver => Self::HandedOver,
            Halt::Released => Self::Released,
            Halt::Failed(error) => Self::Failed(error),
        }
    }
}

type Turn<T = ()> = Result<T, Halt>;

pub(crate) struct FaultLoop {
    guest: Guest,
    source: Arc<dyn Source>,
    /// What look-ups may put their bytes into.
    scratch: Scratch,
    intake: Intake,
    ahead: Ahead,
    fetches: Fetches,
    prefaults: Prefaults,
    commands: Commands,
    exports: Exports,
    release: Release,
    leaving: Leaving,
    /// Where it was asked for.
    collapses: Option<Collapses>,
    idle: Idle,
    live: Live,
    /// Where others find what is written down; without it, the guest ends with this process.
    kept: Option<Kept>,
}

/// What makes a guest outlive this process.
struct Kept {
    file: LedgerFile,
    /// Dropped after the file, which the guardian cannot have before.
    ward: Option<Ward>,
    stored: Option<Stored>,
}

impl Drop for Kept {
    /// A guest that has ended, or was refused before anybody served it, is nobody's: others hear so
    /// before they could have its ledger.
    fn drop(&mut self) {
        if !self.file.stays() {
            self.ward.take().into_iter().for_each(Ward::forget);
            self.stored.take().into_iter().for_each(Stored::forget);
        }
    }
}

impl FaultLoop {
    /// Serves the guest until it ends, and says why it did.
    pub(crate) fn run(&mut self) -> End {
        if let Some(Kept { file, .. }) = &mut self.kept {
            file.served();
        }
        let halt = loop {
            if let Err(halt) = self.turn() {
                break halt;
            }
        };
        self.finish_exports();
        if matches!(halt, Halt::Stopped) {
            self.let_go();
        }
        halt.into()
    }

    fn turn(&mut self) -> Turn {
        self.intake.drain(&mut self.guest)?;
        self.serve()?;
        self.obey()?;
        self.export()?;
        self.prefault()?;
        self.collapse();
        self.release.finish(&mut self.guest, &mut self.intake, &mut self.live)?;
        self.leaving.step()?;
        if self.kept.is_some() {
            self.live.note(&self.guest.memory.counters);
        }
        self.show();
        self.guest.journal.report(&self.guest.memory, &self.guest.hand);
        match self.next() {
            Next::Now => Ok(()),
            // Somebody walks: what comes next is installed instead of waiting.
            _ if self.ahead.step(&mut self.guest, &*self.source, &mut self.scratch)? => Ok(()),
            next => self.idle.wait(next, &mut self.guest, &mut self.intake, &self.commands),
        }
    }

    fn show(&self) {
        let Guest { memory, hand, journal, .. } = &self.guest;
        journal.show(memory, hand, self.prefaults.pending());
    }

    /// Whether there is anything to do, over all that is pending; the loop sleeps by it alone.
    fn next(&self) -> Next {
        self.guest
            .next()
            .or(|| self.intake.next())
            .or(|| self.fetches.next())
            .or(|| self.commands.next(&self.guest))
            .or(|| self.exports.next(&self.guest))
            .or(|| self.prefaults.next())
            .or(|| self.release.next(&self.guest))
            .or(|| self.leaving.next())
            .or(|| self.collapses.as_ref().map_or(Next::Never, |it| it.next(&self.guest)))
            .or(|| self.guest.journal.next())
            .or(|| self.idle.next(&self.guest))
    }

    /// Serves what is in hand: first by bytes that were fetched for it.
    fn serve(&mut self) -> Turn {
        self.fetches.install(&mut self.guest, &mut self.prefaults)?;
        let Self { guest, source, scratch, fetches, ahead, .. } = self;
        faults::serve(guest, &**source, scratch, fetches, ahead)
    }

    fn prefault(&mut self) -> Turn {
        let Self { guest, source, scratch, fetches, prefaults, .. } = self;
        prefaults.slice(guest, &**source, scratch, fetches)?;
        self.release.tell(&mut self.guest, &self.prefaults);
        Ok(())
    }

    fn collapse(&mut self) {
        if let Some(collapses) = &mut self.collapses {
            collapses.step(&mut self.guest, self.prefaults.pending() > 0);
        }
    }

    /// Reads what the guest has asked for so far, lets go of threads that give memory back, and
    /// serves what can be served at once.
    fn let_go(&mut self) {
        let until = Instant::now() + Duration::from_millis(50);
        while self.intake.drain(&mut self.guest).and_then(|()| self.serve()).is_ok()
            && let Some(due) = self.guest.hand.next_due()
            && Instant::now() < until
        {
            std::thread::sleep(due.min(until).saturating_duration_since(Instant::now()));
        }
    }

    /// Leaves nothing behind, however the loop ended.
    pub(crate) fn clean_up(&mut self, end: &End) {
        self.prefaults.skip_all();
        self.commands.settling.clear();
        if self.leaves_guest(end) {
            crate::kill_point!("handing over");
            // Whoever takes the guest over wakes its threads when it can serve them: nobody is told
            // of anything before it can.
            self.let_ledger_go(false);
            return;
        }
        if matches!(end, End::Failed(_)) && self.guest.options.kill_on_failure {
            self.guest.kill();
        }
        self.guest.memory.wake_all();
    }

    /// Whether the guest is left to a successor: on purpose, or since this loop cannot go on and
    /// another one may. A defect left behind no more than a kill does.
    fn leaves_guest(&self, end: &End) -> bool {
        let is_killed = matches!(end, End::Failed(_)) && self.guest.options.kill_on_failure;
        self.kept.is_some() && end.is_no_fault_of_the_guest() && !is_killed
    }

    /// Gives up the ownership of the guest; its ledger is removed unless somebody else goes on.
    fn let_ledger_go(&mut self, remove: bool) {
        let Some(mut kept) = self.kept.take() else { return };
        if remove {
            kept.file.ended();
        }
        drop(kept);
        crate::kill_point!("let go");
    }

    /// Entrusts the guest, which another process had, to whom guests are.
    pub(crate) fn entrust(&mut self, id: &str, keep: &Keep) {
        let uffd = self.guest.memory.uffd().as_fd();
        if let Some(kept) = &mut self.kept {
            kept.ward =
                keep.guardian.as_ref().and_then(|guardian| guardian.entrust_again(id, uffd));
            kept.stored = Stored::of(keep.manager.as_ref(), &keep.dir, id, uffd);
        }
    }

    /// Whether its guest can be left to a successor.
    pub(crate) const fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The guest's process, for as long as it is served.
    pub(crate) const fn identity(&self) -> &SharedIdentity {
        self.guest.memory.identity()
    }

    /// The guest's regions.
    pub(crate) const fn layout(&self) -> &Arc<Layout> {
        self.guest.memory.layout()
    }

    /// What others see of the guest without asking the loop.
    pub(crate) const fn view(&self) -> &Arc<View> {
        self.guest.journal.view()
    }

    /// Tells the observer that the session begins.
    pub(crate) fn begin(&mut self) {
        self.show();
        self.guest.journal.begin();
    }

    pub(crate) const fn tracking_in_use(&self) -> Tracking {
        self.guest.memory.rules().tracking
    }

    /// The last of the trace, once the guest has ended.
    pub(crate) fn report_rest(&mut self) {
        let memory = self.kept.is_some().then_some(&self.guest.memory);
        self.guest.journal.report_rest(memory);
    }

    /// Tells the observer how it ended. Consumes the loop: this happens once.
    pub(crate) fn finish(mut self, end: &End) {
        let stats = self.stats();
        self.show();
        self.let_ledger_go(!self.leaves_guest(end));
        self.guest.journal.ended(end, stats);
    }

    pub(crate) fn stats(&self) -> Stats {
        self.guest.stats()
    }
}
