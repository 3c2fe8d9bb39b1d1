//! A warm fault costs two system calls: one that reads it, and one that installs its page.
//!
//! The rule by which they are counted: every system call of the fault loop's thread from the first
//! of many faults to the last, but for waiting, and for reads that found nothing to read. What
//! looks after the snapshot is not a fault's: its length and rights are looked at once in a
//! millisecond; of each 64 KiB, what the page cache has twice, for the page that is read from it and
//! for those that are mapped, and what the page table has then and again after a while.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::time::Instant;

use nix::libc::{
    SYS_epoll_pwait, SYS_epoll_pwait2, SYS_ioctl, SYS_madvise, SYS_mincore, SYS_pread64,
    SYS_preadv2, SYS_statx,
};
use uffd_core::session::{DirtyTracking, FaultAround};
use uffd_guest::pattern::Pattern;
use uffd_proof::{Apart, Cast, SMALL, Serving, StageBuilder, Traced, until};

/// Faults that are counted.
const FAULTS: u64 = 2000;

/// Faults before, by which everything is set up.
const BEFORE: u64 = 64;

/// Pages that are mapped at once.
const CHUNK: u64 = (64 << 10) / SMALL;

fn costs_two_system_calls(tracking: DirtyTracking, write: bool) {
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let stage = StageBuilder::new(program, Pattern::new(3, SMALL), &[BEFORE + FAULTS])
        .session(|options| {
            options.dirty_tracking = tracking;
            options.fault_around = FaultAround::Off;
        })
        .open_apart(&cast, Apart::default());
    let guest = stage.guest();
    let thread = guest.thread(0);
    thread.touch(0, BEFORE).unwrap();
    guest.settle().get().unwrap();

    // A thread that the loop has just started bears its name until it has its own.
    let mut tid = None;
    until("one fault loop", || {
        tid = <[i32; 1]>::try_from(stage.threads_named("uffd-guest")).ok();
        tid.is_some()
    });
    let [tid] = tid.unwrap();
    let start = Instant::now();
    let traced = Traced::start(tid);
    match write {
        true => drop(thread.write_word(BEFORE, FAULTS, 1, 0).unwrap()),
        false => drop(thread.touch(BEFORE, FAULTS).unwrap()),
    }
    let calls = traced.end(|| drop(guest.figures()));
    let millis = u64::try_from(start.elapsed().as_millis()).unwrap();

    assert_eq!(guest.figures().get().unwrap().faults(), BEFORE + FAULTS);
    let (reads, ioctls) = (calls.done(SYS_preadv2), calls.done(SYS_ioctl));
    // One page of each chunk is read from the snapshot.
    let chunks = FAULTS.div_ceil(CHUNK);
    let most = FAULTS + chunks;
    assert!(reads <= most && ioctls == FAULTS, "{reads} and {ioctls} for {FAULTS}: {calls:?}");
    let looks = [SYS_statx, SYS_mincore, SYS_madvise, SYS_pread64];
    let looked: u64 = looks.iter().map(|number| calls.done(*number)).sum();
    let most = 2 * (millis + 1) + 4 * chunks * (millis / 250 + 1);
    assert!(looked <= most, "{looked} looks in {millis} ms: {calls:?}");
    // Whoever asked for its figures has woken it, and is answered.
    let waits = [SYS_epoll_pwait, SYS_epoll_pwait2];
    let known = [&looks[..], &waits, &[SYS_preadv2, SYS_ioctl]].concat();
    let others = calls.others(&known);
    assert!(others <= 8, "{others} other system calls: {calls:?}");
}

#[test]
fn of_reads() {
    costs_two_system_calls(DirtyTracking::Off, false);
}

#[test]
fn of_writes() {
    costs_two_system_calls(DirtyTracking::Off, true);
}

#[test]
fn of_reads_that_are_tracked() {
    costs_two_system_calls(DirtyTracking::On, false);
}
