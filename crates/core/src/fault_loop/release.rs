//! A guest that has all it needs needs no handler: what is not zeros is installed in the background,
//! then every region is unregistered, and from then on the kernel alone fills what is missing, with
//! zeros.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::guest::Guest;
use super::intake::Intake;
use super::next::Next;
use super::pause::{Blocked, CHANGING, TROUBLED};
use super::prefaults::Prefaults;
use super::{Halt, Turn};
use crate::contract::{
    Command, Mailbox, Message, NotReleased, PrefaultId, PrefaultReport, ReleaseProgress, Reply,
};
use crate::kernel::{Outcome, Uffd};
use crate::ledger::Live;
use crate::units::{GuestAddr, PageSize};

/// How long threads that give memory back may take to go on, once nothing is registered any more.
const LAST_REMOVES: Duration = Duration::from_secs(10);

/// How long it is tried to unregister memory of a process that has no room for another mapping.
const FINDS_ROOM_WITHIN: Duration = Duration::from_secs(5);

/// What UFFDIO_UNREGISTER says of memory that no userfaultfd can have, and of none.
const INVALID: i32 = Errno::EINVAL as i32;

/// Progress is not told more often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// A release that was asked for.
pub(super) struct Release {
    mailbox: Mailbox,
    reply: Option<Reply<Result<(), NotReleased>>>,
    /// The prefault it begins with, and when its progress was told last.
    installing: Option<(PrefaultId, Option<Instant>)>,
    /// Everything is installed: unregister as soon as nothing is in hand.
    ready: bool,
    /// There was no room for the mappings that it takes.
    blocked: Option<Blocked>,
}

impl Release {
    pub(super) const fn new(mailbox: Mailbox) -> Self {
        Self { mailbox, reply: None, installing: None, ready: false, blocked: None }
    }

    /// A predecessor had installed everything and was about to unregister.
    pub(super) const fn go_on(&mut self) {
        self.ready = true;
    }

    /// Takes a release in; the answer to the prefault it begins with comes back as a message.
    pub(super) fn begin(
        &mut self,
        id: PrefaultId,
        reply: Reply<Result<(), NotReleased>>,
    ) -> Option<Reply<PrefaultReport>> {
        if self.reply.is_some() || self.ready {
            reply.send(Err(NotReleased::UnderWay));
            return None;
        }
        self.reply = Some(reply);
        self.installing = Some((id, None));
        let mailbox = self.mailbox.clone();
        Some(Reply::new(move |report: Result<PrefaultReport, _>| {
            if let Ok(report) = report {
                mailbox.post(Message::Command(Command::ReleaseInstalled(report)));
            }
        }))
    }

    /// Tells how far it has come, now and then.
    pub(super) fn tell(&mut self, guest: &mut Guest, prefaults: &Prefaults) {
        let Some((id, told)) = &mut self.installing else { return };
        let now = Instant::now();
        if told.is_some_and(|told| now.duration_since(told) < TELL_EVERY) {
            return;
        }
        if let Some(report) = prefaults.so_far(*id) {
            *told = Some(now);
            guest.journal.releasing(progress(guest, &report));
        }
    }

    /// Everything that could be installed is.
    pub(super) fn installed(&mut self, guest: &mut Guest, report: &PrefaultReport) {
        if self.reply.is_none() {
            return;
        }
        self.installing = None;
        guest.journal.releasing(progress(guest, report));
        let refused = match (report.first_failed, report.first_lack) {
            (Some(first), Some(lack)) => {
                Some(NotReleased::Failed { pages: report.failed, first, lack })
            }
            _ if report.skipped > 0 => Some(NotReleased::Cancelled),
            _ => None,
        };
        match refused {
            Some(refused) => {
                if let Some(reply) = self.reply.take() {
                    reply.send(Err(refused));
                }
            }
            None => self.ready = true,
        }
    }

    pub(super) fn next(&self, guest: &Guest) -> Next {
        match &self.blocked {
            _ if !self.ready || !guest.hand.is_empty() => Next::Never,
            Some(blocked) => Next::At(blocked.until),
            None => Next::Now,
        }
    }

    /// Unregisters the guest if nothing is in hand and no event unread.
    pub(super) fn finish(
        &mut self,
        guest: &mut Guest,
        intake: &mut Intake,
        live: &mut Live,
    ) -> Turn {
        let is_put_off =
            self.blocked.as_ref().is_some_and(|blocked| Instant::now() < blocked.until);
        if !self.ready || is_put_off || !guest.hand.is_empty() {
            return Ok(());
        }
        intake.drain(guest)?;
        if !guest.hand.is_empty() {
            return Ok(());
        }
        crate::kill_point!("releasing");
        live.releasing();
        let layout = guest.memory.layout().clone();
        for region in layout.regions() {
            crate::kill_point!("release");
            let pages = region.pages.len();
            if !unregister(guest.memory.uffd(), region.base, pages, layout.page_size())? {
                self.put_off(guest);
                return Ok(());
            }
        }
        crate::kill_point!("released");
        // A thread that began to give memory back before that waits for its event to be read.
        let until = Instant::now() + LAST_REMOVES;
        let mut pause = 0;
        while guest.memory.uffd().is_changing() && Instant::now() < until {
            intake.drain(guest)?;
            std::thread::sleep(CHANGING.after(pause));
            pause += 1;
        }
        if let Some(reply) = self.reply.take() {
            reply.send(Ok(()));
        }
        Err(Halt::Released)
    }

    /// There was no room for mappings. What is unregistered by now needs no handler any more, and the
    /// rest is served on: it is tried again, and given up in the end.
    fn put_off(&mut self, guest: &mut Guest) {
        let since = Blocked::again(&mut self.blocked, TROUBLED);
        let waited = since.elapsed();
        if waited < FINDS_ROOM_WITHIN {
            return;
        }
        (self.ready, self.blocked) = (false, None);
        // Of writes to what is unregistered nobody is told.
        guest.memory.doubt_all();
        if let Some(reply) = self.reply.take() {
            reply.send(Err(NotReleased::NoMappings { waited }));
        }
    }
}

/// Unregisters all that is registered of so many pages; whether there was room for the mappings that
/// it takes.
fn unregister(uffd: &Uffd, start: GuestAddr, pages: u64, page_size: PageSize) -> Turn<bool> {
    match uffd.unregister(start, pages * page_size.bytes()) {
        Outcome::Done(_) | Outcome::Unmapped => Ok(true),
        // A mapping has to be divided in two.
        Outcome::NoMemory => Ok(false),
        // A page is of another kind, or not there at all.
        Outcome::Refused(INVALID) if pages == 1 => Ok(true),
        // Some of them are: that is no reason to leave the rest.
        Outcome::Refused(INVALID) => {
            let half = pages / 2;
            let middle = GuestAddr(start.0 + half * page_size.bytes());
            Ok(unregister(uffd, start, half, page_size)?
                && unregister(uffd, middle, pages - half, page_size)?)
        }
        Outcome::Gone => Err(Halt::GuestExited),
        other => {
            Err(super::intake::failed(format!("unregister the pages from {start}: {other:?}")))
        }
    }
}

fn progress(guest: &Guest, report: &PrefaultReport) -> ReleaseProgress {
    let regions = guest.memory.layout().regions();
    ReleaseProgress {
        done: report.installed + report.present + report.removed,
        installed: report.installed,
        pages: regions.iter().map(|region| region.pages.len()).sum(),
    }
}
