//! The outbox: what the core's threads have to say, until JavaScript collects it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::Env;
use uffd_core::guardian;
use uffd_core::recovery::NotRecovered;
use uffd_core::service_manager;
use uffd_core::session::{
    Ended, Export, NotReleased, Notice, PrefaultReport, ReleaseProgress, Session,
};
use uffd_core::stats::Stats;
use uffd_core::trace::TraceEntry;
use uffd_core::view::{Picture, View};

use crate::bell::{Bell, Ring};
use crate::end_report::EndReport;
use crate::error::ErrorInfo;
use crate::snapshot::Snapshot;

/// Refusals that wait to be collected; more are only counted.
const MOST_REFUSALS: usize = 256;

/// Guests that wait to be collected, served already or ended: what is known of each is kept until then.
/// No more are accepted meanwhile.
const MOST_ARRIVALS: usize = 1024;

/// Notices of one guest that wait to be collected; more are only counted.
const MOST_NOTICES: u32 = 64;

/// Entries of one guest's trace that wait to be collected. The rest stays in the fault loop,
/// which keeps all of them anyhow.
const MOST_ENTRIES: usize = 16 << 10;

/// Something to tell JavaScript.
pub(crate) enum News {
    Listening,
    ListenFailed(ErrorInfo),
    Closed,
    Arrived {
        about: Arc<About>,
        session: Arc<Session>,
        snapshot: Arc<Snapshot>,
        recovered: bool,
    },
    /// The state directory is not in memory.
    StateDirOnDisk,
    /// Another server has the state directory, and this one is ready to take over so many guests.
    Waiting {
        guests: u32,
    },
    NotRecovered(NotRecovered),
    /// Something was heard of the guardian.
    Guardian(guardian::News),
    /// Something is wrong with the service manager.
    ServiceManager(service_manager::Trouble),
    Refused {
        error: ErrorInfo,
        unseen: u32,
    },
    Troubled {
        error: ErrorInfo,
        for_good: bool,
    },
    /// The latest statistics of a guest are in its slot.
    Stats(Arc<About>),
    /// A batch of its trace is in its slot.
    Trace(Arc<About>),
    /// The rest of its trace.
    LastTrace(Arc<About>, Vec<TraceEntry>),
    Notice(Arc<About>, Notice),
    /// Why guests cannot be left to the guardian, if they cannot.
    GuardianAsked(Option<ErrorInfo>),
    /// Guests were handed over, and nobody is seen to have these.
    HandedOver {
        ownerless: Vec<String>,
    },
    /// How far the guest's release has come is in its slot.
    Releasing(Arc<About>),
    Answer {
        request: u32,
        answer: Answer,
    },
    Ended(Arc<About>, Box<EndReport>),
}

/// What a command was answered with.
pub(crate) enum Answer {
    Prefault(PrefaultReport),
    Export(Box<Export>),
    Stats(Box<Stats>),
    Trace(Vec<TraceEntry>),
    Settled,
    Released(Option<NotReleased>),
    /// The session had ended before it could answer.
    Ended,
}

impl<T> From<Result<T, Ended>> for Answer
where
    T: Into<Self>,
{
    fn from(result: Result<T, Ended>) -> Self {
        result.map_or(Self::Ended, Into::into)
    }
}

impl From<PrefaultReport> for Answer {
    fn from(report: PrefaultReport) -> Self {
        Self::Prefault(report)
    }
}

impl From<Export> for Answer {
    fn from(export: Export) -> Self {
        Self::Export(Box::new(export))
    }
}

impl From<Stats> for Answer {
    fn from(stats: Stats) -> Self {
        Self::Stats(Box::new(stats))
    }
}

impl From<Vec<TraceEntry>> for Answer {
    fn from(entries: Vec<TraceEntry>) -> Self {
        Self::Trace(entries)
    }
}

impl From<Result<(), NotReleased>> for Answer {
    fn from(result: Result<(), NotReleased>) -> Self {
        Self::Released(result.err())
    }
}

impl From<()> for Answer {
    fn from((): ()) -> Self {
        Self::Settled
    }
}

