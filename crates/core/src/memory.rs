//! A guest's memory: installs by the fill table, and the page states that follow from them.
//! Knows the kernel and the states; knows nothing of faults, sources or who asked.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;

use crate::hugepages;
use crate::kernel::{Bytes, Outcome, Pagemap, Protection, Uffd, ZeroBytes};
use crate::layout::Layout;
use crate::policy::{self, Access, Method, Tracking};
use crate::source::Want;
use crate::states::{PageState, PageStates};
use crate::stats::Counters;
use crate::units::{GuestAddr, PageIndex, PageRange, PageSize};

/// Why nothing was installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// The first page is there already, installed by somebody else.
    Present,
    /// The first page is there already, or there was no huge page to give: nothing can tell.
    Unsure,
    /// The address space is changing.
    Changing,
    /// There is no memory for the page.
    NoMemory,
    /// The source's bytes turned out unreadable.
    Unreadable,
    /// The range is not registered with this userfaultfd, or not in one piece.
    Unmapped,
    /// The guest process is gone.
    Gone,
    /// The kernel refused, with this errno.
    Refused(i32),
}

enum Presence {
    Present,
    Absent,
    Unknown,
}

/// The pages that are done now, a start of those asked for.
pub(crate) type Put = Result<PageRange, Obstacle>;

/// How long a thread that gives memory back may need to go on.
const GAP: Duration = Duration::from_micros(100);

pub(crate) struct GuestMemory {
    uffd: Uffd,
    layout: Layout,
    tracking: Tracking,
    pagemap: Option<Pagemap>,
    zeros: &'static ZeroBytes,
    /// Until when the address space may be free for an instant; see [`insist`](Self::insist).
    gap_until: Option<Instant>,
    /// Huge pages whose EEXIST could not be explained; see [`Obstacle::Unsure`].
    suspects: FxHashSet<PageIndex>,
    pub(crate) states: PageStates,
    pub(crate) counters: Counters,
}

impl GuestMemory {
    pub(crate) fn new(uffd: Uffd, layout: Layout, pagemap: Option<Pagemap>) -> io::Result<Self> {
        let pages = usize::try_from(layout.page_end().0).map_err(io::Error::other)?;
        Ok(Self {
            states: PageStates::new(pages, layout.page_count())?,
            zeros: shared_zeros()?,
            uffd,
            layout,
            tracking: Tracking::Off,
            pagemap,
            gap_until: None,
            suspects: FxHashSet::default(),
            counters: Counters::default(),
        })
    }

