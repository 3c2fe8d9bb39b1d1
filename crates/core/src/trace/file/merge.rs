//! One trace out of several runs of the same snapshot.

use rustc_hash::FxHashMap;

use super::super::{FilledWith, TraceEntry, WrongSnapshot};
use super::{Trace, this_program};
use crate::units::PageIndex;

/// Which pages of several runs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Those that any run touched. An entry is a write if any run's was.
    Union,
    /// Those that every run touched. An entry is a write if every run's was.
    Intersection,
}

impl Trace {
    /// Merges this run with others of the same snapshot.
    ///
    /// The order and the times are those of this run. In a union, a page that only another run
    /// touched goes right after the page it followed there, with the time it had there: so what
    /// is read together stays together, which an average of the runs' orders would shuffle.
    pub fn merge(&self, how: Merge, others: &[Self]) -> Result<Self, WrongSnapshot> {
        for other in others {
            other.check(&self.snapshot)?;
        }
        let entries = match how {
            Merge::Union => union(&self.entries, others),
            Merge::Intersection => intersection(&self.entries, others),
        };
        Ok(Self { snapshot: self.snapshot, created_by: this_program(), entries })
    }
}

/// An entry in a list that others are put into.
struct Link {
    entry: TraceEntry,
    next: Option<usize>,
}

fn union(first: &[TraceEntry], others: &[Trace]) -> Vec<TraceEntry> {
    let mut links: Vec<Link> = Vec::with_capacity(first.len());
    let mut known: FxHashMap<PageIndex, usize> = FxHashMap::default();
    let mut head = None;
    for run in std::iter::once(first).chain(others.iter().map(Trace::entries)) {
        let mut before: Option<usize> = None;
        for entry in run {
            let at = known.get(&entry.page()).copied().unwrap_or_else(|| {
                let at = links.len();
                known.insert(entry.page(), at);
                let after = before.map_or(&mut head, |before: usize| &mut links[before].next);
                let next = after.replace(at);
                links.push(Link { entry: *entry, next });
                at
            });
            let link = &mut links[at];
            link.entry = with(link.entry, link.entry.is_write() || entry.is_write(), {
                most_useful(link.entry.filled_with(), entry.filled_with())
            });
            before = Some(at);
        }
    }
    std::iter::successors(head, |at| links[*at].next).map(|at| links[at].entry).collect()
}

fn intersection(first: &[TraceEntry], others: &[Trace]) -> Vec<TraceEntry> {
    let mut entries = first.to_vec();
    for other in others {
        let touched: FxHashMap<PageIndex, TraceEntry> =
            other.entries.iter().map(|entry| (entry.page(), *entry)).collect();
        entries.retain_mut(|entry| {
            let Some(other) = touched.get(&entry.page()) else { return false };
            let filled = least_useful(entry.filled_with(), other.filled_with());
            *entry = with(*entry, entry.is_write() && other.is_write(), filled);
            true
        });
    }
    entries
}

fn with(entry: TraceEntry, write: bool, filled: FilledWith) -> TraceEntry {
    TraceEntry::new(entry.page(), write, filled, entry.time())
}

/// How much a page is worth to the next run, by what this run needed of it.
const fn use_of(filled: FilledWith) -> u8 {
    match filled {
        FilledWith::Source => 3,
        FilledWith::SourceZeros => 2,
        FilledWith::Present => 1,
        FilledWith::Zeros => 0,
    }
}

fn most_useful(one: FilledWith, other: FilledWith) -> FilledWith {
    std::cmp::max_by_key(other, one, |filled| use_of(*filled))
}

fn least_useful(one: FilledWith, other: FilledWith) -> FilledWith {
    std::cmp::min_by_key(one, other, |filled| use_of(*filled))
}
