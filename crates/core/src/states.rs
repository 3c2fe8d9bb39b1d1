//! Page states: one byte a page, in memory that can be shared with a successor process.

use crate::kernel::{Onlooker, Part};
use crate::layout::Layout;
pub use crate::metrics::StateCounts;
use crate::units::{PageIndex, PageRange};
use crate::window::Nearby;

/// What the handler knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PageState {
    /// Never installed.
    Unfaulted = 0,
    /// Installed, equals the source.
    Clean = 1,
    /// Installed as zeros, not written since.
    Zero = 2,
    /// Written, or could have been written without our seeing it.
    Dirty = 3,
    /// Given back by REMOVE: absent, and must read as zeros.
    Removed = 4,
    /// Its source failed; accesses raise SIGBUS.
    Poisoned = 5,
}

impl PageState {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 6] =
        [Self::Unfaulted, Self::Clean, Self::Zero, Self::Dirty, Self::Removed, Self::Poisoned];

    /// The state as users see it.
    pub const fn public(self) -> PublicState {
        match self {
            Self::Unfaulted => PublicState::Unfaulted,
            Self::Clean | Self::Zero | Self::Dirty => PublicState::Faulted,
            Self::Removed => PublicState::Removed,
            Self::Poisoned => PublicState::Poisoned,
        }
    }

    /// Whether the page is there for the guest to use.
    pub const fn is_installed(self) -> bool {
        matches!(self, Self::Clean | Self::Zero | Self::Dirty)
    }

    /// The state in a byte of [`PageStates`].
    pub(crate) const fn from_byte(byte: u8) -> Self {
        match byte & STATE {
            0 => Self::Unfaulted,
            1 => Self::Clean,
            2 => Self::Zero,
            3 => Self::Dirty,
            4 => Self::Removed,
            _ => Self::Poisoned,
        }
    }
}

/// A page's state as users see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PublicState {
    /// Never installed: the guest has not needed it yet.
    Unfaulted = 0,
    /// Installed.
    Faulted = 1,
    /// Given back by the guest: reads as zeros.
    Removed = 2,
    /// Its source failed: accesses raise SIGBUS.
    Poisoned = 3,
}

impl StateCounts {
    /// Pages that are installed.
    pub const fn faulted(&self) -> u64 {
        self.clean + self.zero + self.dirty
    }
}

/// Whether the kernel said of this page, without a proof, that it is there.
pub(crate) const fn is_doubted(byte: u8) -> bool {
    byte & DOUBTED != 0
}

/// So many pages are counted in a byte, many at a time: a guest waits for that when it is taken over.
const AT_ONCE: usize = u8::MAX as usize;

/// How many of at most [`AT_ONCE`] pages are in `state`.
fn count_in(bytes: &[u8], state: u8) -> u8 {
    bytes.iter().map(|byte| u8::from(byte & STATE == state)).sum()
}

const STATE: u8 = 0x0f;
const TOUCHED: u8 = 0x80;
const WANTED: u8 = 0x40;
const DOUBTED: u8 = 0x20;

/// The states of all pages of a guest, `0..page_end`.
///
/// A single owner changes them: the guest's fault loop.
///
/// One byte each, in page order: the low four bits are a [`PageState`]; the highest is set once the
/// guest's first touch was served, the next one while a prefault is about to install the page, and
/// the third where the kernel said that the page is there and nothing could prove it.
#[derive(Debug)]
pub struct PageStates {
    bytes: Part,
    counts: [u64; 6],
    copy: Option<Copy>,
}

/// A copy that is being made piece by piece. What is copied already changes with the page, so that
/// the whole is as all pages are at the moment in which it is done.
#[derive(Debug)]
struct Copy {
    to: Vec<u8>,
    done: usize,
}

impl PageStates {
    /// All pages unfaulted, as zeros in `bytes` say; `counted` of them belong to a region.
    pub fn new(bytes: Part, counted: u64) -> Self {
        Self { bytes, counts: [counted, 0, 0, 0, 0, 0], copy: None }
    }

