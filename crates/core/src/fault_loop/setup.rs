//! From a handoff to a fault loop that is ready to run.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::ahead::Ahead;
use super::collapses::Collapses;
use super::commands::Commands;
use super::exports::Exports;
use super::fetches::Fetches;
use super::guest::Guest;
use super::hand::Hand;
use super::idle::Idle;
use super::intake::Intake;
use super::journal::Journal;
use super::leaving::Leaving;
use super::pause::CHANGING;
use super::prefaults::Prefaults;
use super::release::Release;
use super::{FaultLoop, Halt, Kept};
use crate::contract::{DirtyTracking, Mailbox, Observer, SessionError, SessionOptions};
use crate::handoff::Handoff;
use crate::identity::{Identity, Owner};
use crate::install::GuestMemory;
use crate::kernel::{Features, Outcome, Process, Uffd, boot_time, is_shortage};
use crate::layout::Layout;
use crate::ledger::{Ledger, LedgerFile};
use crate::look::Look;
use crate::policy::Tracking;
use crate::recovery::{Keep, Left};
use crate::service_manager::Stored;
use crate::source::{Fetcher, Scratch, Source};
use crate::stats::LatencyHistogram;
use crate::units::PageSize;
use crate::view::View;

/// How long it may take to find out whether writes are tracked, beside a guest that gives memory
/// back without end. Nobody can install anything meanwhile.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

/// How long threads that give memory back may hold up the end of a recovery. They need a moment, or
/// on a host that is overloaded their turn.
const REMOVES_END_WITHIN: Duration = Duration::from_secs(1);

/// Pages beyond this have no place in a portable Roaring bitmap: 16 TiB of 4 KiB pages.
const MOST_PAGES: u64 = 1 << 32;

/// What a fault loop is made of, whatever guest it is for. Whoever may have to take a guest over
/// makes it in advance: the guest waits for the rest alone.
pub(crate) struct Setup {
    source: Arc<dyn Source>,
    fetches: Fetches,
    options: SessionOptions,
    observer: Box<dyn Observer>,
    mailbox: Mailbox,
    commands: Commands,
    idle: Idle,
    latency: LatencyHistogram,
}

impl Setup {
    pub(crate) fn new(
        fetcher: &Fetcher,
        options: SessionOptions,
        observer: Box<dyn Observer>,
    ) -> Result<Self, SessionError> {
        let (mailbox, inbox) = Mailbox::new().map_err(|errno| resources("an eventfd", errno))?;
        let commands = Commands::new(inbox);
        let idle = Idle::new(&commands, options.short_waits)
            .map_err(|errno| resources("a watch on the guest", errno))?;
        GuestMemory::prepare().map_err(|error| resources("memory for zeros", error))?;
        Ok(Self {
            source: Arc::clone(fetcher.source()),
            fetches: Fetches::new(fetcher, mailbox.clone()),
            options,
            observer,
            mailbox,
            commands,
            idle,
            latency: LatencyHistogram::new(),
        })
    }

    /// How messages get to the loop.
    pub(crate) const fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// Makes the loop for a guest that was just handed off, and registers for write protection
    /// where that is wanted. Events that arrive in the meantime are kept.
    pub(crate) fn build(
        self,
        handoff: Handoff,
        id: &str,
        keep: Option<&Keep>,
    ) -> Result<FaultLoop, SessionError> {
        let since = Instant::now();
        let layout = Arc::new(handoff.layout);
        check_size(&layout)?;
        let uffd = Uffd::new(handoff.uffd).map_err(|errno| resources("the userfaultfd", errno))?;
        let peer = match Process::peer_of(&handoff.socket) {
            Ok(process) => process,
            Err(Errno::ESRCH) if uffd.is_gone() => {
                return Err(resources("its process", "it exited right after the handoff"));
            }
            Err(errno) if is_shortage(&errno.into()) => {
                return Err(resources("a descriptor of its process", errno));
            }
            // Not allowed to see it, or gone once it had passed the handoff on: the guest's memory is
            // asked for from time to time.
            Err(_) => None,
        };
        let (kept, ledger) = match keep {
            None => {
                let ledger = Ledger::private(&layout);
                (None, ledger.map_err(|error| resources("memory for the page states", error))?)
            }
            Some(keep) => {
                let header = keep.header(id, peer.as_ref(), &uffd, &layout, self.options)?;
                let (file, ledger) = LedgerFile::create(&keep.dir, &header, &layout)
                    .map_err(|error| resources("a ledger in the state directory", error))?;
                let ward =
                    keep.guardian.as_ref().and_then(|guardian| guardian.entrust(id, uffd.as_fd()));
                let stored = Stored::of(keep.manager.as_ref(), &keep.dir, id, uffd.as_fd());
                (Some(Kept { file, ward, stored }), ledger)
            }
        };
        handoff
            .socket
            .set_nonblocking(true)
            .map_err(|error| resources("the handoff socket", error))?;
        let look = Look::at(&uffd, peer.as_ref())?;
        let made = self.make(Made {
            uffd,
            layout,
            peer,
            look,
            since,
            socket: Some(handoff.socket),
            ledger,
            kept,
        });
        let (mut fault_loop, features) = made?;
        fault_loop.prepare_source();
        fault_loop.decide(features, since + SETTLES_WITHIN)?;
        Ok(fault_loop)
    }

