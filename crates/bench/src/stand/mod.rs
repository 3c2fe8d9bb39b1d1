//! A guest and whoever serves it.

mod guest;
mod hold;
mod ready;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uffd_core::handoff::Handoff;
use uffd_core::recovery::Keep;
use uffd_core::session::{NoObserver, Session, SessionOptions};
use uffd_core::source::Fetcher;
use uffd_core::units::PageRange;
use uffd_guest::driver::Guest;

pub(crate) use guest::{at_the_door, let_in};
pub(crate) use ready::Ready;

use crate::host::Cores;
use crate::memory::Memory;
use crate::plain::PlainHandler;
use crate::plan::Placement;
use crate::{Result, host};

/// A guest that is being served.
#[derive(Debug)]
pub(crate) struct Stand {
    pub(crate) guest: Guest,
    pub(crate) service: Service,
}

/// Who serves it.
#[derive(Debug)]
pub(crate) enum Service {
    Nobody,
    /// Its memory is to be filled as a whole.
    Raw(Box<Memory>),
    Plain(PlainHandler),
    Session {
        session: Session,
        tid: i32,
    },
}

impl Stand {
    /// A session of uffd-rs for a guest that has handed off.
    pub(crate) fn session(
        guest: Guest,
        handoff: Handoff,
        source: Arc<Fetcher>,
        options: SessionOptions,
        keep: Option<&Keep>,
    ) -> Result<Self> {
        let before = host::threads("uffd-guest");
        let observer = Box::new(NoObserver);
        let session = match keep {
            None => Session::start(handoff, source, options, observer)?,
            Some(keep) => Session::start_kept(handoff, source, options, observer, keep)?,
        };
        let tid = host::new_thread("uffd-guest", &before)?;
        Ok(Self { guest, service: Service::Session { session, tid } })
    }

    /// Installs pages, and waits until they are there.
    fn prefault(&self, pages: Vec<PageRange>) -> Result<()> {
        if let Service::Session { session, .. } = &self.service
            && !pages.is_empty()
        {
            session.prefault(pages)?;
        }
        Ok(())
    }

    /// Keeps handler and guest where they are to be. Threads they start later follow them.
    pub(crate) fn place(&self, placement: Placement) -> Result<()> {
        let (handler, guest) = match placement {
            Placement::Free => return Ok(()),
            Placement::Apart => (Cores::First, Cores::Others),
            Placement::TwoCores => (Cores::FirstTwo, Cores::FirstTwo),
        };
        if let Some(tid) = self.tid() {
            host::pin(tid, handler)?;
        }
        host::pin(self.guest.pid(), guest)
    }

    /// The thread that serves the guest.
    pub(crate) const fn tid(&self) -> Option<i32> {
        match &self.service {
            Service::Nobody | Service::Raw(_) => None,
            Service::Plain(plain) => Some(plain.tid),
            Service::Session { tid, .. } => Some(*tid),
        }
    }

    /// Faults that reached it.
    pub(crate) fn faults(&self) -> Result<Option<u64>> {
        Ok(match &self.service {
            Service::Nobody | Service::Raw(_) => None,
            Service::Plain(plain) => Some(plain.faults()),
            Service::Session { session, .. } => Some(session.stats()?.counters.faults()),
        })
    }

    /// Ends the service, then the guest.
    pub(crate) fn take_down(mut self) -> Result<()> {
        match self.service {
            Service::Nobody | Service::Raw(_) => {}
            Service::Plain(plain) => plain.stop(&self.guest)?,
            Service::Session { session, tid } => {
                session.stop();
                drop(session);
                gone(tid);
            }
        }
        self.guest.kill()?;
        Ok(())
    }
}

/// Waits until a thread has ended, so that its last work falls into no other measurement.
fn gone(tid: i32) {
    let begin = Instant::now();
    let task = format!("/proc/self/task/{tid}");
    while Path::new(&task).exists() && begin.elapsed() < guest::DEADLINE {
        std::thread::sleep(Duration::from_millis(1));
    }
}
