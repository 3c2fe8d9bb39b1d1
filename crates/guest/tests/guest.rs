//! The guest program, against a handler that does just enough.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used)]

#[allow(unsafe_code)]
mod handler;

use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use handler::Handler;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use uffd_guest::driver::{DEADLINE, Guest, GuestBuilder};
use uffd_guest::options::{Dialect, Options, Place, Register, Split, UserModeOnly};
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::pool::take_and_give_back;
use uffd_guest::protocol::{Bench, Death, Expect, Op, Order, Soak};

const SMALL: Pattern = Pattern::new(11, 4096).with_zero_runs(200).with_lone_zeros(50);
const HUGE: Pattern = Pattern::new(12, 0x20_0000).with_lone_zeros(200);

fn spawn(options: Options) -> Guest {
    GuestBuilder::new(env!("CARGO_BIN_EXE_uffd-guest"), options).spawn().unwrap()
}

fn guest(pages: &[u64], pattern: Pattern) -> (Handler, Guest) {
    guest_with(pages, pattern, |options| options)
}

fn guest_with(
    pages: &[u64],
    pattern: Pattern,
    change: impl FnOnce(Options) -> Options,
) -> (Handler, Guest) {
    let handler = Handler::listen(pattern);
    let guest = spawn(change(Options::new(handler.socket(), pages, pattern)));
    (handler, guest)
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Huge pages for one test, given back when it ends.
struct Pool {
    pages: u64,
    /// Other tests use up the pool on purpose: only one has it at a time.
    _alone: Flock<File>,
}

impl Pool {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";

    fn reserve(pages: u64) -> Self {
        let lock = std::env::temp_dir().join("uffd-rs-huge-pages.lock");
        let lock = File::options().create(true).append(true).mode(0o666).open(lock).unwrap();
        let alone = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
        Self::change(|all| all + pages);
        Self { pages, _alone: alone }
    }

    fn change(of: impl FnOnce(u64) -> u64) {
        let all = fs::read_to_string(Self::FILE).unwrap().trim().parse().unwrap();
        fs::write(Self::FILE, of(all).to_string()).unwrap();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        Self::change(|all| all.saturating_sub(self.pages));
    }
}

fn assert_source(guest: &Guest, pattern: Pattern) {
    let pages = guest.pages();
    for (page, content) in guest.thread(0).read(0, pages).unwrap().pages() {
        assert_eq!(*content, pattern.source(page), "page {page}");
    }
}

#[test]
fn small_pages_are_the_snapshot() {
    let (_handler, guest) = guest(&[300], SMALL);
    assert!(!guest.ready().user_mode_only);
    assert_source(&guest, SMALL);
}

#[test]
fn huge_pages_are_the_snapshot_and_can_be_given_back() {
    let _pool = Pool::reserve(6);
    let (handler, guest) =
        guest_with(&[4, 2], HUGE, |options| Options { place: Place::Falling, ..options });
    assert_source(&guest, HUGE);
    let thread = guest.thread(0);
    assert!(guest.pagemap(0, 6).unwrap().all(|page| page.present && page.huge));
    assert_eq!(guest.rss().unwrap().guest, 6 * 0x20_0000);
    thread.madvise(3, 2).unwrap();
    assert_eq!(thread.read_page(3).unwrap(), Content::Zeros);
    assert_eq!(
        handler.switches.removed.lock().unwrap().iter().copied().collect::<Vec<_>>(),
        [3, 4]
    );
    let soak =
        Soak { threads: 3, chunk: 1, ops: 20, seed: 5, page: 0, count: Some(3), ..Soak::default() };
    assert_eq!(thread.random(soak).unwrap().examples, []);
}

#[test]
fn regions_may_lie_in_any_order_and_apart() {
    for place in [Place::Rising, Place::Falling, Place::Apart] {
        let (_handler, guest) =
            guest_with(&[64, 16, 48], SMALL, |options| Options { place, ..options });
        assert_source(&guest, SMALL);
    }
}

#[test]
fn every_dialect_and_a_split_body_arrive() {
    for (dialect, split) in [
        (Dialect::V1_1, None),
        (Dialect::V1_7, Some(Split::First)),
        (Dialect::V1_12, Some(Split::Last)),
    ] {
        let (_handler, guest) = guest_with(&[8, 8], SMALL, |options| Options {
            dialect,
            split,
            extra_fds: 2,
            ..options
        });
        assert_source(&guest, SMALL);
    }
}

#[test]
fn faults_of_the_kernel_are_handed_off_unless_user_mode_only() {
    let (_handler, guest) = guest(&[40], SMALL);
    for (page, content) in guest.thread(0).kernel_read(0, 40).unwrap().pages() {
        assert_eq!(*content, SMALL.source(page), "page {page}");
    }
    let (_handler, guest) = guest_with(&[40], SMALL, |options| Options {
        user_mode_only: UserModeOnly::Yes,
        ..options
    });
    assert!(guest.ready().user_mode_only);
    let refused = guest.thread(0).kernel_read(7, 1).unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EFAULT as i32));
    assert_source(&guest, SMALL);
}

