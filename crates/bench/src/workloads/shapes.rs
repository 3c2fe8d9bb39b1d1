//! Other guests and other files: threads, zeros, a cold page cache.

use uffd_core::session::SessionOptions;
use uffd_guest::protocol::Bench;

use super::common::{ANOTHER_RUN, Scale, Workload, boot_like, random, touching, tracking};
use super::names::{
    DEFAULTS, DENSE, FILE, FLOOR, ONE_PAGE, SPARSE as WITH_ZEROS, SPARSE_TRACKED, TRACED,
    TRACED_PACKED, TRACKED,
};
use crate::plan::{Ahead, Contender, Handler, Script};

pub(super) const TWO_THREADS: Workload = Workload {
    name: "threads-2",
    about: "two threads share the pages of `random`",
    contenders: |scale, round| few(scale, &Bench { threads: 2, ..random(round) }),
};

pub(super) const EIGHT_THREADS: Workload = Workload {
    name: "threads-8",
    about: "eight threads share the pages of `random`",
    contenders: |scale, round| few(scale, &Bench { threads: 8, ..random(round) }),
};

pub(super) const SPARSE: Workload = Workload {
    name: "sparse",
    about: "reads every page in order; 6 of 10 runs of 64 KiB are holes of the file",
    contenders: |scale, _| sparse(scale, &Bench::default()),
};

pub(super) const SPARSE_RANDOM: Workload = Workload {
    name: "sparse-random",
    about: "the same in random order",
    contenders: |scale, round| sparse(scale, &random(round)),
};

pub(super) const COLD_BOOT: Workload = Workload {
    name: "cold-boot",
    about: "`boot` from a file that is not in the page cache",
    contenders: |scale, round| {
        let bench = boot_like(scale, round);
        let mut contenders = cold(scale, &bench);
        let of = boot_like(scale, ANOTHER_RUN + round);
        let packed = Handler::UffdPacked(SessionOptions::default());
        for (name, handler) in [(TRACED, Handler::defaults()), (TRACED_PACKED, packed)] {
            let mut traced = touching(scale, name, handler, &bench);
            let ahead = Ahead::trace_by_one_page(of.clone());
            traced.script = Script::Touch { bench: bench.clone(), ahead };
            traced.cold = true;
            contenders.push(traced);
        }
        contenders
    },
};

pub(super) const COLD_SEQUENTIAL: Workload = Workload {
    name: "cold-sequential",
    about: "`sequential` from a file that is not in the page cache",
    contenders: |scale, _| cold(scale, &Bench::default()),
};

pub(super) const COLD_RANDOM: Workload = Workload {
    name: "cold-random",
    about: "a tenth of `random` from a file that is not in the page cache",
    contenders: |scale, round| {
        let order = crate::boot::shuffled(scale.pages(), scale.pages() / 10, round);
        let order = uffd_guest::protocol::Order::List(order);
        cold(scale, &Bench { order, ..Bench::default() })
    },
};

fn few(scale: Scale, bench: &Bench) -> Vec<Contender> {
    [
        (FLOOR, Handler::FLOOR),
        (ONE_PAGE, Handler::one_page()),
        (DEFAULTS, Handler::defaults()),
        (TRACKED, tracking()),
    ]
    .map(|(name, handler)| touching(scale, name, handler, bench))
    .into()
}

fn sparse(scale: Scale, bench: &Bench) -> Vec<Contender> {
    let dense = touching(scale, DENSE, Handler::defaults(), bench);
    let mut contenders: Vec<_> =
        [(FLOOR, Handler::FLOOR), (WITH_ZEROS, Handler::defaults()), (SPARSE_TRACKED, tracking())]
            .map(|(name, handler)| touching(scale, name, handler, bench))
            .into();
    for contender in &mut contenders {
        contender.snapshot.zero_per_mille = 600;
    }
    contenders.push(dense);
    contenders
}

fn cold(scale: Scale, bench: &Bench) -> Vec<Contender> {
    let mut contenders: Vec<_> = [
        (FLOOR, Handler::FLOOR),
        (FILE, Handler::File),
        (ONE_PAGE, Handler::one_page()),
        (DEFAULTS, Handler::defaults()),
    ]
    .map(|(name, handler)| touching(scale, name, handler, bench))
    .into();
    for contender in &mut contenders {
        contender.cold = true;
    }
    contenders
}
