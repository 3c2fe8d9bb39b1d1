use std::sync::{Arc, Weak};
use std::time::Duration;

use napi::Env;
use napi::bindgen_prelude::{AsyncTask, BigUint64Array, Float64Array, ObjectFinalize};
use napi_derive::napi;
use uffd_core::handoff::Peer;
use uffd_core::metrics::Figures;
use uffd_core::policy;
use uffd_core::session::{Ended, NoSuchPages, Owner, PrefaultId, PrefaultReport, Reply, Session};
use uffd_core::units::{PageRange, PageSize};

use crate::error::{Thrown, invalid_option, no_such_pages};
use crate::metrics::{Sitter, TakePicture};
use crate::outbox::{About, Answer, News};
use crate::prefault::NativePrefault;
use crate::process_facts::ProcessFacts;
use crate::region::Region;
use crate::snapshot::Snapshot;
use crate::trace::NativeTrace;
use crate::trace::tasks::{CheckTrace, TakeDown};
use crate::trace_words::to_words;

/// Who learns of the first write to a page that was filled for a read.
#[napi(string_enum = "lowercase")]
#[derive(Debug)]
pub enum Tracking {
    /// Nobody: dirty pages are not tracked.
    Off,
    /// The fault loop, by a write-protect fault.
    Sync,
    /// The kernel, where the VMM negotiated WP_ASYNC.
    Async,
}

/// Which process the guest's memory belongs to.
#[napi(string_enum = "lowercase")]
#[derive(Debug)]
pub enum GuestOwner {
    /// Not found out yet: nothing has been installed.
    Unproven,
    /// The process that connected.
    Peer,
    /// Another process than the one that connected.
    Other,
    /// It cannot be found out from here.
    Unknowable,
}

/// What a session is asked to do with pages that are wanted soon.
type Ask = fn(&Session, Vec<PageRange>, Reply<PrefaultReport>) -> Result<PrefaultId, NoSuchPages>;

/// A guest's session. Commands return a number, which comes back with the answer.
#[napi(custom_finalize)]
pub struct NativeGuest {
    about: Arc<About>,
    /// Gone once JavaScript was told of the guest's end.
    session: Weak<Session>,
    handoff_id: String,
    pid: Option<i32>,
    peer: Option<Peer>,
    page_size: PageSize,
    regions: Vec<Region>,
    tracking: policy::Tracking,
    snapshot: Arc<Snapshot>,
    figures: Arc<Figures>,
}

impl ObjectFinalize for NativeGuest {
    fn finalize(self, env: Env) -> napi::Result<()> {
        self.about.no_longer_held_by(&env)
    }
}

impl NativeGuest {
    pub(crate) fn new(about: Arc<About>, session: &Arc<Session>, snapshot: Arc<Snapshot>) -> Self {
        let page_size = session.layout().page_size();
        let region = |region| Region::new(region, page_size);
        Self {
            about,
            session: Arc::downgrade(session),
            handoff_id: session.id().to_owned(),
            pid: session.pid(),
            peer: session.peer(),
            page_size,
            regions: session.layout().regions().iter().map(region).collect(),
            tracking: session.tracking(),
            snapshot,
            figures: Arc::clone(session.view().figures()),
        }
    }

    fn ahead(&self, ranges: &Float64Array, ask: Ask) -> Result<NativePrefault, Thrown> {
        let ranges = page_ranges(ranges)?;
        let (request, reply) = self.request();
        let Some(session) = self.session.upgrade() else {
            return Ok(NativePrefault::too_late(request));
        };
        let id = ask(&session, ranges, reply).map_err(|error| no_such_pages(&error))?;
        Ok(NativePrefault::new(Weak::clone(&self.session), id, request))
    }

    /// Asks the session for something; without one, the answer is that it came too late.
    fn ask<T: 'static>(&self, ask: impl FnOnce(&Session, Reply<T>)) -> u32
    where
        Answer: From<Result<T, Ended>>,
    {
        let (request, reply) = self.request();
        if let Some(session) = self.session.upgrade() {
            ask(&session, reply);
        }
        request
    }

    /// Tells the session something, unless it has ended.
    fn tell(&self, tell: impl FnOnce(&Session)) {
        if let Some(session) = self.session.upgrade() {
            tell(&session);
        }
    }