#[test]
fn pages_given_back_are_reported_and_read_as_zeros() {
    let (handler, guest) = guest(&[64], Pattern::new(1, 4096));
    let thread = guest.thread(0);
    thread.write(10, 2, 5).unwrap();
    thread.write_word(12, 1, 6, 800).unwrap();
    let base = Box::new(Content::Source);
    assert_eq!(thread.read_page(11).unwrap(), Content::Stamp(5));
    assert_eq!(thread.read_page(12).unwrap(), Content::Patched { base, at: 800, stamp: 6 });
    thread.madvise(11, 2).unwrap();
    let verified = thread.verify(10, 4, &[Expect::Source, Expect::Stamp(5)]).unwrap();
    assert_eq!((verified.pages, verified.wrong), (4, 2));
    assert_eq!(verified.examples[0].found, Content::Zeros);
    assert_eq!(handler.switches.removed.lock().unwrap().len(), 2);
    let refused = thread.madvise_bytes(20, 100, 4096).unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EINVAL as i32));
}

#[test]
fn a_thread_that_waits_delays_nobody() {
    let (handler, guest) = guest(&[64], SMALL);
    guest.thread(1).touch(9, 1).unwrap();
    handler.switches.hold.store(true, SeqCst);
    let waiting = guest.thread(0).start_read(5, 1);
    let behind = guest.thread(0).start_touch(9, 1);
    assert!(waiting.stays_pending(Duration::from_millis(100)));
    assert_eq!(guest.thread(1).touch(9, 1).unwrap().pages, 1);
    assert_eq!(guest.pagemap(5, 5).unwrap().count(|page| page.present), 1);
    assert!(!behind.is_done());
    handler.switches.hold.store(false, SeqCst);
    assert_eq!(waiting.get().unwrap().at(5), Some(&SMALL.source(5)));
    assert_eq!(behind.get().unwrap().pages, 1);
}

#[test]
fn a_wait_has_an_end_and_says_what_for() {
    let (handler, guest) = guest(&[8], SMALL);
    handler.switches.hold.store(true, SeqCst);
    let touch = guest.thread(0).start_touch(1, 1);
    until("it to wait", || guest.whereabouts().unwrap().iter().any(|it| it.waits_for_page()));
    let timeout = touch.wait(Duration::from_millis(50)).unwrap_err();
    let message = timeout.to_string();
    assert!(message.starts_with("no answer to Touch { page: 1, count: 1 } on thread 0"));
    assert!(message.contains("waiting for pages [1]"), "{message}");
    let waiting = guest.whereabouts().unwrap();
    assert!(waiting.len() == 1 && waiting[0].waits_for_page(), "{waiting:?}");
}

#[test]
fn write_protection_shows_in_the_pagemap() {
    let (handler, guest) = guest_with(&[8], Pattern::new(1, 4096), |options| Options {
        register: Register::WriteProtect,
        ..options
    });
    handler.switches.protect.store(true, SeqCst);
    guest.thread(0).touch(2, 3).unwrap();
    let protected = |guest: &Guest| guest.pagemap(0, 8).unwrap().count(|page| page.wp);
    assert_eq!(protected(&guest), 3);
    guest.thread(0).write(3, 1, 1).unwrap();
    assert_eq!(protected(&guest), 2);
    assert_eq!(handler.switches.wp_faults.load(SeqCst), 1);
}

#[test]
fn the_shared_page_of_zeros_shows_in_the_pagemap() {
    let (_handler, guest) = guest(&[200], SMALL);
    guest.thread(0).touch(0, 200).unwrap();
    let zeros = (0..200).filter(|&page| SMALL.is_zero(page)).count() as u64;
    assert_eq!(guest.pagemap(0, 200).unwrap().count(|page| page.zero), zeros);
    assert_eq!(guest.rss().unwrap().guest, (200 - zeros) * 4096);
}

#[test]
fn pages_are_there_and_protected_before_the_handoff_where_that_is_asked_for() {
    for register in [Register::Missing, Register::WriteProtect] {
        let (handler, guest) =
            guest_with(&[8, 8], SMALL, |options| Options { populate: 2, register, ..options });
        let there: Vec<_> = [0, 1, 8, 9].into();
        for (page, state) in guest.pagemap(0, 16).unwrap().pages() {
            assert_eq!(state.present, there.contains(&page), "page {page}");
            assert_eq!(state.wp, state.present && register == Register::WriteProtect);
        }
        assert_source(&guest, SMALL);
        guest.thread(0).write(8, 1, 3).unwrap();
        let reported = u64::from(register == Register::WriteProtect);
        assert_eq!(handler.switches.wp_faults.load(SeqCst), reported);
    }
}