    /// Makes the loop for a guest that a predecessor left.
    pub(crate) fn recover(mut self, left: Left) -> Result<FaultLoop, SessionError> {
        let Left { file, header, ledger, layout, process, uffd, look, shown } = left;
        let kept = Some(Kept { file, ward: None, stored: None });
        check_size(&layout)?;
        let SessionOptions { dirty_tracking, trace: is_traced, .. } = header.options();
        // It may have ended before that was decided, and after it was begun.
        self.options.dirty_tracking = dirty_tracking;
        let now = boot_time();
        let since = now
            .checked_sub(Duration::from_nanos(header.handed_off))
            .and_then(|age| Instant::now().checked_sub(age))
            .unwrap_or_else(Instant::now);
        let (mut fault_loop, features) = self.make(Made {
            uffd,
            layout,
            peer: Some(process),
            look,
            since,
            socket: None,
            ledger,
            kept,
        })?;
        fault_loop.take_over(features, shown)?;
        fault_loop.guest.journal.recall_touches(is_traced);
        fault_loop.prepare_source();
        Ok(fault_loop)
    }

    fn make(self, made: Made) -> Result<(FaultLoop, Features), SessionError> {
        let Self { source, fetches, options, observer, mailbox, commands, mut idle, latency } =
            self;
        let Made { uffd, layout, peer, look, since, socket, mut ledger, kept } = made;
        let Look { features, page_map } = look;
        let identity = Arc::new(Identity::new(peer, page_map));
        let memory = GuestMemory::new(uffd, layout, identity, &mut ledger)
            .map_err(|error| resources("memory for the page states", error))?;
        let view = Arc::new(View::new(Arc::clone(memory.layout()), memory.states.onlooker()));
        let mut journal = Journal::new(since, options.trace, view, observer, latency);
        journal.note_touches_in(ledger.touches());
        let guest = Guest { options, memory, hand: Hand::default(), journal };
        idle.watch(&guest, socket).map_err(|errno| resources("a watch on the guest", errno))?;
        let collapses = Collapses::new(&guest, mailbox.clone());
        let fault_loop = FaultLoop {
            guest,
            source,
            scratch: Scratch::default(),
            ahead: Ahead::default(),
            intake: Intake::new(ledger.events()),
            fetches,
            prefaults: Prefaults::default(),
            collapses,
            release: Release::new(mailbox),
            leaving: Leaving::default(),
            commands,
            exports: Exports::default(),
            idle,
            live: ledger.live(),
            kept,
        };
        Ok((fault_loop, features))
    }
}

/// What is the guest's own.
struct Made {
    uffd: Uffd,
    layout: Arc<Layout>,
    peer: Option<Process>,
    look: Look,
    since: Instant,
    socket: Option<UnixStream>,
    ledger: Ledger,
    kept: Option<Kept>,
}

fn check_size(layout: &Layout) -> Result<(), SessionError> {
    if layout.page_end().0 > MOST_PAGES {
        let cause = format!("{} pages, and {MOST_PAGES} is the most", layout.page_end());
        return Err(resources("the guest has too many pages", cause));
    }
    Ok(())
}

impl FaultLoop {
    fn prepare_source(&self) {
        if self.guest.memory.page_size() == PageSize::Huge {
            // To look up and map a page while its fault waits takes as long as a third of the copy.
            self.fetches.fetcher().prepare();
        }
    }

    /// Decides whether dirty pages are tracked, and writes it down.
    fn decide(&mut self, features: Features, until: Instant) -> Result<(), SessionError> {
        let tracking = self.tracking(features, until)?;
        crate::kill_point!("deciding");
        self.live.decided(tracking);
        if tracking == Tracking::Sync {
            self.guest.memory.doubt_what_is_there();
        }
        self.guest.memory.set_tracking(tracking);
        crate::kill_point!("decided");
        Ok(())
    }

    /// Finishes what a predecessor left: first the events it has read and not dealt with, then the
    /// installs it had in hand. Then all threads that wait look again.
    fn take_over(&mut self, features: Features, shown: Option<bool>) -> Result<(), SessionError> {
        let layout = Arc::clone(self.guest.memory.layout());
        match shown {
            Some(is_peers) => self.guest.memory.identity().seen(is_peers),
            None => self.guest.memory.identity().look_at_maps(&layout),
        }
        self.guest.memory.counters = self.live.counters();
        self.guest.journal.view().figures().begin(&self.guest.memory.counters);
        self.intake.finish_what_was_left(&mut self.guest)?;
        crate::kill_point!("left events");
        match self.live.tracking() {
            Some(tracking) => self.guest.memory.set_tracking(tracking),
            None => self.decide(features, Instant::now() + SETTLES_WITHIN)?,
        }
        if self.guest.memory.has_installs_left() {
            let settled = !self.guest.memory.has_looks_of_removes() || self.let_removes_end()?;
            crate::kill_point!("left removes");
            self.guest.memory.finish_what_was_left(settled);
        }
        self.guest.memory.doubt_what_cannot_be_seen();
        crate::kill_point!("left installs");
        self.guest.memory.wake_all();
        crate::kill_point!("woken");
        if self.live.is_releasing() {
            self.release.go_on();
        }
        Ok(())
    }

