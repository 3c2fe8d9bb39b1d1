//! What a guest has of transparent huge pages.

use std::time::{Duration, Instant};

use uffd_core::session::Session;

use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::Contender;
use crate::stand::{Service, Stand};

/// Nothing has become a huge page for so long.
const QUIET: Duration = Duration::from_secs(3);

/// Reads words at random, once as much of memory as can be is in huge pages where that was asked for.
pub(super) fn run(contender: &Contender, stand: &Stand, reads: u64, seed: u64) -> Result<Measure> {
    let pages = contender.snapshot.pages;
    if let Service::Session { session, .. } = &stand.service
        && contender.handler.session().is_some_and(|options| options.collapse)
    {
        wait(session, pages / 512)?;
    }
    let thread = stand.guest.thread(0);
    // Once for the caches.
    thread.roam(0, pages, reads / 10, seed + 1)?;
    let report = thread.roam(0, pages, reads, seed)?;
    let huge = stand.guest.pagemap(0, pages)?.count(|page| page.huge);
    let mut measure = Measure::default();
    measure.set(Metric::ReadNs, report.nanos as f64 / report.touches as f64);
    measure.set(Metric::HugePercent, 100.0 * huge as f64 / pages as f64);
    Ok(measure)
}

fn wait(session: &Session, ranges: u64) -> Result<()> {
    let (mut before, mut since) = (0, Instant::now());
    while since.elapsed() < QUIET {
        let collapsed = session.stats()?.counters.collapsed;
        if collapsed != before {
            (before, since) = (collapsed, Instant::now());
        }
        if collapsed >= ranges {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