    /// The states that a predecessor left in `bytes`; `regions` are the pages that there are.
    pub fn recovered(bytes: Part, regions: impl Iterator<Item = PageRange>) -> Self {
        let mut states = Self { bytes, counts: [0; 6], copy: None };
        for pages in regions {
            let bytes = &mut states.bytes.as_mut_slice()[index(pages.start)..index(pages.end)];
            for some in bytes.chunks_mut(AT_ONCE) {
                // What a prefault was asked for was asked of the predecessor.
                some.iter_mut().for_each(|byte| *byte &= !WANTED);
                for (state, count) in (0..).zip(&mut states.counts) {
                    *count += u64::from(count_in(some, state));
                }
            }
        }
        states
    }

    /// Whether `bytes` can be the states of all pages of `layout`.
    pub(crate) fn is_sound(bytes: &Part, layout: &Layout) -> bool {
        let known = |byte: &u8| *byte & !(TOUCHED | WANTED | DOUBTED) <= PageState::Poisoned as u8;
        let regions = layout.regions().iter();
        let bytes = bytes.as_slice();
        regions
            .flat_map(|region| {
                bytes[index(region.pages.start)..index(region.pages.end)].chunks(AT_ONCE)
            })
            // All of them, whatever one is: that is quicker than to look whether to go on.
            .all(|some| some.iter().fold(true, |all, byte| all & known(byte)))
    }

    /// A page's state.
    pub fn get(&self, page: PageIndex) -> PageState {
        PageState::from_byte(self.bytes.as_slice()[index(page)])
    }

    /// Puts every page of `range` in `state`.
    pub fn set(&mut self, range: PageRange, state: PageState) {
        if range.is_empty() {
            return;
        }
        let bytes = &mut self.bytes.as_mut_slice()[index(range.start)..index(range.end)];
        for byte in bytes {
            self.counts[usize::from((*byte & STATE).min(5))] -= 1;
            *byte = *byte & !(STATE | WANTED | DOUBTED) | state as u8;
        }
        self.counts[state as usize] += range.len();
        self.changed(range);
    }

    /// Puts a page in `state`.
    pub fn set_one(&mut self, page: PageIndex, state: PageState) {
        self.set(PageRange::single(page), state);
    }

    /// Notes that the guest's touch of `page` was served; true the first time.
    pub fn touch(&mut self, page: PageIndex) -> bool {
        let byte = &mut self.bytes.as_mut_slice()[index(page)];
        let first = *byte & TOUCHED == 0;
        *byte |= TOUCHED;
        self.changed(PageRange::single(page));
        first
    }

    /// Whether a touch of `page` was ever served.
    pub fn is_touched(&self, page: PageIndex) -> bool {
        self.bytes.as_slice()[index(page)] & TOUCHED != 0
    }

    /// Notes that the kernel says that `page` is there, which nothing could prove; true the first
    /// time. Forgotten with its next state.
    pub fn doubt(&mut self, page: PageIndex) -> bool {
        let byte = &mut self.bytes.as_mut_slice()[index(page)];
        let first = *byte & DOUBTED == 0;
        *byte |= DOUBTED;
        self.changed(PageRange::single(page));
        first
    }

    /// Whether `page` is doubted.
    pub(crate) fn is_doubted(&self, page: PageIndex) -> bool {
        is_doubted(self.bytes.as_slice()[index(page)])
    }

    /// Doubts every page of `range` that is in `state`.
    pub(crate) fn doubt_all(&mut self, range: PageRange, state: PageState) {
        if range.is_empty() {
            return;
        }
        for byte in &mut self.bytes.as_mut_slice()[index(range.start)..index(range.end)] {
            if *byte & STATE == state as u8 {
                *byte |= DOUBTED;
            }
        }
        self.changed(range);
    }

    /// Begins a copy of the bytes of all pages to `room`, which has as many. Another one that was
    /// under way is given up.
    pub(crate) fn begin_copy(&mut self, room: Vec<u8>) {
        assert_eq!(room.len(), self.bytes.as_slice().len(), "room for all pages");
        self.copy = Some(Copy { to: room, done: 0 });
    }

    /// Whether a copy is under way.
    pub(crate) const fn is_being_copied(&self) -> bool {
        self.copy.is_some()
    }

