//! A guardian beside the server: whoever of the two lives serves the guest, never both, and the guest
//! does not notice.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uffd_guest::driver::Guest;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::{Expect, Soak};
use uffd_proof::{Cast, Keeper, Keeping, SMALL, until, waiting_threads};

const GUEST: &str = env!("CARGO_BIN_EXE_uffd-proof-guest");
const GUARDIAN: &str = env!("CARGO_BIN_EXE_uffd-proof-guardian");

const PAGES: u64 = 384;

fn keeping() -> Keeping {
    let pattern = Pattern::new(71, SMALL).with_zero_runs(50).with_lone_zeros(50);
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    Keeping::new(cast, GUEST, pattern, &[PAGES / 3, PAGES - PAGES / 3], Some(true))
        .guarded_by(GUARDIAN)
}

/// Waits until the guardian would serve the keeper's guest at once, and says which process it is.
fn guarded(keeper: &mut Keeper) -> i32 {
    let id = keeper.ask("id");
    until("the guest to be guarded", || keeper.guardian().guarded.contains(&id));
    keeper.guardian().pid.unwrap()
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Whether there is such a process that has not ended.
fn lives(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

fn has_ended(pid: i32) {
    until("the guardian to end", || !lives(pid));
}

fn log(keeping: &Keeping) -> String {
    std::fs::read_to_string(keeping.guardian_log()).unwrap_or_default()
}

/// Every page holds what was written to it, or what the snapshot has.
fn holds(guest: &Guest, stamps: std::ops::Range<u64>, stamp: u32) {
    let thread = guest.thread(0);
    let rest = PAGES - stamps.end;
    assert_eq!(thread.verify(0, stamps.start, &[Expect::Source]).unwrap().wrong, 0);
    let len = stamps.end - stamps.start;
    assert_eq!(thread.verify(stamps.start, len, &[Expect::Stamp(stamp)]).unwrap().wrong, 0);
    assert_eq!(thread.verify(stamps.end, rest, &[Expect::Source]).unwrap().wrong, 0);
}

#[test]
fn a_guest_whose_server_was_killed_is_served_and_given_back() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let mut guest = keeping.guest(&keeper, |_| {});
    let id = keeper.ask("id");
    guest.thread(0).write(3, 2, 9).unwrap();
    let guardian = guarded(&mut keeper);
    keeper.kill();
    // By nobody but the guardian.
    holds(&guest, 3..5, 9);
    guest.thread(0).write(3, 3, 10).unwrap();

    let mut keeper = keeping.keeper();
    assert_eq!((keeper.recovered(), keeper.left()), (1, &[][..]));
    assert_eq!(keeper.ask("id"), id);
    holds(&guest, 3..6, 10);
    assert_eq!(keeper.export().dirty, BTreeSet::from([3, 4, 5]));
    assert_eq!(guarded(&mut keeper), guardian);

    // Left to it on purpose.
    assert_eq!(keeper.ask("hand over"), "end HandedOver");
    guest.thread(0).write(7, 1, 11).unwrap();
    keeper.kill();
    assert_eq!(guest.thread(0).read_page(7).unwrap(), Content::Stamp(11));
    assert!(lives(guardian));
    guest.kill().unwrap();
    has_ended(guardian);
    assert!(!keeping.state_dir().join("guardian.sock").exists());
}

#[test]
fn a_guardian_that_was_killed_is_replaced_and_told_of_all_guests() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let first = guarded(&mut keeper);
    signal(first, Signal::SIGKILL);
    until("another guardian", || keeper.guardian().pid.is_some_and(|pid| pid != first));
    assert_ne!(guarded(&mut keeper), first);
    keeper.kill();
    holds(&guest, 0..0, 0);
}

#[test]
fn when_both_were_killed_the_next_server_serves() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    guest.thread(0).write(5, 1, 9).unwrap();
    let guardian = guarded(&mut keeper);
    // In one order and in the other: while the guardian serves as well.
    signal(guardian, Signal::SIGKILL);
    keeper.kill();
    let waiting = guest.thread(1).start_read(PAGES / 2, 1);
    let mut keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1);
    waiting.get().unwrap();
    let guardian = guarded(&mut keeper);
    keeper.kill();
    guest.thread(0).read(9, 1).unwrap();
    signal(guardian, Signal::SIGKILL);
    has_ended(guardian);
    let mut keeper = keeping.keeper();
    assert_eq!((keeper.recovered(), keeper.left()), (1, &[][..]));
    holds(&guest, 5..6, 9);
    assert_ne!(guarded(&mut keeper), guardian);
}

/// Nobody waits for it: no handoff, no guest, nobody who stops the server.
#[test]
fn a_frozen_guardian_holds_nothing_up() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let first = keeping.guest(&keeper, |_| {});
    let guardian = guarded(&mut keeper);
    signal(guardian, Signal::SIGSTOP);
    holds(&first, 0..0, 0);
    let second = keeping.guest(&keeper, |_| {});
    holds(&second, 0..0, 0);
    until("it to be called silent", || {
        keeper.guardian().troubles.iter().any(|code| code == "ERR_UFFD_GUARDIAN_SILENT")
    });
    assert_eq!(keeper.ask("stop"), "end Stopped");
    keeper.kill();
    // The first one's server is dead and its guardian frozen: the next server has it all the same.
    let mut keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1);
    holds(&first, 0..0, 0);
    signal(guardian, Signal::SIGCONT);
    guarded(&mut keeper);
    keeper.kill();
    first.thread(0).write(1, 1, 3).unwrap();
    holds(&first, 1..2, 3);
}