#[test]
fn a_storm_blows_until_it_is_told_to_be_calm() {
    let (handler, guest) = guest_with(&[16], SMALL, |options| Options { storm: 3, ..options });
    // This handler is no match for a storm: whoever waits may have to until it is over.
    let read = guest.thread(0).start_read(0, 1);
    assert!(guest.thread(1).calm().unwrap() > 0);
    read.get().unwrap();
    assert_eq!(guest.thread(0).read_page(0).unwrap(), SMALL.source(0));
    let removed = handler.switches.removed.lock().unwrap().clone();
    assert!(removed.into_iter().all(|page| page > 12), "each thread has a page at the end");
    assert_eq!(guest.thread(0).calm().unwrap(), 0);
}

#[test]
fn memory_offered_to_the_kernel_is_reported_and_stays_for_now() {
    let (handler, guest) = guest(&[8], Pattern::new(1, 4096));
    let thread = guest.thread(0);
    thread.write(2, 2, 5).unwrap();
    thread.free(2, 1).unwrap();
    // The kernel lets the guest go on once the event is read; the handler notes it after that.
    until("the handler to hear of it", || handler.switches.removed.lock().unwrap().contains(&2));
    // Written again, it is the guest's own for good.
    thread.write_word(2, 1, 6, 0).unwrap();
    let base = Box::new(Content::Stamp(5));
    assert_eq!(thread.read_page(2).unwrap(), Content::Patched { base, at: 0, stamp: 6 });
}

/// Whether reads of the userfaultfd of this process return at once.
fn reads_return_at_once(pid: i32) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let is_uffd = |fd: &fs::DirEntry| {
        fs::read_link(fd.path()).is_ok_and(|it| it.ends_with("anon_inode:[userfaultfd]"))
    };
    let fd = fds.into_iter().find(is_uffd).unwrap().file_name().into_string().unwrap();
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap() & OFlag::O_NONBLOCK.bits().cast_unsigned() != 0
}

#[test]
fn a_guest_may_play_with_the_flags_that_it_shares() {
    // Without a handler, whose next read would wait for ever once the flag is gone.
    let file = tempfile::NamedTempFile::new().unwrap();
    uffd_guest::snapshot::create(file.path(), &SMALL, 8, Default::default()).unwrap();
    let options = Options { map_file: Some(file.path().into()), ..Options::new("/no", [8], SMALL) };
    let guest = spawn(options.clone());
    assert!(reads_return_at_once(guest.pid()));
    for on in [false, true] {
        guest.set_nonblocking(on).unwrap();
        assert_eq!(reads_return_at_once(guest.pid()), on);
    }
    let guest = spawn(Options { play_flags: true, ..options });
    for on in [false, true, false] {
        until("the flag to change", || reads_return_at_once(guest.pid()) == on);
    }
}

#[test]
fn a_guest_may_be_another_user() {
    let (_handler, guest) = guest_with(&[8], SMALL, |options| Options {
        user: Some(65_534),
        user_mode_only: UserModeOnly::Yes,
        ..options
    });
    assert_source(&guest, SMALL);
    let status = fs::read_to_string(format!("/proc/{}/status", guest.pid())).unwrap();
    assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    // It still can look into itself.
    assert!(guest.pagemap(0, 8).unwrap().all(|page| page.present));
}

#[test]
fn pages_of_the_pool_can_be_promised_to_somebody_else() {
    assert!(!take_and_give_back(u64::MAX >> 22).unwrap());
    let _pool = Pool::reserve(3);
    for _ in 0..3 {
        assert!(take_and_give_back(3).unwrap());
    }
}

#[test]
fn waking_makes_a_lost_fault_come_again() {
    let (handler, guest) = guest(&[8], SMALL);
    handler.switches.lose.store(true, SeqCst);
    let lost = guest.thread(0).start_touch(1, 1);
    until("the fault to be lost", || handler.switches.lost.load(SeqCst) > 0);
    handler.switches.lose.store(false, SeqCst);
    assert!(lost.stays_pending(Duration::from_millis(50)));
    guest.wake_all().unwrap();
    assert_eq!(lost.get().unwrap().pages, 1);
}

#[test]
fn a_poisoned_page_is_reported_and_not_fatal() {
    let (handler, guest) = guest(&[8], SMALL);
    handler.switches.poisoned.lock().unwrap().extend([3, 4]);
    let thread = guest.thread(0);
    assert_eq!(thread.read_page(3).unwrap(), Content::Poisoned);
    assert_eq!(thread.write(4, 2, 1).unwrap().poisoned, 1);
    assert_eq!(thread.verify(3, 1, &[Expect::Poisoned]).unwrap().wrong, 0);
    assert_eq!(thread.read_page(5).unwrap(), Content::Stamp(1));
}

