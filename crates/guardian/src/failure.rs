//! Why the guardian gives up, in words.

/// Whatever keeps it from guarding.
pub(crate) type Failure = Box<dyn std::error::Error>;
