//! Snapshots that are not in memory: the fault loop waits for no device and no store, one guest
//! does not wait for another's fetches, and what is fetched takes up so much memory and no more.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use uffd_core::kernel::FileMap;
use uffd_core::session::{Cause, FaultAround, Notice, Reply, SessionOptions};
use uffd_core::units::PageRange;
use uffd_guest::pattern::Content;
use uffd_guest::protocol::Expect;
use uffd_proof::sources::{Gate, Kept, Remote};
use uffd_proof::{
    Case, HUGE, HugePages, Served, Serving, Setting, Stage, StageBuilder, as_another_user,
    in_all_modes, until,
};

in_all_modes!(
    the_loop_never_reads_a_snapshot_of_which_it_is_not_told_what_is_in_memory,
    pages_evicted_while_they_are_believed_to_be_at_hand_are_not_read_by_the_loop,
    one_guest_does_not_wait_for_what_another_fetches,
);

const GUEST: &str = env!("CARGO_BIN_EXE_uffd-proof-guest");

const fn pages(case: Case) -> u64 {
    if case.is_huge() { 6 } else { 512 }
}

/// Takes the snapshot out of the page cache, as far as nobody holds it there.
fn evict(snapshot: &Path) {
    let file = File::open(snapshot).unwrap();
    file.sync_all().unwrap();
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
}

/// How many of `range`, in bytes, are in the page cache.
fn resident(snapshot: &Path, range: Range<u64>) -> usize {
    let file = File::open(snapshot).unwrap();
    let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let map = FileMap::new(&file, len).unwrap();
    assert!(map.tells_residency(), "this test runs as root");
    let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
    range.step_by(4096).filter(|at| map.resident(*at, 4096) > 0).count()
}

/// Whatever the process itself needs has been read when this is called a second time.
fn twice(run: impl Fn() -> i64) {
    run();
    assert_eq!(run(), 0, "the fault loop has waited for the disk");
}

/// A stage whose server may read the snapshot and no more.
fn of_another_user(case: Case) -> (Stage, Option<HugePages>) {
    let pages = pages(case);
    let huge = case.is_huge().then(|| HugePages::reserve(pages).unwrap());
    let stage = as_another_user(|| {
        let stage = StageBuilder::new(case.guest, case.pattern(), &[pages]).on_disk();
        stage.session(|options| options.fault_around = FaultAround::Off).open()
    });
    std::fs::set_permissions(stage.snapshot(), PermissionsExt::from_mode(0o444)).unwrap();
    chown(stage.snapshot(), Some(0), Some(0)).unwrap();
    (stage, huge)
}

fn the_loop_never_reads_a_snapshot_of_which_it_is_not_told_what_is_in_memory(case: Case) {
    let pages = pages(case);
    let half = pages / 2;
    let (stage, _huge) = of_another_user(case);
    twice(|| {
        evict(&stage.snapshot());
        assert_eq!(resident(&stage.snapshot(), 0..pages * case.page_size), 0, "is it on a disk?");
        let guest = stage.guest();
        let before = guest.major_faults();
        // Somebody gives memory back all the while.
        let reads: Vec<_> =
            (0..half).step_by(8).map(|page| guest.thread(1).start_read(page, 1)).collect();
        for _ in 0..20 {
            guest.thread(0).madvise(pages - 1, 1).unwrap();
            assert_eq!(guest.thread(0).read_page(pages - 1).unwrap(), Content::Zeros);
        }
        for read in reads {
            assert!(read.get().unwrap().all(|content| *content == Content::Source));
        }
        assert_eq!(guest.thread(0).verify(0, half, &[Expect::Source]).unwrap().wrong, 0);
        // What was at hand a moment ago is not.
        evict(&stage.snapshot());
        let rest = guest.thread(0).verify(half, pages - 1 - half, &[Expect::Source]).unwrap();
        assert_eq!(rest.wrong, 0);
        assert!(guest.stats().counters.fetches > 0);
        guest.major_faults() - before
    });
}

