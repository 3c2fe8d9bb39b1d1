//! Pages that are installed before the guest asks for them.

use std::time::Duration;

use uffd_core::session::SessionOptions;
use uffd_guest::protocol::{Bench, Order};

use super::common::{ANOTHER_RUN, Scale, Workload, boot_like, touching};
use super::names::{
    DEFAULTS, FLOOR, ONE_PAGE, PREFAULT, PREFAULT_AGAIN, RAW_COPY, RAW_COPY_AGAIN, RAW_COPY_BY_TWO,
    TRACED, TRACED_BY_DEFAULTS, TRACED_FIRST, WITH_PREFAULT,
};
use crate::boot;
use crate::plan::{Ahead, Contender, Handler, Script, Snapshot};

/// How long a guest waits for its trace, where it waits: all of it is there sooner.
const WAIT: Duration = Duration::from_millis(100);

pub(super) const FILL: Workload = Workload {
    name: "fill",
    about: "all of memory is filled, the guest does nothing",
    contenders: |scale, _| {
        [
            (RAW_COPY, Handler::RawCopy { mapped_before: false, threads: 1 }),
            (RAW_COPY_BY_TWO, Handler::RawCopy { mapped_before: false, threads: 2 }),
            (PREFAULT, Handler::defaults()),
            (RAW_COPY_AGAIN, Handler::RawCopy { mapped_before: true, threads: 1 }),
            (PREFAULT_AGAIN, Handler::UffdAgain(SessionOptions::default())),
        ]
        .map(|(name, handler)| Contender {
            name,
            // 512 MiB.
            snapshot: Snapshot::small(scale.of(1 << 17)),
            cold: false,
            handler,
            script: Script::Fill,
        })
        .into()
    },
};

pub(super) const TRACED_BOOT: Workload = Workload {
    name: "boot-traced",
    about: "`boot`, while the trace of another run is prefaulted",
    contenders: |scale, round| traced(scale, round, 0),
};

pub(super) const TRACED_BOOT_AT_WORK: Workload = Workload {
    name: "boot-traced-at-work",
    about: "the same by a guest that computes for 2 µs before each touch",
    contenders: |scale, round| traced(scale, round, 2000),
};

pub(super) const DEMAND: Workload = Workload {
    name: "demand",
    about: "reads pages of the first quarter in random order while the rest is prefaulted",
    contenders: |scale, round| {
        // 512 MiB, so that the prefault outlasts the touches.
        let snapshot = Snapshot::small(scale.of(1 << 17));
        let quarter = snapshot.pages / 4;
        let order = boot::shuffled(quarter, snapshot.pages / 64, round);
        let bench = Bench { order: Order::List(order), ..Bench::default() };
        [(DEFAULTS, Ahead::Nothing), (WITH_PREFAULT, Ahead::Pages(quarter..snapshot.pages))]
            .map(|(name, ahead)| Contender {
                name,
                snapshot,
                cold: false,
                handler: Handler::defaults(),
                script: Script::Touch { bench: bench.clone(), ahead },
            })
            .into()
    },
};

fn traced(scale: Scale, round: u64, work: u64) -> Vec<Contender> {
    let bench = Bench { work, ..boot_like(scale, round) };
    let of = boot_like(scale, ANOTHER_RUN + round);
    let recorder = Box::new(SessionOptions::default());
    let traced = |name, ahead| {
        let mut contender = touching(scale, name, Handler::defaults(), &bench);
        contender.script = Script::Touch { bench: bench.clone(), ahead };
        contender
    };
    vec![
        touching(scale, FLOOR, Handler::FLOOR, &bench),
        touching(scale, ONE_PAGE, Handler::one_page(), &bench),
        touching(scale, DEFAULTS, Handler::defaults(), &bench),
        traced(TRACED, Ahead::trace_by_one_page(of.clone())),
        traced(TRACED_FIRST, Ahead::trace_first(of.clone(), WAIT)),
        traced(TRACED_BY_DEFAULTS, Ahead::Trace { of, recorder, first: Duration::ZERO }),
    ]
}
