//! Memory that is given back and used again, as balloons and free page reporting have it.

use uffd_guest::protocol::Bench;

use super::common::{Scale, Workload, random, tracking};
use super::names::{DEFAULTS, KERNEL, TRACKED, UNREGISTERING};
use crate::plan::{Contender, Handler, Plain, Script, Snapshot};

pub(super) const READ: Workload = Workload {
    name: "again-read",
    about: "gives all of memory back in pieces of 2 MiB and reads every page again, in order",
    contenders: |scale, _| again(scale, &Bench::default(), (DEFAULTS, Handler::defaults())),
};

pub(super) const WRITE: Workload = Workload {
    name: "again-write",
    about: "the same, and writes every page",
    contenders: |scale, _| {
        again(scale, &written(Bench::default()), (DEFAULTS, Handler::defaults()))
    },
};

pub(super) const TRACKED_WRITE: Workload = Workload {
    name: "again-tracked",
    about: "the same with dirty tracking, the dirty set checked; the kernel tracks nothing",
    contenders: |scale, _| again(scale, &written(Bench::default()), (TRACKED, tracking())),
};

pub(super) const RANDOM: Workload = Workload {
    name: "again-random",
    about: "gives all of memory back in pieces of 2 MiB and reads every page again, in random order",
    contenders: |scale, round| again(scale, &random(round), (DEFAULTS, Handler::defaults())),
};

/// Pages of 4 KiB in 2 MiB, the largest piece in which a guest's kernel gives memory back.
const PIECE: u64 = 512;

fn written(bench: Bench) -> Bench {
    Bench { stamp: Some(1), ..bench }
}

fn again(scale: Scale, bench: &Bench, uffd: (&'static str, Handler)) -> Vec<Contender> {
    [(KERNEL, Handler::Kernel), (UNREGISTERING, Handler::Plain(Plain::UNREGISTERING)), uffd]
        .map(|(name, handler)| Contender {
            name,
            snapshot: Snapshot::small(scale.pages()),
            cold: false,
            handler,
            script: Script::UseAgain { piece: PIECE, bench: bench.clone() },
        })
        .into()
}
