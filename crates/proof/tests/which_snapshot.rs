//! A guest is served on from the very snapshot it was restored from, or from one that is proved to hold
//! the same: whatever else looks like it could put other bytes into its memory.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use uffd_core::trace::SnapshotId;
use uffd_core::units::PageSize;
use uffd_guest::driver::Guest;
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Expect;
use uffd_proof::{Cast, Keeping, SMALL, until};

const GUEST: &str = env!("CARGO_BIN_EXE_uffd-proof-guest");
const ROLE: &str = env!("CARGO_BIN_EXE_uffd-proof-role");

/// More than are sampled.
const PAGES: u64 = 4096;

fn keeping() -> Keeping {
    let pattern = Pattern::new(83, SMALL).with_zero_runs(50).with_lone_zeros(50);
    Keeping::new(Cast::new(ROLE), GUEST, pattern, &[PAGES], Some(true))
}

/// A guest whose keeper was killed when little of it was installed.
fn left(keeping: &Keeping) -> Guest {
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    guest.thread(0).touch(7, 1).unwrap();
    keeper.kill();
    guest
}

fn copy(keeping: &Keeping) -> PathBuf {
    let copy = keeping.dir().join("copy");
    fs::copy(keeping.snapshot(), &copy).unwrap();
    copy
}

/// Changes a page of a snapshot in such a way that it looks the same.
fn change(snapshot: &Path) {
    let look = || SnapshotId::of_path(snapshot, PageSize::Small).unwrap();
    let (before, file) = (look(), fs::OpenOptions::new().write(true).open(snapshot).unwrap());
    let page = (100..PAGES).find(|page| {
        let mut bytes = [0; 4096];
        fs::File::open(snapshot).unwrap().read_exact_at(&mut bytes, page << 12).unwrap();
        file.write_all_at(&bytes.map(|byte| !byte), page << 12).unwrap();
        let looks_the_same = look() == before;
        if !looks_the_same {
            file.write_all_at(&bytes, page << 12).unwrap();
        }
        looks_the_same
    });
    assert!(page.is_some(), "a page that is not sampled");
}

fn is_refused(keeping: &Keeping, snapshot: &Path) {
    let keeper = keeping.keeper_of(snapshot);
    assert_eq!(
        (keeper.recovered(), keeper.left()),
        (0, &["left ERR_UFFD_RECOVERY_SNAPSHOT".into()][..])
    );
}

fn is_served_on(keeping: &Keeping, snapshot: &Path, guest: &Guest) {
    let keeper = keeping.keeper_of(snapshot);
    assert_eq!((keeper.recovered(), keeper.left()), (1, &[][..]));
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
}

/// That takes as long as to read the snapshot, and whoever is proved by its file alone waits for nobody.
#[test]
fn guests_of_the_very_file_are_served_before_a_copy_is_compared() {
    let keeping = keeping();
    let of_the_file = left(&keeping);
    let copy = copy(&keeping);
    // Of the other file, which holds the same.
    let mut keeper = keeping.keeper_of(&copy);
    assert_eq!(keeper.recovered(), 1);
    let of_the_copy = keeping.guest(&keeper, |_| {});
    keeper.kill();
    // Whichever ledger is found first.
    for (snapshot, served, other) in
        [(keeping.snapshot(), &of_the_file, &of_the_copy), (&copy, &of_the_copy, &of_the_file)]
    {
        let mut keeper = keeping.parked_keeper_of(snapshot, "comparing");
        // Which takes somebody who reads of it.
        served.thread(0).madvise(0, 1).unwrap();
        assert_eq!(served.thread(0).verify(1, PAGES - 1, &[Expect::Source]).unwrap().wrong, 0);
        assert!(!keeper.is_ready() && !keeper.has_ended());
        keeper.kill();
        is_served_on_by_all(&keeping, snapshot, &[served, other]);
    }
}

fn is_served_on_by_all(keeping: &Keeping, snapshot: &Path, guests: &[&Guest]) {
    let mut keeper = keeping.keeper_of(snapshot);
    assert_eq!(keeper.recovered(), guests.len() as u64, "{:?}", keeper.left());
    for guest in guests {
        guest.thread(0).madvise(0, 1).unwrap();
        assert_eq!(guest.thread(0).verify(1, PAGES - 1, &[Expect::Source]).unwrap().wrong, 0);
    }
    keeper.kill();
}

#[test]
fn a_snapshot_that_differs_in_what_is_not_sampled_is_another_one() {
    let keeping = keeping();
    let guest = left(&keeping);
    let other = copy(&keeping);
    change(&other);
    is_refused(&keeping, &other);
    is_served_on(&keeping, keeping.snapshot(), &guest);
}

#[test]
fn another_snapshot_in_the_place_of_the_first_is_not_taken_for_it() {
    let keeping = keeping();
    let guest = left(&keeping);
    let (moved, other) = (keeping.dir().join("moved"), copy(&keeping));
    change(&other);
    fs::rename(keeping.snapshot(), &moved).unwrap();
    fs::rename(&other, keeping.snapshot()).unwrap();
    is_refused(&keeping, keeping.snapshot());
    // It is the same whatever it is called.
    is_served_on(&keeping, &moved, &guest);
}

#[test]
fn a_snapshot_that_was_written_to_is_not_the_same_any_more() {
    let keeping = keeping();
    let _guest = left(&keeping);
    change(keeping.snapshot());
    is_refused(&keeping, keeping.snapshot());
}

#[test]
fn a_copy_is_the_same_for_as_long_as_it_can_be_compared() {
    let keeping = keeping();
    let guest = left(&keeping);
    let copy = copy(&keeping);
    let mut keeper = keeping.keeper_of(&copy);
    assert_eq!((keeper.recovered(), keeper.left()), (1, &[][..]));
    guest.thread(0).touch(9, 1).unwrap();
    keeper.kill();
    let away = keeping.dir().join("away");
    fs::rename(keeping.snapshot(), &away).unwrap();
    is_refused(&keeping, &copy);
    fs::hard_link(&away, keeping.snapshot()).unwrap();
    is_served_on(&keeping, &copy, &guest);
}

/// A guardian opens the snapshot by its name, which may be another one's by then.
#[test]
fn a_guardian_does_not_take_another_snapshot_for_the_guests() {
    let keeping = keeping().guarded();
    let mut keeper = keeping.keeper();
    let other = copy(&keeping);
    change(&other);
    let moved = keeping.dir().join("moved");
    fs::rename(keeping.snapshot(), &moved).unwrap();
    fs::rename(&other, keeping.snapshot()).unwrap();
    let guest = keeping.guest(&keeper, |_| {});
    until("the guardian's answer", || !keeper.guardian().unguarded.is_empty());
    let heard = keeper.guardian().unguarded;
    assert!(heard.values().all(|why| why.contains("another file by now")), "{heard:?}");
    keeper.kill();
    is_served_on(&keeping, &moved, &guest);
}
