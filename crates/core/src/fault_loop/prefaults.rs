//! One slice of background work. Installs pages before they are asked for, between the faults:
//! never over a page that was given back, and never for longer than a fault may wait.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use smallvec::SmallVec;

use super::Turn;
use super::announce::Announcer;
use super::fetches::Fetches;
use super::guest::{Answer, Guest, NO_MEMORY};
use super::next::Next;
use super::pause::Blocked;
use super::upcoming::Upcoming;
use crate::contract::{Lack, PrefaultId, PrefaultMode, PrefaultReport, Reply};
use crate::install::{Ahead, Fill, Install, Plan, Stopped, first};
use crate::policy::Access;
use crate::source::{Chunk, Full, Scratch, Source, SourceError, Ticket, Want};
use crate::states::{PageState, PageStates};
use crate::units::{PageIndex, PageRange, PageSize};

/// Bytes of a slice while faults keep coming, and while there are none.
const SLICE: (u64, u64) = (16 << 10, 4 << 20);

/// Bytes of a slice, at least, while faults come to the very pages that are being installed.
const RACE: u64 = 2 << 20;

/// Pieces of such a slice that are installed whatever the guest asks for meanwhile: it mostly is what
/// they hold, and it would be back at once.
const RACED: usize = 24;

/// What was asked for so far before and behind a page that the guest came to is next, in bytes.
const NEAR: (u64, u64) = (256 << 10, 2 << 20);

/// Of more ranges than this, none is put first: that would take longer than it saves.
const MOST_SORTED: usize = 1 << 14;

/// Bytes of a part that is made ready at once for the next slice, while others install.
const PREPARE: u64 = 256 << 10;

/// Look-ups of a slice, however little they bring.
const MOST_LOOKS: usize = 32;

/// Bytes that are looked up at once, at least, however few of them a slice has.
const LOOK_UP: u64 = 64 << 10;

/// Bytes of one fetch.
const FETCH: u64 = 1 << 20;

/// Fetches in flight at once, for one guest.
const MOST_FETCHES: usize = 8;

/// Pages whose states are looked at in one slice.
const LOOK: u64 = 1 << 16;

/// The prefaults asked for and not finished, first come, first served.
pub(super) struct Prefaults {
    queue: VecDeque<Prefault>,
    /// Bytes to install before faults are looked for again.
    slice: u64,
    /// Pieces of it that are installed before any are.
    raced: usize,
    /// Faults served when the last slice was done, and how many of them met wanted pages.
    faults: (u64, u64),
    /// Pages given back by then.
    removed: u64,
    blocked: Option<Blocked>,
}

struct Prefault {
    id: PrefaultId,
    mode: PrefaultMode,
    /// Pages it was asked for.
    requested: u64,
    /// What has not been looked at yet, in order.
    ranges: VecDeque<PageRange>,
    /// What the page states do not say yet to be wanted, in order.
    unmarked: Upcoming,
    /// What the source was not told of yet, once it turned out to be cold.
    announcer: Option<Announcer>,
    fetches: Vec<(PageRange, Ticket)>,
    /// A fetch was refused for want of room.
    full: bool,
    /// Pages in those fetches whose fate is not known.
    unsettled: u64,
    /// Page by page, after a longer run did not lie in one mapping.
    singly: bool,
    report: PrefaultReport,
    reply: Option<Reply<PrefaultReport>>,
}

impl Default for Prefaults {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            slice: SLICE.0,
            raced: 0,
            faults: (0, 0),
            removed: 0,
            blocked: None,
        }
    }
}

impl Prefaults {
    /// Takes a prefault in. Its ranges lie in regions.
    pub(super) fn add(
        &mut self,
        id: PrefaultId,
        mode: PrefaultMode,
        ranges: Vec<PageRange>,
        reply: Reply<PrefaultReport>,
    ) {
        let to_mark = if mode == PrefaultMode::Fetch { &[] } else { ranges.as_slice() };
        self.queue.push_back(Prefault {
            id,
            mode,
            requested: ranges.iter().map(|range| range.len()).sum(),
            unmarked: Upcoming::of(to_mark.iter().copied()),
            ranges: ranges.into(),
            fetches: Vec::new(),
            full: false,
            announcer: None,
            unsettled: 0,
            singly: false,
            report: PrefaultReport::default(),
            reply: Some(reply),
        });
    }

