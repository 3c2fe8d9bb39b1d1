//! Whoever serves is killed, again and again, and the guest does not notice: no wrong byte, no page
//! that was written and is not called dirty, nobody who waits for ever.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uffd_core::recovery::{Known, Left, Obstruction, Prospect, Spares};
use uffd_core::session::{End, NoObserver, Owner, Session};
use uffd_core::source::{Fetcher, FileSource};
use uffd_guest::driver::Guest;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::Expect;
use uffd_proof::killing::Killing;
use uffd_proof::{Cast, HUGE, HugePages, Keeper, Keeping, KeptMode, SMALL, Tracks};

const GUEST: &str = env!("CARGO_BIN_EXE_uffd-proof-guest");

const OFF: KeptMode = KeptMode { page_size: SMALL, tracks: Tracks::Nobody };
const ON: KeptMode = KeptMode { tracks: Tracks::Handler, ..OFF };
const KERNEL: KeptMode = KeptMode { tracks: Tracks::Kernel, ..OFF };

const fn huge(mode: KeptMode) -> KeptMode {
    KeptMode { page_size: HUGE, ..mode }
}

const fn pages(mode: KeptMode) -> u64 {
    if mode.is_huge() { 12 } else { 384 }
}

fn keep(mode: KeptMode) -> (Option<HugePages>, Keeping) {
    let pages = pages(mode);
    let pool = mode.is_huge().then(|| HugePages::reserve(pages).unwrap());
    let pattern = Pattern::new(71, mode.page_size).with_zero_runs(50).with_lone_zeros(50);
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let regions = [pages / 3, pages - pages / 3];
    (pool, Keeping::new(cast, GUEST, pattern, &regions, Some(mode.is_tracked())))
}

/// Kills so many keepers while guests are at work: `cargo kill-test --help` says how to have more.
fn kills(mode: KeptMode, kills: u32) {
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let killed = Killing::new(cast, mode, kills, 20_261_127).run(|_| {}).unwrap();
    assert!(killed.is_right(), "{killed}");
    assert!(killed.kills >= kills && killed.early > 0 && killed.removes > 0, "{killed}");
}

/// What the guest holds agrees with what the last keeper says of it.
fn nothing_is_lost(keeper: &mut Keeper, guest: &Guest, mode: KeptMode) {
    assert_eq!(keeper.ask("settle"), "Ok(())");
    let export = keeper.export();
    assert_eq!(export.exact, mode.is_tracked());
    for page in 0..pages(mode) {
        let number = u32::try_from(page).unwrap();
        let (dirty, empty) = (export.dirty.contains(&number), export.empty.contains(&number));
        assert!(!(dirty && empty), "page {page}");
        match guest.thread(0).read_page(page).unwrap() {
            Content::Source => {}
            Content::Zeros => assert!(dirty || empty || is_source(guest, page), "page {page}"),
            other => assert!(dirty, "page {page} is {other:?}"),
        }
    }
}

/// Whether the snapshot has zeros there.
fn is_source(guest: &Guest, page: u64) -> bool {
    guest.thread(0).verify(page, 1, &[Expect::Source]).unwrap().wrong == 0
}

#[test]
fn killed_while_small_pages_are_served() {
    kills(OFF, 60);
}

#[test]
fn killed_while_small_pages_are_tracked() {
    kills(ON, 60);
}

#[test]
fn killed_while_the_kernel_tracks_small_pages() {
    kills(KERNEL, 60);
}

#[test]
fn killed_while_huge_pages_are_served() {
    kills(huge(OFF), 40);
}

#[test]
fn killed_while_huge_pages_are_tracked() {
    kills(huge(ON), 40);
}

#[test]
fn killed_while_the_kernel_tracks_huge_pages() {
    kills(huge(KERNEL), 40);
}

