//! What is measured: each workload is a list of contenders that take turns.

mod again;
mod ahead;
mod common;
mod cost;
mod huge;
mod many;
mod names;
mod outlive;
mod roam;
mod shapes;
mod stall;
mod usual;

pub(crate) use common::{Scale, Workload};
pub(crate) use names::*;

/// All of them, in the order in which they run.
pub(crate) const ALL: &[Workload] = &[
    usual::SEQUENTIAL,
    usual::RANDOM,
    usual::BOOT,
    usual::WRITE_HEAVY,
    usual::TENTH,
    shapes::TWO_THREADS,
    shapes::EIGHT_THREADS,
    many::WAITING,
    many::GUESTS,
    huge::SEQUENTIAL,
    huge::RANDOM,
    huge::AT_WORK,
    shapes::SPARSE,
    shapes::SPARSE_RANDOM,
    shapes::COLD_BOOT,
    shapes::COLD_SEQUENTIAL,
    shapes::COLD_RANDOM,
    ahead::FILL,
    ahead::TRACED_BOOT,
    ahead::TRACED_BOOT_AT_WORK,
    ahead::DEMAND,
    cost::GIVE_BACK,
    cost::CHURN,
    again::READ,
    again::WRITE,
    again::TRACKED_WRITE,
    again::RANDOM,
    roam::ROAM,
    stall::EXPORT,
    outlive::LEDGER,
    outlive::KILL,
    outlive::KILL_OF_MANY,
    outlive::KILL_OF_MANY_AT_WORK,
    cost::IDLE,
];
