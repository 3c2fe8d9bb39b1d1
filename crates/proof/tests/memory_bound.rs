//! Bytes that were fetched and cannot be installed yet must not pile up: the host's memory belongs
//! to its guests.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::time::{Duration, Instant};

use uffd_core::session::DirtyTracking;
use uffd_core::units::PageRange;
use uffd_guest::pattern::Pattern;
use uffd_proof::{
    Apart, ApartStage, Cast, HUGE, HugePages, SMALL, ServedApart, Serving, StageBuilder, until,
};

/// Huge pages of each guest: a gibibyte.
const PAGES: u64 = 512;

/// What a process may take for one guest on top of what it has, however much is asked for. A
/// fourth of what there is to fetch.
const MOST: u64 = 256 << 20;

/// A process whose source has nothing at hand, and which can install nothing.
struct Starved {
    stage: ApartStage,
    guests: Vec<ServedApart>,
    /// Bytes before anything was asked for.
    before: u64,
    pool: Option<HugePages>,
}

fn open(pattern: Pattern, pages: u64) -> ApartStage {
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    // Hardly anything but holes: reading them takes memory and no disk.
    let pattern = pattern.with_lone_zeros(1000);
    StageBuilder::new(env!("CARGO_BIN_EXE_uffd-proof-guest"), pattern, &[pages])
        .data_every(1 << 20)
        .session(|options| options.dirty_tracking = DirtyTracking::Off)
        .open_apart(&cast, Apart { cold: true, ..Apart::default() })
}

/// Guests that have a huge page each, and for which there is no other.
fn without_pages(guests: u64) -> Starved {
    let pool = HugePages::reserve(guests).unwrap();
    let stage = open(Pattern::new(1, HUGE), PAGES + 1);
    let guests: Vec<_> = (0..guests).map(|_| stage.guest()).collect();
    for guest in &guests {
        guest.thread(0).touch(PAGES, 1).unwrap();
    }
    let before = stage.peak_memory();
    Starved { stage, guests, before, pool: Some(pool) }
}

/// A guest that gives memory back all the time, so that nothing can be installed.
fn in_a_storm() -> Starved {
    let stage = open(Pattern::new(1, SMALL), PAGES * (HUGE / SMALL));
    let guests = vec![stage.guest_with(|options| options.storm = 16)];
    let before = stage.peak_memory();
    Starved { stage, guests, before, pool: None }
}

impl Starved {
    /// Waits until the process takes no more although it goes on trying to install, and looks all
    /// the while at what it takes.
    fn takes_at_most(&self, most: u64) {
        let tries = || -> u64 {
            let figures = self.guests.iter().map(|guest| guest.figures().get().unwrap());
            figures.map(|figures| figures.out_of_memory + figures.deferred).sum()
        };
        let (mut last, mut since, mut tried) = (0, Instant::now(), tries());
        until("the process to take no more", || {
            // The kernel counts no more exactly than some pages for each thread.
            let taken = self.stage.peak_memory().saturating_sub(self.before);
            assert!(taken <= most, "{} MiB for {} guests", taken >> 20, self.guests.len());
            // Less than what a single fetch brings.
            if taken > last + (256 << 10) {
                (last, since, tried) = (taken, Instant::now(), tries());
            }
            since.elapsed() > Duration::from_secs(1) && tries() > tried + 10
        });
    }
}

#[test]
fn a_prefault_that_waits_for_memory_does_not_take_it_all() {
    let starved = without_pages(1);
    let _all = starved.guests[0].prefault(vec![PageRange::new(0, PAGES)]);
    starved.takes_at_most(MOST);
}

#[test]
fn many_prefaults_that_wait_for_memory_do_not_take_it_all() {
    let starved = without_pages(1);
    let ranges = (0..PAGES).step_by(4).map(|page| PageRange::new(page, page + 4));
    let asked: Vec<_> = ranges.map(|range| starved.guests[0].prefault(vec![range])).collect();
    starved.takes_at_most(MOST);
    drop(asked);
}

#[test]
fn many_guests_that_wait_for_memory_do_not_take_it_all() {
    let starved = without_pages(4);
    let all = |guest: &ServedApart| guest.prefault(vec![PageRange::new(0, PAGES)]);
    let _asked: Vec<_> = starved.guests.iter().map(all).collect();
    starved.takes_at_most(4 * MOST);
}

#[test]
fn a_prefault_that_waits_for_the_address_space_does_not_take_all_memory() {
    let starved = in_a_storm();
    let all = PageRange::new(0, PAGES * (HUGE / SMALL));
    let _asked = starved.guests[0].prefault(vec![all]);
    starved.takes_at_most(MOST);
}

/// A bound on what is fetched may not keep anything from being done.
#[test]
fn what_waits_for_memory_is_done_when_there_is_some() {
    let starved = without_pages(2);
    let pool = starved.pool.as_ref().unwrap();
    let some = |guest: &ServedApart| guest.prefault(vec![PageRange::new(8, 12)]);
    let asked: Vec<_> = starved.guests.iter().map(some).collect();
    let read = starved.guests[0].thread(0).start_touch(40, 1);
    starved.takes_at_most(MOST);
    pool.resize(2 + 9).unwrap();
    for asked in asked {
        assert_eq!(asked.get().unwrap().installed, 4);
    }
    assert_eq!(read.get().unwrap().pages, 1);
}
