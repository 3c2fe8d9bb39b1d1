//! Random accesses by many threads of a guest, every byte checked, for as long as one likes.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use uffd_core::session::{DirtyTracking, FaultAround};
use uffd_core::stats::{Counters, Stats};
use uffd_core::units::PageRange;
use uffd_guest::driver::DriverError;
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::{Soak as Round, SoakReport};

use crate::{HUGE, HugePages, Served, StageBuilder};

/// What is to be soaked.
#[derive(Clone, Debug)]
pub struct Soak {
    /// The program that runs the guest.
    pub guest: PathBuf,
    /// What it has to be told first to do so.
    pub leading: Option<String>,
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
    /// Of all choices.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Soaked {
    /// What the guest did and found.
    pub guest: SoakReport,
    /// Prefaults that ran meanwhile.
    pub prefaults: u64,
    /// Pages they installed.
    pub prefaulted: u64,
    /// What the session of each guest counted.
    pub sessions: Vec<Stats>,
    /// What does not add up.
    pub mistakes: Vec<String>,
}

impl Soaked {
    /// Pages read or written.
    pub const fn accesses(&self) -> u64 {
        let SoakReport { reads, writes, words, peeks, final_reads, .. } = &self.guest;
        *reads + *writes + *words + *peeks + *final_reads
    }

    /// A sum over all sessions.
    pub fn counted(&self, count: impl Fn(&Counters) -> u64) -> u64 {
        self.sessions.iter().map(|stats| count(&stats.counters)).sum()
    }

    fn add(&mut self, more: Self) {
        let (sum, found) = (&mut self.guest, more.guest);
        sum.reads += found.reads;
        sum.writes += found.writes;
        sum.words += found.words;
        sum.madvises += found.madvises;
        sum.removed_pages += found.removed_pages;
        sum.peeks += found.peeks;
        sum.final_reads += found.final_reads;
        sum.wrong += found.wrong;
        sum.nanos += found.nanos;
        sum.examples.extend(found.examples);
        self.prefaults += more.prefaults;
        self.prefaulted += more.prefaulted;
        self.sessions.extend(more.sessions);
        self.mistakes.extend(more.mistakes);
    }

    /// Whether all was as it must be.
    pub fn is_right(&self) -> bool {
        self.guest.wrong == 0 && self.mistakes.is_empty()
    }
}

/// How long a guest works: then it has touched everything, and the next one begins anew.
const ROUND: Duration = Duration::from_millis(700);

impl Soak {
    /// Soaks.
    ///
    /// # Panics
    /// If the stage cannot be set up.
    pub fn run(&self) -> Result<Soaked, DriverError> {
        let _huge = (self.page_size == HUGE)
            .then(|| HugePages::reserve(self.pages).expect("huge pages for the soak"));
        let pattern =
            Pattern::new(self.seed, self.page_size).with_zero_runs(50).with_lone_zeros(50);
        let first = self.pages.div_ceil(2);
        let regions: Vec<u64> =
            [first, self.pages - first].into_iter().filter(|pages| *pages > 0).collect();
        let stage = StageBuilder::new(&self.guest, pattern, &regions).session(|options| {
            options.dirty_tracking = match self.tracking {
                true => DirtyTracking::On,
                false => DirtyTracking::Off,
            };
            if !self.fault_around {
                options.fault_around = FaultAround::Off;
            }
        });
        let stage = self.leading.iter().fold(stage, |stage, arg| stage.leading_arg(arg)).open();
        let start = Instant::now();
        let mut sum = Soaked::default();
        for seed in self.seed.. {
            let enough = start.elapsed() >= self.time
                && sum.accesses() >= self.accesses
                && sum.guest.madvises >= self.removes;
            if enough || !sum.is_right() {
                break;
            }
            self.one_guest(&stage.guest(), seed, &mut sum)?;
        }
        Ok(sum)
    }

