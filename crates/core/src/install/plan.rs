//! The first step: which pages are filled, and with what. Asks the page states and the source,
//! and nothing of the kernel.

use smallvec::SmallVec;

use crate::contract::FaultAround;
use crate::kernel::Bytes;
use crate::layout::Layout;
use crate::ledger::Filling;
use crate::policy::{Access, Method, Rules};
use crate::source::{Chunk, Scratch, Source, Want};
use crate::states::{PageState, PageStates};
use crate::trace::FilledWith;
use crate::units::{PageIndex, PageRange, PageSize};
use crate::window;

/// Installs of one plan: enough for what lies around a fault.
const MOST: usize = 16;

/// What pages are filled with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fill<'a> {
    /// Zeros, because the guest gave them back.
    Zeros,
    /// The same in memory of the guest's own: the pages are about to be written, and nobody tracks
    /// writes.
    OwnZeros,
    /// Zeros, because the source has zeros there.
    SourceZeros,
    /// The source's bytes: at least as many as there are pages.
    Bytes(Bytes<'a>),
}

impl Fill<'_> {
    pub(crate) const fn is_zeros(&self) -> bool {
        matches!(self, Self::Zeros | Self::OwnZeros | Self::SourceZeros)
    }

    /// What the trace says of it.
    pub(crate) const fn traced(&self) -> FilledWith {
        match self {
            Self::Zeros | Self::OwnZeros => FilledWith::Zeros,
            Self::SourceZeros => FilledWith::SourceZeros,
            Self::Bytes(_) => FilledWith::Source,
        }
    }
}

/// Pages of one region that are filled by one ioctl.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Install<'a> {
    pub(crate) pages: PageRange,
    pub(crate) fill: Fill<'a>,
    /// On whose behalf the first page is filled; the others are filled ahead of any access.
    pub(crate) access: Access,
}

impl Install<'_> {
    /// What its pages hold when it is done.
    pub(crate) const fn filling(&self) -> Filling {
        if self.fill.is_zeros() { Filling::Zeros } else { Filling::Source }
    }

    /// What is left of it after so many bytes: `rest`, which nobody waits for.
    pub(crate) fn after(&self, bytes: u64, rest: PageRange) -> Self {
        let fill = match self.fill {
            Fill::Bytes(all) => Fill::Bytes(all.after(bytes)),
            zeros => zeros,
        };
        Self { pages: rest, fill, access: Access::Ahead }
    }
}

/// A list of installs, in the order in which they are executed.
#[derive(Debug, Default)]
pub(crate) struct Plan<'a>(SmallVec<[Install<'a>; MOST]>);

impl<'a> Plan<'a> {
    /// Adds an install. A page that is about to be written is an install of its own where the
    /// others are filled in another way: protected, or with the shared page of zeros.
    pub(crate) fn push(&mut self, rules: Rules, install: Install<'a>) {
        let Install { pages, fill, access } = install;
        let alike = match fill {
            Fill::Bytes(_) => !rules.tracking.is_on(),
            Fill::OwnZeros => true,
            Fill::Zeros | Fill::SourceZeros => false,
        };
        if access != Access::Write || alike || pages.len() <= 1 {
            self.0.push(install);
            return;
        }
        let (first, rest) = (
            PageRange::single(pages.start),
            PageRange { start: pages.start.next(), end: pages.end },
        );
        self.0.push(Install { pages: first, fill, access });
        self.0.push(install.after(rules.page_size.bytes(), rest));
    }

    pub(crate) fn as_slice(&self) -> &[Install<'a>] {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is room for nothing more.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() + 1 >= MOST
    }
}

/// What plans are made from.
#[derive(Clone, Copy)]
pub(crate) struct Planner<'a, 's> {
    pub(crate) states: &'a PageStates,
    pub(crate) layout: &'a Layout,
    pub(crate) rules: Rules,
    pub(crate) fault_around: FaultAround,
    pub(crate) source: &'s dyn Source,
    pub(crate) scratch: &'s Scratch,
}