    /// Goes on with the copy, by so many pages; all of it, once it is done.
    pub(crate) fn go_on_copying(&mut self, pages: usize) -> Option<Vec<u8>> {
        let copy = self.copy.as_mut()?;
        let end = copy.to.len().min(copy.done.saturating_add(pages));
        copy.to[copy.done..end].copy_from_slice(&self.bytes.as_slice()[copy.done..end]);
        copy.done = end;
        if end < copy.to.len() {
            return None;
        }
        self.copy.take().map(|copy| copy.to)
    }

    /// The bytes of `range` have changed.
    fn changed(&mut self, range: PageRange) {
        let Some(copy) = &mut self.copy else { return };
        let (start, end) = (index(range.start), index(range.end).min(copy.done));
        if start < end {
            copy.to[start..end].copy_from_slice(&self.bytes.as_slice()[start..end]);
        }
    }

    /// Notes that the unfaulted pages of `range` are about to be installed, or no longer.
    pub fn want(&mut self, range: PageRange, wanted: bool) {
        if range.is_empty() {
            return;
        }
        for byte in &mut self.bytes.as_mut_slice()[index(range.start)..index(range.end)] {
            let flag =
                if wanted && *byte & STATE == PageState::Unfaulted as u8 { WANTED } else { 0 };
            *byte = *byte & !WANTED | flag;
        }
        self.changed(range);
    }

    /// Whether `page` is about to be installed, whoever asks for it.
    pub fn is_wanted(&self, page: PageIndex) -> bool {
        self.bytes.as_slice()[index(page)] & WANTED != 0
    }

    /// The first pages of `range`, in one run, that are about to be installed.
    pub fn next_wanted(&self, range: PageRange) -> Option<PageRange> {
        let is_wanted = |byte: &u8| *byte & WANTED != 0;
        let bytes = self.slice(range);
        let skipped = bytes.iter().position(is_wanted)?;
        let count = bytes[skipped..].iter().take_while(|byte| is_wanted(byte)).count();
        let start = range.start.0 + skipped as u64;
        Some(PageRange::new(start, start + count as u64))
    }

    /// Lets another thread look at the bytes while they change.
    pub(crate) fn onlooker(&self) -> Onlooker {
        self.bytes.onlooker()
    }

    /// How many pages there are in each state.
    pub fn counts(&self) -> StateCounts {
        let [unfaulted, clean, zero, dirty, removed, poisoned] = self.counts;
        StateCounts { unfaulted, clean, zero, dirty, removed, poisoned }
    }

    /// The states of `range`, in page order.
    pub fn iter(&self, range: PageRange) -> impl DoubleEndedIterator<Item = PageState> + '_ {
        self.slice(range).iter().map(|byte| PageState::from_byte(*byte))
    }

    /// Splits `range` into its longest runs of pages in one state, in page order.
    pub fn runs(&self, range: PageRange) -> impl Iterator<Item = (PageRange, PageState)> + '_ {
        let mut at = range.start;
        self.slice(range).chunk_by(|a, b| a & STATE == b & STATE).map(move |run| {
            let start = at;
            at = PageIndex(start.0 + run.len() as u64);
            (PageRange { start, end: at }, PageState::from_byte(run[0]))
        })
    }

    /// The longest run of pages in the state of `page` around it that stays inside `window`.
    pub fn alike_around(&self, page: PageIndex, window: PageRange) -> PageRange {
        let before = PageRange { start: window.start, end: page };
        let after = PageRange { start: page, end: window.end };
        let count = |run: usize| run as u64;
        let here = self.get(page);
        let is_alike = |state: &PageState| *state == here;
        let ahead = self.iter(after).take_while(is_alike).count();
        let behind = self.iter(before).rev().take_while(is_alike).count();
        PageRange::new(page.0 - count(behind), page.0 + count(ahead))
    }

    /// How many pages of `range` are installed.
    pub fn count_installed(&self, range: PageRange) -> usize {
        self.iter(range).filter(|state| state.is_installed()).count()
    }

    /// How many pages of `range` the guest has touched while they were missing.
    pub fn count_touched(&self, range: PageRange) -> usize {
        self.slice(range).iter().filter(|byte| **byte & TOUCHED != 0).count()
    }

    fn slice(&self, range: PageRange) -> &[u8] {
        if range.is_empty() {
            return &[];
        }
        &self.bytes.as_slice()[index(range.start)..index(range.end)]
    }
}

