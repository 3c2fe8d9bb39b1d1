//! A stage for proofs: a snapshot, a server, and guests in processes of their own that hand off
//! over the real socket.

mod apart;
mod attacker;
mod case;
mod cast;
mod crowd;
mod facts;
mod frozen;
mod hugelimit;
mod hugepages;
mod keepers;
mod keeping;
mod kept_mode;
pub mod killing;
pub mod malice;
mod memory_limit;
mod observe;
mod others;
mod peer;
pub mod roles;
mod scenery;
mod served;
mod serving;
pub mod soak;
mod soaked;
pub mod sources;
mod stage;
mod system_calls;
mod thread_limit;

pub use apart::{Apart, ApartStage, Refused, ServedApart, Sight};
pub use attacker::Attacker;
pub use case::{Case, HUGE, SMALL, Setting};
pub use cast::Cast;
pub use crowd::Crowd;
pub use facts::{Ending, Exported, Figures, Prefaulted, State};
pub use frozen::Frozen;
pub use hugelimit::HugeLimit;
pub use hugepages::HugePages;
pub use keepers::{KeptStage, Leaving};
pub use keeping::{Heard, Keeper, Keeping};
pub use kept_mode::{KeptMode, Tracks};
pub use memory_limit::MemoryLimit;
pub use observe::{
    DEADLINE, ThreadCost, as_another_user, assert_idle, cost_of, threads_named, until,
    waiting_threads,
};
pub use others::{Drain, Relay};
pub use peer::{Peer, Wanderer};
pub use served::{Held, Served};
pub use serving::{Asked, Serving, Staged, Unanswered};
pub use stage::{Stage, StageBuilder};
pub use system_calls::{SystemCalls, Traced};
pub use thread_limit::ThreadLimit;
