use std::collections::HashSet;

use super::super::{Merge, WrongSnapshot};
use super::*;

fn merged(how: Merge, runs: &[Vec<u64>]) -> Vec<u64> {
    let runs: Vec<Trace> = runs.iter().map(|run| reads(run.iter().copied())).collect();
    pages(&runs[0].merge(how, &runs[1..]).unwrap())
}

fn any_run() -> impl Strategy<Value = Vec<u64>> {
    Just((0..30).collect::<Vec<u64>>())
        .prop_shuffle()
        .prop_flat_map(|all| (0..30_usize).prop_map(move |len| all[..len].to_vec()))
}

proptest! {
    #[test]
    fn runs_are_merged_as_sets_in_the_order_of_the_first(runs in vec(any_run(), 1..5)) {
        let sets: Vec<HashSet<u64>> = runs.iter().map(|r| r.iter().copied().collect()).collect();
        let union = merged(Merge::Union, &runs);
        let common = merged(Merge::Intersection, &runs);

        let all: HashSet<u64> = sets.iter().flatten().copied().collect();
        prop_assert_eq!(union.len(), all.len());
        prop_assert_eq!(union.iter().copied().collect::<HashSet<_>>(), all);
        let of_first: Vec<u64> =
            union.iter().copied().filter(|page| sets[0].contains(page)).collect();
        prop_assert_eq!(&of_first, &runs[0]);

        let in_all = |page: &u64| sets.iter().all(|set| set.contains(page));
        let expected: Vec<u64> = runs[0].iter().copied().filter(in_all).collect();
        prop_assert_eq!(common, expected);
    }
}

#[test]
fn a_page_of_another_run_goes_after_the_one_it_followed_there() {
    let union = |a: &[u64], b: &[u64]| merged(Merge::Union, &[a.to_vec(), b.to_vec()]);
    assert_eq!(union(&[1, 2, 3], &[1, 10, 11, 3, 12]), [1, 10, 11, 2, 3, 12]);
    assert_eq!(union(&[1, 2], &[8, 9, 2]), [8, 9, 1, 2]);
    assert_eq!(union(&[], &[4, 3]), [4, 3]);
    // Two clusters in the other order stay clusters.
    assert_eq!(union(&[1, 2, 50, 51], &[50, 51, 52, 1, 2, 3]), [1, 2, 3, 50, 51, 52]);
}

#[test]
fn a_union_takes_the_most_and_an_intersection_the_least_of_each_page() {
    use FilledWith::{Present, Source, Zeros};
    let of = |entries| Trace::new(snapshot(100), entries).unwrap();
    let one = of(vec![touch(1, true, Zeros, 10), touch(2, false, Source, 20)]);
    let two = of(vec![touch(2, true, Present, 30), touch(1, false, Source, 40)]);
    let union = one.merge(Merge::Union, std::slice::from_ref(&two)).unwrap();
    assert_eq!(union.entries(), [touch(1, true, Source, 10), touch(2, true, Source, 20)]);
    let common = one.merge(Merge::Intersection, &[two]).unwrap();
    assert_eq!(common.entries(), [touch(1, false, Zeros, 10), touch(2, false, Present, 20)]);
}

#[test]
fn runs_of_different_snapshots_are_not_merged() {
    let one = reads([1]);
    let two = Trace::new(snapshot(50), Vec::new()).unwrap();
    let error = one.merge(Merge::Union, std::slice::from_ref(&two)).unwrap_err();
    assert_eq!(error, WrongSnapshot { recorded: two.snapshot(), given: one.snapshot() });
}

#[test]
fn a_trace_is_for_its_snapshot_alone_and_says_what_differs() {
    let trace = reads([1]);
    let right = trace.snapshot();
    assert_eq!(trace.check(&right), Ok(()));
    let fingerprint = Fingerprint([0; 16]);
    let (length, contents) = (right.length.to_string(), right.fingerprint.to_string());
    for (wrong, differ) in [
        (SnapshotId { length: 4097, ..right }, [length.as_str(), "4097"]),
        (right.with_page_size(PageSize::Huge), ["4 KiB", "2 MiB"]),
        (SnapshotId { fingerprint, ..right }, [contents.as_str(), &fingerprint.to_string()]),
    ] {
        let error = trace.check(&wrong).unwrap_err();
        assert_eq!(error.code(), "ERR_UFFD_TRACE_WRONG_SNAPSHOT");
        let text = error.to_string();
        for part in differ {
            assert!(text.contains(part), "{text} lacks {part}");
        }
    }
}
