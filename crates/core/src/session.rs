//! A session: one guest from its handoff to its end, as the rest of the process sees it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};
use thiserror::Error;

mod standby;

pub use standby::{Served, Standby, Taken};

pub use crate::contract::{
    Cause, DirtyTracking, End, Ended, Export, FaultAround, Lack, NoObserver, NotReleased, Notice,
    Observer, PrefaultId, PrefaultReport, RegionStates, ReleaseProgress, Reply, SessionError,
    SessionOptions, Unservable,
};
use crate::contract::{Command, Copied, ExportJob, Mailbox, PrefaultMode};
use crate::export::Again;
use crate::fault_loop::{FaultLoop, Setup};
use crate::handoff::{Handoff, Peer};
use crate::identity::Identity;
pub use crate::identity::Owner;
pub use crate::kernel::ProcessFacts;
use crate::kernel::{InPieces, Process, run_for_a_moment_at_a_time, stay_behind};
use crate::layout::Layout;
use crate::policy::Tracking;
use crate::recovery::{Keep, Left};
use crate::source::Fetcher;
use crate::stats::Stats;
use crate::trace::TraceEntry;
use crate::units::PageRange;
use crate::view::View;

/// Stack of a fault loop's thread: it has no deep calls and no large frames.
const STACK: usize = 256 << 10;

/// A guest that is being served. Dropping it stops the session and waits for its end, except on
/// the session's own thread, where its observer and its replies are called.
#[derive(Debug)]
pub struct Session {
    id: String,
    mailbox: Mailbox,
    layout: Arc<Layout>,
    view: Arc<View>,
    pid: Option<i32>,
    peer: Option<Peer>,
    identity: Weak<Identity>,
    tracking: Tracking,
    is_kept: bool,
    next_prefault: AtomicU64,
    ending: Arc<Ending>,
}

#[derive(Debug, Default)]
struct Ending {
    end: Mutex<Option<End>>,
    known: Condvar,
    /// The fault loop's.
    thread: OnceLock<ThreadId>,
    /// The same as the kernel calls it.
    thread_number: OnceLock<i32>,
}

/// A prefault was asked for pages that no region of the guest has.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot prefault pages {range}: the guest has no page {missing}; its pages are {layout}")]
pub struct NoSuchPages {
    /// The pages asked for.
    pub range: PageRange,
    /// The first of them that does not exist.
    pub missing: u64,
    /// The pages that do, in words.
    pub layout: String,
}

impl Session {
    /// Starts to serve a guest on a thread of its own.
    ///
    /// On an error the descriptor has been closed and the guest is not served.
    pub fn start(
        handoff: Handoff,
        fetcher: Arc<Fetcher>,
        options: SessionOptions,
        observer: Box<dyn Observer>,
    ) -> Result<Self, SessionError> {
        let (session, runner) = Self::prepare(handoff, fetcher, options, observer, None)?;
        runner.start(())?;
        Ok(session)
    }

    /// The same for a guest that outlives this process.
    pub fn start_kept(
        handoff: Handoff,
        fetcher: Arc<Fetcher>,
        options: SessionOptions,
        observer: Box<dyn Observer>,
        keep: &Keep,
    ) -> Result<Self, SessionError> {
        let (session, runner) = Self::prepare(handoff, fetcher, options, observer, Some(keep))?;
        runner.start(())?;
        Ok(session)
    }

    /// Goes on serving a guest that another process has left, on a thread of its own. Whether its
    /// writes are tracked stays as it was.
    pub fn recover(
        left: Left,
        fetcher: Arc<Fetcher>,
        options: SessionOptions,
        observer: Box<dyn Observer>,
    ) -> Result<Self, SessionError> {
        let setup = Setup::new(&fetcher, options, observer)?;
        let (session, runner) = Self::take_over(left, setup, None)?;
        runner.start(())?;
        Ok(session)
    }

