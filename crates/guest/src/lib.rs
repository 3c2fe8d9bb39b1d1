//! A guest for tests, demonstrations and benchmarks: a process that plays Firecracker.
//!
//! It allocates memory, creates the userfaultfd as stock Firecracker does, hands it off over the
//! Unix socket and then does as it is told over a control channel of JSON lines:
//!
//! - [`pattern`] says what every byte of the snapshot is, so that any page which is stale,
//!   misplaced or torn is recognised, and [`snapshot`] writes the file;
//! - [`program`] is the guest process: [`options`] configure it, [`memory`] is what it maps,
//!   [`handoff`] how it introduces itself, [`protocol`] what can be asked of it;
//! - [`pool`] and [`user`] are what others on the host do, and who they are;
//! - [`driver`] starts such a process and speaks to it.

pub mod driver;
mod fate;
mod flags;
mod guest;
pub mod handoff;
mod history;
mod lock;
pub mod memory;
mod ops;
pub mod options;
pub mod pattern;
pub mod pool;
pub mod program;
pub mod protocol;
mod random;
#[allow(unsafe_code)]
mod raw;
pub mod runs;
pub mod snapshot;
mod storm;
pub mod strangers;
mod tracks;
pub mod user;
mod voice;
mod workers;
