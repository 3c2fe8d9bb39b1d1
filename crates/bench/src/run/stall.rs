//! How long a guest may wait for a page while its handler does something else.

use std::time::Duration;

use uffd_guest::protocol::Bench;

use super::figures::{Meter, latencies};
use crate::Result;
use crate::measure::Measure;
use crate::plan::Disturbance;
use crate::stand::{Service, Stand};

/// From the end of one disturbance to the next.
const PAUSE: Duration = Duration::from_millis(20);

/// Has the guest touch pages, and its handler disturbed again and again meanwhile.
pub(super) fn run(stand: &Stand, bench: &Bench, by: Disturbance) -> Result<Measure> {
    let mut measure = Measure::default();
    let meter = Meter::start(stand)?;
    let touches = stand.guest.thread(0).start_bench(bench.clone());
    while by != Disturbance::Nothing && !touches.is_done() {
        disturb(stand, by)?;
        std::thread::sleep(PAUSE);
    }
    let report = touches.get()?;
    meter.stop_with_faults(&mut measure)?;
    latencies(&mut measure, &report);
    Ok(measure)
}

fn disturb(stand: &Stand, by: Disturbance) -> Result<()> {
    match (by, &stand.service) {
        (Disturbance::Nothing, _) => Ok(()),
        (Disturbance::Export, Service::Session { session, .. }) => {
            session.export()?;
            Ok(())
        }
        (Disturbance::Export, _) => Err("only a session of uffd-rs can be exported".into()),
    }
}
