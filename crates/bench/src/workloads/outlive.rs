//! Servers that are killed or replaced beside their guests, and what it costs to be ready for that.

use super::common::{Scale, Workload, random, touching};
use super::names::{HANDED_OVER, KEPT, KILLED, ONE_PAGE, UNDISTURBED};
use crate::plan::{Contender, Handler, Interruption, Pace, Script, Snapshot};

pub(super) const KILL: Workload = Workload {
    name: "killed",
    about: "the longest touch around the end of a server that has a guardian, 40 times (quick: 10)",
    contenders: |scale, _| {
        outlive(
            scale.of(40),
            (1, Pace::Work),
            2_000,
            [
                (UNDISTURBED, Interruption::Nothing),
                (KILLED, Interruption::Kill),
                (HANDED_OVER, Interruption::HandOver),
            ],
        )
    },
};

pub(super) const KILL_OF_MANY: Workload = Workload {
    name: "killed-64",
    about: "the same for 64 guests of one server that touch a page every 4 ms, 12 times (quick: 3)",
    contenders: |scale, _| of_many(scale, Pace::Pause, 50),
};

pub(super) const KILL_OF_MANY_AT_WORK: Workload = Workload {
    name: "killed-64-at-work",
    about: "the same for 64 guests that want more than all cores",
    contenders: |scale, _| of_many(scale, Pace::Work, 200),
};

fn of_many(scale: Scale, pace: Pace, touches: u64) -> Vec<Contender> {
    let by = [(UNDISTURBED, Interruption::Nothing), (KILLED, Interruption::Kill)];
    outlive(scale.of(12), (64, pace), touches, by)
}

pub(super) const LEDGER: Workload = Workload {
    name: "ledger",
    about: "`random` with one page a fault, without and with a ledger in a state directory",
    contenders: |scale: Scale, round| {
        let one_page = Handler::one_page();
        let kept = Handler::UffdKept(one_page.session().unwrap_or_default());
        [(ONE_PAGE, one_page), (KEPT, kept)]
            .map(|(name, handler)| touching(scale, name, handler, &random(round)))
            .into()
    },
};

/// Guests that touch other pages each time.
fn outlive<const N: usize>(
    times: u64,
    (guests, pace): (u64, Pace),
    touches: u64,
    interruptions: [(&'static str, Interruption); N],
) -> Vec<Contender> {
    interruptions
        .map(|(name, by)| Contender {
            name,
            snapshot: Snapshot::small((times * touches).next_power_of_two()),
            cold: false,
            handler: Handler::one_page(),
            script: Script::Outlive { guests, pace, times, touches, by },
        })
        .into()
}
