use super::super::TraceStats;
use super::*;
use crate::units::PageRange;

fn ranges(pages: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    let range = |range: PageRange| (range.start.0, range.end.0);
    reads(pages).ranges().into_iter().map(range).collect()
}

#[test]
fn neighbours_are_prefaulted_at_once() {
    assert_eq!(ranges([]), []);
    assert_eq!(ranges(100..500), [(100, 500)]);
    assert_eq!(ranges([9, 8, 7, 1]), [(1, 2), (7, 10)]);
    // Two vCPUs, each reading on.
    assert_eq!(ranges((0..32).flat_map(|n| [n, 1000 + n])), [(0, 32), (1000, 1032)]);
}

#[test]
fn pages_are_moved_no_further_than_a_batch() {
    assert_eq!(ranges((0..64).map(|n| 2 * (100 - n)).chain([1])).last(), Some(&(1, 2)));
    // A run that goes on in the next batch is still one.
    assert_eq!(ranges((0..63).map(|n| 2 * n).chain(500..600)).last(), Some(&(500, 600)));
}

/// The pages of `ranges`, and how many of them are not in `wanted`.
fn covered(ranges: &[PageRange], wanted: &[u64]) -> (bool, usize) {
    let found: std::collections::BTreeSet<u64> =
        ranges.iter().flat_map(|range| range.pages()).map(|page| page.0).collect();
    let all = wanted.iter().all(|page| found.contains(page));
    (all, found.len() - wanted.iter().filter(|page| found.contains(page)).count())
}

#[test]
fn what_was_filled_around_the_faults_of_a_walk_is_found_again() {
    // The faults of a guest that reads 1000 pages in order, served with fault-around.
    let faults = [0, 1, 2, 4, 8, 16, 32].into_iter().chain((64..1024).step_by(64));
    let trace = reads(faults);
    let all: Vec<u64> = (0..1000).collect();
    assert_eq!(covered(&trace.ranges_with_neighbours(), &all), (true, 24));
}

#[test]
fn a_trace_recorded_page_by_page_has_no_neighbours() {
    let trace = reads((0..1000).chain(3000..3100));
    assert_eq!(trace.ranges_with_neighbours(), trace.ranges());
}

#[test]
fn writes_to_pages_that_were_filled_ahead_do_not_make_it_page_by_page() {
    let faults = [0, 1, 2, 4, 8, 16, 32].map(|page| touch(page, false, FilledWith::Source, 0));
    let writes = (33..64).map(|page| touch(page, true, FilledWith::Present, 0));
    let trace = Trace::new(snapshot(64), faults.into_iter().chain(writes).collect()).unwrap();
    assert_eq!(trace.ranges_with_neighbours(), [PageRange::new(0, 64)]);
}

#[test]
fn lone_pages_stay_alone() {
    let trace = reads((0..100).map(|n| n * 100));
    assert_eq!(trace.ranges_with_neighbours(), trace.ranges());
}

#[test]
fn huge_pages_keep_their_order() {
    let id = snapshot(100 * 512).with_page_size(PageSize::Huge);
    let entries = [5, 6, 4, 9].map(|page| read(page, 0)).to_vec();
    let ranges = Trace::new(id, entries).unwrap().ranges();
    assert_eq!(ranges, [PageRange::new(5, 7), PageRange::new(4, 5), PageRange::new(9, 10)]);
}

#[test]
fn huge_pages_that_were_installed_ahead_of_a_walk_are_found_again() {
    let ranges = |pages: &[u64]| {
        let id = snapshot(100 * 512).with_page_size(PageSize::Huge);
        let entries = pages.iter().map(|page| read(*page, 0)).collect();
        Trace::new(id, entries).unwrap().ranges_with_neighbours()
    };
    let walked = [PageRange::new(0, 11), PageRange::new(20, 21)];
    assert_eq!(ranges(&[0, 1, 2, 5, 8, 20]), walked);
    // Recorded page by page, where nothing was installed ahead.
    assert_eq!(ranges(&[0, 1, 2, 3, 4, 5]), [PageRange::new(0, 6)]);
}

#[test]
fn pages_that_were_given_back_are_not_prefaulted() {
    let entries = FILLS.into_iter().zip(0..).map(|(filled, page)| touch(page, false, filled, 0));
    let trace = Trace::new(snapshot(4), entries.collect()).unwrap();
    assert_eq!(trace.ranges(), [PageRange::new(0, 2), PageRange::new(3, 4)]);
}

proptest! {
    #[test]
    fn every_page_that_is_of_use_is_prefaulted_once(trace in any_trace(200)) {
        let mut wanted: Vec<u64> = trace.entries().iter()
            .filter(|entry| entry.filled_with() != FilledWith::Zeros)
            .map(|entry| entry.page().0).collect();
        let mut found: Vec<u64> =
            trace.ranges().into_iter().flat_map(PageRange::pages).map(|page| page.0).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(&found, &wanted);
        prop_assert_eq!(trace.stats().replayed, wanted.len() as u64);
        let with_neighbours = trace.ranges_with_neighbours();
        prop_assert!(covered(&with_neighbours, &wanted).0);
        let pages = PageRange::new(0, trace.snapshot().page_count());
        let inside = with_neighbours.iter().all(|range| range.intersect(pages) == *range);
        prop_assert!(inside);
    }
}

#[test]
fn a_trace_says_what_it_amounts_to() {
    let entries = vec![
        touch(1, true, FilledWith::Source, 500),
        touch(2, false, FilledWith::Zeros, 100),
        touch(3, false, FilledWith::Present, 2_100),
    ];
    let stats = Trace::new(snapshot(4), entries).unwrap().stats();
    let span = Duration::from_micros(2000);
    assert_eq!(stats, TraceStats { pages: 3, bytes: 12_288, writes: 1, replayed: 2, span });
    assert_eq!(reads([]).stats(), TraceStats::default());
}