/// It may thaw at any moment and go on: its guest stays its own.
#[test]
fn a_frozen_server_is_not_replaced() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    guarded(&mut keeper);
    signal(keeper.pid(), Signal::SIGSTOP);
    let waiting = guest.thread(0).start_read(0, 1);
    until("the guest to wait", || waiting_threads(guest.pid()) == 1);
    assert!(!log(&keeping).contains("serves guest"), "{}", log(&keeping));
    signal(keeper.pid(), Signal::SIGCONT);
    waiting.get().unwrap();
}

/// A server takes back what a frozen guardian serves as soon as that one thaws, and not before.
#[test]
fn a_guardian_that_is_frozen_while_it_serves_stays_the_owner() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    let guardian = guarded(&mut keeper);
    keeper.kill();
    guest.thread(0).read(0, 1).unwrap();
    signal(guardian, Signal::SIGSTOP);
    let waiting = guest.thread(0).start_read(PAGES / 2, 1);
    let keeper = keeping.keeper();
    assert_eq!(
        (keeper.recovered(), keeper.left()),
        (0, &["left ERR_UFFD_RECOVERY_SERVED".to_owned()][..])
    );
    signal(guardian, Signal::SIGCONT);
    waiting.get().unwrap();
    holds(&guest, 0..0, 0);
}

/// Kills of whoever serves while the guest is at work, at random moments.
#[test]
fn killed_again_and_again_under_load() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = keeping.guest(&keeper, |_| {});
    guarded(&mut keeper);
    let over = AtomicBool::new(false);
    let mut kills = 0;
    let report = std::thread::scope(|scope| {
        let work = scope.spawn(|| {
            let report = guest.thread(0).random(Soak {
                seed: 5,
                threads: 4,
                chunk: 8,
                ops: u64::MAX,
                millis: Some(5_000),
                madvise: 14,
                ..Soak::default()
            });
            over.store(true, Ordering::Release);
            report
        });
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        while !over.load(Ordering::Acquire) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // The moment of the kill is what this is about; nothing is waited for by it.
            std::thread::sleep(Duration::from_micros(100 + (random >> 33) % 20_000));
            match random >> 20 & 7 {
                0 => keeper.guardian().pid.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL)),
                _ => keeper.kill(),
            }
            kills += 1;
            if random >> 24 & 3 == 0 {
                keeper.kill();
                // One in four is killed again in the middle of taking back.
                drop(keeping.begin_keeper(|_| {}));
            }
            if random >> 20 & 7 != 0 || random >> 24 & 3 == 0 {
                keeper = keeping.keeper();
            }
        }
        work.join().unwrap().unwrap()
    });
    assert_eq!((report.wrong, &report.examples), (0, &vec![]), "after {kills} kills");
    assert!(kills > 10, "{kills} kills");
    keeper.kill();
    let mut keeper = keeping.keeper();
    assert_eq!((keeper.recovered(), keeper.left()), (1, &[][..]));
    assert_eq!(keeper.ask("settle"), "Ok(())");
    let export = keeper.export();
    for page in 0..PAGES {
        let number = u32::try_from(page).unwrap();
        let (dirty, empty) = (export.dirty.contains(&number), export.empty.contains(&number));
        assert!(!(dirty && empty), "page {page}");
        match guest.thread(0).read_page(page).unwrap() {
            Content::Source => {}
            Content::Zeros => {
                let source =
                    || guest.thread(0).verify(page, 1, &[Expect::Source]).unwrap().wrong == 0;
                assert!(dirty || empty || source(), "page {page}");
            }
            other => assert!(dirty, "page {page} is {other:?}"),
        }
    }
}

/// Nothing of whoever started it keeps a terminal, a pipe, a lock or a folder in use.
#[test]
fn a_guardian_has_nothing_of_whoever_started_it() {
    let keeping = keeping();
    let mut keeper = keeping.keeper_with(|command| {
        command.env("UFFD_TEST_SECRET", "1");
    });
    let _guest = keeping.guest(&keeper, |_| {});
    let guardian = guarded(&mut keeper);
    let proc = Path::new("/proc").join(guardian.to_string());
    let stat = std::fs::read_to_string(proc.join("stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let (session, terminal) = (fields[3], fields[4]);
    assert_eq!((session, terminal), (guardian.to_string().as_str(), "0"));
    assert_eq!(std::fs::read(proc.join("environ")).unwrap(), b"");
    assert_eq!(std::fs::read_link(proc.join("cwd")).unwrap(), Path::new("/"));
    let links = |pid: i32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
    };
    let pipes: Vec<_> = links(guardian)
        .filter(|link| link.as_os_str().to_string_lossy().starts_with("pipe:"))
        .collect();
    assert_eq!(pipes, Vec::<std::path::PathBuf>::new());
    let standard: Vec<_> =
        (0..3).map(|fd| std::fs::read_link(proc.join(format!("fd/{fd}"))).unwrap()).collect();
    assert_eq!(standard, [Path::new("/dev/null"); 3]);
    // The server's claim is the server's alone.
    let claim = std::fs::metadata(keeping.state_dir().join("server.lock")).unwrap().ino();
    let has_it = |pid: i32| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        entries
            .filter_map(|entry| std::fs::metadata(entry.unwrap().path()).ok())
            .any(|about| about.ino() == claim)
    };
    assert!(has_it(keeper.pid()) && !has_it(guardian));
}
