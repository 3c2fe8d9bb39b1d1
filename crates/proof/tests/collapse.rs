//! Ranges of 2 MiB that are complete become transparent huge pages, and nothing else changes.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use roaring::RoaringBitmap;
use uffd_core::kernel::{Collapse, Process};
use uffd_core::session::{DirtyTracking, Notice, SessionOptions};
use uffd_core::units::{GuestAddr, PageRange};
use uffd_guest::options::{Options, Register};
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::{Expect, Soak};
use uffd_proof::{Cast, DEADLINE, Relay, SMALL, Served, Stage, StageBuilder, until};
use userfaultfd_sys as sys;

/// Pages of a range.
const RANGE: u64 = 512;
const RANGES: u64 = 8;
/// So many ranges, wherever the guest's memory begins.
const PAGES: u64 = (RANGES + 1) * RANGE;

fn stage(change: impl FnOnce(&mut SessionOptions)) -> Stage {
    let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let builder = StageBuilder::new(program, Pattern::new(17, SMALL), &[PAGES]);
    builder
        .session(|options| {
            options.collapse = true;
            change(options);
        })
        .open()
}

/// The first page of each aligned range.
fn ranges(guest: &Served) -> Vec<u64> {
    let base = guest.ready().regions[0].address / SMALL;
    let first = base.next_multiple_of(RANGE) - base;
    (first..).step_by(512).take_while(|page| page + RANGE <= PAGES).collect()
}

fn fill(guest: &Served, pages: impl IntoIterator<Item = PageRange>) {
    guest.session.prefault(pages.into_iter().collect()).unwrap();
}

fn all() -> PageRange {
    PageRange::new(0, PAGES)
}

/// Those of these ranges that are one huge page.
fn huge(guest: &Served, ranges: &[u64]) -> Vec<u64> {
    let is_huge =
        |first: &u64| guest.pagemap(*first, RANGE).unwrap().all(|page| page.huge && page.present);
    ranges.iter().copied().filter(is_huge).collect()
}