/// A guest's part of the outbox: what replaces itself instead of queueing up.
pub(crate) struct About {
    pub(crate) id: u32,
    pub(crate) outbox: Arc<Outbox>,
    stats: Mutex<Option<Box<Stats>>>,
    trace: Mutex<Option<Vec<TraceEntry>>>,
    releasing: Mutex<Option<ReleaseProgress>>,
    notices: AtomicU32,
    unseen_notices: AtomicU32,
    /// The whole trace, once the guest has ended.
    whole_trace: Mutex<Vec<TraceEntry>>,
    /// How many cells the picture of its end is to have; none is kept for 0.
    last_cells: AtomicU32,
    last_picture: Mutex<Option<Picture>>,
    /// Bytes that the garbage collector was told of.
    known_bytes: AtomicI64,
}

impl About {
    fn new(outbox: &Arc<Outbox>) -> Self {
        Self {
            id: outbox.next_guest.fetch_add(1, Ordering::Relaxed),
            outbox: Arc::clone(outbox),
            stats: Mutex::default(),
            trace: Mutex::default(),
            releasing: Mutex::default(),
            notices: AtomicU32::new(0),
            unseen_notices: AtomicU32::new(0),
            whole_trace: Mutex::default(),
            last_cells: AtomicU32::new(0),
            last_picture: Mutex::default(),
            known_bytes: AtomicI64::new(0),
        }
    }

    pub(crate) fn take_stats(&self) -> Option<Box<Stats>> {
        lock(&self.stats).take()
    }

    pub(crate) fn take_releasing(&self) -> Option<ReleaseProgress> {
        lock(&self.releasing).take()
    }

    pub(crate) fn take_trace(&self) -> Vec<TraceEntry> {
        lock(&self.trace).take().unwrap_or_default()
    }

    /// One notice was collected: how many were left out before it.
    pub(crate) fn took_notice(&self) -> u32 {
        self.notices.fetch_sub(1, Ordering::AcqRel);
        self.unseen_notices.swap(0, Ordering::AcqRel)
    }

    pub(crate) fn keep_trace(&self, entries: Vec<TraceEntry>) {
        *lock(&self.whole_trace) = entries;
    }

    /// Has the picture of its end kept, in so many cells.
    pub(crate) fn want_last_picture(&self, cells: u32) {
        self.last_cells.store(cells, Ordering::Relaxed);
    }

    /// The guest has ended: its picture is kept if that is wanted.
    pub(crate) fn keep_picture(&self, view: &View) {
        let cells = self.last_cells.load(Ordering::Relaxed);
        if cells > 0 {
            // Without the right to look there is none.
            *lock(&self.last_picture) = view.picture(cells as usize).ok();
        }
    }

    pub(crate) fn last_picture(&self) -> Option<Picture> {
        lock(&self.last_picture).clone()
    }

    /// Has the garbage collector know what a guest that has ended is worth collecting for.
    pub(crate) fn held_by(&self, env: &Env) -> napi::Result<()> {
        let bytes = size_of_val(lock(&self.whole_trace).as_slice());
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.known_bytes.store(bytes, Ordering::Relaxed);
        env.adjust_external_memory(bytes).map(drop)
    }

    /// The object was collected.
    pub(crate) fn no_longer_held_by(&self, env: &Env) -> napi::Result<()> {
        let bytes = self.known_bytes.swap(0, Ordering::Relaxed);
        env.adjust_external_memory(-bytes).map(drop)
    }

    pub(crate) fn with_kept_trace<T>(&self, read: impl FnOnce(&[TraceEntry]) -> T) -> T {
        read(&lock(&self.whole_trace))
    }
}

pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    bell: Bell,
    next_guest: AtomicU32,
    next_request: AtomicU32,
    /// JavaScript is gone: whatever is said is forgotten.
    abandoned: AtomicBool,
    /// Nothing more will be told.
    finished: AtomicBool,
}

#[derive(Default)]
struct Queue {
    news: VecDeque<News>,
    arrivals: usize,
    refusals: usize,
    unseen_refusals: u32,
    /// A connection could not be accepted, for now; this was said already.
    troubled: bool,
}