impl Nearby for PageStates {
    fn installed_from(&self, range: PageRange) -> usize {
        self.iter(range).take_while(|state| state.is_installed()).count()
    }

    fn installed_until(&self, range: PageRange) -> usize {
        self.iter(range).rev().take_while(|state| state.is_installed()).count()
    }

    fn installed_in(&self, range: PageRange) -> usize {
        self.count_installed(range)
    }

    fn touched_in(&self, range: PageRange) -> usize {
        self.count_touched(range)
    }
}

/// A page's place in the array. Indices come from a layout, which ends inside the array.
fn index(page: PageIndex) -> usize {
    usize::try_from(page.0).expect("a page index fits in memory, as its state does")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::SharedMemory;
    use crate::layout::Region;
    use crate::units::{GuestAddr, PageSize};
    use proptest::prelude::*;

    const PAGES: usize = 64;

    fn states() -> PageStates {
        let bytes = SharedMemory::anonymous(PAGES).unwrap().take(PAGES);
        PageStates::new(bytes, PAGES as u64)
    }

    #[test]
    fn every_state_survives_the_array_and_keeps_the_touched_mark() {
        let mut states = states();
        for touched in [false, true] {
            for state in PageState::ALL {
                states.set_one(PageIndex(7), state);
                assert_eq!(states.get(PageIndex(7)), state);
                assert_eq!(states.is_touched(PageIndex(7)), touched);
            }
            assert_eq!(states.touch(PageIndex(7)), !touched);
        }
    }

    #[test]
    fn only_unfaulted_pages_are_wanted_until_they_are_installed() {
        let mut states = states();
        let next = |states: &PageStates, start, end| {
            let run = states.next_wanted(PageRange::new(start, end));
            run.map(|run| (run.start.0, run.end.0))
        };
        assert_eq!(next(&states, 0, 64), None);
        states.set_one(PageIndex(12), PageState::Removed);
        states.want(PageRange::new(10, 16), true);
        assert_eq!(next(&states, 0, 64), Some((10, 12)));
        assert_eq!(next(&states, 12, 15), Some((13, 15)));
        states.set_one(PageIndex(14), PageState::Clean);
        assert_eq!(next(&states, 12, 64), Some((13, 14)));
        assert_eq!(next(&states, 14, 64), Some((15, 16)));
        states.want(PageRange::new(0, 64), false);
        assert_eq!(next(&states, 0, 64), None);
        assert_eq!(states.get(PageIndex(12)), PageState::Removed);
        assert_eq!(states.get(PageIndex(14)), PageState::Clean);
    }

    /// Whatever changes while it is made, before what is copied and behind.
    #[test]
    fn a_copy_is_as_all_pages_are_when_it_is_done() {
        let mut states = states();
        states.set(PageRange::new(0, 40), PageState::Clean);
        states.begin_copy(vec![u8::MAX; PAGES]);
        assert_eq!(states.go_on_copying(32), None);
        for (state, start) in [(PageState::Dirty, 4), (PageState::Removed, 36)] {
            states.set(PageRange::new(start, start + 4), state);
            states.touch(PageIndex(start + 4));
            states.doubt(PageIndex(start + 5));
        }
        // Across the border.
        states.set(PageRange::new(30, 34), PageState::Zero);
        states.doubt_all(PageRange::new(0, 64), PageState::Zero);
        states.want(PageRange::new(0, 64), true);
        states.set_one(PageIndex(63), PageState::Poisoned);
        assert!(states.is_being_copied());
        let copy = states.go_on_copying(usize::MAX).unwrap();
        assert_eq!(copy, states.bytes.as_slice());
        assert!(!states.is_being_copied() && states.go_on_copying(1).is_none());
    }

    #[test]
    fn what_a_predecessor_left_is_counted_and_wanted_no_more() {
        const MANY: u64 = 3 * AT_ONCE as u64 + 7;
        let all = PageRange::new(0, MANY);
        let part = || SharedMemory::anonymous(index(all.end)).unwrap().take(index(all.end));
        let (mut left, mut bytes) = (PageStates::new(part(), MANY), part());
        for page in all.pages() {
            // Runs longer than what is counted at once, and shorter ones.
            let state = if page.0 < 600 { page.0 / 300 } else { page.0 % 6 };
            left.set_one(page, PageState::ALL[index(PageIndex(state))]);
            if page.0 % 3 == 0 {
                left.touch(page);
            }
        }
        left.want(all, true);
        bytes.as_mut_slice().copy_from_slice(left.bytes.as_slice());
        let states = PageStates::recovered(bytes, [all].into_iter());
        assert_eq!(states.counts(), left.counts());
        let StateCounts { unfaulted, clean, zero, dirty, removed, poisoned } = states.counts();
        assert_eq!(unfaulted + clean + zero + dirty + removed + poisoned, MANY);
        assert_eq!(states.next_wanted(all), None);
        assert!(states.iter(all).eq(left.iter(all)));
        assert!(all.pages().all(|page| states.is_touched(page) == left.is_touched(page)));
    }

    #[test]
    fn states_that_there_are_not_are_known_wherever_they_are() {
        const MANY: u64 = 2 * AT_ONCE as u64 + 3;
        let region = Region { base: GuestAddr(0x10_0000), pages: PageRange::new(0, MANY) };
        let layout = Layout::new(PageSize::Small, vec![region]).unwrap();
        let len = index(PageIndex(MANY));
        let mut bytes = SharedMemory::anonymous(len).unwrap().take(len);
        bytes.as_mut_slice().fill(TOUCHED | WANTED | DOUBTED | PageState::Poisoned as u8);
        assert!(PageStates::is_sound(&bytes, &layout));
        for at in [0, AT_ONCE - 1, AT_ONCE, len - 1] {
            let known = std::mem::replace(&mut bytes.as_mut_slice()[at], 6);
            assert!(!PageStates::is_sound(&bytes, &layout), "{at}");
            bytes.as_mut_slice()[at] = known;
        }
    }

    #[test]
    fn users_see_four_states() {
        let seen = PageState::ALL.map(PageState::public);
        use PublicState::{Faulted, Poisoned, Removed, Unfaulted};
        assert_eq!(seen, [Unfaulted, Faulted, Faulted, Faulted, Removed, Poisoned]);
    }

    #[test]
    fn a_run_around_a_page_stops_at_other_states_and_at_the_window() {
        let mut states = states();
        let around = |states: &PageStates, window| {
            let run = states.alike_around(PageIndex(20), window);
            (run.start.0, run.end.0)
        };
        assert_eq!(around(&states, PageRange::new(16, 32)), (16, 32));
        assert_eq!(around(&states, PageRange::new(20, 21)), (20, 21));
        states.set_one(PageIndex(18), PageState::Removed);
        states.set_one(PageIndex(23), PageState::Clean);
        assert_eq!(around(&states, PageRange::new(16, 32)), (19, 23));
    }

    fn state() -> impl Strategy<Value = PageState> {
        proptest::sample::select(&PageState::ALL[..])
    }

    proptest! {
        #[test]
        fn ranges_counts_and_runs_agree_with_a_plain_array(
            changes in prop::collection::vec((0..=PAGES as u64, 0..=PAGES as u64, state()), 0..40)
        ) {
            let mut states = states();
            let mut model = [PageState::Unfaulted; PAGES];
            for (start, end, state) in changes {
                let range = PageRange::new(start, end);
                states.set(range, state);
                range.pages().for_each(|page| model[index(page)] = state);
            }
            let all = PageRange::new(0, PAGES as u64);
            prop_assert_eq!(states.iter(all).collect::<Vec<_>>(), model.to_vec());
            let count = |wanted| model.iter().filter(|state| **state == wanted).count() as u64;
            prop_assert_eq!(states.counts(), StateCounts {
                unfaulted: count(PageState::Unfaulted),
                clean: count(PageState::Clean),
                zero: count(PageState::Zero),
                dirty: count(PageState::Dirty),
                removed: count(PageState::Removed),
                poisoned: count(PageState::Poisoned),
            });
            let runs: Vec<_> = states.runs(all).collect();
            prop_assert!(runs.windows(2).all(|w| w[0].0.end == w[1].0.start && w[0].1 != w[1].1));
            let spread = runs.iter().flat_map(|(range, state)| range.pages().map(|_| *state));
            prop_assert_eq!(spread.collect::<Vec<_>>(), model.to_vec());
        }
    }
}
