//! An export of a large guest: right to the page, and nothing that a fault has to wait for.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::time::Instant;

use crossbeam_channel::bounded;
use roaring::RoaringBitmap;
use uffd_core::session::{DirtyTracking, FaultAround, Reply};
use uffd_core::states::PublicState;
use uffd_core::units::PageRange;
use uffd_guest::options::Place;
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::{Bench, Op};
use uffd_proof::{DEADLINE, SMALL, Served, Stage, StageBuilder, until, waiting_threads};

/// 3 GiB and, directly below, 29 GiB: as Firecracker lays out a guest of 32 GiB.
const REGIONS: [u64; 2] = [3 << 18, 29 << 18];
const PAGES: u64 = 32 << 18;

fn open(tracking: DirtyTracking) -> (Stage, Served) {
    // Zeros only: pages cost no memory, and the snapshot no disk.
    let pattern = Pattern::new(1, SMALL).with_lone_zeros(1000);
    let stage = StageBuilder::new(env!("CARGO_BIN_EXE_uffd-proof-guest"), pattern, &REGIONS);
    let stage = stage.session(|options| {
        options.dirty_tracking = tracking;
        options.fault_around = FaultAround::Off;
    });
    let stage = stage.open();
    let guest = stage.guest_with(|options| options.place = Place::Falling);
    (stage, guest)
}

/// Where pages alternate: at the start, on both sides of the border, and at the end.
fn alternating(pages: u64) -> Vec<PageRange> {
    let border = REGIONS[0];
    let starts = [0, border - pages / 2, PAGES - pages];
    starts.into_iter().map(|start| PageRange::new(start, start + pages)).collect()
}

fn number(page: u64) -> u32 {
    u32::try_from(page).unwrap()
}

/// Every second page of the ranges.
fn seconds(ranges: &[PageRange]) -> impl Iterator<Item = u64> + '_ {
    ranges.iter().flat_map(|range| (range.start.0..range.end.0).step_by(2))
}

#[test]
fn an_export_of_32_gibibytes_is_right_to_the_page() {
    for tracking in [DirtyTracking::Off, DirtyTracking::On] {
        let (_stage, guest) = open(tracking);
        let ranges = alternating(1 << 12);
        let installed = seconds(&ranges).map(|page| PageRange::new(page, page + 1)).collect();
        let report = guest.session.prefault(installed).unwrap();
        assert_eq!(report.installed, 3 << 11);
        // Of each range, some are given back and some are written.
        let (mut removed, mut written) = (RoaringBitmap::new(), RoaringBitmap::new());
        let mut steps = Vec::new();
        for range in &ranges {
            for page in (range.start.0..range.start.0 + 512).step_by(2) {
                steps.push(Op::Madvise { page, count: 1 });
                removed.insert(number(page));
            }
            for page in (range.end.0 - 512..range.end.0).step_by(2) {
                steps.push(Op::Write { page, count: 1, stamp: 7, at: Some(0) });
                written.insert(number(page));
            }
        }
        assert_eq!(guest.thread(0).program(steps).unwrap().refused, 0);

        let export = guest.session.export().unwrap();
        let touched: RoaringBitmap = seconds(&ranges).map(number).collect();
        let faulted = &touched - &removed;
        let states = export.regions.iter().flat_map(|region| {
            let pages = region.region.pages.start.0..;
            pages.zip(region.states.iter().copied())
        });
        let (mut of_faulted, mut of_removed, mut count) =
            (RoaringBitmap::new(), RoaringBitmap::new(), 0);
        for (page, state) in states {
            count += 1;
            match state {
                PublicState::Faulted => drop(of_faulted.insert(number(page))),
                PublicState::Removed => drop(of_removed.insert(number(page))),
                PublicState::Unfaulted => {}
                PublicState::Poisoned => panic!("page {page} is poisoned"),
            }
        }
        assert_eq!(count, PAGES);
        assert!(of_faulted == faulted && of_removed == removed);
        let on = tracking == DirtyTracking::On;
        assert_eq!(export.exact, on);
        if on {
            assert!(export.dirty == written);
            assert!(export.empty == &touched - &written);
        } else {
            assert!(export.dirty == faulted);
            assert!(export.empty == removed);
        }
        assert_eq!(export.counts.removed, removed.len());
        assert_eq!(export.counts.unfaulted, PAGES - touched.len());
    }
}

/// How many pages the guest touches while an export is built: between the moment at which the
/// loop is about to hear of it, with the guest waiting, and that at which it is answered.
fn touches_during_an_export(guest: &Served) -> u64 {
    let at = || guest.whereabouts().unwrap().iter().map(|thread| thread.page).max().unwrap();
    let held = guest.hold();
    until("the guest to wait", || waiting_threads(guest.pid()) == 1);
    let before = at();
    let ((answered, is_answered), (go, gone)) = (bounded(1), bounded::<()>(0));
    // Answered on the loop, this holds it; and on another thread it holds nobody.
    guest.session.export_with(Reply::new(move |export| {
        let _ = answered.send(export.is_ok());
        let _ = gone.recv();
    }));
    drop(held);
    assert_eq!(is_answered.recv_timeout(DEADLINE), Ok(true));
    let touches = at() - before;
    drop(go);
    touches
}

/// The fault that the guest waits with when the export is asked for is served before it, and the
/// thread may be quick to have its next one served as well.
const ANYWAY: u64 = 4;

#[test]
fn faults_are_served_while_an_export_is_built() {
    let (_stage, guest) = open(DirtyTracking::Off);
    let ranges = alternating(1 << 19);
    let installed = seconds(&ranges).map(|page| PageRange::new(page, page + 1)).collect();
    assert_eq!(guest.session.prefault(installed).unwrap().installed, 3 << 18);
    // A guest that touches page after page, all in one region, until it is killed.
    let bench = Bench { page: 1 << 20, count: Some(1 << 22), ..Bench::default() };
    let touching = guest.thread(0).start_bench(bench);
    until("it to begin", || !guest.whereabouts().unwrap().is_empty());
    let start = Instant::now();
    let mut most = 0;
    while start.elapsed() < DEADLINE && most <= ANYWAY {
        most = most.max(touches_during_an_export(&guest));
    }
    assert!(!touching.is_done());
    assert!(most > ANYWAY, "{most} touches at most while an export is built");
}
