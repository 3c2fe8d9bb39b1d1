//! The fault loop: one thread a guest, which alone reads its events, holds its page states and
//! issues its installs. No install is in flight while events are read, so no stale page can land
//! after a REMOVE was read.
//!
//! A turn of the loop: drain events and apply REMOVEs (`drain`), serve the faults in hand
//! (`serve`), take messages (`obey`), do one slice of background work (`prefault`), and wait
//! where there was nothing to do (`wait`).

mod announce;
mod arrivals;
mod drain;
mod hand;
mod obey;
mod pause;
mod prefault;
mod report;
mod serve;
mod setup;
mod upcoming;
mod wait;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::kernel::{EventReader, Process, Watch};
use crate::memory::GuestMemory;
use crate::policy::Tracking;
use crate::session::{End, Inbox, Mailbox, Observer, Reply, SessionError, SessionOptions};
use crate::source::{Client, Scratch, Source};
use crate::stats::{LatencyHistogram, Stats};
use crate::trace::TraceEntry;
use crate::units::{GuestAddr, PageIndex};
use arrivals::Fetches;
use hand::Hand;
use prefault::Prefaults;
use report::Reporting;
use wait::Patience;

pub(crate) use setup::Setup;

/// Why the loop ends.
pub(crate) enum Halt {
    GuestExited,
    Stopped,
    Failed(SessionError),
}

impl From<Halt> for End {
    fn from(halt: Halt) -> Self {
        match halt {
            Halt::GuestExited => Self::GuestExited,
            Halt::Stopped => Self::Stopped,
            Halt::Failed(error) => Self::Failed(error),
        }
    }
}

type Turn<T = ()> = Result<T, Halt>;

pub(crate) struct FaultLoop {
    options: SessionOptions,
    /// When the handoff was complete.
    since: Instant,
    memory: GuestMemory,
    /// Shared with the session, which may have it killed.
    process: Option<Arc<Process>>,
    socket: Option<UnixStream>,
    watch: Watch,
    source: Arc<dyn Source>,
    /// What look-ups may put their bytes into.
    scratch: Scratch,
    fetcher: Client,
    reader: EventReader,
    /// REMOVEs of one read; empty otherwise.
    removes: Vec<(GuestAddr, GuestAddr)>,
    /// The descriptor was empty at the last read, and that was just now.
    drained: bool,
    inbox: Inbox,
    /// For the fetch threads to answer to.
    mailbox: Mailbox,
    hand: Hand,
    fetches: Fetches,
    prefaults: Prefaults,
    /// Whoever waits for the hand to be empty.
    settling: Vec<Reply<()>>,
    trace: Vec<TraceEntry>,
    latency: LatencyHistogram,
    reporting: Reporting,
    patience: Patience,
    observer: Box<dyn Observer>,
}

impl FaultLoop {
    /// Serves the guest until it ends, and says why it did.
    pub(crate) fn run(&mut self) -> End {
        let halt = loop {
            if let Err(halt) = self.turn() {
                break halt;
            }
        };
        if matches!(halt, Halt::Stopped) {
            self.let_go();
        }
        halt.into()
    }

    /// Leaves nothing behind, however the loop ended.
    pub(crate) fn clean_up(&mut self, end: &End) {
        if let (End::Failed(_), Some(process)) = (end, &self.process)
            && self.options.kill_on_failure
        {
            let _ = process.kill();
        }
        self.memory.wake_all();
        self.prefaults.skip_all();
        self.settling.clear();
    }

    pub(crate) fn guest_pid(&self) -> Option<i32> {
        self.process.as_ref().map(|process| process.pid())
    }

    /// The guest's process, for as long as it is served.
    pub(crate) fn guest_process(&self) -> Weak<Process> {
        self.process.as_ref().map_or_else(Weak::new, Arc::downgrade)
    }

    pub(crate) const fn tracking_in_use(&self) -> Tracking {
        self.memory.tracking()
    }

    fn turn(&mut self) -> Turn {
        self.drain()?;
        self.serve()?;
        self.obey()?;
        let busy = self.prefault_slice()?;
        self.report();
        if !busy {
            self.wait()?;
        }
        Ok(())
    }

    /// Reads what the guest has asked for so far, lets go of threads that give memory back, and
    /// serves what can be served at once.
    fn let_go(&mut self) {
        let until = Instant::now() + Duration::from_millis(50);
        while self.drain().and_then(|()| self.serve()).is_ok()
            && self.hand.next_due().is_some()
            && Instant::now() < until
        {
            self.pause_until_due(until);
        }
    }

    /// Tells the observer how it ended. Consumes the loop: this happens once.
    pub(crate) fn finish(mut self, end: &End) {
        let stats = self.stats();
        self.observer.ended(end, stats);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            uptime: self.since.elapsed(),
            counters: self.memory.counters.clone(),
            pages: self.memory.states.counts(),
            faults_in_hand: self.hand.len() as u64,
            latency: self.latency.summary(),
        }
    }

    fn offset(&self, page: PageIndex) -> u64 {
        page.offset(self.memory.page_size())
    }

    fn refused(&self, operation: &'static str, page: PageIndex, errno: i32) -> Halt {
        Halt::Failed(SessionError::Refused {
            operation,
            page,
            offset: self.offset(page),
            cause: std::io::Error::from_raw_os_error(errno).to_string(),
        })
    }
}