    /// Waits for a moment in which nothing is being given back: a predecessor may have read of pages
    /// that are there for an instant more, and look like pages that it has installed. Whether that
    /// moment came.
    fn let_removes_end(&mut self) -> Result<bool, SessionError> {
        let is_settled = |uffd: &Uffd| match uffd.is_changing() {
            true => Outcome::Again,
            false => Outcome::Done(0),
        };
        match self.when_settled(Instant::now() + REMOVES_END_WITHIN, is_settled) {
            Ok(_) => Ok(true),
            Err(SessionError::Busy { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether dirty pages are tracked, by option and by what the VMM registered.
    fn tracking(&mut self, features: Features, until: Instant) -> Result<Tracking, SessionError> {
        let on = if features.wp_async() { Tracking::Async } else { Tracking::Sync };
        match self.guest.options.dirty_tracking {
            DirtyTracking::Off => Ok(Tracking::Off),
            DirtyTracking::Auto => {
                let registered = self.is_registered_for_writes(on, until)?;
                Ok(if registered { on } else { Tracking::Off })
            }
            DirtyTracking::On => {
                self.register_for_writes(until)?;
                let identity = self.guest.memory.identity();
                if on == Tracking::Async && identity.owner() == Owner::Unknowable {
                    return Err(SessionError::DirtyTracking {
                        base: self.guest.memory.layout().regions()[0].base,
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
    ///
    /// The ioctl that tells changes the first page, where it is registered and the page is there
    /// already. Where that could be taken for a write, or the kernel refuses to be asked, the
    /// mappings of the guest's process are looked at instead; where they cannot be, a page that was
    /// not written may count as written, and never the other way round.
    fn is_registered_for_writes(
        &mut self,
        tracking: Tracking,
        until: Instant,
    ) -> Result<bool, SessionError> {
        let len = self.guest.memory.page_size().bytes();
        let layout = self.guest.memory.layout().clone();
        let identity = self.guest.memory.identity().clone();
        let shown = || {
            let shown = identity.is_registered_for_writes(&layout);
            shown.map_err(|error| resources("a look at its mappings", error))
        };
        if tracking == Tracking::Async
            && let Some(registered) = shown()?
        {
            return Ok(registered);
        }
        for region in layout.regions() {
            let ask = |uffd: &Uffd| match tracking {
                // The kernel takes a page that is not protected for one that was written.
                Tracking::Async | Tracking::Off => uffd.clear_protection(region.base, len),
                // The next write to it is reported.
                Tracking::Sync => uffd.protect(region.base, len),
            };
            let outcome = match self.guest.memory.insist(ask) {
                Outcome::Again => match shown()? {
                    Some(registered) => return Ok(registered),
                    None => self.when_settled(until, ask)?,
                },
                outcome => outcome,
            };
            if !matches!(outcome, Outcome::Done(_)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// UFFDIO_REGISTER from another process adds to the owner's registration.
    fn register_for_writes(&mut self, until: Instant) -> Result<(), SessionError> {
        let layout = self.guest.memory.layout().clone();
        for region in layout.regions() {
            let (base, len) = (region.base, region.size(layout.page_size()));
            crate::kill_point!("registering");
            let outcome =
                self.when_settled(until, |uffd| uffd.register_write_protect(base, len))?;
            crate::kill_point!("registered");
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
    /// read, and the moment after each is not missed.
    fn when_settled(
        &mut self,
        until: Instant,
        ask: impl Fn(&Uffd) -> Outcome,
    ) -> Result<Outcome, SessionError> {
        let mut pause = 0;
        loop {
            let outcome = self.guest.memory.insist(&ask);
            if outcome != Outcome::Again {
                return Ok(outcome);
            }
            if Instant::now() >= until {
                return Err(SessionError::Busy { waited: SETTLES_WITHIN });
            }
            match self.intake.drain(&mut self.guest) {
                Err(Halt::Failed(error)) => return Err(error),
                Ok(()) | Err(_) if self.guest.memory.is_gap_due(Instant::now()) => {}
                Ok(()) | Err(_) => {
                    std::thread::sleep(CHANGING.after(pause));
                    pause += 1;
                }
            }
        }
    }
}

fn resources(what: &'static str, cause: impl ToString) -> SessionError {
    SessionError::Resources { what, cause: cause.to_string() }
}
