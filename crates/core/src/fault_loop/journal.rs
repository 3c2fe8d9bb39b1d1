//! What happened, and what the observer is told of it: the trace, latencies, statistics, notices
//! and the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::hand::{Fault, Hand, Kind, Phase};
use super::next::Next;
use crate::contract::{End, Notice, Observer, ReleaseProgress};
use crate::install::GuestMemory;
use crate::kernel::InPieces;
use crate::ledger::Touches;
use crate::metrics::{Ahead, FaultClass};
use crate::states::PageState;
use crate::stats::{LatencyHistogram, Stats};
use crate::trace::{FilledWith, TraceEntry};
use crate::units::{PageIndex, PageRange};
use crate::view::View;

/// First touches are handed on after at most this long.
const TRACE_EVERY: Duration = Duration::from_millis(100);

/// Or when there are this many of them.
const TRACE_BATCH: usize = 1024;

/// So many entries are looked at in some microseconds.
const A_PIECE: usize = 256;

/// Statistics are not told more often.
const STATS_EVERY: Duration = Duration::from_millis(1);

pub(super) struct Journal {
    pub(super) clock: Clock,
    /// When the handoff was complete.
    since: Instant,
    /// Whether first touches are recorded.
    traces: bool,
    trace: Vec<TraceEntry>,
    /// Where a successor finds it.
    touches: Option<Touches>,
    /// What they noted is not read yet; whether they traced from the handoff on.
    predecessors: Option<bool>,
    latency: LatencyHistogram,
    view: Arc<View>,
    observer: Box<dyn Observer>,
    stats_every: Option<Duration>,
    stats_due: Option<Instant>,
    tells_trace: bool,
    /// Entries of the trace that the observer has taken.
    sent: usize,
    trace_due: Option<Instant>,
    /// The observer took nothing: it says when it can take more.
    trace_full: bool,
    warned_of_memory: bool,
}

impl Journal {
    pub(super) fn new(
        since: Instant,
        traces: bool,
        view: Arc<View>,
        observer: Box<dyn Observer>,
        latency: LatencyHistogram,
    ) -> Self {
        Self {
            clock: Clock::default(),
            since,
            traces,
            trace: Vec::new(),
            touches: None,
            predecessors: None,
            latency,
            view,
            observer,
            stats_every: None,
            stats_due: None,
            tells_trace: false,
            sent: 0,
            trace_due: None,
            trace_full: false,
            warned_of_memory: false,
        }
    }

    /// Every missing-page fault in `done` is served: the pages were installed after it was read,
    /// and that wakes its threads. Returns how many there were, each on a page of its own.
    pub(super) fn settle(
        &mut self,
        memory: &mut GuestMemory,
        hand: &mut Hand,
        done: PageRange,
        filled: FilledWith,
    ) -> u64 {
        let mut looked = None;
        let mut served = 0;
        for fault in hand.missing_in(done) {
            let now = *looked.get_or_insert_with(|| self.clock.look());
            fault.phase = Phase::Served;
            let write = fault.kind == Kind::Missing { write: true };
            if write {
                memory.counters.write_faults += 1;
                memory.written(fault.page);
            } else {
                memory.counters.read_faults += 1;
            }
            let class = if write { FaultClass::Write(filled) } else { FaultClass::Read(filled) };
            self.served(memory, fault, now, class);
            served += 1;
        }
        served
    }

    /// A write to a protected page was let through.
    pub(super) fn protect_served(&mut self, memory: &mut GuestMemory, fault: &mut Fault) {
        fault.phase = Phase::Served;
        memory.counters.protect_faults += 1;
        // A page filled ahead may be touched first by a write.
        let now = self.clock.look();
        self.served(memory, fault, now, FaultClass::Protect);
    }

    fn served(&mut self, memory: &mut GuestMemory, fault: &Fault, now: Instant, class: FaultClass) {
        let latency = now.saturating_duration_since(fault.read_at);
        self.latency.record(latency);
        self.view.figures().served(class, latency);
        if memory.states.is_touched(fault.page) {
            return;
        }
        if self.traces {
            let time = now.saturating_duration_since(self.since);
            let (write, filled) = (class.is_write(), class.filled());
            // First the entry: of a page that counts as touched without one the order is lost.
            self.record(TraceEntry::new(fault.page, write, filled, time));
            crate::kill_point!("touch noted");
        }
        memory.states.touch(fault.page);
    }

    fn record(&mut self, entry: TraceEntry) {
        self.trace.push(entry);
        if let Some(touches) = &mut self.touches {
            touches.note(entry);
        }
    }

    /// The trace is noted there as well, for a successor.
    pub(super) fn note_touches_in(&mut self, touches: Option<Touches>) {
        self.touches = touches.filter(|_| self.traces);
    }

    /// Goes on with what predecessors noted, who traced from the handoff on if `is_traced`. It is read
    /// when the trace is asked for: a guest with many pages would wait for it.
    pub(super) fn recall_touches(&mut self, is_traced: bool) {
        self.predecessors = self.touches.is_some().then_some(is_traced);
    }

