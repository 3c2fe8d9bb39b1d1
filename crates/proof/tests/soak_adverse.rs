//! The soak with everything in the way that it knows, in short. `cargo soak --modes all` has more.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::time::Duration;

use uffd_proof::soak::{Adversity, Soak};
use uffd_proof::{Cast, HUGE, SMALL};

fn soak(page_size: u64, adversity: Adversity) {
    for tracking in [false, true] {
        let huge = page_size == HUGE;
        let soak = Soak {
            cast: Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role")),
            time: Duration::ZERO,
            accesses: if huge { 500 } else { 50_000 },
            removes: if huge { 50 } else { 5_000 },
            threads: 4,
            page_size,
            pages: if huge { 8 } else { 512 },
            tracking,
            prefault: true,
            fault_around: true,
            adversity,
            seed: 20_261_124,
        };
        let soaked = soak.run().unwrap();
        assert!(soaked.is_right(), "dirty tracking {tracking}: {soaked}");
        assert!(soaked.accesses() >= soak.accesses && soaked.guest.madvises >= soak.removes);
    }
}

#[test]
fn small_pages_without_a_page_map_and_with_flags_that_change() {
    soak(SMALL, Adversity { no_page_map: true, drained_pool: false, played_flags: true });
}

#[test]
fn huge_pages_of_a_pool_that_others_drain() {
    soak(HUGE, Adversity { no_page_map: false, drained_pool: true, played_flags: false });
}

#[test]
fn huge_pages_of_a_pool_that_others_drain_without_a_page_map() {
    soak(HUGE, Adversity { no_page_map: true, drained_pool: true, played_flags: false });
}

#[test]
fn huge_pages_with_flags_that_change() {
    soak(HUGE, Adversity { no_page_map: false, drained_pool: false, played_flags: true });
}
