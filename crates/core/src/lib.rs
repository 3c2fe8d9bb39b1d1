//! The page-fault handler for restored microVMs.

pub mod units;