    /// A number for a request, and where its answer goes.
    fn request<T: 'static>(&self) -> (u32, Reply<T>)
    where
        Answer: From<Result<T, Ended>>,
    {
        let outbox = Arc::clone(&self.about.outbox);
        let request = outbox.new_request();
        let reply = Reply::new(move |result| {
            outbox.tell(News::Answer { request, answer: Answer::from(result) });
        });
        (request, reply)
    }
}

#[napi]
impl NativeGuest {
    /// Names the guest in events.
    #[napi(getter, catch_unwind)]
    pub fn id(&self) -> u32 {
        self.about.id
    }

    /// Different for each handoff, and the same after a recovery.
    #[napi(getter, catch_unwind)]
    pub fn handoff_id(&self) -> String {
        self.handoff_id.clone()
    }

    /// Whose memory it is, as far as that was found out; nothing once the guest has ended.
    #[napi(getter, catch_unwind)]
    pub fn owner(&self) -> Option<GuestOwner> {
        Some(match self.session.upgrade()?.owner()? {
            Owner::Unproven => GuestOwner::Unproven,
            Owner::Peer => GuestOwner::Peer,
            Owner::Other => GuestOwner::Other,
            Owner::Unknowable => GuestOwner::Unknowable,
        })
    }

    /// Installs what is not zeros and needs no handler afterwards.
    #[napi(catch_unwind)]
    pub fn release(&self, ends_tracking: bool) -> NativePrefault {
        let (request, reply) = self.request();
        let Some(session) = self.session.upgrade() else {
            return NativePrefault::too_late(request);
        };
        match session.release_with(ends_tracking, reply) {
            Some(id) => NativePrefault::new(Weak::clone(&self.session), id, request),
            None => NativePrefault::too_late(request),
        }
    }

    /// What tells its process from others, where that can be seen from here.
    #[napi(getter, catch_unwind)]
    pub fn process(&self) -> Option<ProcessFacts> {
        let uffd_core::session::ProcessFacts { name, cgroup, root } =
            self.session.upgrade()?.process_facts()?;
        Some(ProcessFacts { name, cgroup, root })
    }

    /// Its process, where that can be seen from here.
    #[napi(getter, catch_unwind)]
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// The effective user of its process at the handoff.
    #[napi(getter, catch_unwind)]
    pub fn uid(&self) -> Option<u32> {
        self.peer.map(|peer| peer.uid)
    }

    /// The effective group of its process at the handoff.
    #[napi(getter, catch_unwind)]
    pub fn gid(&self) -> Option<u32> {
        self.peer.map(|peer| peer.gid)
    }

    /// Its page size in bytes.
    #[napi(getter, catch_unwind)]
    pub fn page_size(&self) -> f64 {
        self.page_size.bytes() as f64
    }

    /// Its regions, in the order of snapshot offsets.
    #[napi(getter, catch_unwind)]
    pub fn regions(&self) -> Vec<Region> {
        self.regions.clone()
    }

    /// Whether and how its dirty pages are tracked.
    #[napi(getter, catch_unwind)]
    pub fn tracking(&self) -> Tracking {
        match self.tracking {
            policy::Tracking::Off => Tracking::Off,
            policy::Tracking::Sync => Tracking::Sync,
            policy::Tracking::Async => Tracking::Async,
        }
    }

    /// Which events are wanted: statistics every so many milliseconds, and the trace.
    #[napi(catch_unwind)]
    pub fn report(&self, stats_every_ms: Option<u32>, trace: bool) {
        let every = stats_every_ms.map(|ms| Duration::from_millis(u64::from(ms.max(1))));
        self.tell(|session| session.report(every, trace));
    }

    /// The last batch of the trace was dealt with.
    #[napi(catch_unwind)]
    pub fn want_trace(&self) {
        self.tell(Session::want_trace);
    }

    /// Installs pages: pairs of a first page and the page after the last.
    #[napi(catch_unwind)]
    pub fn prefault(&self, ranges: Float64Array) -> Result<NativePrefault, Thrown> {
        self.ahead(&ranges, Session::prefault_with)
    }