    /// Everything but the thread, for a guest that another process has left. With `keep`, it is
    /// entrusted to whom guests are, once it is served.
    fn take_over(
        left: Left,
        setup: Setup,
        keep: Option<&Keep>,
    ) -> Result<(Self, Runner), SessionError> {
        Self::of(left.id().to_owned(), None, setup, |setup, id| {
            let mut fault_loop = setup.recover(left)?;
            if let Some(keep) = keep {
                fault_loop.entrust(id, keep);
            }
            Ok(fault_loop)
        })
    }

    /// Everything but the thread: whoever calls [`Runner::run`] is the fault loop. With `keep`, the
    /// guest outlives this process.
    pub(crate) fn prepare(
        handoff: Handoff,
        fetcher: Arc<Fetcher>,
        options: SessionOptions,
        observer: Box<dyn Observer>,
        keep: Option<&Keep>,
    ) -> Result<(Self, Runner), SessionError> {
        let peer = Some(handoff.peer);
        let setup = Setup::new(&fetcher, options, observer)?;
        Self::of(new_id()?, peer, setup, |setup, id| setup.build(handoff, id, keep))
    }

    fn of(
        id: String,
        peer: Option<Peer>,
        setup: Setup,
        make: impl FnOnce(Setup, &str) -> Result<FaultLoop, SessionError>,
    ) -> Result<(Self, Runner), SessionError> {
        let mailbox = setup.mailbox().clone();
        let mut fault_loop = make(setup, &id)?;
        fault_loop.begin();
        let ending = Arc::new(Ending::default());
        let session = Self {
            id,
            mailbox,
            layout: fault_loop.layout().clone(),
            view: Arc::clone(fault_loop.view()),
            pid: fault_loop.identity().peer().map(Process::pid),
            peer,
            identity: Arc::downgrade(fault_loop.identity()),
            tracking: fault_loop.tracking_in_use(),
            is_kept: fault_loop.is_kept(),
            next_prefault: AtomicU64::new(1),
            ending: Arc::clone(&ending),
        };
        Ok((session, Runner { fault_loop: Some(fault_loop), ending }))
    }

    /// The guest's id: different for each handoff, and the same after a recovery.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Who handed it off, as the kernel knew it then; nothing after a recovery.
    pub const fn peer(&self) -> Option<Peer> {
        self.peer
    }

    /// Whether the guest outlives this process: its ledger is in a state directory.
    pub const fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The guest's regions.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What can be seen of the guest without asking its fault loop, now and after its end.
    pub const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// The process that connected, where it can be seen from here. Whether the guest's memory is
    /// its own says [`owner`](Self::owner).
    pub const fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// What tells the process that connected from others; `None` where it cannot be seen from here, or
    /// has exited.
    pub fn process_facts(&self) -> Option<ProcessFacts> {
        self.identity.upgrade()?.peer()?.facts().ok()
    }

    /// Whose memory it is, as far as that could be found out; `None` once the session has ended.
    pub fn owner(&self) -> Option<Owner> {
        Some(self.identity.upgrade()?.owner())
    }

    /// Whether and how dirty pages are tracked.
    pub const fn tracking(&self) -> Tracking {
        self.tracking
    }

    /// Installs pages before they are asked for, in the order given, while faults are served.
    /// Answers when all of them are accounted for; see [`cancel_prefault`](Self::cancel_prefault).
    pub fn prefault_with(
        &self,
        ranges: Vec<PageRange>,
        reply: Reply<PrefaultReport>,
    ) -> Result<PrefaultId, NoSuchPages> {
        self.ahead(PrefaultMode::Install, ranges, reply)
    }

    /// Brings pages into the host's memory and installs none, so that later faults on them wait
    /// for no device. Otherwise like [`prefault_with`](Self::prefault_with).
    pub fn read_ahead_with(
        &self,
        ranges: Vec<PageRange>,
        reply: Reply<PrefaultReport>,
    ) -> Result<PrefaultId, NoSuchPages> {
        self.ahead(PrefaultMode::Fetch, ranges, reply)
    }