/// Waits until all of these are. What cannot be had at first is tried again after a second, and less
/// and less often, up to once in 64: that takes several deadlines.
fn until_huge(guest: &Served, expected: &[u64]) {
    let (start, mut short) = (Instant::now(), 0);
    while huge(guest, expected) != expected {
        let counters = guest.stats().counters;
        if counters.not_collapsed > short {
            // Perhaps the host's memory is in pieces.
            short = counters.not_collapsed;
            fs::write("/proc/sys/vm/compact_memory", "1").unwrap();
        }
        assert!(start.elapsed() < 5 * DEADLINE, "no huge pages: {counters:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_is_complete_becomes_huge_pages_and_reads_as_before() {
    let stage = stage(|_| {});
    let guest = stage.guest();
    let ranges = ranges(&guest);
    assert!(ranges.len() as u64 >= RANGES);
    guest.thread(0).touch(5, 1).unwrap();
    fill(&guest, [all()]);
    guest.thread(0).write(7, 3, 9).unwrap();
    until_huge(&guest, &ranges);
    until("it to be counted", || guest.stats().counters.collapsed == ranges.len() as u64);
    let thread = guest.thread(0);
    assert_eq!(thread.verify(0, 7, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(thread.verify(7, 3, &[Expect::Stamp(9)]).unwrap().wrong, 0);
    assert_eq!(thread.verify(10, PAGES - 10, &[Expect::Source]).unwrap().wrong, 0);

    // Given back in part, the rest of it is there, and what is gone reads as zeros.
    let first = ranges[1];
    thread.madvise(first + 5, 20).unwrap();
    assert_eq!(thread.verify(first, 5, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(thread.verify(first + 5, 20, &[Expect::Zeros]).unwrap().wrong, 0);
    assert_eq!(thread.verify(first + 25, RANGE - 25, &[Expect::Source]).unwrap().wrong, 0);
    // And once it is complete again, it is one again.
    thread.write(first + 5, 20, 4).unwrap();
    until_huge(&guest, &ranges);
    assert_eq!(thread.verify(first + 5, 20, &[Expect::Stamp(4)]).unwrap().wrong, 0);
}

/// The kernel would fill what is missing with zeros, where no userfaultfd is registered.
#[test]
fn a_range_with_a_page_missing_stays_as_it_is() {
    let stage = stage(|_| {});
    let guest = stage.guest();
    let ranges = ranges(&guest);
    let (holed, given, zeros) = (ranges[0] + 100, ranges[1] + 511, ranges[2]);
    fill(&guest, [PageRange::new(0, holed), PageRange::new(holed + 1, PAGES)]);
    let thread = guest.thread(0);
    thread.madvise(given, 1).unwrap();
    thread.madvise(zeros, 1).unwrap();
    // The shared zero page, which is no memory of the guest's own.
    assert_eq!(thread.verify(zeros, 1, &[Expect::Zeros]).unwrap().wrong, 0);
    until_huge(&guest, &ranges[3..]);
    assert!(huge(&guest, &ranges[..3]).is_empty());
    for missing in [holed, given] {
        assert!(guest.pagemap(missing, 1).unwrap().all(|page| !page.present));
    }
    // The kernel itself refuses.
    let process = owner(&guest);
    let base = guest.ready().regions[0].address;
    for range in &ranges[..3] {
        let start = GuestAddr(base + range * SMALL);
        let answer = process.collapse(start);
        assert_ne!(answer, Collapse::Done, "{start}");
    }
    assert_eq!(thread.verify(holed, 1, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(thread.verify(given, 1, &[Expect::Zeros]).unwrap().wrong, 0);
    until_huge(&guest, &ranges[..1]);
}

/// Protected pages are left alone, and what an export says stays exact.
#[test]
fn where_writes_are_tracked_only_what_was_written_becomes_one() {
    for (option, register) in
        [(DirtyTracking::On, stock as fn(&mut Options)), (DirtyTracking::Auto, kernel_tracks)]
    {
        let stage = stage(|options| options.dirty_tracking = option);
        let guest = stage.guest_with(register);
        only_what_was_written_becomes_one(&guest);
    }
}

fn stock(_: &mut Options) {}

fn kernel_tracks(options: &mut Options) {
    options.register = Register::WriteProtect;
    options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP
        | sys::UFFD_FEATURE_WP_ASYNC
        | sys::UFFD_FEATURE_WP_UNPOPULATED;
}

fn only_what_was_written_becomes_one(guest: &Served) {
    let ranges = ranges(guest);
    fill(guest, [all()]);
    let thread = guest.thread(0);
    thread.write(ranges[4], RANGE, 3).unwrap();
    thread.write(ranges[5] + 1, RANGE - 1, 3).unwrap();
    until_huge(guest, &ranges[4..5]);
    assert_eq!(huge(guest, &ranges), ranges[4..5]);
    let written: RoaringBitmap = [ranges[4]..ranges[4] + 512, ranges[5] + 1..ranges[5] + 512]
        .into_iter()
        .flat_map(|pages| pages.map(|page| u32::try_from(page).unwrap()))
        .collect();
    let export = guest.session.export().unwrap();
    assert!(export.exact);
    assert_eq!(export.dirty, written);
    // The last page makes it complete.
    thread.write(ranges[5], 1, 3).unwrap();
    until_huge(guest, &ranges[4..6]);
    assert_eq!(thread.verify(ranges[4], 2 * RANGE, &[Expect::Stamp(3)]).unwrap().wrong, 0);
    let export = guest.session.export().unwrap();
    assert_eq!((export.exact, export.dirty.len()), (true, 2 * RANGE));
}

/// Says that it is over, also when the test fails: else nobody would hear of that.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ranges are collapsed at every moment, whatever the guest is about.
#[test]
fn no_byte_changes_whenever_it_is_done() {
    for tracking in [DirtyTracking::Off, DirtyTracking::On] {
        let stage = stage(|options| {
            options.collapse = false;
            options.dirty_tracking = tracking;
        });
        let guest = stage.guest();
        let base = guest.ready().regions[0].address;
        let starts: Vec<_> =
            ranges(&guest).into_iter().map(|page| GuestAddr(base + page * SMALL)).collect();
        fill(&guest, [all()]);
        let (over, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let report = thread::scope(|scope| {
            scope.spawn(|| {
                let process = owner(&guest);
                while !over.load(Ordering::Relaxed) {
                    for start in &starts {
                        if process.collapse(*start) == Collapse::Done {
                            done.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
            let _ends = Ends(&over);
            // First all of it is written, then pages are given back and used again.
            let writes = Soak { madvise: 0, write: 400, ..Soak::default() };
            let all = Soak { seed: 1, ops: 5_000, madvise: 5, ..Soak::default() };
            [writes, all].map(|soak| {
                let report = guest.thread(0).start_random(soak).wait(2 * DEADLINE).unwrap();
                assert_eq!(report.wrong, 0, "{tracking:?}: {:?}", report.examples);
                until("something to be collapsed", || {
                    let is_done = done.load(Ordering::Relaxed);
                    if !is_done {
                        // Perhaps the host's memory is in pieces.
                        fs::write("/proc/sys/vm/compact_memory", "1").unwrap();
                    }
                    is_done
                });
                report
            })
        });
        assert!(report[1].madvises > 0);
    }
}

/// The guest's own process is not known: nobody else's memory is touched for it.
#[test]
fn a_guest_that_came_through_another_process_is_left_alone_and_that_is_said() {
    let stage = stage(|_| {});
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let relay = Relay::start(&cast, stage.dir(), stage.server().path());
    let guest =
        stage.guest_with(|options: &mut Options| relay.socket().clone_into(&mut options.socket));
    fill(&guest, [all()]);
    let notice = guest.notice();
    assert!(
        matches!(&notice, Notice::NotCollapsed { why } if why.contains("process")),
        "{notice:?}"
    );
    assert!(huge(&guest, &ranges(&guest)).is_empty());
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(guest.stats().counters.collapsed, 0);
}

fn owner(guest: &Served) -> Process {
    let pid = guest.pid();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let started = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
    Process::find(pid, started.parse().unwrap()).unwrap()
}