impl Outbox {
    pub(crate) fn new(ring: Ring) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            bell: Bell::new(ring),
            next_guest: AtomicU32::new(1),
            next_request: AtomicU32::new(1),
            abandoned: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        })
    }

    /// A part for a new guest.
    pub(crate) fn new_guest(self: &Arc<Self>) -> Arc<About> {
        Arc::new(About::new(self))
    }

    /// A number for a request. It may come again after 2^32 others.
    pub(crate) fn new_request(&self) -> u32 {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn tell(&self, news: News) {
        self.push(lock(&self.queue), news);
    }

    pub(crate) fn refused(&self, error: ErrorInfo) {
        let mut queue = lock(&self.queue);
        if queue.refusals >= MOST_REFUSALS {
            queue.unseen_refusals = queue.unseen_refusals.saturating_add(1);
            return;
        }
        queue.refusals += 1;
        let unseen = std::mem::take(&mut queue.unseen_refusals);
        self.push(queue, News::Refused { error, unseen });
    }

    /// Whether too many guests wait to be collected.
    pub(crate) fn is_behind(&self) -> bool {
        lock(&self.queue).arrivals >= MOST_ARRIVALS
    }

    /// Said once until it is collected, as it happens again and again.
    pub(crate) fn troubled(&self, error: ErrorInfo, for_good: bool) {
        let mut queue = lock(&self.queue);
        if for_good || !std::mem::replace(&mut queue.troubled, true) {
            self.push(queue, News::Troubled { error, for_good });
        }
    }

    pub(crate) fn stats(&self, about: &Arc<About>, stats: Stats) {
        let mut slot = lock(&about.stats);
        if slot.replace(Box::new(stats)).is_none() {
            drop(slot);
            self.tell(News::Stats(Arc::clone(about)));
        }
    }

    pub(crate) fn releasing(&self, about: &Arc<About>, progress: ReleaseProgress) {
        if lock(&about.releasing).replace(progress).is_none() {
            self.tell(News::Releasing(Arc::clone(about)));
        }
    }

    /// Takes a batch if none waits to be collected; returns how many entries it took.
    pub(crate) fn trace(&self, about: &Arc<About>, entries: &[TraceEntry]) -> usize {
        let mut slot = lock(&about.trace);
        if slot.is_some() {
            return 0;
        }
        let batch = &entries[..entries.len().min(MOST_ENTRIES)];
        *slot = Some(batch.to_vec());
        drop(slot);
        self.tell(News::Trace(Arc::clone(about)));
        batch.len()
    }

    pub(crate) fn notice(&self, about: &Arc<About>, notice: Notice) {
        if about.notices.fetch_add(1, Ordering::AcqRel) >= MOST_NOTICES {
            about.notices.fetch_sub(1, Ordering::AcqRel);
            about.unseen_notices.fetch_add(1, Ordering::AcqRel);
        } else {
            self.tell(News::Notice(Arc::clone(about), notice));
        }
    }

    /// Everything there is to tell.
    pub(crate) fn collect(&self) -> VecDeque<News> {
        // Before the queue is emptied: what is added afterwards rings again.
        self.bell.answered();
        let mut queue = lock(&self.queue);
        (queue.arrivals, queue.refusals) = (0, 0);
        queue.troubled = false;
        std::mem::take(&mut queue.news)
    }

    /// Nothing more will be told.
    pub(crate) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        self.bell.remove();
    }

    /// Whether JavaScript will hear what is told.
    pub(crate) fn is_heard(&self) -> bool {
        !self.finished.load(Ordering::Acquire) && !self.abandoned.load(Ordering::Acquire)
    }

    /// JavaScript is gone.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.bell.remove();
        let forgotten = std::mem::take(&mut lock(&self.queue).news);
        drop(forgotten);
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, news: News) {
        if self.abandoned.load(Ordering::Acquire) {
            return;
        }
        queue.arrivals += usize::from(matches!(news, News::Arrived { .. }));
        queue.news.push_back(news);
        drop(queue);
        self.bell.ring();
    }
}

/// Nothing that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