#[test]
fn a_hand_over_is_like_a_kill_that_was_meant() {
    for mode in [OFF, ON, KERNEL] {
        let (_pool, keeping) = keep(mode);
        let mut keeper = keeping.keeper();
        let guest = keeping.guest(&keeper, |options| mode.guest(options));
        let id = keeper.ask("id");
        guest.thread(0).write(3, 2, 9).unwrap();
        for _ in 0..5 {
            assert_eq!(keeper.ask("hand over"), "end HandedOver");
            // Asked for while nobody serves, and answered by the next.
            let waiting = guest.thread(1).start_read(0, 2);
            keeper.kill();
            keeper = keeping.keeper();
            assert_eq!((keeper.recovered(), keeper.ask("id")), (1, id.clone()));
            waiting.get().unwrap();
        }
        assert_eq!(guest.thread(0).read_page(3).unwrap(), Content::Stamp(9));
        nothing_is_lost(&mut keeper, &guest, mode);
    }
}

/// Nor does it cost the trace anything but what was being served in that very moment.
#[test]
fn a_trace_outlives_whoever_recorded_it() {
    for mode in [OFF, ON, huge(ON)] {
        let (_pool, keeping) = keep(mode);
        let keeping = keeping.fill_alone();
        let mut keeper = keeping.keeper();
        let guest = keeping.guest(&keeper, |_| {});
        let thread = guest.thread(0);
        let mut order = vec![5, 2, 10, 0];
        for page in &order {
            thread.touch(*page, 1).unwrap();
        }
        assert_eq!(keeper.ask("settle"), "Ok(())");
        for next in [[7, 1], [3, 11]] {
            keeper.kill();
            let waiting = thread.start_touch(next[0], 1);
            keeper = keeping.keeper();
            waiting.get().unwrap();
            // Touched before: no first touch any more.
            thread.write_word(5, 1, 9, 0).unwrap();
            thread.touch(next[1], 1).unwrap();
            order.extend(next);
            assert_eq!(keeper.ask("settle"), "Ok(())");
            assert_eq!(keeper.trace(), order, "{mode}");
        }
    }
}

#[test]
fn a_released_guest_needs_nobody() {
    for mode in [OFF, huge(OFF)] {
        let (_pool, keeping) = keep(mode);
        let mut keeper = keeping.keeper();
        let guest = keeping.guest(&keeper, |_| {});
        guest.thread(0).write(1, 2, 9).unwrap();
        guest.thread(0).madvise(5, 2).unwrap();
        let mut answers = [keeper.ask("release"), keeper.next().unwrap()];
        answers.sort();
        assert_eq!(answers, ["Ok(Ok(()))", "end Released"]);
        keeper.kill();
        let keeper = keeping.keeper();
        assert_eq!((keeper.recovered(), keeper.left()), (0, &[][..]));
        drop(keeper);
        let thread = guest.thread(0);
        assert_eq!(thread.verify(0, 1, &[Expect::Source]).unwrap().wrong, 0);
        assert_eq!(thread.verify(1, 2, &[Expect::Stamp(9)]).unwrap().wrong, 0);
        assert_eq!(thread.verify(5, 2, &[Expect::Zeros]).unwrap().wrong, 0);
        let rest = pages(mode) - 7;
        assert_eq!(thread.verify(7, rest, &[Expect::Source]).unwrap().wrong, 0);
        thread.madvise(8, 3).unwrap();
        assert_eq!(thread.verify(8, 3, &[Expect::Zeros]).unwrap().wrong, 0);
    }
}

#[test]
fn a_tracked_guest_is_not_released() {
    let (_pool, keeping) = keep(ON);
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    assert_eq!(keeper.ask("release"), "Ok(Err(Tracked))");
    assert_eq!(guest.thread(0).verify(0, 9, &[Expect::Source]).unwrap().wrong, 0);
}

