//! From a handoff to a fault loop that is ready to run.

use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use super::pause::CHANGING;
use super::wait::Patience;
use super::{FaultLoop, Halt};
use crate::handoff::Handoff;
use crate::kernel::{
    EventReader, Features, FeaturesError, Outcome, Pagemap, Process, Uffd, Watch, is_shortage,
};
use crate::memory::GuestMemory;
use crate::policy::Tracking;
use crate::session::{
    DirtyTracking, Inbox, Mailbox, Message, Observer, SessionError, SessionOptions,
};
use crate::source::{Fetcher, Scratch};
use crate::stats::LatencyHistogram;
use crate::units::PageSize;

/// Pages beyond this have no place in a portable Roaring bitmap: 16 TiB of 4 KiB pages.
const MOST_PAGES: u64 = 1 << 32;

/// What a fault loop is made of.
pub(crate) struct Setup {
    pub(crate) handoff: Handoff,
    pub(crate) fetcher: Arc<Fetcher>,
    pub(crate) options: SessionOptions,
    pub(crate) observer: Box<dyn Observer>,
    pub(crate) mailbox: Mailbox,
    pub(crate) inbox: Inbox,
}

impl Setup {
    /// Makes the loop, and registers for write protection where that is wanted. Events that
    /// arrive in the meantime are kept.
    pub(crate) fn build(self) -> Result<FaultLoop, SessionError> {
        let Self { handoff, fetcher, options, observer, mailbox, inbox } = self;
        let since = Instant::now();
        if handoff.layout.page_end().0 > MOST_PAGES {
            let cause =
                format!("{} pages, and {MOST_PAGES} is the most", handoff.layout.page_end());
            return Err(resources("the guest has too many pages", cause));
        }
        let process = match Process::peer_of(&handoff.socket) {
            Ok(process) => process.map(Arc::new),
            Err(Errno::ESRCH) => {
                return Err(resources("its process", "it exited right after the handoff"));
            }
            Err(errno) if is_shortage(&errno.into()) => {
                return Err(resources("a descriptor of its process", errno));
            }
            // Not allowed to see it: its memory is asked for from time to time.
            Err(_) => None,
        };
        let uffd = Uffd::new(handoff.uffd).map_err(|errno| resources("the userfaultfd", errno))?;
        let features = match Features::of(&uffd) {
            Err(FeaturesError::Shortage(cause)) => {
                return Err(resources("the features of the userfaultfd", cause));
            }
            features => features?,
        };
        let huge = handoff.layout.page_size() == PageSize::Huge;
        let wanted = process.as_ref().filter(|_| huge || features.wp_async());
        let pagemap = match wanted.map(|process| Pagemap::open(process)) {
            Some(Err(error)) if is_shortage(&error) => {
                return Err(resources("its page map", error));
            }
            opened => opened.and_then(Result::ok),
        };
        let memory = GuestMemory::new(uffd, handoff.layout, pagemap)
            .map_err(|error| resources("memory for the page states", error))?;
        handoff
            .socket
            .set_nonblocking(true)
            .map_err(|error| resources("the handoff socket", error))?;
        let mut fault_loop = FaultLoop {
            patience: Patience::new(options.short_waits),
            options,
            since,
            memory,
            process,
            socket: Some(handoff.socket),
            watch: Watch::new().map_err(|errno| resources("an epoll descriptor", errno))?,
            source: Arc::clone(fetcher.source()),
            scratch: Scratch::default(),
            fetcher: {
                let mailbox = mailbox.clone();
                fetcher.client(move || mailbox.post(Message::Room))
            },
            reader: EventReader::new(),
            removes: Vec::new(),
            drained: false,
            inbox,
            mailbox,
            hand: Default::default(),
            fetches: Default::default(),
            prefaults: Default::default(),
            settling: Vec::new(),
            trace: Vec::new(),
            latency: LatencyHistogram::new(),
            reporting: Default::default(),
            observer,
        };
        fault_loop.watch_all().map_err(|errno| resources("a watch on the guest", errno))?;
        let tracking = fault_loop.tracking(features)?;
        fault_loop.memory.set_tracking(tracking);
        Ok(fault_loop)
    }
}

impl FaultLoop {
    /// Whether dirty pages are tracked, by option and by what the VMM registered.
    fn tracking(&mut self, features: Features) -> Result<Tracking, SessionError> {
        let on = if features.wp_async() { Tracking::Async } else { Tracking::Sync };
        match self.options.dirty_tracking {
            DirtyTracking::Off => Ok(Tracking::Off),
            DirtyTracking::Auto => {
                Ok(if self.is_registered_for_writes()? { on } else { Tracking::Off })
            }
            DirtyTracking::On => {
                self.register_for_writes()?;
                if on == Tracking::Async && self.memory.pagemap().is_none() {
                    return Err(SessionError::DirtyTracking {
                        base: self.memory.layout().regions()[0].base,
                        cause:
                            "the VMM negotiated WP_ASYNC, and its /proc/PID/pagemap cannot be read"
                                .to_owned(),
                    });
                }
                Ok(on)
            }
        }
    }

    /// Whether every region is registered for write protection.
    fn is_registered_for_writes(&mut self) -> Result<bool, SessionError> {
        let len = self.memory.page_size().bytes();
        for index in 0..self.memory.layout().regions().len() {
            let base = self.memory.layout().regions()[index].base;
            let outcome =
                self.when_settled(|memory| memory.uffd().probe_write_protect(base, len))?;
            if !matches!(outcome, Outcome::Done(_)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// UFFDIO_REGISTER from another process adds to the owner's registration.
    fn register_for_writes(&mut self) -> Result<(), SessionError> {
        for index in 0..self.memory.layout().regions().len() {
            let region = &self.memory.layout().regions()[index];
            let (base, len) = (region.base, self.memory.bytes_of(region.pages));
            let outcome =
                self.when_settled(|memory| memory.uffd().register_write_protect(base, len))?;
            let cause = match outcome {
                Outcome::Done(_) => continue,
                Outcome::Refused(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
                Outcome::Gone => "the guest has exited".to_owned(),
                other => format!("{other:?}"),
            };
            return Err(SessionError::DirtyTracking { base, cause });
        }
        Ok(())
    }

    /// Asks again for as long as the address space is changing: the events that hold it up are
    /// read, and their threads get a moment.
    fn when_settled(
        &mut self,
        mut ask: impl FnMut(&GuestMemory) -> Outcome,
    ) -> Result<Outcome, SessionError> {
        loop {
            let outcome = ask(&self.memory);
            if outcome != Outcome::Again {
                return Ok(outcome);
            }
            match self.drain() {
                Err(Halt::Failed(error)) => return Err(error),
                Ok(()) | Err(_) => std::thread::sleep(CHANGING.first()),
            }
        }
    }
}

fn resources(what: &'static str, cause: impl ToString) -> SessionError {
    SessionError::Resources { what, cause: cause.to_string() }
}
