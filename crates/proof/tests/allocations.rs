//! A warm fault allocates nothing: what is counted is every allocation of the process that serves,
//! over many faults. Some are due to whoever asks for the faults and is told of them, and to lists
//! that grow; a fault has none of its own.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use uffd_core::session::FaultAround;
use uffd_guest::protocol::Expect;
use uffd_proof::{Case, SMALL};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Faults that are counted.
const FAULTS: u64 = 4000;

/// Faults before, by which everything is set up.
const BEFORE: u64 = 64;

/// Far fewer than faults.
const MOST: usize = 200;

/// One test, since all allocations of the process are counted.
#[test]
fn a_warm_fault_allocates_nothing() {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    for tracking in [false, true] {
        for fault_around in [FaultAround::Off, FaultAround::Adaptive] {
            let case = Case { guest, page_size: SMALL, tracking };
            let setting = case.open_with(case.pattern(), &[BEFORE + FAULTS], |stage| {
                stage.session(|options| options.fault_around = fault_around)
            });
            let guest = setting.guest();
            let thread = guest.thread(0);
            thread.touch(0, BEFORE).unwrap();
            guest.session.settle().unwrap();
            let before = guest.stats().counters;
            let region = Region::new(COUNTED);
            thread.touch(BEFORE, FAULTS).unwrap();
            guest.session.settle().unwrap();
            let made = region.change();
            let faults = guest.stats().counters.faults() - before.faults();
            let made = made.allocations + made.reallocations;
            assert!(made <= MOST, "{made} allocations for {faults} faults");
            assert!(fault_around != FaultAround::Off || faults == FAULTS, "{faults}");
            assert_eq!(thread.verify(0, BEFORE + FAULTS, &[Expect::Source]).unwrap().wrong, 0);
        }
    }
}
