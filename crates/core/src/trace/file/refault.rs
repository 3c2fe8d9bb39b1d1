//! What fault-around filled while a trace was recorded: the faults, gone through once more.

use rustc_hash::FxHashMap;

use super::super::{FilledWith, TraceEntry};
use crate::units::{PageIndex, PageRange, PageSize};
use crate::window::{self, Nearby, Walks};

/// Pages of one block: as many as a word has bits.
const BLOCK: u64 = 64;

/// The pages installed and touched so far, in the blocks that have any.
pub(super) struct Refault {
    all: PageRange,
    widest: u64,
    /// Pages that are installed ahead of somebody who walks.
    most_ahead: u64,
    walks: Walks,
    blocks: FxHashMap<u64, Block>,
}

#[derive(Default)]
struct Block {
    installed: u64,
    touched: u64,
}

impl Refault {
    pub(super) fn new(pages: u64, page_size: PageSize) -> Self {
        let (all, blocks) = (PageRange::new(0, pages), FxHashMap::default());
        Self {
            all,
            widest: window::widest(page_size),
            most_ahead: window::most_ahead(page_size),
            walks: Walks::default(),
            blocks,
        }
    }

    /// The runs that were filled for the faults of `entries`, in order, and how many of their
    /// pages were there already although they were missing when the trace was recorded.
    pub(super) fn all<'a>(
        mut self,
        entries: impl Iterator<Item = &'a TraceEntry>,
    ) -> (Vec<PageRange>, usize) {
        let (mut runs, mut refaults) = (Vec::new(), 0);
        for entry in entries {
            let page = entry.page();
            if self.is_installed(page) {
                refaults += usize::from(entry.filled_with() != FilledWith::Present);
            } else {
                let run = self.run(page);
                let ahead = self.walks.came_to(self.all, page, self.most_ahead);
                self.install(run, &mut runs);
                ahead.pages().for_each(|page| {
                    if !self.is_installed(page) {
                        self.install(PageRange::single(page), &mut runs);
                    }
                });
            }
            *self.block(page).1 |= bit(page);
        }
        (runs, refaults)
    }

    fn install(&mut self, run: PageRange, runs: &mut Vec<PageRange>) {
        run.pages().for_each(|page| *self.block(page).0 |= bit(page));
        runs.push(run);
    }

    /// The missing pages around `page` that one fault fills.
    fn run(&self, page: PageIndex) -> PageRange {
        let window = window::around(self, self.all, page, self.widest);
        let missing = |page: &PageIndex| !self.is_installed(*page);
        let ahead = PageRange { start: page, end: window.end }.pages().take_while(missing);
        let behind = PageRange { start: window.start, end: page }.pages().rev().take_while(missing);
        let (ahead, behind) = (ahead.count() as u64, behind.count() as u64);
        PageRange::new(page.0 - behind, page.0 + ahead)
    }

    fn is_installed(&self, page: PageIndex) -> bool {
        self.blocks.get(&(page.0 / BLOCK)).is_some_and(|block| block.installed & bit(page) != 0)
    }

    fn is_touched(&self, page: PageIndex) -> bool {
        self.blocks.get(&(page.0 / BLOCK)).is_some_and(|block| block.touched & bit(page) != 0)
    }

    fn block(&mut self, page: PageIndex) -> (&mut u64, &mut u64) {
        let block = self.blocks.entry(page.0 / BLOCK).or_default();
        (&mut block.installed, &mut block.touched)
    }
}

impl Nearby for Refault {
    fn installed_from(&self, range: PageRange) -> usize {
        range.pages().take_while(|page| self.is_installed(*page)).count()
    }

    fn installed_until(&self, range: PageRange) -> usize {
        range.pages().rev().take_while(|page| self.is_installed(*page)).count()
    }

    fn installed_in(&self, range: PageRange) -> usize {
        range.pages().filter(|page| self.is_installed(*page)).count()
    }

    fn touched_in(&self, range: PageRange) -> usize {
        range.pages().filter(|page| self.is_touched(*page)).count()
    }
}

const fn bit(page: PageIndex) -> u64 {
    1 << (page.0 % BLOCK)
}
