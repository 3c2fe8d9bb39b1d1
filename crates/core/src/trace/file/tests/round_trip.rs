use super::*;

proptest! {
    #[test]
    fn the_binary_format_keeps_every_trace(
        trace in prop_oneof![any_trace(50), any_trace(1 << 20), any_trace(1 << 32)]
    ) {
        prop_assert_eq!(Trace::from_bytes(&trace.to_bytes()), Ok(trace));
    }

    #[test]
    fn the_view_for_people_keeps_every_trace(
        trace in prop_oneof![any_trace(50), any_trace(1 << 32)]
    ) {
        prop_assert_eq!(Trace::from_json(&trace.to_json()), Ok(trace));
    }
}

#[test]
fn times_are_kept_to_the_microsecond() {
    let entry = TraceEntry::new(PageIndex(1), true, FilledWith::Zeros, Duration::from_nanos(5999));
    let trace = Trace::new(snapshot(2), vec![entry]).unwrap();
    assert_eq!(trace.entries(), [touch(1, true, FilledWith::Zeros, 5)]);
}

#[test]
fn a_page_of_no_snapshot_and_a_page_met_twice_are_no_trace() {
    let refuse = |pages: &[u64]| {
        let entries = pages.iter().map(|page| read(*page, 0)).collect();
        Trace::new(snapshot(4), entries).unwrap_err().to_string()
    };
    assert_eq!(
        refuse(&[0, 4]),
        "entry 1: the snapshot has no page 4, only 4 pages: is this the snapshot the entries were \
         recorded on?"
    );
    assert_eq!(
        refuse(&[2, 3, 2]),
        "entry 2: page 2 is in the trace already: keep the first of its entries"
    );
}

/// Runs of pages all over 4 GiB, some pages on their own, and two threads at it: about what a
/// guest does after a restore.
fn typical() -> Trace {
    let mut state = 7_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    let (mut entries, mut seen, mut time) = (Vec::new(), std::collections::HashSet::new(), 0);
    let mut threads = [(0, 0); 2];
    while entries.len() < 20_000 {
        let thread = usize::try_from(random(2)).unwrap();
        let (at, left) = &mut threads[thread];
        if *left == 0 {
            (*at, *left) = (random(1 << 20), if random(4) == 0 { 1 } else { 1 + random(60) });
        }
        (*at, *left) = (*at + 1, *left - 1);
        time += 5 + random(50);
        if *at < 1 << 20 && seen.insert(*at) {
            let filled = if random(10) == 0 { FilledWith::SourceZeros } else { FilledWith::Source };
            entries.push(touch(*at, random(5) == 0, filled, time));
        }
    }
    Trace::new(snapshot(1 << 20), entries).unwrap()
}

#[test]
fn an_entry_takes_few_bytes() {
    let one_thread = reads((0..200).flat_map(|run| (0..40).map(move |page| run * 5000 + page)));
    let per_entry = |trace: &Trace| trace.to_bytes().len() as f64 / trace.entries().len() as f64;
    let (single, double) = (per_entry(&one_thread), per_entry(&typical()));
    assert!(single < 2.1, "{single}");
    assert!(double < 4.0, "{double}");
}
