//! A stage for proofs: a snapshot, a server, and guests in processes of their own that hand off
//! over the real socket.

mod case;
mod crowd;
mod hugepages;
mod observe;
mod peer;
mod silent_files;
pub mod soak;
pub mod sources;
mod stage;

pub use case::{Case, HUGE, SMALL, Setting};
pub use crowd::Crowd;
pub use hugepages::HugePages;
pub use observe::{ThreadCost, assert_idle, cost_of, threads_named, until, waiting_threads};
pub use peer::{Peer, Wanderer};
pub use silent_files::SilentFiles;
pub use stage::{Held, Served, Stage, StageBuilder};
