//! What is measured: each workload is a list of contenders that take turns.

mod ahead;
mod cost;
mod shapes;
mod usual;

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
    const fn of(self, full: u64) -> u64 {
        if self.quick { full / 4 } else { full }
    }

    /// Pages of a guest with small pages: 128 MiB.
    const fn pages(self) -> u64 {
        self.of(1 << 15)
    }
}

pub(crate) const FLOOR: &str = "floor";
pub(crate) const FILE: &str = "file";
pub(crate) const ONE_PAGE: &str = "one page";
pub(crate) const ONE_PAGE_SLEEPING: &str = "one page, no short waits";
pub(crate) const DEFAULTS: &str = "defaults";
pub(crate) const TRACKED: &str = "defaults, tracking";
pub(crate) const TRACED: &str = "traced";
pub(crate) const TRACED_PACKED: &str = "traced, packed";
pub(crate) const TRACED_BY_DEFAULTS: &str = "traced by defaults";
pub(crate) const WITH_PREFAULT: &str = "while a prefault runs";
pub(crate) const DENSE: &str = "without zeros";
pub(crate) const SPARSE: &str = "with zeros";
pub(crate) const SPARSE_TRACKED: &str = "with zeros, tracking";
pub(crate) const RAW_COPY: &str = "raw copy";
pub(crate) const RAW_COPY_AGAIN: &str = "raw copy, mapped before";
pub(crate) const PREFAULT: &str = "prefault";
pub(crate) const PREFAULT_AGAIN: &str = "prefault, served before";

/// The snapshot's own seed in boot-like orders.
const CLUSTERS: u64 = 1;

/// The seed of a run that no round has.
const ANOTHER_RUN: u64 = 1 << 32;

/// All of them, in the order in which they run.
pub(crate) const ALL: &[Workload] = &[
    usual::SEQUENTIAL,
    usual::RANDOM,
    usual::BOOT,
    usual::WRITE_HEAVY,
    usual::TENTH,
    shapes::TWO_THREADS,
    shapes::EIGHT_THREADS,
    shapes::HUGE,
    shapes::HUGE_RANDOM,
    shapes::SPARSE,
    shapes::SPARSE_RANDOM,
    shapes::COLD_BOOT,
    shapes::COLD_SEQUENTIAL,
    shapes::COLD_RANDOM,
    ahead::FILL,
    ahead::TRACED_BOOT,
    ahead::TRACED_BOOT_AT_WORK,
    ahead::DEMAND,
    cost::GIVE_BACK,
    cost::CHURN,
    cost::IDLE,
];

/// A contender on a warm file of small pages that touches memory.
fn touching(scale: Scale, name: &'static str, handler: Handler, bench: &Bench) -> Contender {
    Contender {
        name,
        snapshot: Snapshot::small(scale.pages()),
        cold: false,
        handler,
        script: Script::Touch { bench: bench.clone(), ahead: Ahead::Nothing },
    }
}

/// uffd-rs with its defaults, tracking dirty pages.
fn tracking() -> Handler {
    use uffd_core::session::DirtyTracking;
    Handler::with(|options| options.dirty_tracking = DirtyTracking::On)
}

fn random(round: u64) -> Bench {
    Bench { order: Order::Random, seed: round, ..Bench::default() }
}

fn boot_like(scale: Scale, run: u64) -> Bench {
    let order = boot::order(scale.pages(), CLUSTERS, run);
    Bench { order: Order::List(order), ..Bench::default() }
}