impl<'s> Planner<'_, 's> {
    /// Zeros for `page`, and for the pages around it that were given back like it.
    pub(crate) fn zeros(&self, page: PageIndex, access: Access, alone: bool) -> Plan<'s> {
        let (mut run, mut fill) = (PageRange::single(page), Fill::Zeros);
        if self.states.get(page) == PageState::Removed && !alone {
            let region = self.region(page);
            let widest = match self.zeros_are_free() {
                true => self.fault_around.zeros(self.rules.page_size),
                false => self.fault_around.written(self.rules.page_size),
            };
            let fewest = window::FEWEST_GIVEN_BACK;
            let mut window = window::of_zeros(self.states, region, page, fewest, widest);
            if access == Access::Write && !self.rules.tracking.is_on() {
                let widest = self.fault_around.written(self.rules.page_size);
                let written = window::around(self.states, region, page, widest);
                if written.len() > 1 {
                    (window, fill) = (written, Fill::OwnZeros);
                }
            }
            run = self.states.alike_around(page, window);
        }
        let mut plan = Plan::default();
        let ahead = PageRange { start: page, end: run.end };
        plan.push(self.rules, Install { pages: ahead, fill, access });
        let before = PageRange { start: run.start, end: page };
        if !before.is_empty() {
            let access = Access::Ahead;
            plan.push(self.rules, Install { pages: before, fill, access });
        }
        plan
    }

    /// Plans the source's bytes for `page`, with what lies ahead of it and is filled alike. Says what
    /// else is worth filling [around it](Self::around), or which pages to fetch, where the source has
    /// not got this one at hand.
    pub(crate) fn source(
        &self,
        page: PageIndex,
        access: Access,
        alone: bool,
        plan: &mut Plan<'s>,
    ) -> Result<Surroundings, PageRange> {
        let run = if alone { PageRange::single(page) } else { self.run_around(page) };
        let ahead = PageRange { start: page, end: run.end };
        let mut zeros = run;
        let end = match self.look(ahead) {
            Chunk::Absent(len) => return Err(first(ahead, len, self.rules.page_size)),
            Chunk::Zeros(len) => {
                let mut pages = first(ahead, len, self.rules.page_size);
                if pages == ahead && !alone {
                    zeros = self.zeros_around(page, run);
                    let wider = PageRange { start: page, end: zeros.end };
                    if wider != ahead
                        && let Chunk::Zeros(len) = self.look(wider)
                    {
                        pages = first(wider, len, self.rules.page_size);
                    }
                }
                plan.push(self.rules, Install { pages, fill: Fill::SourceZeros, access });
                pages.end
            }
            Chunk::Ready(bytes) => {
                let pages = first(ahead, bytes.len(), self.rules.page_size);
                plan.push(self.rules, Install { pages, fill: Fill::Bytes(bytes), access });
                pages.end
            }
        };
        Ok(Surroundings { page, run, zeros, end, wanted: !alone && self.states.is_wanted(page) })
    }

    /// Plans what is worth filling around a page that was filled: first what lies ahead of it, then
    /// what lies before it, then what a prefault was asked for nearby.
    pub(crate) fn around(&self, it: &Surroundings, plan: &mut Plan<'s>) {
        let Surroundings { page, run, zeros, end, wanted } = *it;
        self.ahead(plan, PageRange::new(end.0, run.end.0.max(end.0)), Around::All);
        self.ahead(plan, PageRange { start: run.start, end: page }, Around::All);
        self.ahead(plan, PageRange { start: zeros.start, end: run.start }, Around::Zeros);
        if wanted {
            let done = PageRange { start: zeros.start.min(run.start), end: zeros.end.max(run.end) };
            self.wanted_around(plan, page, done);
        }
    }

    /// What the source has at hand of the start of `pages`.
    pub(crate) fn look(&self, pages: PageRange) -> Chunk<'s> {
        self.source.lookup(Want::of(pages, self.rules.page_size), self.scratch)
    }

    fn ahead(&self, plan: &mut Plan<'s>, pages: PageRange, around: Around) {
        let access = Access::Ahead;
        let mut rest = pages;
        while !rest.is_empty() && !plan.is_full() {
            let chunk = self.look(rest);
            let pages = first(rest, chunk.len(), self.rules.page_size);
            if pages.is_empty() {
                return;
            }
            match chunk {
                Chunk::Zeros(_) => {
                    plan.push(self.rules, Install { pages, fill: Fill::SourceZeros, access });
                }
                _ if around == Around::Zeros => {}
                Chunk::Ready(bytes) => {
                    plan.push(self.rules, Install { pages, fill: Fill::Bytes(bytes), access });
                }
                Chunk::Absent(_) => return,
            }
            rest.start = pages.end;
        }
    }

    /// What a prefault was asked for around a fault is now needed the sooner.
    fn wanted_around(&self, plan: &mut Plan<'s>, page: PageIndex, done: PageRange) {
        let PageRange { start, end } = self.widest_window(page);
        for mut rest in [PageRange { start: done.end, end }, PageRange { start, end: done.start }] {
            while let Some(run) = self.states.next_wanted(rest) {
                if plan.is_full() {
                    return;
                }
                self.ahead(plan, run, Around::All);
                rest.start = run.end;
            }
        }
    }

    /// The unfaulted pages that are worth filling together with `page`, its own among them.
    fn run_around(&self, page: PageIndex) -> PageRange {
        let widest = self.fault_around.pages(self.rules.page_size);
        if widest <= 1 {
            return PageRange::single(page);
        }
        let mut window = window::around(self.states, self.region(page), page, widest);
        if self.states.is_wanted(page) {
            let ahead = PageRange { start: page, end: self.widest_window(page).end };
            window.end = window.end.max(self.states.next_wanted(ahead).map_or(page, |run| run.end));
        }
        self.states.alike_around(page, window)
    }

    /// The unfaulted pages that are filled together with `page` where they are zeros like it.
    fn zeros_around(&self, page: PageIndex, run: PageRange) -> PageRange {
        if !self.zeros_are_free() {
            return run;
        }
        let widest = self.fault_around.zeros(self.rules.page_size);
        let region = self.region(page);
        let window = window::of_zeros(self.states, region, page, window::FEWEST_OF_HOLES, widest);
        let zeros = self.states.alike_around(page, window);
        PageRange { start: zeros.start.min(run.start), end: zeros.end.max(run.end) }
    }

    /// Whether pages of zeros that nobody waits for are the shared zero page, which costs no memory
    /// and hardly any time. Where they have to be protected they are copies.
    fn zeros_are_free(&self) -> bool {
        let (method, _) = self.rules.plan(Access::Ahead, true);
        matches!(method, Method::ZeroPage)
    }

    /// The pages around `page` that may be filled together with it.
    fn widest_window(&self, page: PageIndex) -> PageRange {
        window::aligned(self.region(page), page, self.fault_around.pages(self.rules.page_size))
    }

    fn region(&self, page: PageIndex) -> PageRange {
        self.layout.region_of(page).map_or(PageRange::single(page), |region| region.pages)
    }
}

/// What is worth filling around a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    page: PageIndex,
    /// With its bytes.
    run: PageRange,
    /// With zeros, where the source has zeros there.
    zeros: PageRange,
    /// Where what is filled with the page itself ends.
    end: PageIndex,
    /// A prefault was asked for it.
    wanted: bool,
}

/// Which pages around a fault are filled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Around {
    All,
    /// Those that the source has as zeros.
    Zeros,
}

/// The pages at the start of `pages` that `len` bytes are about. A source may know of more than
/// it was asked for.
pub(crate) fn first(pages: PageRange, len: u64, page_size: PageSize) -> PageRange {
    let count = (len >> page_size.shift()).min(pages.len());
    PageRange::new(pages.start.0, pages.start.0 + count)
}