    pub(super) fn cancel(&mut self, id: PrefaultId, states: &mut PageStates) {
        let at = self.queue.iter().position(|prefault| prefault.id == id);
        if let Some(prefault) = at.and_then(|at| self.queue.remove(at)) {
            prefault.ranges.iter().for_each(|range| states.want(*range, false));
            prefault.skip();
        }
        if self.queue.is_empty() {
            self.blocked = None;
        }
    }

    pub(super) fn skip_all(&mut self) {
        self.queue.drain(..).for_each(Prefault::skip);
    }

    /// Pages asked for and not accounted for yet.
    pub(super) fn pending(&self) -> u64 {
        let left = |prefault: &Prefault| prefault.requested - prefault.report.requested();
        self.queue.iter().map(left).sum()
    }

    /// When there are pages to look at, or at hand to install, if there still are any.
    pub(super) fn next(&self) -> Next {
        match &self.blocked {
            _ if !self.queue.iter().any(Prefault::is_open) => Next::Never,
            Some(blocked) => Next::At(blocked.until),
            None => Next::Now,
        }
    }

    /// Fetches that were refused can be asked for again.
    pub(super) fn room_again(&mut self) {
        self.queue.iter_mut().for_each(|prefault| prefault.full = false);
    }

    /// What came of a prefault so far, while it is under way.
    pub(super) fn so_far(&self, id: PrefaultId) -> Option<PrefaultReport> {
        Some(self.queue.iter().find(|prefault| prefault.id == id)?.report)
    }

    fn get(&mut self, id: PrefaultId) -> Option<&mut Prefault> {
        self.queue.iter_mut().find(|prefault| prefault.id == id)
    }

    /// Answers what is finished.
    fn finish(&mut self) {
        self.queue.retain_mut(|prefault| {
            let finished = prefault.ranges.is_empty()
                && prefault.fetches.is_empty()
                && prefault.unsettled == 0;
            if finished && let Some(reply) = prefault.reply.take() {
                reply.send(prefault.report);
            }
            !finished
        });
        if self.queue.is_empty() {
            self.blocked = None;
        }
    }
}

impl Prefault {
    /// Whether there are pages to look at now, not only fetches to wait for.
    fn is_open(&self) -> bool {
        !self.ranges.is_empty() && self.fetches.len() < MOST_FETCHES && !self.full
    }

    /// Notes in the page states what is to be installed, a part at a time: a fault on one of
    /// these pages is answered with those around it too.
    fn mark(&mut self, states: &mut PageStates) {
        let mut left = LOOK;
        while left > 0
            && let Some(part) = self.unmarked.take(left)
        {
            states.want(part, true);
            left -= part.len();
        }
    }

    fn skip(mut self) {
        let left: u64 = self.ranges.iter().map(|range| range.len()).sum();
        self.report.skipped += left + self.unsettled;
        if let Some(reply) = self.reply.take() {
            reply.send(self.report);
        }
    }

    /// Makes what is left of `pages` the first that is, in the order that it has. A source that turned
    /// out to be cold was told what comes next, and that stays.
    fn put_near_first(&mut self, pages: PageRange) {
        if self.announcer.is_some() || self.ranges.len() > MOST_SORTED {
            return;
        }
        let mut near = SmallVec::<[PageRange; 64]>::new();
        self.ranges.retain(|range| {
            let is_near = pages.contains(range.start) && range.end <= pages.end;
            if is_near {
                near.push(*range);
            }
            !is_near
        });
        near.into_iter().rev().for_each(|range| self.ranges.push_front(range));
    }

    /// Makes `page`, which is left, the first that is.
    fn put_first(&mut self, page: PageRange) {
        let Some(at) = self.ranges.iter().position(|range| range.contains(page.start)) else {
            return;
        };
        let range = self.ranges[at];
        let around = [
            PageRange { start: page.end, end: range.end },
            PageRange { start: range.start, end: page.start },
        ];
        self.ranges.remove(at);
        for rest in around.into_iter().filter(|rest| !rest.is_empty()) {
            self.ranges.insert(at, rest);
        }
        self.ranges.push_front(page);
    }

