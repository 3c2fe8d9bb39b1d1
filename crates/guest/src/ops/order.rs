//! In which order a benchmark touches pages.

use std::fs;

use crate::protocol::{Order, Refusal};
use crate::random::Random;

/// The longest run of consecutive pages while booting.
const BOOT_RUN: u64 = 32;

/// Pages below `count`, in the order asked for.
pub(super) fn pages(order: &Order, seed: u64, count: u64) -> Result<Vec<u64>, Refusal> {
    let mut random = Random::new(seed, 0);
    let pages = match order {
        Order::Sequential => (0..count).collect(),
        Order::Random => shuffled((0..count).collect(), &mut random),
        Order::Strided(stride) => {
            let stride = (*stride).max(1);
            let step = usize::try_from(stride).unwrap_or(usize::MAX);
            (0..stride.min(count)).flat_map(|first| (first..count).step_by(step)).collect()
        }
        Order::Boot => {
            let mut runs = Vec::new();
            let mut page = 0;
            while page < count {
                let end = count.min(page + 1 + random.below(BOOT_RUN));
                runs.push(page..end);
                page = end;
            }
            shuffled(runs, &mut random).into_iter().flatten().collect()
        }
        Order::List(pages) => pages.clone(),
        Order::File(path) => fs::read_to_string(path)?
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                line.trim().parse().map_err(|_| Refusal::new(format!("{line:?} is no page")))
            })
            .collect::<Result<_, _>>()?,
    };
    match pages.iter().find(|&&page| page >= count) {
        Some(page) => Err(Refusal::new(format!("page {page} of {count} is touched"))),
        None => Ok(pages),
    }
}

/// Fisher and Yates's shuffle.
fn shuffled<T>(mut items: Vec<T>, random: &mut Random) -> Vec<T> {
    for i in (1..items.len()).rev() {
        let j = usize::try_from(random.below(i as u64 + 1)).unwrap_or(0);
        items.swap(i, j);
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_touches_each_page_once() {
        for order in [Order::Sequential, Order::Random, Order::Strided(7), Order::Boot] {
            let pages = pages(&order, 3, 1000).unwrap();
            let mut sorted = pages.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
            assert_eq!(pages == sorted, order == Order::Sequential);
        }
    }

    #[test]
    fn a_seed_is_an_order() {
        let of = |seed| pages(&Order::Random, seed, 100).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn booting_has_long_runs_and_long_jumps() {
        let pages = pages(&Order::Boot, 1, 10_000).unwrap();
        let jumps = pages.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!((300..1200).contains(&jumps), "{jumps}");
    }

    #[test]
    fn pages_the_guest_lacks_are_refused() {
        assert!(pages(&Order::List(vec![0, 9]), 0, 9).is_err());
    }
}
