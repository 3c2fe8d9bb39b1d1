//! One door to the kernel: each ioctl and each mapping as a typed function with an answer that
//! has a meaning. No errno and no `unsafe` leaves this module.
#![allow(unsafe_code)]

mod aside;
mod cached_read;
mod collapse;
mod crew;
mod descriptor;
mod events;
mod features;
mod host;
mod huge_pool;
mod inheritance;
mod ioctl;
mod mapping;
mod own_memory;
mod pagemap;
mod parting;
mod peer;
mod process;
mod process_facts;
mod process_id;
mod same_file;
mod shared;
mod slices;
mod watch;

pub(crate) use aside::{Leaving, OwnTable, aside};
pub use cached_read::read_cached;
pub use collapse::Collapse;
pub(crate) use crew::Crew;
pub(crate) use descriptor::LOWEST_OF_GUESTS;
pub use descriptor::{Outcome, Protection, Uffd, Wake};
pub use events::{Event, EventReader, ReadError};
pub use features::{Features, FeaturesError};
pub use host::{Access, Host, may_take_descriptor};
pub(crate) use huge_pool::free_huge_pages;
pub use inheritance::pass_on_nothing;
pub(crate) use inheritance::{Inherited, inherited};
pub use mapping::{Bytes, FileMap, Resident, ZeroBytes};
pub(crate) use own_memory::is_for_own_memory;
pub use pagemap::{PageBits, Pagemap, Place, Together};
pub(crate) use parting::close_at_end_of_thread;
pub use peer::{Peer, peer_of};
pub(crate) use process::proc_is_ours;
pub use process::{Process, Registration, Waker};
pub use process_facts::ProcessFacts;
pub(crate) use process_id::ProcessId;
pub(crate) use same_file::is_same_file;
pub use shared::{Onlooker, Part, SharedMemory};
pub use slices::{Behind, serve_guests, stay_behind};
pub(crate) use slices::{InPieces, run_for_a_moment_at_a_time};
pub use watch::{ReadySet, Watch};

use std::time::Duration;

use nix::errno::Errno;

/// Whether something can be had again once there are more descriptors or more memory. To go on
/// without it would be a lesser service for as long as the guest lives.
pub(crate) fn is_shortage(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// CLOCK_BOOTTIME, which goes on while the host sleeps and is the same for all processes.
pub(crate) fn boot_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}
