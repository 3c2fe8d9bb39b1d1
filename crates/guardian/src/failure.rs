//! Why the guardian gives up, in words.

/// Whatever keeps it from guarding.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// What stands before it on standard error.
pub(crate) const NAMED: &str = "uffd-rs-guardian: ";
