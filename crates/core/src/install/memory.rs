//! A guest's memory: the descriptor, the page states, and the counters of what was done with them.
//! Executes plans and accounts for them; knows nothing of who asked.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::execute::{Executed, Gap, Tools};
use super::obstacle::Obstacle;
use super::plan::Install;
use super::together;

use crate::identity::{Owner, SharedIdentity};
use crate::kernel::{Crew, Outcome, Place, Protection, Uffd, Wake, ZeroBytes};
use crate::layout::Layout;
use crate::ledger::{Filling, Ledger, Note};
use crate::policy::{Access, Rules, Tracking};
use crate::states::{PageState, PageStates};
use crate::stats::Counters;
use crate::units::{GuestAddr, PageIndex, PageRange, PageSize};

/// Where a plan stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// The page that could not be installed.
    pub(crate) page: PageIndex,
    /// On whose behalf.
    pub(crate) access: Access,
    pub(crate) obstacle: Obstacle,
}

/// What has come of a plan that nobody waited for.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    /// What is not installed of it, in its order.
    pub(crate) left: together::Left,
    /// Where an obstacle was met first; there is none if only an event was.
    pub(crate) stopped: Option<Stopped>,
}

pub(crate) struct GuestMemory {
    uffd: Uffd,
    layout: Arc<Layout>,
    rules: Rules,
    identity: SharedIdentity,
    zeros: &'static ZeroBytes,
    gap: Gap,
    crew: &'static Crew,
    /// Threads are woken once for many installs; between these addresses they still wait.
    batch: Option<Vec<(GuestAddr, GuestAddr)>>,
    note: Note,
    /// Faults served on pages that a prefault was asked for.
    wanted_faults: u64,
    /// The last of these pages, until somebody has seen to what lies around it.
    wanted_page: Option<PageIndex>,
    pub(crate) states: PageStates,
    pub(crate) counters: Counters,
}

impl GuestMemory {
    /// Gets ready what all guests of the process share.
    pub(crate) fn prepare() -> io::Result<()> {
        Crew::shared();
        shared_zeros().map(drop)
    }

    pub(crate) fn new(
        uffd: Uffd,
        layout: Arc<Layout>,
        identity: SharedIdentity,
        ledger: &mut Ledger,
    ) -> io::Result<Self> {
        let rules =
            Rules { page_size: layout.page_size(), tracking: Tracking::Off, page_map_tells: false };
        Ok(Self {
            states: ledger.states(&layout),
            note: ledger.note(),
            zeros: shared_zeros()?,
            uffd,
            layout,
            rules,
            identity,
            gap: Gap::default(),
            crew: Crew::shared(),
            batch: None,
            wanted_faults: 0,
            wanted_page: None,
            counters: Counters::default(),
        })
    }

    pub(crate) const fn uffd(&self) -> &Uffd {
        &self.uffd
    }

    pub(crate) const fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    pub(crate) const fn rules(&self) -> Rules {
        self.rules
    }

    pub(crate) const fn page_size(&self) -> PageSize {
        self.rules.page_size
    }

    pub(crate) const fn identity(&self) -> &SharedIdentity {
        &self.identity
    }

    /// A fault on `page` is about to be served.
    pub(crate) fn note_fault(&mut self, page: PageIndex) {
        if self.states.is_wanted(page) {
            self.wanted_faults += 1;
            self.wanted_page = Some(page);
        }
    }

    /// The page of the last such fault, once.
    pub(crate) const fn take_wanted_page(&mut self) -> Option<PageIndex> {
        self.wanted_page.take()
    }

    /// Faults served so far on pages that a prefault was asked for.
    pub(crate) const fn wanted_faults(&self) -> u64 {
        self.wanted_faults
    }

    pub(crate) fn set_tracking(&mut self, tracking: Tracking) {
        self.rules.tracking = tracking;
        self.rules.page_map_tells = self.identity.page_map().is_some();
    }