/// Its session would not have heard of it either.
#[test]
fn what_was_mapped_over_a_page_keeps_nobody_from_the_others() {
    for is_seen_before in [false, true] {
        let (_pool, keeping) = keep(OFF);
        let mut keeper = keeping.keeper();
        let guest = keeping.guest(&keeper, |options| OFF.guest(options));
        guest.thread(0).touch(0, 8).unwrap();
        let find = || Prospect::find(&ledgers(&keeping)[0], &mut Spares::new()).unwrap();
        // As a guardian has it.
        let prospect = is_seen_before.then(find);
        guest.thread(0).cover(0, 1).unwrap();
        guest.thread(0).cover(200, 3).unwrap();
        guest.thread(0).unmap(5, 1).unwrap();
        keeper.kill();
        let waiting = guest.thread(1).start_read(300, 1);
        let left = prospect.unwrap_or_else(find).take().unwrap();
        let source = Arc::new(FileSource::open(keeping.snapshot()).unwrap());
        let (fetcher, options) = (Arc::new(Fetcher::new(source)), left.options());
        let session = Session::recover(left, fetcher, options, Box::new(NoObserver)).unwrap();
        waiting.get().unwrap();
        for (page, count) in [(1, 4), (6, 194), (203, 181)] {
            assert_eq!(guest.thread(0).verify(page, count, &[Expect::Source]).unwrap().wrong, 0);
        }
        assert_eq!(session.owner(), Some(Owner::Peer));
        assert_eq!(session.stop(), End::Stopped);
    }
}

/// However little is left: it is registered with this very descriptor, and somebody may wait there.
#[test]
fn who_has_unmapped_most_of_its_memory_is_served_in_the_rest() {
    let (_pool, keeping) = keep(OFF);
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |options| OFF.guest(options));
    guest.thread(0).touch(0, 8).unwrap();
    guest.thread(0).unmap(16, pages(OFF) - 16).unwrap();
    keeper.kill();
    let waiting = guest.thread(1).start_read(9, 1);
    let keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1, "{:?}", keeper.left());
    waiting.get().unwrap();
    assert_eq!(guest.thread(0).verify(0, 16, &[Expect::Source]).unwrap().wrong, 0);
}

/// Nobody can wait for any of it.
#[test]
fn who_has_unmapped_all_of_its_memory_is_not_taken_over() {
    let (_pool, keeping) = keep(OFF);
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |options| OFF.guest(options));
    guest.thread(0).touch(0, 8).unwrap();
    guest.thread(0).unmap(0, pages(OFF)).unwrap();
    keeper.kill();
    let refused = Left::find(&ledgers(&keeping)[0], &mut Spares::new()).unwrap_err();
    assert_eq!(refused.why.code(), "ERR_UFFD_RECOVERY_MEMORY");
}

#[test]
fn whose_memory_it_is_need_not_be_found_out_again_for_the_same_guest() {
    let (_pool, keeping) = keep(OFF);
    let keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |options| OFF.guest(options));
    let ledger = ledgers(&keeping).remove(0);
    let find = |path: &Path, known: Option<&Known>| {
        Prospect::find_again(path, &mut Spares::new(), known).unwrap().known()
    };
    let known = find(&ledger, None).unwrap();
    let other = keeping.guest(&keeper, |options| OFF.guest(options));
    let its = ledgers(&keeping).into_iter().find(|path| *path != ledger).unwrap();
    // Of memory with a gap it is not shown.
    for guest in [&guest, &other] {
        guest.thread(0).unmap(5, 1).unwrap();
    }
    assert!(find(&ledger, None).is_none());
    assert!(find(&ledger, Some(&known)).is_some());
    assert!(find(&its, Some(&known)).is_none(), "another guest");
}

#[test]
fn whoever_waits_for_the_directory_is_ready_for_the_guests_that_are_there_by_then() {
    let (_pool, keeping) = keep(ON);
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |options| ON.guest(options));
    let mut next = keeping.begin_keeper(|_| {});
    next.awaits(1);
    let mut other = keeping.guest(&keeper, |options| ON.guest(options));
    next.awaits(2);
    other.kill().unwrap();
    next.awaits(1);
    guest.thread(0).write(3, 2, 9).unwrap();
    keeper.tell("leave");
    assert!(next.gets_ready());
    assert_eq!((next.recovered(), next.left()), (1, &[][..]));
    nothing_is_lost(&mut next, &guest, ON);
    assert_eq!(next.export().dirty, BTreeSet::from([3, 4]));
}

fn ledgers(keeping: &Keeping) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(keeping.state_dir()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|suffix| suffix == "ledger")).collect()
}

