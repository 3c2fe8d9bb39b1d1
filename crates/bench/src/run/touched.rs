//! How much memory a benchmark touches.

use std::collections::HashSet;

use uffd_guest::protocol::{Bench, Order};

use crate::plan::Snapshot;

/// Different pages, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Touched {
    pub(super) bytes: u64,
    /// Of them, those which are not zero in the snapshot.
    pub(super) data_bytes: u64,
}

impl Touched {
    pub(super) fn by(bench: &Bench, snapshot: Snapshot) -> Self {
        let pattern = snapshot.pattern();
        let count = |pages: &mut dyn Iterator<Item = u64>| {
            let (mut all, mut data) = (0, 0);
            for page in pages {
                all += 1;
                data += u64::from(!pattern.is_zero(page));
            }
            Self { bytes: all * snapshot.page_size, data_bytes: data * snapshot.page_size }
        };
        match &bench.order {
            // The other orders have each page once.
            Order::List(pages) => {
                let pages: HashSet<u64> = pages.iter().map(|page| bench.page + page).collect();
                count(&mut pages.into_iter())
            }
            _ => {
                let end = bench.count.map_or(snapshot.pages, |count| bench.page + count);
                count(&mut (bench.page..end))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_count_once_and_zeros_are_told_apart() {
        let snapshot = Snapshot { zero_per_mille: 1000, ..Snapshot::small(8) };
        let bench = Bench { order: Order::List(vec![1, 1, 2]), ..Bench::default() };
        let touched = Touched::by(&bench, snapshot);
        assert_eq!(touched, Touched { bytes: 2 * 4096, data_bytes: 0 });
        let bench = Bench { page: 2, count: Some(4), ..Bench::default() };
        assert_eq!(Touched::by(&bench, Snapshot::small(8)).data_bytes, 4 * 4096);
    }
}