    /// Whether a predecessor had installs in hand.
    pub(crate) fn has_installs_left(&self) -> bool {
        !self.note.left(&self.layout).is_empty()
    }

    /// Whether a page that was given back, and was to be filled, looks like one that was filled and
    /// written: or it is about to go, and is what it was before.
    pub(crate) fn has_looks_of_removes(&self) -> bool {
        let looks = |page| {
            self.states.get(page) == PageState::Removed
                && matches!(self.place(page), Some(Place::Written | Place::Away))
        };
        self.note.left(&self.layout).into_iter().any(|(pages, _)| pages.pages().any(looks))
    }

    /// What the guest's page table has in the place of `page`, where that may be known.
    fn place(&self, page: PageIndex) -> Option<Place> {
        let addr = self.addr(page);
        let end = GuestAddr(addr.0 + self.page_size().bytes());
        self.identity.page_map()?.place(addr, end).ok()
    }

    /// Finds out what became of the installs that a predecessor had in hand. `settled` is that no
    /// page is about to be given back whose event was read already.
    pub(crate) fn finish_what_was_left(&mut self, settled: bool) {
        for (pages, filling) in self.note.left(&self.layout) {
            for page in pages.pages() {
                self.find_out(page, filling, settled);
                crate::kill_point!("found out");
            }
        }
        self.note.end();
    }

    /// Doubts what nobody can tell any more: pages of zeros that are not protected, where a
    /// predecessor could read the guest's page map and this process cannot.
    pub(crate) fn doubt_what_cannot_be_seen(&mut self) {
        let small = self.page_size() == PageSize::Small;
        if small && self.rules.tracking.is_on() && !self.rules.page_map_tells {
            for region in self.layout.regions() {
                self.states.doubt_all(region.pages, PageState::Zero);
            }
        }
    }

    /// Where writes are tracked, doubts all that is known of pages: they may have been written to
    /// and given back unseen.
    pub(crate) fn doubt_all(&mut self) {
        if !self.rules.tracking.is_on() {
            return;
        }
        for region in self.layout.regions() {
            for state in [PageState::Clean, PageState::Zero, PageState::Removed] {
                self.states.doubt_all(region.pages, state);
            }
        }
    }

    /// Asks the page map whether `page`, which may have been filled like this, is there.
    fn find_out(&mut self, page: PageIndex, filling: Filling, settled: bool) {
        let (before, place) = (self.states.get(page), self.place(page));
        // The source's bytes are only ever put in the place of a page that was never there.
        let is_source =
            filling == Filling::Source && matches!(before, PageState::Unfaulted | PageState::Clean);
        let state = match (before, place) {
            (PageState::Dirty, _) => return,
            (_, None) => {
                self.states.doubt(page);
                return;
            }
            // It was not installed, or is away and everything is known of it.
            (_, Some(Place::Empty)) | (PageState::Poisoned, Some(Place::Away)) => return,
            // It could not be poisoned: it is there.
            (PageState::Poisoned, Some(_)) => PageState::Dirty,
            (_, Some(Place::Written | Place::Away)) => PageState::Dirty,
            // Somebody else has installed it.
            (_, Some(_)) if filling == Filling::Unknown => PageState::Dirty,
            (_, Some(Place::Protected)) if is_source => PageState::Clean,
            (_, Some(Place::Protected | Place::Zero)) => PageState::Zero,
        };
        self.states.set_one(page, state);
        if before == PageState::Removed && state == PageState::Dirty && !settled {
            // Or what is there is what was given back.
            self.states.doubt(page);
        }
    }

    /// Bytes in `pages`.
    pub(crate) fn bytes_of(&self, pages: PageRange) -> u64 {
        pages.len() << self.page_size().shift()
    }

