//! O_NONBLOCK belongs to the open file, which a guest shares with its handler. Whoever else has the
//! descriptor may clear it at any moment, and a plain `read` would then wait for ever.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_core::session::DirtyTracking;
use uffd_core::units::PageRange;
use uffd_guest::pattern::{Content, Pattern};
use uffd_guest::protocol::{Expect, Soak};
use uffd_proof::{
    Apart, ApartStage, Cast, Ending, HUGE, HugePages, SMALL, ServedApart, Serving, StageBuilder,
};

const PAGES: u64 = 8;

/// Served by another process: a session that is frozen would keep this one from ending.
fn open(page_size: u64, dirty_tracking: DirtyTracking) -> ApartStage {
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    let (program, pattern) = (env!("CARGO_BIN_EXE_uffd-proof-guest"), Pattern::new(4, page_size));
    StageBuilder::new(program, pattern, &[PAGES])
        .session(|options| options.dirty_tracking = dirty_tracking)
        .open_apart(&cast, Apart::default())
}

/// A guest that was served, and then has cleared the flag.
fn blocking(stage: &ApartStage) -> ServedApart {
    let guest = stage.guest();
    guest.thread(0).touch(0, 2).unwrap();
    guest.settle().get().unwrap();
    guest.set_nonblocking(false).unwrap();
    guest
}

#[test]
fn an_idle_session_answers() {
    let stage = open(SMALL, DirtyTracking::Auto);
    let guest = blocking(&stage);
    assert_eq!(guest.figures().get().unwrap().faults(), 2);
    guest.settle().get().unwrap();
    assert_eq!(guest.export().get().unwrap().states.len() as u64, PAGES);
    let ranges = vec![PageRange::new(0, PAGES)];
    assert_eq!(guest.prefault(ranges).get().unwrap().requested, PAGES);
}

#[test]
fn a_stop_is_obeyed() {
    let stage = open(SMALL, DirtyTracking::Auto);
    let guest = blocking(&stage);
    guest.begin_stop();
    assert_eq!(guest.end().0, Ending::Stopped);
}

#[test]
fn a_guests_exit_is_seen() {
    let stage = open(SMALL, DirtyTracking::Auto);
    let mut guest = blocking(&stage);
    // It was woken since, and has looked for events.
    drop(guest.figures());
    guest.guest.kill().unwrap();
    assert_eq!(guest.end().0, Ending::GuestExited);
}

#[test]
fn faults_are_served_and_memory_is_given_back() {
    let stage = open(SMALL, DirtyTracking::Auto);
    let guest = blocking(&stage);
    let thread = guest.thread(0);
    for round in 0..3 {
        assert_eq!(thread.verify(2, 4, &[Expect::Source]).unwrap().wrong, 0);
        thread.write(6, 1, 5 + round).unwrap();
        assert_eq!(thread.read_page(6).unwrap(), Content::Stamp(5 + round));
        thread.madvise(6, 1).unwrap();
        assert_eq!(thread.read_page(6).unwrap(), Content::Zeros);
        assert_eq!(guest.figures().get().unwrap().faults_in_hand, 0);
        guest.set_nonblocking(round % 2 == 0).unwrap();
    }
}

#[test]
fn a_guest_that_plays_with_the_flags_all_the_time_is_served() {
    for (page_size, tracking) in [(SMALL, DirtyTracking::On), (HUGE, DirtyTracking::Off)] {
        let _pool = (page_size == HUGE).then(|| HugePages::reserve(PAGES).unwrap());
        let stage = open(page_size, tracking);
        let mut guest = stage.guest_with(|options| options.play_flags = true);
        let soak = Soak { threads: 3, ops: 400, chunk: 2, ..Soak::default() };
        let playing = guest.thread(0).start_random(soak);
        while !playing.is_done() {
            guest.figures().get().unwrap();
            guest.settle().get().unwrap();
        }
        assert_eq!(playing.get().unwrap().examples, []);
        guest.guest.kill().unwrap();
        assert_eq!(guest.end().0, Ending::GuestExited);
    }
}
