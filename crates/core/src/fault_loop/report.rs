//! What the observer is told while the guest is served.

use std::time::{Duration, Instant};

use super::FaultLoop;

/// First touches are handed on after at most this long.
const TRACE_EVERY: Duration = Duration::from_millis(100);

/// Or when there are this many of them.
const TRACE_BATCH: usize = 1024;

/// Statistics are not told more often.
const STATS_EVERY: Duration = Duration::from_millis(1);

#[derive(Default)]
pub(super) struct Reporting {
    stats_every: Option<Duration>,
    stats_due: Option<Instant>,
    trace: bool,
    /// Entries of the trace that the observer has taken.
    sent: usize,
    trace_due: Option<Instant>,
    /// The observer took nothing: it says when it can take more.
    trace_full: bool,
    pub(super) warned_of_memory: bool,
}

impl Reporting {
    pub(super) fn configure(&mut self, stats_every: Option<Duration>, trace: bool) {
        // More often would leave no time for faults; later than the clock can tell is never.
        self.stats_every = stats_every.map(|every| every.max(STATS_EVERY));
        self.stats_due = self.stats_every.and_then(|every| Instant::now().checked_add(every));
        self.trace = trace;
        self.trace_due = None;
    }

    pub(super) const fn trace_wanted(&mut self) {
        self.trace_full = false;
    }

    /// When there is next something to tell.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.stats_due.into_iter().chain(self.trace_due).min()
    }
}

impl FaultLoop {
    pub(super) fn report(&mut self) {
        let Reporting { stats_due, trace, .. } = &self.reporting;
        if stats_due.is_none() && !trace {
            return;
        }
        let now = Instant::now();
        self.report_stats(now);
        self.report_trace(now);
    }

    fn report_stats(&mut self, now: Instant) {
        if self.reporting.stats_due.is_none_or(|due| now < due) {
            return;
        }
        // From now on, not from when it was due: a loop that was busy owes no arrears.
        self.reporting.stats_due =
            self.reporting.stats_every.and_then(|every| now.checked_add(every));
        let stats = self.stats();
        self.observer.stats(stats);
    }

    fn report_trace(&mut self, now: Instant) {
        let Reporting { trace, sent, trace_due, trace_full, .. } = &mut self.reporting;
        let new = &self.trace[*sent..];
        if !*trace || *trace_full || new.is_empty() {
            return;
        }
        let due = *trace_due.get_or_insert(now + TRACE_EVERY);
        if new.len() >= TRACE_BATCH || now >= due {
            let taken = self.observer.trace(new).min(new.len());
            *sent += taken;
            *trace_full = taken == 0;
            *trace_due = None;
        }
    }

    /// The last of the trace, once the guest has ended.
    pub(crate) fn report_rest(&mut self) {
        let trace = std::mem::take(&mut self.trace);
        let told = if self.reporting.trace { self.reporting.sent } else { trace.len() };
        self.observer.last_trace(trace, told);
    }
}
