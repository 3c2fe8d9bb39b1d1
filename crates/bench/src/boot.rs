//! The boot-like order: what a guest touches that is restored and goes on with its work.
//!
//! A quarter of memory is its working set. It lies in clusters of 128 to 1024 pages (the kernel's
//! text, the cached pages of a program, a heap), each made of runs of 1 to 32 pages with gaps of
//! 0 to 8 pages between them. Three clusters are under way at any time; the next run comes from
//! one of them, mostly the next in rising order and one time in eight the last that is left.
//! After every other run up to 32 of the pages touched before are touched again. One touch in a
//! hundred goes to a page anywhere in memory.
//!
//! Two seeds: that of the `snapshot` places clusters and runs, that of the `run` decides what
//! differs from one restore to the next: in which order the runs come, what is touched again, and
//! where the scattered touches go.

/// Pages of a cluster, at least and at most.
const CLUSTER: (u64, u64) = (128, 1024);
/// Pages of a run.
const RUN: (u64, u64) = (1, 32);
/// Pages between two runs of a cluster.
const GAP: (u64, u64) = (0, 8);
/// Clusters under way at once.
const AT_ONCE: usize = 3;
/// Pages touched again, at most.
const AGAIN: u64 = 32;
/// Of so many touches one goes anywhere.
const SCATTER: u64 = 100;

/// Pages below `pages` in a boot-like order, some of them more than once.
pub(crate) fn order(pages: u64, snapshot: u64, run: u64) -> Vec<u64> {
    let mut random = Random::new(run);
    let mut waiting = clusters(pages, &mut Random::new(snapshot));
    let mut open = Vec::new();
    let mut order: Vec<u64> = Vec::new();
    loop {
        while open.len() < AT_ONCE && !waiting.is_empty() {
            open.push(waiting.remove(0));
        }
        if open.is_empty() {
            return order;
        }
        let cluster = random.index(open.len());
        let runs = &mut open[cluster];
        let next = if random.below(8) == 0 { runs.len() - 1 } else { 0 };
        let pages_of_run = runs.remove(next);
        if runs.is_empty() {
            open.remove(cluster);
        }
        for page in pages_of_run {
            if random.below(SCATTER) == 0 {
                order.push(random.below(pages));
            }
            order.push(page);
        }
        if random.below(2) == 0 {
            let first = random.index(order.len());
            let count = usize::try_from(random.below(AGAIN)).unwrap_or(0);
            let end = (first + count).min(order.len());
            order.extend_from_within(first..end);
        }
    }
}

/// The runs of each cluster, the clusters in no order.
fn clusters(pages: u64, random: &mut Random) -> Vec<Vec<std::ops::Range<u64>>> {
    let mut clusters = Vec::new();
    let mut wanted = pages / 4;
    let mut taken = vec![false; usize::try_from(pages / CLUSTER.1).unwrap_or(0) + 1];
    while wanted > 0 && !taken.iter().all(|taken| *taken) {
        // One cluster at most in each stretch, so that they do not overlap.
        let stretch = random.index(taken.len());
        if std::mem::replace(&mut taken[stretch], true) {
            continue;
        }
        let start = stretch as u64 * CLUSTER.1;
        let end = pages.min(start + random.between(CLUSTER));
        let mut runs = Vec::new();
        let mut page = start;
        while page < end && wanted > 0 {
            let run = page..end.min(page + random.between(RUN));
            wanted = wanted.saturating_sub(run.end - run.start);
            page = run.end + random.between(GAP);
            runs.push(run);
        }
        if !runs.is_empty() {
            clusters.push(runs);
        }
    }
    clusters
}

/// The first `count` of all pages below `pages`, shuffled.
pub(crate) fn shuffled(pages: u64, count: u64, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let mut all: Vec<u64> = (0..pages).collect();
    let count = usize::try_from(count).map_or(all.len(), |count| count.min(all.len()));
    for at in 0..count {
        let other = at + random.index(all.len() - at);
        all.swap(at, other);
    }
    all.truncate(count);
    all
}

/// SplitMix64: numbers that look random and are the same for the same seed.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    const fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.below(most - least + 1)
    }

    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn working_set(run: u64) -> HashSet<u64> {
        order(1 << 15, 1, run).into_iter().collect()
    }

    #[test]
    fn the_working_set_is_about_a_quarter_and_mostly_the_same() {
        let (one, other) = (working_set(1), working_set(2));
        assert!((1 << 13..9 << 10).contains(&one.len()), "{}", one.len());
        let common = one.intersection(&other).count();
        assert!(common * 100 > one.len() * 97, "{common} of {}", one.len());
        assert!(common < one.len());
    }

    #[test]
    fn some_pages_are_touched_again() {
        let order = order(1 << 15, 1, 1);
        let different = order.iter().collect::<HashSet<_>>().len();
        assert!(order.len() > different * 11 / 10, "{} of {different}", order.len());
        assert!(order.iter().all(|page| *page < 1 << 15));
    }

    #[test]
    fn a_seed_is_an_order() {
        assert_eq!(order(1 << 12, 1, 5), order(1 << 12, 1, 5));
        assert_ne!(order(1 << 12, 1, 5), order(1 << 12, 1, 6));
        assert_eq!(shuffled(100, 10, 3), shuffled(100, 100, 3)[..10]);
    }
}
