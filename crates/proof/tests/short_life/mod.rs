//! A guest's short life, step by step on one thread, and what must be true of each page after it.

use uffd_guest::driver::Guest;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::{Expect, Op};
use uffd_proof::{Exported, State};

/// What became of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Untouched,
    /// Read, and as it was.
    Read,
    Written,
    Removed,
    /// Given back and read.
    Zeros,
}

#[derive(Clone, Debug)]
struct Page {
    fate: Fate,
    holds: Content,
}

/// All pages.
#[derive(Debug)]
pub(crate) struct Life {
    pattern: Pattern,
    pages: Vec<Page>,
    steps: Vec<Op>,
}

impl Life {
    pub(crate) fn new(pattern: Pattern, pages: u64) -> Self {
        let page = |page| Page { fate: Fate::Untouched, holds: pattern.source(page) };
        Self { pattern, pages: (0..pages).map(page).collect(), steps: Vec::new() }
    }

    /// Everything that can happen to a page, to one page after the other; the last is not touched.
    /// Where there are more than twelve, a walk through the rest, giving back and a walk back.
    pub(crate) fn live(&mut self) -> Vec<Op> {
        self.read(0, 6);
        self.write_word(0, 3, 7);
        self.write(6, 2, 8);
        self.remove(1, 1);
        self.remove(7, 2);
        self.remove(10, 1);
        self.read(7, 1);
        self.write_word(1, 1, 9);
        self.write_word(7, 1, 10);
        self.remove(0, 1);
        self.read(9, 1);
        let rest = u64::try_from(self.pages.len()).expect("few pages") - 1;
        if rest > 20 {
            self.read(12, rest - 14);
            self.remove(14, rest - 18);
            self.read(16, 6);
            self.write_word(15, 1, 11);
            self.write_word(18, 2, 12);
        }
        std::mem::take(&mut self.steps)
    }

    /// Pages were given back by somebody else.
    pub(crate) fn removed(&mut self, page: u64, count: u64) {
        for page in self.range(page, count) {
            *page = Page { fate: Fate::Removed, holds: Content::Zeros };
        }
    }

    fn remove(&mut self, page: u64, count: u64) {
        self.removed(page, count);
        self.steps.push(Op::Madvise { page, count });
    }

    fn read(&mut self, first: u64, count: u64) {
        let read = |(number, page): (u64, &mut Page)| {
            let expect = match (page.fate, &page.holds) {
                (Fate::Untouched | Fate::Read, _) => Some(Expect::Source),
                (Fate::Removed | Fate::Zeros, _) => Some(Expect::Zeros),
                (Fate::Written, Content::Stamp(stamp)) => Some(Expect::Stamp(*stamp)),
                (Fate::Written, _) => None,
            };
            page.fate = match page.fate {
                Fate::Untouched => Fate::Read,
                Fate::Removed => Fate::Zeros,
                fate => fate,
            };
            match expect {
                Some(expect) => Op::Verify { page: number, count: 1, expect: vec![expect] },
                None => Op::Touch { page: number, count: 1 },
            }
        };
        let steps: Vec<Op> = (first..).zip(self.range(first, count)).map(read).collect();
        self.steps.extend(steps);
    }

    fn write(&mut self, page: u64, count: u64, stamp: u32) {
        for page in self.range(page, count) {
            *page = Page { fate: Fate::Written, holds: Content::Stamp(stamp) };
        }
        self.steps.push(Op::Write { page, count, stamp, at: None });
    }

    fn write_word(&mut self, page: u64, count: u64, stamp: u32) {
        for page in self.range(page, count) {
            let base = Box::new(page.holds.clone());
            *page = Page { fate: Fate::Written, holds: Content::Patched { base, at: 8, stamp } };
        }
        self.steps.push(Op::Write { page, count, stamp, at: Some(8) });
    }

    fn range(&mut self, page: u64, count: u64) -> &mut [Page] {
        let index = |page| usize::try_from(page).expect("few pages");
        &mut self.pages[index(page)..index(page + count)]
    }

    /// What an export says, before anybody looks at the pages. Exactly that is true where writes are
    /// tracked; where not, a page that was only read may count as written.
    pub(crate) fn check_export(&self, export: &Exported, tracked: bool) {
        assert_eq!(export.exact, tracked);
        for (number, page) in (0..).zip(&self.pages) {
            let at = usize::try_from(number).expect("few pages");
            let seen = (export.states[at], export.dirty.contains(&number));
            let (state, dirty) = seen;
            let about = || format!("page {number}, {page:?}, is {seen:?}");
            let states: &[State] = match page.fate {
                // Or it was filled together with another page.
                Fate::Untouched => &[State::Unfaulted, State::Faulted],
                Fate::Removed => &[State::Removed, State::Faulted],
                Fate::Read | Fate::Written | Fate::Zeros => &[State::Faulted],
            };
            assert!(states.contains(&state), "{}", about());
            assert!(!dirty || page.fate == Fate::Written || !tracked, "{}", about());
            let is_given_back = matches!(page.fate, Fate::Removed | Fate::Zeros);
            if tracked && is_given_back {
                assert!(export.empty.contains(&number), "{}", about());
            }
        }
        self.check_written(export);
    }

    /// What differs from the snapshot is in the export, whoever has looked at the pages since.
    pub(crate) fn check_written(&self, export: &Exported) {
        for (number, page) in (0..).zip(&self.pages) {
            let (dirty, empty) = (export.dirty.contains(&number), export.empty.contains(&number));
            let is_zeros = page.holds == Content::Zeros;
            assert!(!empty || (is_zeros && !dirty), "page {number}, {page:?}");
            let is_source = page.holds == self.pattern.source(number.into());
            match page.fate {
                Fate::Written => assert!(dirty, "page {number}, {page:?}"),
                _ => assert!(is_source || dirty || empty, "page {number}, {page:?}"),
            }
        }
    }

    pub(crate) fn check_contents(&self, guest: &Guest) {
        for (number, page) in (0..).zip(&self.pages) {
            assert_eq!(
                guest.thread(0).read_page(number).expect("the guest answers"),
                page.holds,
                "page {number}"
            );
        }
    }
}
