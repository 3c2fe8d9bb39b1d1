//! Many threads, and many guests.

use uffd_guest::protocol::Bench;

use super::common::{Workload, random, touching};
use super::names::{DEFAULTS, FLOOR, ONE_PAGE, POPULATED};
use crate::plan::{Contender, Handler, Plain, Script, Snapshot};

pub(super) const WAITING: Workload = Workload {
    name: "waiting-1024",
    about: "1,024 threads share the pages of `random`; all of them wait before any is served",
    contenders: |scale, round| {
        let script = Script::Waiting { threads: 1024, seed: round };
        [(FLOOR, Handler::FLOOR), (ONE_PAGE, Handler::one_page()), (DEFAULTS, Handler::defaults())]
            .map(|(name, handler)| Contender {
                script: script.clone(),
                ..touching(scale, name, handler, &Bench::default())
            })
            .into()
    },
};

pub(super) const GUESTS: Workload = Workload {
    name: "guests-16",
    about: "16 guests of 64 MiB read every page in random order, all at once, on two cores",
    contenders: |scale, round| {
        let script = Script::Together { guests: 16, bench: random(round) };
        [(POPULATED, Handler::Plain(Plain::UNREGISTERING)), (DEFAULTS, Handler::defaults())]
            .map(|(name, handler)| Contender {
                name,
                snapshot: Snapshot::small(scale.of(1 << 14)),
                cold: false,
                handler,
                script: script.clone(),
            })
            .into()
    },
};