#[test]
fn a_soak_finds_nothing_wrong_with_a_right_handler() {
    let (_handler, guest) =
        guest_with(&[200, 60], SMALL, |options| Options { place: Place::Falling, ..options });
    for seed in 0..2 {
        let soak = Soak { seed, ops: 1500, threads: 4, ..Soak::default() };
        let report = guest.thread(0).random(soak).unwrap();
        assert_eq!(report.examples, []);
        assert!(report.madvises > 100 && report.peeks > 500 && report.final_reads > 100);
    }
}

#[test]
fn a_soak_finds_a_handler_that_forgets_removes() {
    let (handler, guest) = guest(&[100], SMALL);
    handler.switches.forget_removes.store(true, SeqCst);
    let report = guest.thread(0).random(Soak { ops: 500, ..Soak::default() }).unwrap();
    assert!(report.wrong > 10, "{report:?}");
    assert!(report.examples.iter().all(|example| example.found == "the snapshot"), "{report:?}");
}

#[test]
fn threads_meet_at_barriers() {
    let (_handler, guest) = guest(&[8], SMALL);
    let meet = || Op::Barrier { name: "start".into(), parties: 2 };
    let first = guest.thread(0).start_program(vec![
        meet(),
        Op::Write { page: 1, count: 1, stamp: 9, at: None },
        meet(),
    ]);
    assert!(first.stays_pending(Duration::from_millis(30)));
    let expect = vec![Expect::Stamp(9)];
    let second = guest.thread(1).program(vec![
        meet(),
        meet(),
        Op::Verify { page: 1, count: 1, expect: expect.clone() },
        Op::Verify { page: 2, count: 1, expect },
        Op::Touch { page: 99, count: 1 },
    ]);
    let report = second.unwrap();
    assert_eq!((report.verified.pages, report.verified.wrong), (2, 1));
    assert_eq!((report.steps, report.refusals[0].step), (5, 4));
    assert_eq!(first.get().unwrap().refused, 0);
}

#[test]
fn a_benchmark_tells_latencies_and_costs() {
    let (_handler, guest) = guest(&[256], SMALL);
    let bench = Bench { order: Order::Boot, threads: 2, ..Bench::default() };
    let report = guest.thread(0).bench(bench).unwrap();
    assert_eq!(report.touches, 256);
    assert!(0 < report.latency.p50 && report.latency.p50 <= report.latency.max);
    assert!(report.latency.max <= report.nanos && report.cost.voluntary_switches > 50);
    assert_eq!(guest.thread(0).madvise_bench(0, 256, 16).unwrap().touches, 16);
}

#[test]
fn a_guest_dies_as_told() {
    let (_handler, mut guest_) = guest(&[64], SMALL);
    guest_.die_after(Death::Kill, 10).unwrap();
    let gone = guest_.thread(0).touch(0, 64).unwrap_err();
    assert!(gone.to_string().contains("SIGKILL"), "{gone}");
    assert_eq!(guest_.wait_exit().unwrap().signal(), Some(9));

    let (_handler, mut guest_) = guest(&[8], SMALL);
    assert_eq!(guest_.die(Death::Abort).unwrap().signal(), Some(6));
    let (_handler, mut guest_) = guest(&[8], SMALL);
    assert!(guest_.exit().unwrap().success());
}

#[test]
fn a_guest_that_maps_the_file_needs_no_handler() {
    let file = tempfile::NamedTempFile::new().unwrap();
    uffd_guest::snapshot::create(file.path(), &SMALL, 64, Default::default()).unwrap();
    let options = Options::new("/nowhere/uffd.sock", [48, 16], SMALL);
    let guest = spawn(Options { map_file: Some(file.path().into()), ..options });
    assert_source(&guest, SMALL);
    guest.thread(0).write(3, 1, 7).unwrap();
    assert_eq!(guest.thread(0).read_page(3).unwrap(), Content::Stamp(7));
    let mut snapshot = vec![0; 4096];
    SMALL.fill(3 * 4096, &mut snapshot);
    assert!(fs::read(file.path()).unwrap()[3 * 4096..4 * 4096] == snapshot);
}

#[test]
fn a_guest_without_a_handler_gives_up() {
    let options = Options::new("/nowhere/uffd.sock", [8], SMALL);
    let gave_up = GuestBuilder::new(env!("CARGO_BIN_EXE_uffd-guest"), options).spawn().unwrap_err();
    let message = gave_up.to_string();
    assert!(message.starts_with("the guest gave up: cannot hand off: No such file"), "{message}");
}
