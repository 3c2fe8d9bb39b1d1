//! Random accesses by many threads of a guest, every byte checked, for as long as one likes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use uffd_core::session::{DirtyTracking, FaultAround};
use uffd_core::units::PageRange;
use uffd_guest::driver::DriverError;
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Soak as Round;

use crate::apart::{Apart, Sight};
use crate::case::HUGE;
use crate::cast::Cast;
use crate::hugepages::HugePages;
use crate::others::Drain;
use crate::serving::{Serving, Staged};
pub use crate::soaked::Soaked;
use crate::stage::StageBuilder;

/// What is to be soaked.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The program that plays the guest, and whoever else there is.
    pub cast: Cast,
    /// Go on until this time is over,
    pub time: Duration,
    /// and until there were so many accesses,
    pub accesses: u64,
    /// and so many REMOVE events.
    pub removes: u64,
    /// Threads of the guest.
    pub threads: u32,
    /// Bytes of a page: 4096 or 2097152.
    pub page_size: u64,
    /// Pages of the guest.
    pub pages: u64,
    /// Whether dirty pages are tracked.
    pub tracking: bool,
    /// Whether prefaults and exports go on all the while.
    pub prefault: bool,
    /// Whether pages around a fault are filled with it.
    pub fault_around: bool,
    /// What gets in the way.
    pub adversity: Adversity,
    /// Of all choices.
    pub seed: u64,
}

/// What gets in the way of a guest and its handler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adversity {
    /// The handler is in another pid namespace, and knows neither process nor page map.
    pub no_page_map: bool,
    /// Somebody takes what the pool of huge pages has, and gives it back, all the time.
    pub drained_pool: bool,
    /// The guest clears and sets O_NONBLOCK of the descriptor it shares, all the time.
    pub played_flags: bool,
}

/// How long a guest works: then it has touched everything, and the next one begins anew.
const ROUND: Duration = Duration::from_millis(700);

/// Between two bursts of whoever drains the pool: the guest has to get on.
const RELIEF: Duration = Duration::from_micros(500);

impl Soak {
    /// Soaks.
    ///
    /// # Panics
    /// If the stage cannot be set up.
    pub fn run(&self) -> Result<Soaked, DriverError> {
        let huge = self.page_size == HUGE;
        let _pool = huge.then(|| HugePages::reserve(self.pages).expect("huge pages for the soak"));
        let stage = self.stage();
        let drained = huge && self.adversity.drained_pool;
        let _drain = drained.then(|| Drain::start(&self.cast, self.pages, RELIEF));
        let start = Instant::now();
        let mut sum = Soaked::default();
        for seed in self.seed.. {
            let enough = start.elapsed() >= self.time
                && sum.accesses() >= self.accesses
                && sum.guest.madvises >= self.removes;
            if enough || !sum.is_right() {
                break;
            }
            let guest =
                stage.guest_with(&|options| options.play_flags = self.adversity.played_flags);
            self.one_guest(&*guest, seed, &mut sum)?;
        }
        Ok(sum)
    }

    fn stage(&self) -> Box<dyn Staged> {
        let pattern =
            Pattern::new(self.seed, self.page_size).with_zero_runs(50).with_lone_zeros(50);
        let first = self.pages.div_ceil(2);
        let regions: Vec<u64> =
            [first, self.pages - first].into_iter().filter(|pages| *pages > 0).collect();
        let stage = StageBuilder::new(self.cast.program(), pattern, &regions).leading_arg("guest");
        let stage = stage.session(|options| {
            options.dirty_tracking = match self.tracking {
                true => DirtyTracking::On,
                false => DirtyTracking::Off,
            };
            if !self.fault_around {
                options.fault_around = FaultAround::Off;
            }
        });
        if self.adversity == Adversity::default() {
            return Box::new(stage.open());
        }
        // In a process of its own, which can be ended however frozen it is.
        let sight = if self.adversity.no_page_map { Sight::OtherNamespace } else { Sight::Full };
        Box::new(stage.open_apart(&self.cast, Apart { sight, ..Apart::default() }))
    }

    fn one_guest(
        &self,
        served: &dyn Serving,
        seed: u64,
        sum: &mut Soaked,
    ) -> Result<(), DriverError> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| match self.prefault {
                true => self.beside(served, &over),
                false => Soaked::default(),
            });
            let found = served.guest().thread(0).random(Round {
                seed,
                threads: self.threads,
                chunk: if self.page_size == HUGE { 2 } else { 8 },
                ops: u64::MAX,
                millis: u64::try_from(ROUND.as_millis()).ok(),
                madvise: 14,
                ..Round::default()
            });
            over.store(true, Ordering::Release);
            let mut soaked = beside.join().expect("what goes on beside does not panic");
            soaked.guest = found?;
            check(served, &mut soaked);
            sum.add(soaked);
            Ok(())
        })
    }

    /// Prefaults of everything, in pieces, and exports, for as long as the guest is at work.
    fn beside(&self, served: &dyn Serving, over: &AtomicBool) -> Soaked {
        let mut soaked = Soaked::default();
        // Nobody waits for a page of a prefault, and nobody tells then whether it is there.
        let may_fail = self.adversity.no_page_map && self.page_size == HUGE;
        while !over.load(Ordering::Acquire) {
            let pieces = (0..self.pages.div_ceil(64)).rev().map(|piece| piece * 64);
            let ranges = pieces.map(|page| PageRange::new(page, (page + 64).min(self.pages)));
            let Ok(report) = served.prefault(ranges.collect()).get() else { break };
            soaked.prefaults += 1;
            soaked.prefaulted += report.installed;
            let all = report.requested == self.pages && report.skipped == 0;
            if (!all || (report.failed > 0 && !may_fail)) && soaked.mistakes.len() < 8 {
                soaked.mistakes.push(format!("a prefault of {} pages: {report:?}", self.pages));
            }
            let Ok(export) = served.export().get() else { break };
            if !export.dirty.is_disjoint(&export.empty) {
                soaked.mistakes.push("an export with pages both dirty and empty".to_owned());
            }
            // An interval in which pages are given back and missed again.
            std::thread::sleep(Duration::from_millis(5));
        }
        soaked
    }
}

/// What the counters have to agree on.
fn check(served: &dyn Serving, soaked: &mut Soaked) {
    let settled = served.settle().get().and_then(|()| served.figures().get());
    let figures = match settled {
        Ok(figures) => figures,
        Err(error) => return soaked.mistakes.push(format!("the session does not settle: {error}")),
    };
    let installed = figures.source_pages + figures.zero_pages;
    let filled = figures.neighbour_pages + figures.prefault_pages;
    let mut equal = |what: &str, one: u64, other: u64| {
        if one != other {
            soaked.mistakes.push(format!("{what}: {one} and {other}"));
        }
    };
    equal("faults in hand at the end", figures.faults_in_hand, 0);
    equal("faults and latencies", figures.faults(), figures.latencies);
    equal("pages prefaulted", figures.prefault_pages, soaked.prefaulted);
    let missing = figures.read_faults + figures.write_faults;
    // A fault on a page that a prefault installs is both.
    let most = missing + filled;
    if installed > most {
        soaked.mistakes.push(format!("{installed} installs for {most} reasons"));
    }
    // The guest makes one call for each run of addresses.
    if figures.remove_events < soaked.guest.madvises {
        let events = figures.remove_events;
        soaked.mistakes.push(format!("{events} REMOVEs of {}", soaked.guest.madvises));
    }
    soaked.sessions.push(figures);
}