    pub(crate) const fn uffd(&self) -> &Uffd {
        &self.uffd
    }

    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.layout.page_size()
    }

    pub(crate) const fn tracking(&self) -> Tracking {
        self.tracking
    }

    pub(crate) const fn pagemap(&self) -> Option<&Pagemap> {
        self.pagemap.as_ref()
    }

    pub(crate) const fn set_tracking(&mut self, tracking: Tracking) {
        self.tracking = tracking;
    }

    /// Bytes in `pages`.
    pub(crate) fn bytes_of(&self, pages: PageRange) -> u64 {
        pages.len() << self.page_size().shift()
    }

    /// What `pages` are in a source.
    pub(crate) fn want(&self, pages: PageRange) -> Want {
        let page = self.page_size();
        let offset = pages.start.offset(page);
        Want { offset, len: self.bytes_of(pages), page: page.bytes() }
    }

    /// Fills a start of `pages`, which lie in one region, with zeros: the first page on behalf
    /// of `access`, the others ahead of any.
    pub(crate) fn put_zeros(&mut self, pages: PageRange, access: Access) -> Put {
        let pages = self.alike(pages, access);
        let addr = self.addr(pages.start);
        let (method, _) = policy::plan(self.page_size(), self.tracking, access, true);
        let copy = |len: u64, protection| {
            let zeros = self.zeros.bytes(len.min(ZeroBytes::LEN as u64));
            self.insist(access, |uffd| uffd.copy(addr, zeros, protection))
        };
        let (outcome, copied) = match method {
            Method::ZeroPage => {
                match self.insist(access, |uffd| uffd.zeropage(addr, self.bytes_of(pages))) {
                    // Or it is absent and has the mark of a VMM that protected it all the same:
                    // COPY takes such a page and ZEROPAGE does not.
                    Outcome::Exists => (copy(self.page_size().bytes(), Protection::Writable), true),
                    outcome => (outcome, false),
                }
            }
            Method::CopyZeros(protection) | Method::CopySource(protection) => {
                (copy(self.bytes_of(pages), protection), true)
            }
        };
        let done = self.account(pages, outcome, access, true)?;
        self.counters.zero_pages += done.len();
        if copied {
            self.counters.copied_bytes += self.bytes_of(done);
        }
        Ok(done)
    }

    /// Fills one page with zeros that report their first write.
    pub(crate) fn put_protected_zeros(&mut self, page: PageIndex) -> Put {
        let pages = PageRange::single(page);
        let bytes = self.zeros.bytes(self.bytes_of(pages));
        match self.uffd.copy(self.addr(page), bytes, Protection::WriteProtected) {
            Outcome::Done(_) => {
                self.states.set_one(page, PageState::Zero);
                self.counters.zero_pages += 1;
                self.counters.copied_bytes += self.bytes_of(pages);
                Ok(pages)
            }
            other => Err(self.obstacle(page, other)),
        }
    }

    /// Fills a start of `pages`, which lie in one region, with the source's `bytes`: the first
    /// page on behalf of `access`, the others ahead of any.
    pub(crate) fn put_bytes(&mut self, pages: PageRange, bytes: Bytes<'_>, access: Access) -> Put {
        let pages = self.alike(pages, access);
        let addr = self.addr(pages.start);
        let (method, _) = policy::plan(self.page_size(), self.tracking, access, false);
        let protection = match method {
            Method::CopySource(protection) | Method::CopyZeros(protection) => protection,
            Method::ZeroPage => Protection::Writable,
        };
        let bytes = bytes.first(self.bytes_of(pages));
        let outcome = self.insist(access, |uffd| uffd.copy(addr, bytes, protection));
        let done = self.account(pages, outcome, access, false)?;
        self.counters.source_pages += done.len();
        self.counters.copied_bytes += self.bytes_of(done);
        Ok(done)
    }

    /// Asks again for a moment after a REMOVE was read, on behalf of a thread that waits.
    ///
    /// The thread that gives memory back needs that moment to go on; then the address space is
    /// free until its next `madvise`, which may come at once. Whoever sleeps or reads events in
    /// between misses that gap each time, and a fault would starve beside a busy balloon.
    fn insist(&self, access: Access, ask: impl Fn(&Uffd) -> Outcome) -> Outcome {
        loop {
            for _ in 0..8 {
                let outcome = ask(&self.uffd);
                if outcome != Outcome::Again || access == Access::Ahead {
                    return outcome;
                }
                std::hint::spin_loop();
            }
            if !self.is_gap_due(Instant::now()) {
                return Outcome::Again;
            }
            // It may need this very core.
            std::thread::yield_now();
        }
    }

    /// The pages that one ioctl can fill alike: under tracking a page that is about to be
    /// written is left unprotected, and its neighbours are not.
    fn alike(&self, pages: PageRange, access: Access) -> PageRange {
        match access {
            Access::Write if self.tracking.is_on() => PageRange::single(pages.start),
            _ => pages,
        }
    }

    /// Turns the kernel's answer into new states, or into what it means here.
    fn account(&mut self, pages: PageRange, outcome: Outcome, access: Access, zeros: bool) -> Put {
        let done = match outcome {
            Outcome::Done(bytes) => {
                let count = bytes >> self.page_size().shift();
                PageRange::new(pages.start.0, pages.start.0 + count)
            }
            other => return Err(self.obstacle(pages.start, other)),
        };
        if !self.suspects.is_empty() {
            self.suspects.retain(|page| !done.contains(*page));
        }
        let (_, first) = policy::plan(self.page_size(), self.tracking, access, zeros);
        let (_, rest) = policy::plan(self.page_size(), self.tracking, Access::Ahead, zeros);
        self.states.set(done, rest);
        if first != rest && !done.is_empty() {
            self.states.set_one(done.start, first);
        }
        Ok(done)
    }

    fn obstacle(&mut self, page: PageIndex, outcome: Outcome) -> Obstacle {
        match outcome {
            Outcome::Exists => match self.is_present(page) {
                Presence::Present => {
                    self.counters.already_present += 1;
                    Obstacle::Present
                }
                Presence::Absent => self.no_memory(),
                // Nobody faults twice on a page that is there.
                Presence::Unknown if self.suspects.insert(page) => Obstacle::Unsure,
                Presence::Unknown => self.no_memory(),
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

    /// Whether EEXIST was the truth: hugetlb says it as well when it has no page to give.
    fn is_present(&self, page: PageIndex) -> Presence {
        if self.page_size() == PageSize::Small {
            return Presence::Present;
        }
        match self.pagemap.as_ref().and_then(|map| map.bits(self.addr(page)).ok()) {
            Some(bits) if bits.is_populated() => Presence::Present,
            Some(_) => Presence::Absent,
            None if hugepages::none_free() => Presence::Unknown,
            None => Presence::Present,
        }
    }

    /// Makes accesses to `page` raise SIGBUS.
    pub(crate) fn poison(&mut self, page: PageIndex) -> Put {
        let pages = PageRange::single(page);
        let (addr, len) = (self.addr(page), self.bytes_of(pages));
        let outcome = match self.uffd.poison(addr, len) {
            // Or it is absent and has the mark of a VMM that protected it all the same.
            Outcome::Exists => match self.uffd.clear_protection(addr, len) {
                Outcome::Done(_) => self.uffd.poison(addr, len),
                Outcome::Again => Outcome::Again,
                _ => Outcome::Exists,
            },
            outcome => outcome,
        };
        match outcome {
            Outcome::Done(_) => {
                self.states.set_one(page, PageState::Poisoned);
                self.counters.poisoned_pages += 1;
                Ok(pages)
            }
            Outcome::Exists => {
                // It is there, and reports its writes no longer.
                if self.states.get(page) != PageState::Poisoned {
                    self.states.set_one(page, PageState::Dirty);
                }
                Err(Obstacle::Present)
            }
            other => Err(self.obstacle(page, other)),
        }
    }

    /// Lets the writes to `page` through and wakes the thread that tried one.
    pub(crate) fn unprotect(&mut self, page: PageIndex) -> Put {
        let pages = PageRange::single(page);
        let (addr, len) = (self.addr(page), self.bytes_of(pages));
        match self.insist(Access::Write, |uffd| uffd.unprotect(addr, len)) {
            Outcome::Done(_) => {
                self.states.set_one(page, PageState::Dirty);
                Ok(pages)
            }
            other => Err(self.obstacle(page, other)),
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
    /// could differ from the source.
    pub(crate) fn adopt(&mut self, page: PageIndex) {
        if self.states.get(page) == PageState::Unfaulted {
            self.states.set_one(page, PageState::Dirty);
        }
    }

    /// A thread that waited to write `page` was woken by whatever installed it. As a neighbour of
    /// another page, say, and then nobody sees that write unless writes are tracked.
    pub(crate) fn written(&mut self, page: PageIndex) {
        if !self.tracking.is_on() && self.states.get(page).is_installed() {
            self.states.set_one(page, PageState::Dirty);
        }
    }

    /// REMOVEs were read at this time.
    pub(crate) fn expect_gap(&mut self, read_at: Instant) {
        self.gap_until = Some(read_at + GAP);
    }

    /// Whether the address space may be free in a moment, as far as REMOVEs go.
    pub(crate) fn is_gap_due(&self, now: Instant) -> bool {
        self.gap_until.is_some_and(|until| now < until)
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