    /// Executes `plan`, tells `done` of each install's pages, and stops at the first obstacle.
    /// Threads that wait for these pages are woken, at once or by [`wake_batch`](Self::wake_batch).
    pub(crate) fn install(
        &mut self,
        plan: &[Install<'_>],
        mut done: impl FnMut(&mut Self, PageRange, &Install<'_>),
    ) -> Result<(), Stopped> {
        self.note.begin(plan.iter().map(|install| (install.pages, install.filling())));
        crate::kill_point!("noted");
        let result = plan.iter().try_for_each(|install| {
            crate::kill_point!("planned");
            let executed = self.execute(install);
            crate::kill_point!("executed");
            match self.account(install, executed) {
                Ok(pages) => {
                    crate::kill_point!("accounted");
                    done(self, pages, install);
                    crate::kill_point!("settled");
                    if pages.len() == install.pages.len() {
                        return Ok(());
                    }
                    // Asking again from there tells what is in the way.
                    let rest = PageRange { start: pages.end, end: install.pages.end };
                    self.rest_of(install, rest, &mut done)
                }
                Err(obstacle) => Err(self.stopped(install.pages.start, install.access, obstacle)),
            }
        });
        self.note.end();
        crate::kill_point!("note ended");
        result
    }

    /// Executes a plan that nobody waits for, by several threads where that pays and until an
    /// event waits to be read, but for its first pieces that are `wanted` all the same. Tells `done`
    /// of what was installed, and what is left of the plan. Where others help, `meanwhile` is called
    /// here between the pieces. Whoever waits for a page is woken.
    pub(crate) fn install_ahead(
        &mut self,
        plan: &[Install<'_>],
        wanted: usize,
        meanwhile: &(dyn Fn() + Sync),
        mut done: impl FnMut(&mut Self, PageRange, &Install<'_>),
    ) -> Ahead {
        self.note.begin(plan.iter().map(|install| (install.pages, install.filling())));
        crate::kill_point!("noted");
        let pieces = together::pieces(plan, self.page_size());
        crate::kill_point!("planned");
        // The first install proves whose memory it is, and is made on its own.
        let alone = match pieces.first() {
            Some(first) if self.identity.owner() == Owner::Unproven => {
                Some(self.execute(&first.install))
            }
            _ => {
                together::execute(&pieces, &self.tools(), self.crew, wanted, meanwhile);
                None
            }
        };
        crate::kill_point!("executed");
        let mut ahead = Ahead::default();
        for (at, piece) in pieces.iter().enumerate() {
            let install = &piece.install;
            let Some(executed) = piece.executed().or(alone.filter(|_| at == 0)) else {
                together::leave(&mut ahead.left, install.pages);
                continue;
            };
            match self.account(install, executed) {
                Ok(pages) => {
                    crate::kill_point!("accounted");
                    done(self, pages, install);
                    crate::kill_point!("settled");
                    // Asking again from there tells what is in the way.
                    let rest = PageRange { start: pages.end, end: install.pages.end };
                    together::leave(&mut ahead.left, rest);
                }
                Err(obstacle) => {
                    together::leave(&mut ahead.left, install.pages);
                    let stopped = self.stopped(install.pages.start, install.access, obstacle);
                    ahead.stopped.get_or_insert(stopped);
                }
            }
        }
        self.note.end();
        crate::kill_point!("note ended");
        ahead
    }

    /// Goes on with an install that was done in part.
    fn rest_of(
        &mut self,
        install: &Install<'_>,
        rest: PageRange,
        done: &mut impl FnMut(&mut Self, PageRange, &Install<'_>),
    ) -> Result<(), Stopped> {
        let skipped = self.bytes_of(PageRange { start: install.pages.start, end: rest.start });
        let mut install = install.after(skipped, rest);
        while !install.pages.is_empty() {
            let executed = self.execute(&install);
            match self.account(&install, executed) {
                Ok(pages) => {
                    done(self, pages, &install);
                    let rest = PageRange { start: pages.end, end: install.pages.end };
                    install = install.after(self.bytes_of(pages), rest);
                }
                Err(obstacle) => {
                    return Err(self.stopped(install.pages.start, install.access, obstacle));
                }
            }
        }
        Ok(())
    }

    const fn stopped(&self, page: PageIndex, access: Access, obstacle: Obstacle) -> Stopped {
        Stopped { page, access, obstacle }
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            uffd: &self.uffd,
            layout: &self.layout,
            zeros: self.zeros,
            rules: self.rules,
            gap: self.gap,
            wake: if self.batch.is_some() { Wake::Later } else { Wake::Now },
        }
    }

    fn execute(&mut self, install: &Install<'_>) -> Executed {
        let tools = self.tools();
        let Some(proof) = self.identity.before_install(self.addr(install.pages.start)) else {
            return tools.execute(install);
        };
        let executed = tools.execute(install);
        if matches!(executed.outcome, Outcome::Done(_)) {
            proof.installed();
            self.rules.page_map_tells = self.identity.page_map().is_some();
        }
        executed
    }

    /// Turns the kernel's answer into new states, or into what it means here.
    fn account(
        &mut self,
        install: &Install<'_>,
        executed: Executed,
    ) -> Result<PageRange, Obstacle> {
        let Install { pages, access, fill } = *install;
        let done = match executed.outcome {
            Outcome::Done(bytes) => {
                let count = bytes >> self.page_size().shift();
                PageRange::new(pages.start.0, pages.start.0 + count)
            }
            other => return Err(self.obstacle(pages.start, access, other)),
        };
        let (_, first) = self.rules.plan(access, fill.is_zeros());
        let (_, rest) = self.rules.plan(Access::Ahead, fill.is_zeros());
        self.states.set(done, rest);
        crate::kill_point!("accounting");
        if first != rest && !done.is_empty() {
            self.states.set_one(done.start, first);
        }
        if fill.is_zeros() {
            self.counters.zero_pages += done.len();
        } else {
            self.counters.source_pages += done.len();
        }
        if executed.copied {
            self.counters.copied_bytes += self.bytes_of(done);
        }
        self.wakes_later(done);
        Ok(done)
    }

    fn obstacle(&mut self, page: PageIndex, access: Access, outcome: Outcome) -> Obstacle {
        match outcome {
            Outcome::Exists => match self.is_present(page) {
                Some(true) => {
                    self.counters.already_present += 1;
                    Obstacle::Present
                }
                // Nobody faults twice on a page that is there. Of one that nobody waits for, nobody
                // finds out.
                None if self.states.doubt(page) || access == Access::Ahead => Obstacle::Doubtful,
                Some(false) | None => self.no_memory(),
            },
            Outcome::NoMemory => self.no_memory(),
            Outcome::Again => Obstacle::Changing,
            Outcome::SourceFault => Obstacle::Unreadable,
            Outcome::Unmapped => Obstacle::Unmapped,
            Outcome::Gone => Obstacle::Gone,
            Outcome::Refused(errno) => Obstacle::Refused(errno),
            Outcome::Done(_) => Obstacle::Refused(0),
        }
    }

    const fn no_memory(&mut self) -> Obstacle {
        self.counters.out_of_memory += 1;
        Obstacle::NoMemory
    }

    /// Whether EEXIST was the truth, if that can be known: hugetlb says it as well when it has no
    /// page to give, and then only the guest's own page map tells.
    fn is_present(&self, page: PageIndex) -> Option<bool> {
        if self.page_size() == PageSize::Small {
            return Some(true);
        }
        // Nothing may have been installed yet that proves whose page map it is.
        self.identity.look_at_maps(&self.layout);
        let bits = self.identity.page_map()?.bits(self.addr(page)).ok()?;
        Some(bits.is_populated())
    }

    /// Fills one page with zeros that report their first write.
    pub(crate) fn put_protected_zeros(&mut self, page: PageIndex) -> Result<PageRange, Obstacle> {
        let pages = PageRange::single(page);
        let bytes = self.zeros.bytes(self.bytes_of(pages));
        self.note.begin([(pages, Filling::Zeros)].into_iter());
        let outcome = self.uffd.copy(self.addr(page), bytes, Protection::WriteProtected, Wake::Now);
        crate::kill_point!("zeros protected");
        let done = match outcome {
            Outcome::Done(_) => {
                self.states.set_one(page, PageState::Zero);
                self.counters.zero_pages += 1;
                self.counters.copied_bytes += self.bytes_of(pages);
                Ok(pages)
            }
            other => Err(self.obstacle(page, Access::Write, other)),
        };
        self.note.end();
        done
    }

    /// Makes accesses to `page` raise SIGBUS.
    pub(crate) fn poison(&mut self, page: PageIndex) -> Result<PageRange, Obstacle> {
        let pages = PageRange::single(page);
        let (before, doubted) = (self.states.get(page), self.states.is_doubted(page));
        // Before an access is answered so: no other would be asked about again. The note is for
        // the case that it cannot be, since the page is there.
        self.note.begin([(pages, Filling::Unknown)].into_iter());
        self.states.set_one(page, PageState::Poisoned);
        crate::kernel::Part::in_order();
        crate::kill_point!("poison");
        let done = match self.poison_in_place(page) {
            Outcome::Done(_) => {
                self.counters.poisoned_pages += 1;
                Ok(pages)
            }
            Outcome::Exists => {
                // It is there, and reports its writes no longer.
                if before != PageState::Poisoned {
                    self.states.set_one(page, PageState::Dirty);
                }
                Err(Obstacle::Present)
            }
            other => {
                self.states.set_one(page, before);
                if doubted {
                    self.states.doubt(page);
                }
                Err(self.obstacle(page, Access::Write, other))
            }
        };
        crate::kill_point!("poisoned");
        self.note.end();
        done
    }

    fn poison_in_place(&self, page: PageIndex) -> Outcome {
        let (addr, len) = (self.addr(page), self.page_size().bytes());
        match self.uffd.poison(addr, len) {
            // Or it is absent and has the mark of a VMM that protected it all the same.
            Outcome::Exists => match self.uffd.clear_protection(addr, len) {
                Outcome::Done(_) => self.uffd.poison(addr, len),
                Outcome::Again => Outcome::Again,
                _ => Outcome::Exists,
            },
            outcome => outcome,
        }
    }

    /// Lets the writes to `page` through and wakes the thread that tried one.
    pub(crate) fn unprotect(&mut self, page: PageIndex) -> Result<PageRange, Obstacle> {
        let pages = PageRange::single(page);
        let (addr, len) = (self.addr(page), self.bytes_of(pages));
        // Before the write is let through: whoever takes over after us must not forget it.
        self.states.set_one(page, PageState::Dirty);
        crate::kernel::Part::in_order();
        crate::kill_point!("unprotect");
        match self.gap.insist(Access::Write, || self.uffd.unprotect(addr, len)) {
            Outcome::Done(_) => {
                crate::kill_point!("unprotected");
                Ok(pages)
            }
            other => Err(self.obstacle(page, Access::Write, other)),
        }
    }

    /// Puts wakes off until [`wake_batch`](Self::wake_batch): each one walks all who wait.
    pub(crate) fn begin_batch(&mut self) {
        let regions = self.layout.regions().len();
        self.batch.get_or_insert_with(|| vec![(GuestAddr(u64::MAX), GuestAddr(0)); regions]);
    }

    /// Wakes those whose pages were installed since the batch began.
    pub(crate) fn wake_batch(&mut self) {
        for (start, end) in self.batch.take().into_iter().flatten() {
            if start < end {
                self.uffd.wake(start, end.0 - start.0);
            }
        }
    }

    fn wakes_later(&mut self, done: PageRange) {
        let Some(batch) = &mut self.batch else { return };
        let mut regions = self.layout.regions().iter().zip(batch);
        if let Some((region, (start, end))) =
            regions.find(|(region, _)| region.pages.contains(done.start))
        {
            let shift = self.rules.page_size.shift();
            let addr = |page: PageIndex| region.base.0 + ((page.0 - region.pages.start.0) << shift);
            *start = (*start).min(GuestAddr(addr(done.start)));
            *end = (*end).max(GuestAddr(addr(done.end)));
        }
    }

    /// Wakes the threads that wait for `page`: they look again.
    pub(crate) fn wake(&mut self, page: PageIndex) {
        self.counters.wakes += 1;
        let len = self.page_size().bytes();
        self.uffd.wake(self.addr(page), len);
    }

    /// Wakes every thread that waits anywhere in the guest.
    pub(crate) fn wake_all(&mut self) {
        for region in self.layout.regions() {
            self.counters.wakes += 1;
            self.uffd.wake(region.base, self.bytes_of(region.pages));
        }
    }

    /// A page turned out to be there although nothing was installed by us: whatever it holds
    /// could differ from the source, or not.
    pub(crate) fn adopt(&mut self, page: PageIndex) {
        if self.states.get(page) == PageState::Unfaulted {
            self.states.set_one(page, PageState::Dirty);
            self.states.doubt(page);
        }
    }

    /// Pages that are there before anything was installed, and of whose writes nobody is told: what
    /// they hold is doubted. Only the guest's page map shows them; without it they are not known.
    pub(crate) fn doubt_what_is_there(&mut self) {
        self.identity.look_at_maps(&self.layout);
        let Some(map) = self.identity.page_map() else { return };
        let (layout, states) = (&self.layout, &mut self.states);
        for region in layout.regions() {
            let mut doubt = |start: GuestAddr, end: GuestAddr| {
                for pages in layout.pages_inside(start, end) {
                    pages.pages().for_each(|page| _ = states.doubt(page));
                }
            };
            // One that cannot be read is as good as none.
            let _ = map.written(region.base, region.end(layout.page_size()), &mut doubt);
        }
    }

    /// A thread that waited to write `page` was woken by whatever installed it. As a neighbour of
    /// another page, say, and then nobody sees that write unless writes are tracked.
    pub(crate) fn written(&mut self, page: PageIndex) {
        if !self.rules.tracking.is_on() && self.states.get(page).is_installed() {
            self.states.set_one(page, PageState::Dirty);
        }
    }

    /// REMOVEs were just read.
    pub(crate) fn expect_gap(&mut self) {
        self.gap = Gap::begins();
    }

    /// Whether the address space may be free in a moment, as far as REMOVEs go.
    pub(crate) fn is_gap_due(&self, now: Instant) -> bool {
        self.gap.is_due(now)
    }

    /// Asks for something that EAGAIN may stand in the way of, for as long as the moment may come.
    pub(crate) fn insist(&self, ask: impl Fn(&Uffd) -> Outcome) -> Outcome {
        self.gap.insist(Access::Read, || ask(&self.uffd))
    }

    /// REMOVE of `start..end`: the whole pages inside are zeros from now on.
    pub(crate) fn remove(&mut self, start: GuestAddr, end: GuestAddr) {
        self.counters.remove_events += 1;
        for pages in self.layout.pages_inside(start, end) {
            self.counters.removed_pages += pages.len();
            self.states.set(pages, PageState::Removed);
        }
    }

    fn addr(&self, page: PageIndex) -> GuestAddr {
        self.layout.addr_of(page).expect("pages come from the layout")
    }
}

/// One stock of zeros for all guests of the process.
fn shared_zeros() -> io::Result<&'static ZeroBytes> {
    static ZEROS: OnceLock<ZeroBytes> = OnceLock::new();
    if let Some(zeros) = ZEROS.get() {
        return Ok(zeros);
    }
    let zeros = ZeroBytes::new()?;
    Ok(ZEROS.get_or_init(|| zeros))
}