    fn one_guest(&self, guest: &Served, seed: u64, sum: &mut Soaked) -> Result<(), DriverError> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let beside = scope.spawn(|| match self.prefault {
                true => self.beside(guest, &over),
                false => Soaked::default(),
            });
            let found = guest.thread(0).random(Round {
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
            check(guest, &mut soaked);
            sum.add(soaked);
            Ok(())
        })
    }

    /// Prefaults of everything, in pieces, and exports, for as long as the guest is at work.
    fn beside(&self, guest: &Served, over: &AtomicBool) -> Soaked {
        let mut soaked = Soaked::default();
        while !over.load(Ordering::Acquire) {
            let pieces = (0..self.pages.div_ceil(64)).rev().map(|piece| piece * 64);
            let ranges = pieces.map(|page| PageRange::new(page, (page + 64).min(self.pages)));
            let Ok(report) = guest.session.prefault(ranges.collect()) else { break };
            soaked.prefaults += 1;
            soaked.prefaulted += report.installed;
            let right = report.requested() == self.pages && report.failed + report.skipped == 0;
            if !right && soaked.mistakes.len() < 8 {
                soaked.mistakes.push(format!("a prefault of {} pages: {report:?}", self.pages));
            }
            let Ok(export) = guest.session.export() else { break };
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
fn check(guest: &Served, soaked: &mut Soaked) {
    let Ok(()) = guest.session.settle() else {
        return soaked.mistakes.push(format!("the session ended: {:?}", guest.session.end()));
    };
    let stats = guest.stats();
    let counters = &stats.counters;
    let installed = counters.source_pages + counters.zero_pages;
    let filled = counters.neighbour_pages + counters.prefault_pages;
    let mut equal = |what: &str, one: u64, other: u64| {
        if one != other {
            soaked.mistakes.push(format!("{what}: {one} and {other}"));
        }
    };
    equal("faults in hand at the end", stats.faults_in_hand, 0);
    equal("faults and latencies", counters.faults(), stats.latency.count);
    equal("pages prefaulted", counters.prefault_pages, soaked.prefaulted);
    let missing = counters.read_faults + counters.write_faults;
    // A fault on a page that a prefault installs is both.
    let most = missing + filled;
    if installed > most {
        soaked.mistakes.push(format!("{installed} installs for {most} reasons"));
    }
    // The guest makes one call for each run of addresses.
    if counters.remove_events < soaked.guest.madvises {
        let events = counters.remove_events;
        soaked.mistakes.push(format!("{events} REMOVEs of {}", soaked.guest.madvises));
    }
    soaked.sessions.push(stats);
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = &self.guest;
        writeln!(f, "accesses      {}", self.accesses())?;
        writeln!(f, "REMOVEs       {} of {} pages", guest.madvises, guest.removed_pages)?;
        let count = |count: fn(&Counters) -> u64| self.counted(count);
        writeln!(f, "guests        {}, one after the other", self.sessions.len())?;
        writeln!(f, "faults        {}", count(Counters::faults))?;
        writeln!(f, "neighbours    {}", count(|counters| counters.neighbour_pages))?;
        writeln!(f, "prefaulted    {} in {} prefaults", self.prefaulted, self.prefaults)?;
        let (off, again) =
            (count(|counters| counters.deferred), count(|counters| counters.retried));
        writeln!(f, "put off       {off}, tried again {again}")?;
        writeln!(f, "found there   {}", count(|counters| counters.already_present))?;
        let slowest = self.sessions.iter().map(|stats| stats.latency.max).max();
        writeln!(f, "slowest fault {:?}", slowest.unwrap_or_default())?;
        writeln!(f, "wrong         {}", guest.wrong)?;
        for example in &guest.examples {
            writeln!(f, "  {example:?}")?;
        }
        for mistake in &self.mistakes {
            writeln!(f, "MISTAKE       {mistake}")?;
        }
        Ok(())
    }
}
