//! A stage for proofs: a snapshot, a server, and guests in processes of their own that hand off
//! over the real socket.

mod case;
mod hugepages;
mod observe;
mod peer;
pub mod soak;
pub mod sources;
mod stage;

pub use case::{Case, HUGE, SMALL, Setting};
pub use hugepages::HugePages;
pub use observe::{ThreadCost, assert_idle, cost_of, threads_named, until, waiting_threads};
pub use peer::{Peer, Wanderer};
pub use stage::{Held, Served, Stage, StageBuilder};
