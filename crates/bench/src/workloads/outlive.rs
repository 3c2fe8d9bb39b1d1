//! Servers that are killed or replaced beside their guests, and what it costs to be ready for that.

use super::common::{Scale, Workload, random, touching};
use super::names::{HANDED_OVER, KEPT, KILLED, ONE_PAGE, UNDISTURBED};
use crate::plan::{Contender, Handler, Interruption, Script, Snapshot};

pub(super) const KILL: Workload = Workload {
    name: "killed",
    about: "the longest touch around the end of a server that has a guardian, 40 times (quick: 10)",
    contenders: |scale, _| {
        outlive(
            scale.of(40),
            1,
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
    about: "the same for 64 guests of one server, all at work, 12 times (quick: 3)",
    contenders: |scale, _| {
        outlive(
            scale.of(12),
            64,
            200,
            [(UNDISTURBED, Interruption::Nothing), (KILLED, Interruption::Kill)],
        )
    },
};

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
    guests: u64,
    touches: u64,
    interruptions: [(&'static str, Interruption); N],
) -> Vec<Contender> {
    interruptions
        .map(|(name, by)| Contender {
            name,
            snapshot: Snapshot::small((times * touches).next_power_of_two()),
            cold: false,
            handler: Handler::one_page(),
            script: Script::Outlive { guests, times, touches, by },
        })
        .into()
}
