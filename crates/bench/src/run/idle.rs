//! What guests cost that do nothing.

use std::sync::Arc;
use std::time::Duration;

use uffd_core::source::{Fetcher, FileSource};

use super::figures::millis;
use crate::Result;
use crate::host::{self, Use};
use crate::measure::{Measure, Metric};
use crate::plan::{Contender, Handler};
use crate::snapshots::Snapshots;
use crate::stand::{Stand, at_the_door, let_in};

/// Pages each guest touches before it is idle.
const TOUCHED: u64 = 64;

/// Descriptors this process has for a guest: pipes, userfaultfd, socket, pidfd, eventfd, epoll,
/// page states; and some to spare.
const DESCRIPTORS: u64 = 16;

pub(super) fn run(
    contender: &Contender,
    guests: u64,
    window: Duration,
    snapshots: &mut Snapshots,
) -> Result<Measure> {
    let Handler::Uffd(options) = contender.handler else {
        return Err("only uffd-rs has idle sessions".into());
    };
    host::allow_descriptors(guests * DESCRIPTORS + 256)?;
    let file = snapshots.file(contender.snapshot, contender.cold)?;
    let source = Arc::new(Fetcher::new(Arc::new(FileSource::open(&file)?)));
    // First the guests and what it takes to speak to them, so that sessions are counted alone.
    let at_the_door = (0..guests)
        .map(|number| {
            let dir = snapshots.dir().join(number.to_string());
            std::fs::create_dir_all(&dir)?;
            at_the_door(&dir, contender.snapshot)
        })
        .collect::<Result<Vec<_>>>()?;
    let before = host::memory_kib();
    let stands = at_the_door
        .into_iter()
        .map(|(guest, listener)| {
            let handoff = let_in(&listener, contender.snapshot)?;
            Stand::session(guest, handoff, source.clone(), options, None)
        })
        .collect::<Result<Vec<_>>>()?;
    for stand in &stands {
        stand.guest.thread(0).touch(0, TOUCHED)?;
    }
    // Whatever still has to end after the last fault.
    std::thread::sleep(Duration::from_secs(3));
    let memory = host::memory_kib().saturating_sub(before);
    let used = Use::now([]);
    std::thread::sleep(window);
    let used = Use::now([]).since(used);

    let mut measure = Measure::default();
    let busy = Duration::from_micros(used.process_cpu);
    measure.set(Metric::IdleCpuPercent, 100.0 * millis(busy) / millis(window));
    measure.set(Metric::IdleKibPerGuest, memory as f64 / guests as f64);
    stands.into_iter().try_for_each(Stand::take_down)?;
    Ok(measure)
}