#[test]
fn a_guest_that_ended_leaves_nothing() {
    let (_pool, keeping) = keep(OFF);
    let mut keeper = keeping.keeper();
    let mut guest = keeping.guest(&keeper, |_| {});
    assert_eq!(ledgers(&keeping).len(), 1);
    keeper.kill();
    guest.kill().unwrap();
    let keeper = keeping.keeper();
    assert_eq!(
        (keeper.recovered(), keeper.left()),
        (0, &["left ERR_UFFD_RECOVERY_ENDED".to_owned()][..])
    );
    assert_eq!(ledgers(&keeping), Vec::<PathBuf>::new());
}

/// Each way of damaging it is refused by name, and leaves the guest to whoever has the right one.
#[test]
fn a_ledger_that_is_not_as_it_was_is_refused_and_its_guest_left_alone() {
    let (_pool, keeping) = keep(OFF);
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    guest.thread(0).write(1, 1, 9).unwrap();
    keeper.kill();
    let path = ledgers(&keeping).remove(0);
    let good = std::fs::read(&path).unwrap();
    let text_at = good.windows(8).position(|bytes| bytes == b"\"started").unwrap();
    type Damage = (&'static str, Box<dyn Fn(&mut Vec<u8>)>, &'static str);
    let damages: Vec<Damage> = vec![
        ("cut", Box::new(|bytes| bytes.truncate(5000)), "ERR_UFFD_RECOVERY_LEDGER"),
        ("cut short", Box::new(|bytes| bytes.truncate(3)), "ERR_UFFD_RECOVERY_LEDGER"),
        ("longer", Box::new(|bytes| bytes.extend([0; 4096])), "ERR_UFFD_RECOVERY_LEDGER"),
        ("zeros", Box::new(|bytes| bytes.fill(0)), "ERR_UFFD_RECOVERY_LEDGER"),
        ("noise", Box::new(|bytes| bytes.fill(0xa5)), "ERR_UFFD_RECOVERY_LEDGER"),
        ("a newer version", Box::new(|bytes| bytes[8] += 1), "ERR_UFFD_RECOVERY_LEDGER"),
        ("an older version", Box::new(|bytes| bytes[8] -= 1), "ERR_UFFD_RECOVERY_LEDGER"),
        ("changed", Box::new(move |bytes| bytes[text_at + 12] ^= 1), "ERR_UFFD_RECOVERY_LEDGER"),
    ];
    for (what, damage, code) in damages {
        let mut bad = good.clone();
        damage(&mut bad);
        std::fs::write(&path, bad).unwrap();
        let keeper = keeping.keeper();
        let expected = [format!("left {code}")];
        assert_eq!((keeper.recovered(), keeper.left()), (0, &expected[..]), "{what}");
    }
    std::fs::write(&path, &good).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(keeping.keeper().left(), ["left ERR_UFFD_RECOVERY_LEDGER"]);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let other = keeping.dir().join("other");
    std::fs::hard_link(&path, &other).unwrap();
    assert_eq!(keeping.keeper().left(), ["left ERR_UFFD_RECOVERY_LEDGER"]);
    std::fs::remove_file(&other).unwrap();
    std::fs::rename(&path, &other).unwrap();
    std::os::unix::fs::symlink(&other, &path).unwrap();
    assert_eq!(keeping.keeper().left(), ["left ERR_UFFD_RECOVERY_LEDGER"]);
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&other, &path).unwrap();

    let mut keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1, "{:?}", keeper.left());
    assert_eq!(guest.thread(0).read_page(1).unwrap(), Content::Stamp(9));
    nothing_is_lost(&mut keeper, &guest, OFF);
}

/// Frozen is not dead: its guest stays its own.
#[test]
fn a_frozen_owner_is_still_the_owner() {
    let (_pool, keeping) = keep(OFF);
    let keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let frozen = keeper.freeze();
    let waiting = guest.thread(0).start_read(0, 1);
    let refused = Left::find(&ledgers(&keeping)[0], &mut Spares::new()).unwrap_err();
    assert!(matches!(refused.why, Obstruction::Served), "{refused}");
    drop(frozen);
    waiting.get().unwrap();
}