fn pages_evicted_while_they_are_believed_to_be_at_hand_are_not_read_by_the_loop(case: Case) {
    let pages = pages(case);
    twice(|| {
        let setting = case.open_with(case.pattern(), &[pages], |stage| {
            stage.on_disk().session(|options| options.fault_around = FaultAround::Off)
        });
        // Read one by one they are evicted one by one.
        evict(&setting.snapshot());
        let file = File::open(setting.snapshot()).unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        for page in 0..pages * case.page_size / 4096 {
            file.read_exact_at(&mut [0], page * 4096).unwrap();
        }
        let guest = setting.guest();
        let before = guest.major_faults();
        for page in 0..pages {
            assert_eq!(guest.thread(0).read_page(page).unwrap(), Content::Source);
            evict(&setting.snapshot());
        }
        guest.major_faults() - before
    });
}

/// A guest of a source that has nothing at hand, of whose pages `stuck` cannot be had for now.
fn remote(
    case: Case,
    count: u64,
    stuck: Range<u64>,
    change: impl FnOnce(&mut SessionOptions),
) -> (Setting, Gate, Kept) {
    let (gate, kept) = (Gate::closed(), Kept::default());
    let (through, counted) = (gate.clone(), kept.clone());
    let stuck = stuck.start * case.page_size..stuck.end * case.page_size;
    let setting = case.open_with(case.pattern(), &[count], |stage| {
        let stage = stage.session(|options| options.fault_around = FaultAround::Off);
        let stage = stage.session(change);
        stage.source(move |file| {
            let file = File::open(file.path()).unwrap();
            Remote { file, stuck, gate: through, kept: counted }
        })
    });
    (setting, gate, kept)
}

fn one_guest_does_not_wait_for_what_another_fetches(case: Case) {
    const STUCK: u64 = 12;
    let (setting, gate, kept) = remote(case, STUCK + 2, 0..STUCK, |_| {});
    if let Some(pool) = setting.pool() {
        pool.resize(2 * (STUCK + 2)).unwrap();
    }
    let (greedy, modest) = (setting.guest(), setting.guest());
    let stuck: Vec<_> = (0..STUCK)
        .map(|page| greedy.thread(u32::try_from(page).unwrap()).start_read(page, 1))
        .collect();
    until("as many fetches as may to hang", || gate.arrived() >= 8);
    assert_eq!(modest.thread(0).verify(STUCK, 2, &[Expect::Source]).unwrap().wrong, 0);
    assert!(stuck.iter().all(|read| !read.is_done()));
    // They wait for the same pages now, which are fetched once.
    let joined = modest.thread(0).start_read(0, 1);
    until("the second to wait", || modest.stats().counters.fetches == 3);
    gate.open();
    for read in stuck.into_iter().chain([joined]) {
        assert!(read.get().unwrap().all(|content| *content == Content::Source));
    }
    assert_eq!(gate.arrived(), STUCK);
    settled(&greedy);
    settled(&modest);
    assert_eq!(kept.now(), 0);
}

fn settled(guest: &Served) {
    guest.session.settle().unwrap();
    assert_eq!(guest.stats().faults_in_hand, 0);
}