    /// Takes back the fetches of which no page is unfaulted any more.
    fn take_back(&mut self, states: &PageStates) {
        let is_needed = |(pages, _): &(PageRange, Ticket)| {
            states.runs(*pages).any(|(_, state)| state == PageState::Unfaulted)
        };
        let (needed, others) = std::mem::take(&mut self.fetches).into_iter().partition(is_needed);
        self.fetches = needed;
        for (pages, _) in others {
            self.unsettled -= pages.len();
            states.runs(pages).for_each(|(run, state)| self.found(run, state));
        }
    }

    fn found(&mut self, run: PageRange, state: PageState) {
        match state {
            PageState::Removed => self.report.removed += run.len(),
            PageState::Poisoned => self.failed(run, Lack::Source),
            PageState::Unfaulted | PageState::Clean | PageState::Zero | PageState::Dirty => {
                self.report.present += run.len();
            }
        }
    }

    fn failed(&mut self, run: PageRange, lack: Lack) {
        if run.is_empty() {
            return;
        }
        self.report.failed += run.len();
        // Fetches of several parts end in any order.
        if self.report.first_failed.is_none_or(|first| run.start < first) {
            (self.report.first_failed, self.report.first_lack) = (Some(run.start), Some(lack));
        }
    }

    /// Takes the first pages off what is left.
    fn advance(&mut self, to: PageIndex) {
        if let Some(range) = self.ranges.front_mut() {
            if let Some(announcer) = &mut self.announcer {
                announcer.passed(to.0 - range.start.0);
            }
            range.start = to;
            if range.is_empty() {
                self.ranges.pop_front();
            }
        }
    }
}

/// Where the next slice begins: of so many bytes, parts that are made ready one at a time.
fn parts_ahead(wants: impl Iterator<Item = Want>, mut bytes: u64) -> SmallVec<[(u64, u64); 32]> {
    let mut parts = SmallVec::new();
    for want in wants {
        let (mut offset, end) = (want.offset, want.offset + want.len.min(bytes));
        bytes -= end - offset;
        while offset < end && parts.len() < parts.inline_size() {
            let len = PREPARE.min(end - offset);
            parts.push((offset, len));
            offset += len;
        }
        if bytes == 0 || parts.len() == parts.inline_size() {
            break;
        }
    }
    parts
}

impl Prefaults {
    /// Does some of the work there is.
    pub(super) fn slice(
        &mut self,
        guest: &mut Guest,
        source: &dyn Source,
        scratch: &mut Scratch,
        fetches: &mut Fetches,
    ) -> Turn {
        if self.queue.is_empty() {
            return Ok(());
        }
        let removed = guest.memory.counters.removed_pages;
        if std::mem::replace(&mut self.removed, removed) != removed {
            let states = &guest.memory.states;
            self.queue.iter_mut().for_each(|prefault| prefault.take_back(states));
        }
        if let Next::At(until) = self.next()
            && Instant::now() < until
        {
            return Ok(());
        }
        if let Some(next) = self.queue.front_mut() {
            next.mark(&mut guest.memory.states);
        }
        self.slice = self.next_slice(guest);
        self.follow(guest);
        if let Some(at) = self.queue.iter().position(Prefault::is_open) {
            self.announce(at, guest.memory.page_size(), fetches);
            scratch.begin(guest.journal.clock.look());
            let plan = self.plan(at, guest, source, scratch, fetches);
            self.execute(at, &plan, guest, source, fetches)?;
        }
        guest.hand.drop_served();
        self.finish();
        Ok(())
    }

    /// Goes on where the guest has come to.
    fn follow(&mut self, guest: &mut Guest) {
        let Some(page) = guest.memory.take_wanted_page() else { return };
        let shift = guest.memory.page_size().shift();
        let (before, behind) = (NEAR.0 >> shift, NEAR.1 >> shift);
        let near = PageRange::new(page.0.saturating_sub(before), page.0.saturating_add(behind));
        if let Some(prefault) = self.queue.iter_mut().find(|prefault| prefault.is_open()) {
            prefault.put_near_first(near);
        }
    }