    fn ahead(
        &self,
        mode: PrefaultMode,
        ranges: Vec<PageRange>,
        reply: Reply<PrefaultReport>,
    ) -> Result<PrefaultId, NoSuchPages> {
        for range in &ranges {
            self.check_pages(*range)?;
        }
        let ranges = ranges.into_iter().filter(|range| !range.is_empty()).collect();
        let id = PrefaultId(self.next_prefault.fetch_add(1, Ordering::Relaxed));
        self.mailbox.command(Command::Prefault { id, mode, ranges, reply });
        Ok(id)
    }

    fn check_pages(&self, range: PageRange) -> Result<(), NoSuchPages> {
        let mut at = range.start.0;
        for span in self.layout.spans(range) {
            if span.pages.start.0 != at {
                break;
            }
            at = span.pages.end.0;
        }
        if at >= range.end.0 {
            return Ok(());
        }
        let regions = self.layout.regions().iter().map(|region| region.pages.to_string());
        let layout = regions.collect::<Vec<_>>().join(", ");
        Err(NoSuchPages { range, missing: at, layout })
    }

    /// [`prefault_with`](Self::prefault_with), waiting for the answer.
    pub fn prefault(&self, ranges: Vec<PageRange>) -> Result<PrefaultReport, PrefaultError> {
        let (reply, answer) = answer();
        self.prefault_with(ranges, reply)?;
        Ok(answer()?)
    }

    /// [`read_ahead_with`](Self::read_ahead_with), waiting for the answer.
    pub fn read_ahead(&self, ranges: Vec<PageRange>) -> Result<PrefaultReport, PrefaultError> {
        let (reply, answer) = answer();
        self.read_ahead_with(ranges, reply)?;
        Ok(answer()?)
    }

    /// Gives up a prefault; it answers with what it has done.
    pub fn cancel_prefault(&self, id: PrefaultId) {
        self.mailbox.command(Command::CancelPrefault(id));
    }

