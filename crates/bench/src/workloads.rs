//! What is measured: each workload is a list of contenders that take turns.

use uffd_core::session::SessionOptions;
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
    const fn pages(self, full: u64) -> u64 {
        if self.quick { full / 4 } else { full }
    }
}

pub(crate) const FLOOR: &str = "floor";
pub(crate) const FILE: &str = "file";
pub(crate) const ONE_PAGE: &str = "one page";
pub(crate) const ONE_PAGE_SLEEPING: &str = "one page, no short waits";
pub(crate) const DEFAULTS: &str = "defaults";
pub(crate) const TRACED: &str = "defaults, traced";

/// 128 MiB.
const SMALL: u64 = 1 << 15;

/// The snapshot's own seed in boot-like orders.
const CLUSTERS: u64 = 1;

/// All of them, in the order in which they run.
pub(crate) const ALL: &[Workload] = &[
    Workload {
        name: "sequential",
        about: "reads every page in order",
        contenders: |scale, _| usual(scale, Bench::default()),
    },
    Workload {
        name: "random",
        about: "reads every page in random order",
        contenders: |scale, round| {
            usual(scale, Bench { order: Order::Random, seed: round, ..Bench::default() })
        },
    },
    Workload {
        name: "boot",
        about: "a quarter of memory in clusters of runs, some of it again, some scatter",
        contenders: |scale, round| usual(scale, boot_like(scale, round)),
    },
];

/// Everybody, on small pages of a warm file.
fn usual(scale: Scale, bench: Bench) -> Vec<Contender> {
    let no_short_waits = Handler::with(|options| {
        *options = SessionOptions { short_waits: false, ..one_page() };
    });
    [
        (FLOOR, Handler::Floor),
        (FILE, Handler::File),
        (ONE_PAGE, Handler::one_page()),
        (ONE_PAGE_SLEEPING, no_short_waits),
        (DEFAULTS, Handler::defaults()),
    ]
    .map(|(name, handler)| touching(scale, name, handler, bench.clone()))
    .into()
}

fn one_page() -> SessionOptions {
    match Handler::one_page() {
        Handler::Uffd(options) => options,
        _ => SessionOptions::default(),
    }
}

fn touching(scale: Scale, name: &'static str, handler: Handler, bench: Bench) -> Contender {
    Contender {
        name,
        snapshot: Snapshot::small(scale.pages(SMALL)),
        cold: false,
        handler,
        script: Script::Touch { bench, ahead: Ahead::Nothing },
    }
}

fn boot_like(scale: Scale, round: u64) -> Bench {
    let order = boot::order(scale.pages(SMALL), CLUSTERS, round);
    Bench { order: Order::List(order), ..Bench::default() }
}
