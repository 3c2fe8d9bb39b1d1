//! Guests that know what to do and wait for the word.

use uffd_guest::driver::{Guest, Pending};
use uffd_guest::protocol::{Bench, BenchReport, Op};

use crate::Result;

/// Has a thread of the guest wait for [`tell`] and then touch pages.
pub(super) fn when_told(guest: &Guest, thread: u32, bench: &Bench) -> Pending<BenchReport> {
    // Answered when the guest is told, and not of interest.
    let _: Pending<()> = guest.start(thread, word());
    guest.thread(thread).start_bench(bench.clone())
}

pub(super) fn tell(guest: &Guest) -> Result<()> {
    Ok(guest.call(u32::MAX, word())?)
}

fn word() -> Op {
    Op::Barrier { name: "start".into(), parties: 2 }
}