    /// How many bytes to install before faults are looked for again, should none come meanwhile.
    fn next_slice(&mut self, guest: &Guest) -> u64 {
        let now = (guest.memory.counters.faults(), guest.memory.wanted_faults());
        let before = std::mem::replace(&mut self.faults, now);
        self.raced = 0;
        match (now.0 - before.0, now.1 - before.1) {
            (0, _) => (self.slice * 2).min(SLICE.1),
            // The guest has come to what is being prefaulted: the sooner all of it is there.
            (faults, wanted) if 2 * wanted >= faults => {
                self.raced = RACED;
                self.slice.max(RACE)
            }
            _ => SLICE.0,
        }
    }

    /// The next installs of one prefault, whose pages are taken off what is left; what needs none,
    /// or has to be fetched first, is dealt with on the way.
    fn plan<'s>(
        &mut self,
        at: usize,
        guest: &mut Guest,
        source: &'s dyn Source,
        scratch: &'s Scratch,
        fetches: &mut Fetches,
    ) -> Plan<'s> {
        let page_size = guest.memory.page_size();
        let mut plan = Plan::default();
        let mut left = self.slice.max(page_size.bytes());
        for _ in 0..MOST_LOOKS {
            if plan.is_full() || left == 0 || !self.queue[at].is_open() {
                break;
            }
            let Some(run) = self.next_run(at, guest) else { break };
            // Asked for twice: the states do not say yet that it is being installed.
            let is_planned = |other: &Install<'_>| !other.pages.intersect(run).is_empty();
            if plan.as_slice().iter().any(is_planned) {
                break;
            }
            let prefault = &mut self.queue[at];
            let most = if prefault.singly { page_size.bytes() } else { left.max(LOOK_UP) };
            let run = first(run, most.max(page_size.bytes()), page_size);
            let chunk = guest.planner(source, scratch).look(run);
            let known = first(run, chunk.len(), page_size);
            let fill = match chunk {
                Chunk::Zeros(_) | Chunk::Ready(_) if prefault.mode == PrefaultMode::Fetch => {
                    prefault.report.fetched += known.len();
                    prefault.advance(known.end);
                    left = left.saturating_sub(chunk.len());
                    continue;
                }
                // From now on the kernel fills it, with zeros as well.
                Chunk::Zeros(_) if prefault.mode == PrefaultMode::Release => {
                    prefault.report.present += known.len();
                    prefault.advance(known.end);
                    left = left.saturating_sub(chunk.len());
                    continue;
                }
                Chunk::Zeros(_) => Fill::SourceZeros,
                Chunk::Ready(bytes) => Fill::Bytes(bytes),
                Chunk::Absent(_) => {
                    let pages = first(known, FETCH.max(page_size.bytes()), page_size);
                    self.fetch(at, pages, guest, fetches);
                    continue;
                }
            };
            let pages = first(known, left, page_size);
            left -= guest.memory.bytes_of(pages);
            prefault.advance(pages.end);
            plan.push(guest.memory.rules(), Install { pages, fill, access: Access::Ahead });
        }
        plan
    }

    fn execute(
        &mut self,
        at: usize,
        plan: &Plan<'_>,
        guest: &mut Guest,
        source: &dyn Source,
        fetches: &mut Fetches,
    ) -> Turn {
        if plan.as_slice().is_empty() {
            return Ok(());
        }
        let wants = self.queue[at].ranges.iter().map(|range| guest.want(*range));
        let parts = parts_ahead(wants, self.slice);
        let prepared = AtomicUsize::new(0);
        let meanwhile = || {
            let mut bytes = 0;
            while bytes < LOOK_UP
                && let Some((offset, len)) = parts.get(prepared.fetch_add(1, Ordering::Relaxed))
            {
                source.prepare(*offset, *len);
                bytes += len;
            }
        };
        let (installed, Ahead { left, stopped }) =
            guest.install_ahead(plan.as_slice(), self.raced, &meanwhile);
        let prefault = &mut self.queue[at];
        prefault.report.installed += installed;
        left.into_iter().rev().for_each(|pages| prefault.ranges.push_front(pages));
        if installed > 0 {
            self.blocked = None;
        }
        stopped.map_or(Ok(()), |stopped| self.obstructed(at, stopped, guest, fetches))
    }

    /// The next unfaulted pages of one prefault, which lie in one region, if they come soon: as many
    /// as a slice may need.
    fn next_run(&mut self, at: usize, guest: &Guest) -> Option<PageRange> {
        let most = (self.slice.max(FETCH) >> guest.memory.page_size().shift()).max(1);
        let prefault = &mut self.queue[at];
        let mut looked = 0;
        while looked < LOOK {
            let range = prefault.ranges.front().copied()?;
            // Ranges may pass from one region to the next; installs may not.
            let region = guest.memory.layout().region_of(range.start).map(|region| region.pages);
            let most = PageRange::new(range.start.0, range.start.0 + most);
            let piece = range.intersect(most).intersect(region.unwrap_or(range));
            let (run, state) = guest.memory.states.runs(piece).next()?;
            if state == PageState::Unfaulted {
                return Some(run);
            }
            prefault.found(run, state);
            prefault.advance(run.end);
            // What stood in the way of these pages says nothing of the next.
            self.blocked = None;
            looked += run.len();
        }
        None
    }

    fn obstructed(
        &mut self,
        at: usize,
        stopped: Stopped,
        guest: &mut Guest,
        fetches: &mut Fetches,
    ) -> Turn {
        let one = PageRange::single(stopped.page);
        let singly = self.queue[at].singly;
        let tried = if singly { one } else { PageRange::new(one.start.0, one.start.0 + 2) };
        let answer = guest.answer(stopped.obstacle, tried)?;
        let prefault = &mut self.queue[at];
        match answer {
            // Its state says so now.
            Answer::There => {}
            Answer::Later(pauses) => drop(Blocked::again(&mut self.blocked, pauses)),
            Answer::NoMemory => {
                let since = Blocked::again(&mut self.blocked, NO_MEMORY);
                if since.elapsed() >= guest.options.fault_deadline {
                    // The rest of this prefault; faults go on trying on their own.
                    self.blocked = None;
                    for range in std::mem::take(&mut prefault.ranges) {
                        prefault.failed(range, Lack::Memory);
                    }
                }
            }
            Answer::Read => {
                prefault.put_first(one);
                self.fetch(at, one, guest, fetches);
            }
            Answer::Singly => prefault.singly = true,
            Answer::LetGo => {
                prefault.put_first(one);
                prefault.failed(one, Lack::Place);
                prefault.advance(one.end);
            }
        }
        Ok(())
    }

    /// Tells a cold source what comes next.
    fn announce(&mut self, at: usize, page_size: PageSize, fetches: &Fetches) {
        let Some(announcer) = &mut self.queue[at].announcer else { return };
        let ranges = announcer.next();
        if !ranges.is_empty() {
            let bytes =
                |pages: PageRange| pages.start.offset(page_size)..pages.end.offset(page_size);
            fetches.fetcher().announce(ranges.into_iter().map(bytes).collect());
        }
    }

    fn fetch(&mut self, at: usize, pages: PageRange, guest: &mut Guest, fetches: &mut Fetches) {
        let page_size = guest.memory.page_size();
        let prefault = &mut self.queue[at];
        let left = || Announcer::new(prefault.ranges.iter().copied(), page_size);
        prefault.announcer.get_or_insert_with(left);
        self.announce(at, page_size, fetches);
        let prefault = &mut self.queue[at];
        match fetches.for_prefault(guest, prefault.id, pages) {
            Ok(ticket) => {
                prefault.fetches.push((pages, ticket));
                prefault.unsettled += pages.len();
                prefault.advance(pages.end);
            }
            Err(Full) => prefault.full = true,
        }
    }

    /// A fetch for a prefault came back, with bytes or without. Whether it was still waited for.
    pub(super) fn fetch_ended(&mut self, id: PrefaultId, pages: PageRange) -> bool {
        let Some(prefault) = self.get(id) else { return false };
        let at = prefault.fetches.iter().position(|(fetched, _)| *fetched == pages);
        at.map(|at| prefault.fetches.swap_remove(at)).is_some()
    }

    /// A fetch for a prefault brought only a start of what was asked for.
    pub(super) fn fetch_was_short(&mut self, id: PrefaultId, rest: PageRange) {
        if let Some(prefault) = self.get(id)
            && !rest.is_empty()
        {
            prefault.unsettled -= rest.len();
            prefault.ranges.push_front(rest);
        }
    }

    /// Whether the bytes that were fetched need not be installed; then they are accounted for.
    pub(super) fn is_fetched_only(&mut self, id: PrefaultId, pages: PageRange) -> bool {
        match self.get(id) {
            Some(prefault) if prefault.mode == PrefaultMode::Fetch => {
                prefault.unsettled -= pages.len();
                prefault.report.fetched += pages.len();
                true
            }
            _ => false,
        }
    }

    /// Finds out which of the pages it is that cannot be read.
    pub(super) fn fetch_failed(
        &mut self,
        id: PrefaultId,
        pages: PageRange,
        error: &SourceError,
        page_size: PageSize,
    ) {
        let Some(prefault) = self.get(id) else { return };
        prefault.unsettled -= pages.len();
        let good = match error {
            _ if pages.len() == 1 => {
                prefault.failed(pages, Lack::Source);
                return;
            }
            SourceError::Truncated { len, .. } => {
                let end = PageIndex(len >> page_size.shift()).clamp(pages.start, pages.end);
                prefault.failed(PageRange { start: end, end: pages.end }, Lack::Source);
                PageRange { start: pages.start, end }
            }
            SourceError::Io { .. } => pages,
        };
        let middle = PageIndex(good.start.0 + good.len() / 2);
        for half in [
            PageRange { start: middle, end: good.end },
            PageRange { start: good.start, end: middle },
        ] {
            if !half.is_empty() {
                prefault.ranges.push_front(half);
            }
        }
    }

    /// Fetched pages turned out to need no install any more.
    pub(super) fn count_found(&mut self, id: Option<PrefaultId>, run: PageRange, state: PageState) {
        if let Some(prefault) = id.and_then(|id| self.get(id)) {
            prefault.unsettled -= run.len();
            prefault.found(run, state);
        }
    }

    /// Fetched pages were installed.
    pub(super) fn count_installed(&mut self, id: Option<PrefaultId>, pages: u64) {
        if let Some(prefault) = id.and_then(|id| self.get(id)) {
            prefault.unsettled -= pages;
            prefault.report.installed += pages;
        }
    }

    /// Fetched pages could not be installed.
    pub(super) fn count_failed(&mut self, id: Option<PrefaultId>, pages: PageRange, lack: Lack) {
        if let Some(prefault) = id.and_then(|id| self.get(id)) {
            prefault.unsettled -= pages.len();
            prefault.failed(pages, lack);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::SharedMemory;

    fn one_prefault() -> Prefaults {
        let mut prefaults = Prefaults::default();
        let reply = Reply::new(|_| {});
        prefaults.add(PrefaultId(1), PrefaultMode::Install, vec![PageRange::new(0, 8)], reply);
        Blocked::again(&mut prefaults.blocked, NO_MEMORY);
        assert!(matches!(prefaults.next(), Next::At(_)));
        prefaults
    }

    /// A time that has passed and is nobody's to deal with would keep the loop from sleeping.
    #[test]
    fn a_prefault_that_is_blocked_and_then_cancelled_leaves_nothing_due() {
        let mut prefaults = one_prefault();
        prefaults.cancel(
            PrefaultId(1),
            &mut PageStates::new(SharedMemory::anonymous(8).unwrap().take(8), 8),
        );
        assert_eq!(prefaults.next(), Next::Never);
    }

    #[test]
    fn a_prefault_that_is_blocked_and_then_finished_leaves_nothing_due() {
        let mut prefaults = one_prefault();
        let prefault = prefaults.get(PrefaultId(1)).unwrap();
        prefault.found(PageRange::new(0, 8), PageState::Removed);
        prefault.advance(PageIndex(8));
        prefaults.finish();
        assert_eq!(prefaults.next(), Next::Never);
        // The next one that is blocked counts its own time.
        let before = Instant::now();
        prefaults.add(
            PrefaultId(2),
            PrefaultMode::Install,
            vec![PageRange::new(0, 8)],
            Reply::new(|_| {}),
        );
        assert!(Blocked::again(&mut prefaults.blocked, NO_MEMORY) >= before);
    }

    #[test]
    fn the_first_page_that_failed_is_the_lowest_in_whatever_order_they_fail() {
        let mut prefaults = one_prefault();
        let prefault = prefaults.get(PrefaultId(1)).unwrap();
        prefault.failed(PageRange::new(6, 8), Lack::Memory);
        prefault.failed(PageRange::new(2, 3), Lack::Source);
        prefault.failed(PageRange::new(4, 5), Lack::Memory);
        let PrefaultReport { failed, first_failed, first_lack, .. } = prefault.report;
        assert_eq!((failed, first_failed), (4, Some(PageIndex(2))));
        assert_eq!(first_lack, Some(Lack::Source));
    }

    /// What stood in the way of a page in the middle is dealt with, and nothing else is lost.
    #[test]
    fn any_page_that_is_left_can_be_made_the_first() {
        let left = |prefault: &Prefault| -> Vec<_> {
            prefault.ranges.iter().map(|range| (range.start.0, range.end.0)).collect()
        };
        let mut prefaults = one_prefault();
        let prefault = prefaults.get(PrefaultId(1)).unwrap();
        prefault.ranges.push_back(PageRange::new(20, 22));
        prefault.put_first(PageRange::single(PageIndex(5)));
        assert_eq!(left(prefault), [(5, 6), (0, 5), (6, 8), (20, 22)]);
        prefault.put_first(PageRange::single(PageIndex(21)));
        assert_eq!(left(prefault), [(21, 22), (5, 6), (0, 5), (6, 8), (20, 21)]);
        prefault.put_first(PageRange::single(PageIndex(0)));
        assert_eq!(left(prefault), [(0, 1), (21, 22), (5, 6), (1, 5), (6, 8), (20, 21)]);
        prefault.put_first(PageRange::single(PageIndex(50)));
        assert_eq!(left(prefault).len(), 6);
    }

    /// The guest has come to a part of its working set, whatever the trace says.
    #[test]
    fn what_lies_near_comes_first_in_its_own_order_and_nothing_is_lost() {
        let left = |prefault: &Prefault| -> Vec<_> {
            prefault.ranges.iter().map(|range| (range.start.0, range.end.0)).collect()
        };
        let mut prefaults = one_prefault();
        let prefault = prefaults.get(PrefaultId(1)).unwrap();
        for (start, end) in [(50, 52), (20, 22), (90, 99), (40, 41), (25, 70)] {
            prefault.ranges.push_back(PageRange::new(start, end));
        }
        prefault.put_near_first(PageRange::new(20, 52));
        let near_first = [(50, 52), (20, 22), (40, 41), (0, 8), (90, 99), (25, 70)];
        assert_eq!(left(prefault), near_first);
        // What a cold source was told stays as it is.
        prefault.announcer = Some(Announcer::new([].into_iter(), PageSize::Small));
        prefault.put_near_first(PageRange::new(90, 99));
        assert_eq!(left(prefault), near_first);
    }

    #[test]
    fn as_much_is_made_ready_as_the_next_slice_needs() {
        let want = |offset, len| Want { offset, len, page: 4096 };
        let parts = |wants: &[Want], bytes| parts_ahead(wants.iter().copied(), bytes).to_vec();
        let few = [want(8192, 4096), want(65536, 3 * PREPARE), want(0, 4096)];
        let (part, rest) = (PREPARE, 4096);
        assert_eq!(parts(&few, 0), [(8192, 0)][..0]);
        assert_eq!(parts(&few, 4096), [(8192, 4096)]);
        let first = [(8192, 4096), (65536, part), (65536 + part, rest)];
        assert_eq!(parts(&few, 4096 + part + rest), first);
        assert_eq!(parts(&few, u64::MAX).len(), 5);
        assert_eq!(parts(&[want(4096, 4096); 100], u64::MAX).len(), 32);
        assert_eq!(parts(&[want(0, 1 << 30)], u64::MAX).len(), 32);
    }

    #[test]
    fn a_prefault_that_only_waits_for_room_has_nothing_due() {
        let mut prefaults = one_prefault();
        prefaults.get(PrefaultId(1)).unwrap().full = true;
        assert_eq!(prefaults.next(), Next::Never);
        prefaults.room_again();
        assert!(matches!(prefaults.next(), Next::At(_)));
    }
}
