//! What a workload is, and what several of them have in common.

use uffd_core::session::DirtyTracking;
use uffd_guest::protocol::{Bench, Order};

use crate::boot;
use crate::plan::{Ahead, Contender, Handler, Script, Snapshot};

/// A workload and those who compete in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// What the guest does.
    pub(crate) about: &'static str,
    /// Who takes part, the same names in every round.
    pub(crate) contenders: fn(Scale, u64) -> Vec<Contender>,
}

/// How large guests are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) quick: bool,
}

impl Scale {
    /// A quarter of it, if it is to be quick.
    pub(super) const fn of(self, full: u64) -> u64 {
        if self.quick { full / 4 } else { full }
    }

    /// Pages of a guest with small pages: 128 MiB.
    pub(super) const fn pages(self) -> u64 {
        self.of(1 << 15)
    }
}

/// The snapshot's own seed in boot-like orders.
const CLUSTERS: u64 = 1;

/// The seed of a run that no round has.
pub(super) const ANOTHER_RUN: u64 = 1 << 32;

/// A contender on a warm file of small pages that touches memory.
pub(super) fn touching(
    scale: Scale,
    name: &'static str,
    handler: Handler,
    bench: &Bench,
) -> Contender {
    Contender {
        name,
        snapshot: Snapshot::small(scale.pages()),
        cold: false,
        handler,
        script: Script::Touch { bench: bench.clone(), ahead: Ahead::Nothing },
    }
}

/// uffd-rs with its defaults, tracking dirty pages.
pub(super) fn tracking() -> Handler {
    Handler::with(|options| options.dirty_tracking = DirtyTracking::On)
}

pub(super) fn random(round: u64) -> Bench {
    Bench { order: Order::Random, seed: round, ..Bench::default() }
}

pub(super) fn boot_like(scale: Scale, run: u64) -> Bench {
    let order = boot::order(scale.pages(), CLUSTERS, run);
    Bench { order: Order::List(order), ..Bench::default() }
}
