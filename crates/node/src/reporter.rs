//! Tells the outbox what one session does.

use std::sync::Arc;

use uffd_core::session::{End, Notice, Observer};
use uffd_core::stats::Stats;
use uffd_core::trace::TraceEntry;

use crate::end_report::EndReport;
use crate::outbox::{About, News};

/// Holds no session: it is dropped by the session's own thread, which must not wait for itself.
pub(crate) struct Reporter(pub(crate) Arc<About>);

impl Observer for Reporter {
    fn stats(&mut self, stats: Stats) {
        self.0.outbox.stats(&self.0, stats);
    }

    fn trace(&mut self, entries: &[TraceEntry]) -> usize {
        self.0.outbox.trace(&self.0, entries)
    }

    fn notice(&mut self, notice: Notice) {
        self.0.outbox.notice(&self.0, notice);
    }

    fn last_trace(&mut self, entries: Vec<TraceEntry>, rest: usize) {
        if rest < entries.len() {
            self.0.outbox.tell(News::LastTrace(Arc::clone(&self.0), entries[rest..].to_vec()));
        }
        self.0.keep_trace(entries);
    }

    fn ended(&mut self, end: &End, stats: Stats) {
        let report = Box::new(EndReport::new(end, &stats));
        self.0.outbox.tell(News::Ended(Arc::clone(&self.0), report));
    }
}