    /// The state of all pages at one moment. It is put together on a thread of its own, of which
    /// the guest's faults feel nothing.
    pub fn export_with(&self, reply: Reply<Export>) {
        let Ok(pages) = usize::try_from(self.layout.page_end().0) else { return };
        let reply = Arc::new(Mutex::new(Some(reply)));
        let answer = {
            let reply = Arc::clone(&reply);
            move |copied: Copied, again: Option<Again<'_>>| {
                let reply = reply.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(reply) = reply {
                    reply.send(copied.export(again));
                }
            }
        };
        let (room, room_comes) = bounded(1);
        let (sender, receiver) = bounded::<Copied>(1);
        let built = {
            let (answer, mailbox, room) = (answer.clone(), self.mailbox.clone(), room.clone());
            thread::Builder::new().name("uffd-export".to_owned()).spawn(move || {
                make_room(pages, room, &mailbox);
                if let Ok(copied) = receiver.recv() {
                    answer(copied, Some(&|| copy_of_states(&mailbox, pages)));
                }
            })
        };
        let deliver: Box<dyn FnOnce(Copied) + Send> = match built {
            Ok(_) => Box::new(move |copied| drop(sender.send(copied))),
            // No thread can be had: then the loop's own does it, and faults wait, and so does
            // whoever gives memory back.
            Err(_) => {
                make_room(pages, room, &self.mailbox);
                Box::new(move |copied| answer(copied, None))
            }
        };
        self.mailbox.command(Command::Export(ExportJob { room: room_comes, deliver }));
    }

    /// [`export_with`](Self::export_with), waiting for the answer.
    pub fn export(&self) -> Result<Export, Ended> {
        let (reply, answer) = answer();
        self.export_with(reply);
        answer()
    }

    /// Counters and latencies now.
    pub fn stats_with(&self, reply: Reply<Stats>) {
        self.mailbox.command(Command::Stats(reply));
    }

    /// [`stats_with`](Self::stats_with), waiting for the answer.
    pub fn stats(&self) -> Result<Stats, Ended> {
        let (reply, answer) = answer();
        self.stats_with(reply);
        answer()
    }

    /// The trace from its entry number `from` on, in order.
    pub fn trace_with(&self, from: usize, reply: Reply<Vec<TraceEntry>>) {
        self.mailbox.command(Command::Trace { from, reply });
    }

    /// [`trace_with`](Self::trace_with), waiting for the answer.
    pub fn trace(&self, from: usize) -> Result<Vec<TraceEntry>, Ended> {
        let (reply, answer) = answer();
        self.trace_with(from, reply);
        answer()
    }

    /// Answers at the end of the fault loop's turn.
    pub(crate) fn ping_with(&self, reply: Reply<()>) {
        self.mailbox.command(Command::Ping(reply));
    }

    /// Whether the fault loop is in a system call that nothing but its end interrupts, not even the
    /// end of the process.
    pub(crate) fn is_held_up_by_the_kernel(&self) -> bool {
        let Some(thread) = self.ending.thread_number.get() else { return false };
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        stat.is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" D")))
    }

    /// Answers once no fault is in hand and no event unread: with a paused guest, for good.
    pub fn settle_with(&self, reply: Reply<()>) {
        self.mailbox.command(Command::Settle(reply));
    }

    /// [`settle_with`](Self::settle_with), waiting for the answer.
    pub fn settle(&self) -> Result<(), Ended> {
        let (reply, answer) = answer();
        self.settle_with(reply);
        answer()
    }

    /// What the observer is told from now on: statistics every so often (a millisecond at least),
    /// and the trace as it grows.
    pub fn report(&self, stats_every: Option<Duration>, trace: bool) {
        self.mailbox.command(Command::Report { stats_every, trace });
    }

    /// The observer can take more of the trace.
    pub fn want_trace(&self) {
        self.mailbox.command(Command::TraceWanted);
    }

    /// Ends the session: what is in hand is served as far as that goes at once, and every thread
    /// that still waits is woken. Returns at once; may be called at any time, and again.
    pub fn begin_stop(&self) {
        self.mailbox.command(Command::Stop);
    }

    /// [`begin_stop`](Self::begin_stop), waiting for the end.
    pub fn stop(&self) -> End {
        self.begin_stop();
        self.wait()
    }

    /// Leaves the guest to a successor: the loop stops at a turn's end, and what is in hand waits for
    /// whoever takes the ledger. A guest without a ledger is stopped. Returns at once.
    pub fn begin_hand_over(&self) {
        self.mailbox.command(Command::HandOver);
    }

    /// Installs everything that is not zeros, while faults are served; then the guest needs no
    /// handler any more, and the session ends as [`End::Released`]. With tracking it is refused
    /// unless `ends_tracking`. What cannot be had gives it up; the guest is served as before then.
    pub fn release_with(
        &self,
        ends_tracking: bool,
        reply: Reply<Result<(), NotReleased>>,
    ) -> Option<PrefaultId> {
        if self.tracking.is_on() && !ends_tracking {
            reply.send(Err(NotReleased::Tracked));
            return None;
        }
        let id = PrefaultId(self.next_prefault.fetch_add(1, Ordering::Relaxed));
        self.mailbox.command(Command::Release { id, reply });
        Some(id)
    }

    /// [`release_with`](Self::release_with), waiting for the answer.
    pub fn release(&self, ends_tracking: bool) -> Result<Result<(), NotReleased>, Ended> {
        let (reply, answer) = answer();
        self.release_with(ends_tracking, reply);
        answer()
    }

    /// Sends SIGKILL to the guest's process, which ends the session. Says whether there was one to
    /// kill: it can be seen from here, is known to be the guest's, has not exited, and is still
    /// served.
    pub fn kill(&self) -> bool {
        self.identity.upgrade().is_some_and(|identity| identity.kill(&self.layout))
    }

    /// Waits for the end, and says why it came.
    pub fn wait(&self) -> End {
        let mut end = self.ending.end.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(end) = &*end {
                return end.clone();
            }
            end = self.ending.known.wait(end).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Why the session ended, if it has.
    pub fn end(&self) -> Option<End> {
        self.ending.end.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.begin_stop();
        // An observer or a reply may let go of the last one, on the thread that would be waited for.
        if self.ending.thread.get() != Some(&thread::current().id()) {
            self.wait();
        }
    }
}

