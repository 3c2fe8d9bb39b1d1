//! One thread, small pages, a warm file: what most restores are like.

use uffd_core::session::FaultAround;
use uffd_guest::protocol::{Bench, Order};

use super::common::{Scale, Workload, boot_like, random, touching, tracking};
use super::names::{DEFAULTS, FILE, FLOOR, ONE_PAGE, ONE_PAGE_SLEEPING, TRACKED};
use crate::boot;
use crate::plan::{Contender, Handler};

pub(super) const SEQUENTIAL: Workload = Workload {
    name: "sequential",
    about: "reads every page in order",
    contenders: |scale, _| everybody(scale, &Bench::default()),
};

pub(super) const RANDOM: Workload = Workload {
    name: "random",
    about: "reads every page in random order",
    contenders: |scale, round| everybody(scale, &random(round)),
};

pub(super) const BOOT: Workload = Workload {
    name: "boot",
    about: "a quarter of memory in clusters of runs, some pages again, some anywhere",
    contenders: |scale, round| everybody(scale, &boot_like(scale, round)),
};

pub(super) const WRITE_HEAVY: Workload = Workload {
    name: "write-heavy",
    about: "touches every page twice in random order; 7 of 10 touches write",
    contenders: |scale, round| {
        let mut order = boot::shuffled(scale.pages() * 2, scale.pages() * 2, round);
        order.iter_mut().for_each(|page| *page /= 2);
        let order = Order::List(order);
        let bench = Bench { order, stamp: Some(1), write_per_mille: 700, ..Bench::default() };
        everybody(scale, &bench)
    },
};

pub(super) const TENTH: Workload = Workload {
    name: "tenth",
    about: "reads a tenth of all pages in random order: how much memory does that take?",
    contenders: |scale, round| {
        let order = boot::shuffled(scale.pages(), scale.pages() / 10, round);
        everybody(scale, &Bench { order: Order::List(order), ..Bench::default() })
    },
};

fn everybody(scale: Scale, bench: &Bench) -> Vec<Contender> {
    let no_short_waits = Handler::with(|options| {
        options.fault_around = FaultAround::Off;
        options.short_waits = false;
    });
    [
        (FLOOR, Handler::FLOOR),
        (FILE, Handler::File),
        (ONE_PAGE, Handler::one_page()),
        (ONE_PAGE_SLEEPING, no_short_waits),
        (DEFAULTS, Handler::defaults()),
        (TRACKED, tracking()),
    ]
    .map(|(name, handler)| touching(scale, name, handler, bench))
    .into()
}