    /// Brings pages into the host's memory: pairs of a first page and the page after the last.
    #[napi(catch_unwind)]
    pub fn read_ahead(&self, ranges: Float64Array) -> Result<NativePrefault, Thrown> {
        self.ahead(&ranges, Session::read_ahead_with)
    }

    /// The state of all pages.
    #[napi(catch_unwind)]
    pub fn export(&self) -> u32 {
        self.ask(Session::export_with)
    }

    /// Counters and latencies.
    #[napi(catch_unwind)]
    pub fn stats(&self) -> u32 {
        self.ask(Session::stats_with)
    }

    /// The trace so far.
    #[napi(catch_unwind)]
    pub fn trace(&self) -> u32 {
        self.ask(|session, reply| session.trace_with(0, reply))
    }

    /// The whole trace, of a guest that has ended; two words an entry.
    #[napi(catch_unwind)]
    pub fn kept_trace(&self) -> BigUint64Array {
        self.about.with_kept_trace(to_words)
    }

    /// First touches of this guest, two words each, as a trace of its snapshot.
    #[napi(catch_unwind, ts_return_type = "Promise<NativeTrace | ErrorInfo>")]
    pub fn take_down(&self, words: BigUint64Array) -> AsyncTask<TakeDown> {
        let snapshot = Arc::clone(&self.snapshot);
        AsyncTask::new(TakeDown::new(snapshot, self.page_size, &words))
    }

    /// Why a trace cannot be used for this guest, if it cannot.
    #[napi(catch_unwind, ts_return_type = "Promise<ErrorInfo | undefined>")]
    pub fn check_trace(&self, trace: &NativeTrace) -> AsyncTask<CheckTrace> {
        let snapshot = Arc::clone(&self.snapshot);
        AsyncTask::new(CheckTrace { trace: trace.shared(), snapshot, page_size: self.page_size })
    }

    /// Answers once no fault is in hand.
    #[napi(catch_unwind)]
    pub fn settle(&self) -> u32 {
        self.ask(Session::settle_with)
    }

    /// The values of the metrics of a guest, in the order of `metrics()`: what this process did for
    /// it. Asks nobody, and can be had of a guest that has ended.
    #[napi(catch_unwind)]
    pub fn figures(&self) -> Float64Array {
        self.figures.read().values().into()
    }

    /// Its memory in at most so many cells, as it is now or, where that was kept, was at its end.
    #[napi(catch_unwind, ts_return_type = "Promise<MemoryPicture | ErrorInfo>")]
    pub fn picture(&self, cells: u32) -> AsyncTask<TakePicture> {
        let sitter = match self.session.upgrade() {
            Some(session) => Sitter::Served(Arc::clone(session.view())),
            None => Sitter::Ended(self.about.last_picture()),
        };
        TakePicture::of(sitter, cells)
    }

    /// Has the picture of its end kept, in at most so many cells.
    #[napi(catch_unwind)]
    pub fn keep_last_picture(&self, cells: u32) {
        self.about.want_last_picture(cells);
    }

    /// Kills the guest's process; tells whether there was one to kill.
    #[napi(catch_unwind)]
    pub fn kill(&self) -> bool {
        self.session.upgrade().is_some_and(|session| session.kill())
    }

    /// Ends the session; its end is an event.
    #[napi(catch_unwind)]
    pub fn begin_stop(&self) {
        self.tell(Session::begin_stop);
    }
}

/// Pages have numbers below 2^32, so a double holds them exactly.
fn page_ranges(pairs: &[f64]) -> Result<Vec<PageRange>, Thrown> {
    const MOST: f64 = (1_u64 << 32) as f64;
    let (pairs, []) = pairs.as_chunks::<2>() else {
        return Err(invalid_option("ranges of pages come in pairs"));
    };
    let range = |&[start, end]: &[f64; 2]| {
        let is_page = |page: f64| page.fract() == 0.0 && (0.0..=MOST).contains(&page);
        if !is_page(start) || !is_page(end) || start > end {
            return Err(invalid_option(format!("{start}..{end} is no range of pages")));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just checked")]
        Ok(PageRange::new(start as u64, end as u64))
    };
    pairs.iter().map(range).collect()
}
