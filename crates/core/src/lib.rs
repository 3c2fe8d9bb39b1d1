//! The page-fault handler for restored microVMs.

pub mod layout;
pub mod units;
