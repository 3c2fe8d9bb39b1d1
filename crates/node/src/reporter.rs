//! Tells the outbox what one session does.

use std::sync::Arc;

use uffd_core::metrics::{Member, Totals};
use uffd_core::session::{End, Notice, Observer, ReleaseProgress};
use uffd_core::stats::Stats;
use uffd_core::trace::TraceEntry;
use uffd_core::view::View;

use crate::end_report::EndReport;
use crate::outbox::{About, News};
use crate::service_manager::{Counted, Service};

/// Holds no session: it is dropped by the session's own thread, which must not wait for itself.
pub(crate) struct Reporter {
    about: Arc<About>,
    totals: Arc<Totals>,
    service: Option<Arc<Service>>,
    recovered: bool,
    /// While the guest is served: it is counted, and can be looked at.
    served: Option<(Member, Arc<View>, Option<Counted>)>,
}

impl Reporter {
    pub(crate) const fn new(
        about: Arc<About>,
        totals: Arc<Totals>,
        service: Option<Arc<Service>>,
        recovered: bool,
    ) -> Self {
        Self { about, totals, service, recovered, served: None }
    }
}

impl Observer for Reporter {
    fn begins(&mut self, view: &Arc<View>) {
        let member = self.totals.join(Arc::clone(view.figures()), self.recovered);
        let counted = self.service.as_ref().map(Service::count);
        self.served = Some((member, Arc::clone(view), counted));
    }

    fn stats(&mut self, stats: Stats) {
        self.about.outbox.stats(&self.about, stats);
    }

    fn trace(&mut self, entries: &[TraceEntry]) -> usize {
        self.about.outbox.trace(&self.about, entries)
    }

    fn notice(&mut self, notice: Notice) {
        self.about.outbox.notice(&self.about, notice);
    }

    fn releasing(&mut self, progress: ReleaseProgress) {
        self.about.outbox.releasing(&self.about, progress);
    }

    fn last_trace(&mut self, entries: Vec<TraceEntry>, rest: usize) {
        if rest < entries.len() {
            self.about
                .outbox
                .tell(News::LastTrace(Arc::clone(&self.about), entries[rest..].to_vec()));
        }
        self.about.keep_trace(entries);
    }

    fn ended(&mut self, end: &End, stats: Stats) {
        if let Some((member, view, _counted)) = self.served.take() {
            self.about.keep_picture(&view);
            member.ended(end.into());
        }
        let report = Box::new(EndReport::new(end, &stats));
        self.about.outbox.tell(News::Ended(Arc::clone(&self.about), report));
    }
}
