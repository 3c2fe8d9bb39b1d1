//! Memory that is given back, and guests that do nothing.

use super::common::{Scale, Workload, random};
use super::names::{DEFAULTS, FLOOR, ONE_PAGE};
use crate::plan::{Contender, Handler, Script, Snapshot};

pub(super) const GIVE_BACK: Workload = Workload {
    name: "give-back",
    about: "all of memory is there and given back page by page; floor only reads events",
    contenders: |scale, _| {
        [(FLOOR, Handler::FLOOR), (DEFAULTS, Handler::defaults())]
            .map(|(name, handler)| small(scale, name, handler, Script::GiveBack { run: 1 }))
            .into()
    },
};

pub(super) const CHURN: Workload = Workload {
    name: "churn",
    about: "one thread gives the second half back page by page, another reads all at random",
    contenders: |scale, round| {
        let script = Script::Churn { bench: random(round) };
        [(FLOOR, Handler::FLOOR), (ONE_PAGE, Handler::one_page()), (DEFAULTS, Handler::defaults())]
            .map(|(name, handler)| small(scale, name, handler, script.clone()))
            .into()
    },
};

pub(super) const IDLE: Workload = Workload {
    name: "idle",
    about: "256 guests (quick: 64) of 64 MiB touch 64 pages each and then nothing",
    contenders: |scale, _| {
        let script = Script::Idle { guests: scale.of(256), millis: scale.of(8_000) };
        let idle = small(scale, DEFAULTS, Handler::defaults(), script);
        vec![Contender { snapshot: Snapshot::small(1 << 14), ..idle }]
    },
};

fn small(scale: Scale, name: &'static str, handler: Handler, script: Script) -> Contender {
    Contender { name, snapshot: Snapshot::small(scale.pages()), cold: false, handler, script }
}
