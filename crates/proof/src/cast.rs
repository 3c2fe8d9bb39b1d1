//! The program that plays every part but that of the test itself.

use std::path::{Path, PathBuf};

/// A program which ends in [`roles::play`](crate::roles::play).
#[derive(Clone, Debug)]
pub struct Cast(PathBuf);

impl Cast {
    /// The program at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(crate) fn program(&self) -> &Path {
        &self.0
    }
}
