//! One guest of the directory, served by the server or here.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use uffd_core::ledger::SnapshotPlace;
use uffd_core::recovery::{IfUnnamed, Known, Prospect};
use uffd_core::session::{End, Observer, Session, Standby};
use uffd_core::stats::Stats;

use super::ready::{Bell, Event};

/// What is known of a guest, and held ready for it.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Its ledger.
    pub(crate) path: PathBuf,
    /// Its userfaultfd, for a server that cannot take it from the guest's process.
    pub(crate) copy: Option<OwnedFd>,
    /// It is being looked at.
    pub(crate) is_looked_at: bool,
    /// What is found by that is of no use any more: it is to be looked at again.
    pub(crate) is_seen_too_early: bool,
    /// What was found of it, while its snapshot is not open yet.
    pub(crate) prospect: Option<Prospect>,
    /// What need not be found out again.
    pub(crate) known: Option<Known>,
    /// All it takes to serve it but the lock.
    pub(crate) standby: Option<Standby>,
    /// It is being taken over, as far as nobody else has it.
    pub(crate) is_ordered: bool,
    /// The snapshot it was restored from.
    pub(crate) snapshot: Option<SnapshotPlace>,
    /// It is served here.
    pub(crate) session: Option<Session>,
    /// It is to be served as soon as that is possible.
    pub(crate) is_wanted: bool,
    /// The server waits until it is let go of.
    pub(crate) is_awaited: bool,
    /// The server is about to leave it, and has not said that it has.
    pub(crate) is_being_left: bool,
    /// The server has entrusted it, and has not said that it has ended.
    pub(crate) is_entrusted: bool,
    /// The server has said that it is none of the guardian's, and nothing else since.
    pub(crate) is_forgotten: bool,
    /// The server has entrusted it, and was not told yet whether it is in good hands.
    pub(crate) is_unanswered: bool,
    /// What was in the way the last time, so that it is told once.
    pub(crate) obstacle: Option<String>,
}

impl Guest {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            copy: None,
            is_looked_at: false,
            is_seen_too_early: false,
            prospect: None,
            known: None,
            standby: None,
            is_ordered: false,
            snapshot: None,
            session: None,
            is_wanted: false,
            is_awaited: false,
            is_being_left: false,
            is_entrusted: false,
            is_forgotten: false,
            is_unanswered: false,
            obstacle: None,
        }
    }

    /// Whether there is anything to wait for.
    pub(crate) const fn is_pending(&self) -> bool {
        self.session.is_some() || self.is_wanted || self.is_ordered
    }

    /// What it means that its ledger is there no more.
    pub(crate) const fn if_unnamed(&self) -> IfUnnamed {
        if self.is_being_left {
            IfUnnamed::IsUnknown
        } else if self.is_entrusted {
            IfUnnamed::IsLeft
        } else {
            IfUnnamed::HasEnded
        }
    }

    /// Whether it is served here, or will be in a moment if it is free.
    pub(crate) const fn may_be_served(&self) -> bool {
        self.session.is_some() || self.is_ordered
    }
}

/// Tells the service of a session's end.
pub(crate) struct Watch {
    pub(crate) id: String,
    pub(crate) bell: Bell,
}

impl Observer for Watch {
    /// The next server has it from the ledger, and its guest waits for this thread's core.
    fn wants_last_trace(&self) -> bool {
        false
    }

    fn ended(&mut self, end: &End, _: Stats) {
        self.bell.ring(Event::Ended { id: std::mem::take(&mut self.id), end: end.clone() });
    }
}
