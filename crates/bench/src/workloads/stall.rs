//! What else a handler does must not be felt by its guest.

use uffd_guest::protocol::{Bench, Order};

use super::common::{Scale, Workload};
use super::names::{UNDISTURBED, WITH_EXPORTS};
use crate::boot::shuffled;
use crate::plan::{Contender, Disturbance, Handler, Script, Snapshot};

pub(super) const EXPORT: Workload = Workload {
    name: "export",
    about: "reads pages of 8 GiB (quick: 2), every other of which is there, while it is exported",
    contenders: |scale, round| {
        stall(
            scale,
            round,
            [(UNDISTURBED, Disturbance::Nothing), (WITH_EXPORTS, Disturbance::Export)],
        )
    },
};

/// Touches of the guest: a few hundred milliseconds of them.
const TOUCHES: u64 = 20_000;

/// A large guest of holes, so that nothing but its states takes room.
fn stall<const N: usize>(
    scale: Scale,
    round: u64,
    disturbances: [(&'static str, Disturbance); N],
) -> Vec<Contender> {
    let pages = scale.of(1 << 21);
    // The pages between those that are there.
    let missing = shuffled(pages / 2, TOUCHES, round).into_iter().map(|at| 2 * at + 1);
    let bench = Bench { order: Order::List(missing.collect()), ..Bench::default() };
    disturbances
        .map(|(name, by)| Contender {
            name,
            snapshot: Snapshot { zero_per_mille: 1000, ..Snapshot::small(pages) },
            cold: false,
            handler: Handler::one_page(),
            script: Script::Stall { bench: bench.clone(), by },
        })
        .into()
}
