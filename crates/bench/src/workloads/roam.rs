//! Memory that is all there, and what it takes to get to it.

use super::common::Workload;
use super::names::{COLLAPSED, DEFAULTS};
use crate::plan::{Contender, Handler, Script, Snapshot};

pub(super) const ROAM: Workload = Workload {
    name: "roam",
    about: "all of memory is there; reads words at random, each where the one before says",
    contenders: |scale, round| {
        let collapsed = Handler::with(|options| options.collapse = true);
        [(DEFAULTS, Handler::defaults()), (COLLAPSED, collapsed)]
            .map(|(name, handler)| Contender {
                name,
                // 512 MiB.
                snapshot: Snapshot::small(scale.of(1 << 17)),
                cold: false,
                handler,
                script: Script::Roam { reads: scale.of(20_000_000), seed: round },
            })
            .into()
    },
};
