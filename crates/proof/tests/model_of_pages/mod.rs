//! What each page of a guest may hold, and what may be said of it, after all orders in which its
//! threads could have run.

use std::collections::BTreeSet;

use uffd_core::states::PublicState;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::Expect;

/// What a thread does to one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Touch,
    WriteWord(u32),
    WriteWhole(u32),
    Remove,
}

/// What an export depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modes {
    pub(crate) tracking: bool,
    pub(crate) fault_around: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Base {
    Source,
    Zeros,
    Stamp(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Presence {
    Unfaulted,
    Clean,
    Dirty,
    Removed,
}

/// One thing that a page may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Page {
    base: Base,
    /// The word at its start, written over the base.
    patch: Option<u32>,
    presence: Presence,
}

impl Page {
    fn after(self, act: Act) -> Self {
        match act {
            Act::Touch => {
                let presence = match self.presence {
                    Presence::Unfaulted | Presence::Removed => Presence::Clean,
                    presence => presence,
                };
                Self { presence, ..self }
            }
            Act::WriteWord(stamp) => Self { patch: Some(stamp), presence: Presence::Dirty, ..self },
            Act::WriteWhole(stamp) => {
                Self { base: Base::Stamp(stamp), patch: None, presence: Presence::Dirty }
            }
            Act::Remove => Self { base: Base::Zeros, patch: None, presence: Presence::Removed },
        }
    }

    fn holds(self, of_source: &Content) -> Content {
        let base = match self.base {
            Base::Source => of_source.clone(),
            Base::Zeros => Content::Zeros,
            Base::Stamp(stamp) => Content::Stamp(stamp),
        };
        match self.patch {
            None => base,
            Some(stamp) => Content::Patched { base: Box::new(base), at: 0, stamp },
        }
    }
}

/// What an export says of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) state: PublicState,
    pub(crate) dirty: bool,
    pub(crate) empty: bool,
}

impl Seen {
    fn key(self) -> (u8, bool, bool) {
        (self.state as u8, self.dirty, self.empty)
    }
}

impl PartialOrd for Seen {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Seen {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// All pages.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pattern: Pattern,
    pages: Vec<BTreeSet<Page>>,
    modes: Modes,
}

impl Model {
    /// Nothing was touched yet.
    pub(crate) fn new(pattern: Pattern, pages: u64, modes: Modes) -> Self {
        let fresh = Page { base: Base::Source, patch: None, presence: Presence::Unfaulted };
        let pages = (0..pages).map(|_| BTreeSet::from([fresh])).collect();
        Self { pattern, pages, modes }
    }

    pub(crate) fn modes(&self) -> Modes {
        self.modes
    }

    /// Each thread did its acts in order, and all of them at the same time.
    pub(crate) fn play(&mut self, page: u64, threads: &[Vec<Act>]) {
        let threads: Vec<&[Act]> =
            threads.iter().map(Vec::as_slice).filter(|acts| !acts.is_empty()).collect();
        let mut after = BTreeSet::new();
        for before in &self.pages[index(page)] {
            orders(*before, &threads, &mut after);
        }
        // A page that is given back is zapped a moment after the handler was told, and what other
        // threads had put there in that moment goes with it, unseen by the handler.
        let removes = threads.iter().filter(|acts| acts.contains(&Act::Remove)).count();
        if removes > 0 && threads.len() > 1 {
            let mut unseen = BTreeSet::new();
            let written = threads.iter().any(|acts| {
                acts.iter().any(|act| matches!(act, Act::WriteWord(_) | Act::WriteWhole(_)))
            });
            for page in &after {
                unseen.insert(Page { presence: Presence::Clean, ..*page });
                if written {
                    unseen.insert(Page { presence: Presence::Dirty, ..*page });
                }
            }
            // What is dirty stays so: a write that was let through is never forgotten.
            unseen.retain(|page| page.patch.is_none() || page.presence == Presence::Dirty);
            after.extend(unseen);
        }
        self.pages[index(page)] = after;
    }

    /// A prefault of the page has ended.
    pub(crate) fn prefault(&mut self, page: u64) {
        // It came before, between or after the acts of the phase: after a REMOVE it did nothing.
        let pages = &self.pages[index(page)];
        let installed = pages.iter().map(|page| match page.presence {
            Presence::Unfaulted => Page { presence: Presence::Clean, ..*page },
            _ => *page,
        });
        self.pages[index(page)] = installed.collect();
    }

    /// Whether the page may hold this.
    pub(crate) fn allows(&self, page: u64, content: &Content) -> bool {
        let source = self.pattern.source(page);
        self.pages[index(page)].iter().any(|page| page.holds(&source) == *content)
    }

    /// The page was read, and held this.
    pub(crate) fn found(&mut self, page: u64, content: &Content) {
        let source = self.pattern.source(page);
        let pages = &mut self.pages[index(page)];
        pages.retain(|page| page.holds(&source) == *content);
        *pages = pages.iter().map(|page| page.after(Act::Touch)).collect();
    }

    /// What the page holds, if that is certain and can be told a guest.
    pub(crate) fn certain(&self, page: u64) -> Option<Expect> {
        let mut pages = self.pages[index(page)].iter();
        let first = pages.next().filter(|page| page.patch.is_none())?;
        let alike = pages.all(|page| page.patch.is_none() && page.base == first.base);
        alike.then_some(match first.base {
            Base::Source => Expect::Source,
            Base::Zeros => Expect::Zeros,
            Base::Stamp(stamp) => Expect::Stamp(stamp),
        })
    }

    /// What an export may say of the page.
    pub(crate) fn legal(&self, page: u64) -> BTreeSet<Seen> {
        let number = page;
        let exact = self.modes.tracking;
        let zero_source = self.pattern.is_zero(number);
        let mut legal = BTreeSet::new();
        let mut add = |state, dirty, empty| {
            legal.insert(Seen { state, dirty, empty });
        };
        for page in &self.pages[index(number)] {
            let zero = page.base == Base::Zeros || zero_source;
            let installed = |add: &mut dyn FnMut(PublicState, bool, bool)| {
                add(PublicState::Faulted, !exact, exact && zero);
            };
            match page.presence {
                Presence::Removed => {
                    add(PublicState::Removed, false, true);
                    if self.modes.fault_around {
                        // Filled with zeros together with a page that was given back as well.
                        installed(&mut add);
                    }
                }
                Presence::Dirty => add(PublicState::Faulted, true, false),
                Presence::Clean => installed(&mut add),
                Presence::Unfaulted => {
                    add(PublicState::Unfaulted, false, false);
                    if self.modes.fault_around {
                        installed(&mut add);
                    }
                }
            }
        }
        legal
    }
}

/// Adds every state that can come out of `page` when the threads' acts mix in any order.
fn orders(page: Page, threads: &[&[Act]], after: &mut BTreeSet<Page>) {
    if threads.iter().all(|acts| acts.is_empty()) {
        after.insert(page);
        return;
    }
    for (number, acts) in threads.iter().enumerate() {
        if let [first, rest @ ..] = acts {
            let mut left = threads.to_vec();
            left[number] = rest;
            orders(page.after(*first), &left, after);
        }
    }
}

fn index(page: u64) -> usize {
    usize::try_from(page).expect("few pages")
}
