//! A stage for proofs: a snapshot, a server, and guests in processes of their own that hand off
//! over the real socket.

mod hugepages;
mod stage;

pub use hugepages::HugePages;
pub use stage::{Held, Served, Stage, StageBuilder};
