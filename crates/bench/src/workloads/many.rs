//! Many threads, and many guests.

use uffd_guest::protocol::Bench;

use super::common::{Workload, touching};
use super::names::{DEFAULTS, FLOOR, ONE_PAGE};
use crate::plan::{Contender, Handler, Script};

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
