//! Guests with pages of 2 MiB, 512 MiB of them, on a warm file.

use uffd_core::session::SessionOptions;
use uffd_guest::protocol::Bench;

use super::common::{Scale, Workload, random, touching, tracking};
use super::names::{DEFAULTS, EXPECTED, PLAIN, POPULATED, TRACKED};
use crate::plan::{Contender, Handler, Plain, Snapshot};

pub(super) const SEQUENTIAL: Workload = Workload {
    name: "huge",
    about: "pages of 2 MiB, read in order",
    contenders: |scale, _| huge(scale, &Bench::default()),
};

pub(super) const RANDOM: Workload = Workload {
    name: "huge-random",
    about: "pages of 2 MiB, read in random order",
    contenders: |scale, round| huge(scale, &random(round)),
};

pub(super) const AT_WORK: Workload = Workload {
    name: "huge-at-work",
    about: "pages of 2 MiB, read in order by a guest that computes for 500 µs before each touch",
    contenders: |scale, _| huge(scale, &Bench { work: 500_000, ..Bench::default() }),
};

fn huge(scale: Scale, bench: &Bench) -> Vec<Contender> {
    [
        (PLAIN, Handler::Plain(Plain::MAPPING)),
        (POPULATED, Handler::Plain(Plain::UNREGISTERING)),
        (DEFAULTS, Handler::defaults()),
        (EXPECTED, Handler::UffdExpecting(SessionOptions::default())),
        (TRACKED, tracking()),
    ]
    .map(|(name, handler)| Contender {
        snapshot: Snapshot::huge(scale.of(256)),
        ..touching(scale, name, handler, bench)
    })
    .into()
}