/// No page can be installed: what was fetched for them waits in memory.
#[test]
fn what_is_fetched_and_cannot_be_installed_takes_up_so_much_memory_and_no_more() {
    const PAGES: u64 = 24;
    const MOST: u64 = 32 << 20;
    let case = Case { guest: GUEST, page_size: HUGE, tracking: false };
    let (setting, _, kept) = remote(case, PAGES, 0..0, |_| {});
    setting.pool().unwrap().resize(1).unwrap();
    let guest = setting.guest();
    guest.thread(0).touch(0, 1).unwrap();
    let reads: Vec<_> = (1..PAGES)
        .map(|page| guest.thread(u32::try_from(page).unwrap()).start_read(page, 1))
        .collect();
    until("all faults to be in hand", || guest.stats().faults_in_hand == PAGES - 1);
    until("all memory to be used", || kept.now() == MOST);
    // A prefault gets nothing of what faults need.
    let (reply, report) = mpsc::channel();
    let ranges = vec![PageRange::new(0, PAGES)];
    let reply = Reply::new(move |it| reply.send(it).unwrap_or(()));
    guest.session.prefault_with(ranges, reply).unwrap();
    until("more installs to find no memory", || guest.stats().counters.out_of_memory > 50);
    assert!(reads.iter().all(|read| !read.is_done()));
    setting.pool().unwrap().resize(PAGES).unwrap();
    for read in reads {
        assert!(read.get().unwrap().all(|content| *content == Content::Source));
    }
    let report = report.recv().unwrap().unwrap();
    assert_eq!((report.requested(), report.failed), (PAGES, 0), "{report:?}");
    settled(&guest);
    assert_eq!((kept.now(), kept.most()), (0, MOST));
}

/// A fault for whose bytes there is no room is given up for the same reason as the others.
#[test]
fn a_fault_that_finds_no_room_for_want_of_memory_says_so() {
    // Where everything takes its time, some are given up before their bytes are there.
    let in_time = [1, 5, 20].into_iter().find(|seconds| says_so_after(*seconds));
    assert!(in_time.is_some(), "the bytes of no fault are there in time");
}

/// Not so if there was no time to fetch them all.
fn says_so_after(seconds: u64) -> bool {
    const PAGES: u64 = 24;
    let case = Case { guest: GUEST, page_size: HUGE, tracking: false };
    let (setting, _, kept) = remote(case, PAGES, 0..0, |options| {
        options.fault_deadline = Duration::from_secs(seconds);
    });
    setting.pool().unwrap().resize(0).unwrap();
    let guest = setting.guest();
    let reads: Vec<_> = (0..PAGES)
        .map(|page| guest.thread(u32::try_from(page).unwrap()).start_read(page, 1))
        .collect();
    for read in reads {
        assert!(read.get().unwrap().all(|content| *content == Content::Poisoned));
    }
    for _ in 0..PAGES {
        match guest.notice() {
            Notice::Poisoned { cause: Cause::NoMemory { huge: true, .. }, .. } => {}
            Notice::OutOfMemory { .. } => continue,
            Notice::Poisoned { cause: Cause::SlowSource { .. }, .. } => return false,
            other => panic!("{other:?}"),
        }
    }
    settled(&guest);
    until("what was fetched to be dropped", || kept.now() == 0);
    true
}

/// What was fetched ahead and cannot be installed is given up in the end, and once: the guest is
/// served on.
#[test]
fn a_prefault_of_what_is_not_in_memory_says_what_it_could_not_get() {
    const PAGES: u64 = 6;
    for tracking in [false, true] {
        let case = Case { guest: GUEST, page_size: HUGE, tracking };
        let (setting, _, kept) = remote(case, PAGES, 0..0, |options| {
            options.fault_deadline = Duration::from_millis(50);
        });
        setting.pool().unwrap().resize(2).unwrap();
        let guest = setting.guest();
        let asked = guest.prefault(vec![PageRange::new(0, PAGES)]);
        let report = asked.get().unwrap();
        assert_eq!((report.installed, report.failed), (2, PAGES - 2), "{report:?}");
        settled(&guest);
        until("what was fetched to be dropped", || kept.now() == 0);
        // Ahead again: a fault may not wait for as long as a busy host takes.
        setting.pool().unwrap().resize(PAGES).unwrap();
        let report = guest.prefault(vec![PageRange::new(0, PAGES)]).get().unwrap();
        assert_eq!((report.installed, report.present), (PAGES - 2, 2), "{report:?}");
        assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    }
}
