//! The page-fault handler for restored microVMs: everything between Firecracker's handoff of a
//! userfaultfd and a guest whose every fault is answered rightly.
//!
//! A page fault goes through the modules in this order:
//!
//! | module | knows |
//! |---|---|
//! | [`handoff`] | the socket, the descriptors and the JSON of every Firecracker version |
//! | [`layout`] | regions: address ↔ page ↔ snapshot offset |
//! | `fault_loop` | the turn: drain events, apply REMOVEs, serve, obey, prefault, wait |
//! | [`policy`] | what a missing page is filled with, and how |
//! | [`source`] | bytes at an offset: ready, zeros, or to be fetched |
//! | `install` | plan, execute, account, wake |
//! | [`states`] | one byte a page |
//! | [`kernel`] | one function an ioctl; the only unsafe code |
//! | `collapser` | the thread that has the kernel make transparent huge pages |
//! | [`session`], [`server`] | life cycle, commands, reports, ends |
//! | [`metrics`], [`view`] | what is counted, and what others see without asking a fault loop |
//! | [`service_manager`] | who started this process and keeps userfaultfds beyond it |
//! | [`watchdog`] | signs of life for the service manager, as long as every fault loop answers |
//! | [`guardian`] | the process that serves the guests whenever the server cannot |

mod collapser;
pub mod contract;
mod export;
mod fault_loop;
pub mod guardian;
pub mod handoff;
mod identity;
mod install;
pub mod kernel;
#[doc(hidden)]
pub mod kill_point;
pub mod layout;
pub mod ledger;
mod look;
pub mod metrics;
pub mod policy;
pub mod recorder;
pub mod recovery;
pub mod server;
pub mod service_manager;
pub mod session;
pub mod source;
pub mod states;
pub mod stats;
pub mod trace;
pub mod units;
pub mod view;
pub mod watchdog;
mod window;
