//! Installs, in four steps that are written once.
//!
//! *Plan* (`plan`): from page states, rules and the source to a list of installs, without a system
//! call on the guest. *Execute* (`execute`): the ioctls, which need the descriptor and the bytes
//! and nothing else, so that several threads can execute what nobody waits for (`together`).
//! *Account* (`memory`): outcomes into page states and counters, or into an obstacle (`obstacle`).
//! *Wake*: with each install, or once for many.

mod execute;
mod memory;
mod obstacle;
mod plan;
mod together;

pub(crate) use memory::{Ahead, GuestMemory, Stopped};
pub(crate) use obstacle::Obstacle;
pub(crate) use plan::{Fill, Install, Plan, Planner, Surroundings, first};
