//! The page-fault handler for restored microVMs.

pub mod handoff;
pub mod layout;
pub mod units;