/// Why a prefault gave no report.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PrefaultError {
    /// It asked for pages that do not exist.
    #[error(transparent)]
    NoSuchPages(#[from] NoSuchPages),
    /// The session had ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// Gives an export room for the states of so many pages. It is written to, so that it is in memory
/// before the fault loop copies to it.
fn make_room(pages: usize, to: Sender<Vec<u8>>, mailbox: &Mailbox) {
    const AT_ONCE: usize = 16 << 10;
    let (mut room, mut pieces) = (Vec::with_capacity(pages), InPieces::begin());
    while room.len() < pages {
        room.resize(pages.min(room.len() + AT_ONCE), u8::MAX);
        pieces.done();
    }
    let _ = to.send(room);
    mailbox.command(Command::RoomForExport);
}

/// The states of all pages now, unless the session has ended.
fn copy_of_states(mailbox: &Mailbox, pages: usize) -> Option<Vec<u8>> {
    let (room, room_comes) = bounded(1);
    let (sender, copy) = bounded(1);
    let deliver = Box::new(move |copied: Copied| drop(sender.send(copied.states)));
    mailbox.command(Command::Export(ExportJob { room: room_comes, deliver }));
    make_room(pages, room, mailbox);
    copy.recv().ok()
}

/// A reply, and a function that waits for it.
fn answer<T: Send + 'static>() -> (Reply<T>, impl FnOnce() -> Result<T, Ended>) {
    let (sender, receiver) = bounded(1);
    let reply = Reply::new(move |result| drop(sender.send(result)));
    (reply, move || receiver.recv().unwrap_or(Err(Ended)))
}

/// A fault loop, and whom to tell of its end.
pub(crate) struct Runner {
    fault_loop: Option<FaultLoop>,
    ending: Arc<Ending>,
}

/// Bytes that no other guest has, as a UUID.
fn new_id() -> Result<String, SessionError> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid");
    uuid.map(|text| text.trim().to_owned()).map_err(|error| SessionError::Resources {
        what: "an id for the guest",
        cause: error.to_string(),
    })
}

impl Runner {
    /// Runs on a thread of its own, which holds something until the guest has ended.
    fn start(self, held: impl Send + 'static) -> Result<(), SessionError> {
        thread::Builder::new()
            .name("uffd-guest".to_owned())
            .stack_size(STACK)
            .spawn(move || self.run(held))
            .map(drop)
            .map_err(|error| SessionError::Resources {
                what: "a thread for its faults",
                cause: error.to_string(),
            })
    }

    /// Says early which thread will run it, so that nobody waits there for its end.
    pub(crate) fn on_this_thread(&self) {
        let _ = self.ending.thread.set(thread::current().id());
        let _ = self.ending.thread_number.set(nix::unistd::gettid().as_raw());
    }

    /// Serves the guest on this thread until its end. What it has `held` is let go of before anybody
    /// is told: whoever hears that the guest has ended may want just that.
    pub(crate) fn run(mut self, held: impl Send) {
        self.on_this_thread();
        // Where that may not be asked for, the guest waits a little longer on a busy host.
        let _ = run_for_a_moment_at_a_time();
        let Some(mut fault_loop) = self.fault_loop.take() else { return };
        let run = catch_unwind(AssertUnwindSafe(|| fault_loop.run()));
        let end = run.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            End::Failed(SessionError::Panicked(text.unwrap_or("no message").to_owned()))
        });
        // An observer or a reply that panics must not keep the end from whoever waits for it.
        let _ = catch_unwind(AssertUnwindSafe(|| fault_loop.clean_up(&end)));
        // Whoever has the guest by now may want this core, and so may other guests.
        let _behind = stay_behind();
        drop(held);
        let mut pieces = InPieces::begin();
        let _ = catch_unwind(AssertUnwindSafe(|| fault_loop.report_rest()));
        pieces.done();
        let _ = catch_unwind(AssertUnwindSafe(|| fault_loop.finish(&end)));
        self.ending.set(end);
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Its thread could not be started.
        if self.fault_loop.take().is_some() {
            self.ending.set(End::Stopped);
        }
    }
}

impl Ending {
    fn set(&self, end: End) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        self.known.notify_all();
    }
}
