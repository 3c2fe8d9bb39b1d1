//! The soak, in short: at least a million accesses with a hundred thousand REMOVEs, and some of
//! both on huge pages. `cargo soak --help` says how to have more.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::time::Duration;

use uffd_proof::soak::{Adversity, Soak, Soaked};
use uffd_proof::{Cast, HUGE, SMALL};

fn soak(page_size: u64, tracking: bool, accesses: u64, removes: u64) -> Soaked {
    let soak = Soak {
        cast: Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role")),
        time: Duration::ZERO,
        accesses,
        removes,
        threads: 4,
        page_size,
        pages: if page_size == HUGE { 12 } else { 1024 },
        tracking,
        prefault: true,
        fault_around: true,
        adversity: Adversity::default(),
        seed: 20_261_121,
    };
    let soaked = soak.run().unwrap();
    println!("{soaked}");
    assert!(soaked.is_right(), "{soaked}");
    assert!(soaked.accesses() >= accesses && soaked.guest.madvises >= removes);
    soaked
}

#[test]
fn half_a_million_accesses_without_tracking() {
    soak(SMALL, false, 500_000, 50_000);
}

#[test]
fn half_a_million_accesses_with_tracking() {
    let soaked = soak(SMALL, true, 500_000, 50_000);
    assert!(soaked.counted(|counters| counters.protect_faults) > 1000);
}

#[test]
fn huge_pages_without_and_with_tracking() {
    for tracking in [false, true] {
        soak(HUGE, tracking, 2_000, 200);
    }
}