    /// Has the whole trace, that of predecessors too. If they traced from the handoff on, pages that
    /// were touched and that there was no room to note come last: only their order is lost. Without
    /// `memory`, whose ledger may be a successor's by now, nothing is looked at or written there.
    pub(super) fn complete_trace(&mut self, memory: Option<&GuestMemory>) {
        let (Some(is_traced), Some(touches)) = (self.predecessors.take(), &self.touches) else {
            return;
        };
        // Everything since was noted there as well, where there was room.
        let own = std::mem::take(&mut self.trace);
        let layout = Arc::clone(self.view.layout());
        let mut noted = Pages::none_of(layout.page_end());
        // Once the guest was left, whoever has it may want this core.
        let mut pieces = memory.is_none().then(InPieces::begin);
        for (count, entry) in touches.entries(&layout).chain(own).enumerate() {
            if noted.insert(entry.page()) {
                self.trace.push(entry);
            }
            if count % A_PIECE == 0 {
                pieces.iter_mut().for_each(InPieces::done);
            }
        }
        let Some(memory) = memory.filter(|_| is_traced) else { return };
        let time = self.since.elapsed();
        for page in layout.regions().iter().flat_map(|region| region.pages.pages()) {
            if memory.states.is_touched(page) && noted.insert(page) {
                let filled = filled_as(memory.states.get(page));
                self.record(TraceEntry::new(page, false, filled, time));
            }
        }
    }

    /// The session begins: everything it needs is there.
    pub(super) fn begin(&mut self) {
        self.observer.begins(&self.view);
    }

    pub(super) const fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Shows how things stand to whoever looks.
    pub(super) fn show(&self, memory: &GuestMemory, hand: &Hand, prefault_pending_pages: u64) {
        let ahead = Ahead { faults_in_hand: hand.len() as u64, prefault_pending_pages };
        self.view.figures().show(&memory.counters, &memory.states.counts(), &ahead);
    }

    pub(super) fn releasing(&mut self, progress: ReleaseProgress) {
        self.observer.releasing(progress);
    }

    pub(super) fn notice(&mut self, notice: Notice) {
        self.observer.notice(notice);
    }

    /// Says it once in a session.
    pub(super) fn warn_of_memory(&mut self, notice: Notice) {
        if !std::mem::replace(&mut self.warned_of_memory, true) {
            self.observer.notice(notice);
        }
    }

    pub(super) fn trace_from(&self, from: usize) -> Vec<TraceEntry> {
        self.trace.get(from..).unwrap_or_default().to_vec()
    }

    pub(super) fn stats(&self, memory: &GuestMemory, hand: &Hand) -> Stats {
        Stats {
            uptime: self.since.elapsed(),
            counters: memory.counters.clone(),
            pages: memory.states.counts(),
            faults_in_hand: hand.len() as u64,
            latency: self.latency.summary(),
        }
    }

    pub(super) fn configure(&mut self, stats_every: Option<Duration>, trace: bool) {
        // More often would leave no time for faults; later than the clock can tell is never.
        self.stats_every = stats_every.map(|every| every.max(STATS_EVERY));
        self.stats_due = self.stats_every.and_then(|every| Instant::now().checked_add(every));
        self.tells_trace = trace;
        self.trace_due = None;
    }

    pub(super) const fn trace_wanted(&mut self) {
        self.trace_full = false;
    }

    /// When there is next something to tell.
    pub(super) fn next(&self) -> Next {
        self.stats_due.into_iter().chain(self.trace_due).min().into()
    }

    pub(super) fn report(&mut self, memory: &GuestMemory, hand: &Hand) {
        if self.stats_due.is_none() && !self.tells_trace {
            return;
        }
        let now = Instant::now();
        if self.stats_due.is_some_and(|due| now >= due) {
            // From now on, not from when it was due: a loop that was busy owes no arrears.
            self.stats_due = self.stats_every.and_then(|every| now.checked_add(every));
            let stats = self.stats(memory, hand);
            self.observer.stats(stats);
        }
        if self.tells_trace {
            self.complete_trace(Some(memory));
        }
        self.report_trace(now);
    }

    fn report_trace(&mut self, now: Instant) {
        let new = &self.trace[self.sent..];
        if !self.tells_trace || self.trace_full || new.is_empty() {
            return;
        }
        let due = *self.trace_due.get_or_insert(now + TRACE_EVERY);
        if new.len() >= TRACE_BATCH || now >= due {
            let taken = self.observer.trace(new).min(new.len());
            self.sent += taken;
            self.trace_full = taken == 0;
            self.trace_due = None;
        }
    }

    /// The last of the trace, once the guest has ended; `memory` as in
    /// [`complete_trace`](Self::complete_trace).
    pub(super) fn report_rest(&mut self, memory: Option<&GuestMemory>) {
        if !self.observer.wants_last_trace() {
            return;
        }
        self.complete_trace(memory);
        let trace = std::mem::take(&mut self.trace);
        let told = if self.tells_trace { self.sent } else { trace.len() };
        self.observer.last_trace(trace, told);
    }

    pub(super) fn ended(mut self, end: &End, stats: Stats) {
        self.observer.ended(end, stats);
    }
}

/// A set of pages: there are so many in a trace that it is felt how long one takes.
struct Pages(Vec<u64>);

impl Pages {
    /// Pages before `end`.
    fn none_of(end: PageIndex) -> Self {
        Self(vec![0; usize::try_from(end.0.div_ceil(64)).unwrap_or_default()])
    }

    /// Whether `page` was not there before, and can be.
    fn insert(&mut self, page: PageIndex) -> bool {
        let word = usize::try_from(page.0 / 64).ok().and_then(|at| self.0.get_mut(at));
        let bit = 1 << (page.0 % 64);
        word.is_some_and(|word| std::mem::replace(word, *word | bit) & bit == 0)
    }
}

/// What a page of that state was filled with at its first touch, as far as it shows: for what a trace
/// is good for it is enough to know whether the source's bytes were wanted.
const fn filled_as(state: PageState) -> FilledWith {
    match state {
        PageState::Removed | PageState::Zero => FilledWith::Zeros,
        PageState::Unfaulted | PageState::Clean | PageState::Dirty | PageState::Poisoned => {
            FilledWith::Source
        }
    }
}
