//! All of memory is filled, and the guest does nothing.

use std::time::Instant;

use uffd_core::units::PageRange;

use super::figures::{MIB, Meter, millis};
use crate::Result;
use crate::measure::{Measure, Metric};
use crate::plan::{Contender, Handler};
use crate::stand::{Service, Stand};

pub(super) fn run(contender: &Contender, stand: &Stand) -> Result<Measure> {
    let meter = Meter::start(stand)?;
    let begin = Instant::now();
    match (&stand.service, contender.handler) {
        (Service::Raw(memory), Handler::RawCopy { mapped_before, threads }) => {
            memory.fill(mapped_before, threads)?;
        }
        (Service::Session { session, .. }, _) => {
            let report = session.prefault(vec![PageRange::new(0, contender.snapshot.pages)])?;
            if report.installed != contender.snapshot.pages {
                return Err(format!("the prefault fell short: {report:?}").into());
            }
        }
        _ => return Err("nobody can fill this guest".into()),
    }
    let time = begin.elapsed();
    let mut measure = Measure::default();
    measure.set(Metric::TimeMs, millis(time));
    meter.stop(&mut measure);
    measure.set(Metric::GuestMib, stand.guest.rss()?.guest as f64 / MIB);
    Ok(measure)
}
