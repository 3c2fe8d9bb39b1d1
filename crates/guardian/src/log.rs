//! What the guardian tells: a line for each guest that it serves or gives back, and each trouble.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Where lines go.
#[derive(Debug)]
pub(crate) enum Log {
    Stderr,
    File(File),
    Nowhere,
}

impl Log {
    pub(crate) const fn stderr() -> Self {
        Self::Stderr
    }

    pub(crate) const fn nowhere() -> Self {
        Self::Nowhere
    }

    pub(crate) fn file(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        file.map(Self::File).map_err(|error| format!("cannot log to {}: {error}", path.display()))
    }

    /// One line, with the seconds since 1970 before it. Where it cannot be written it is lost: guests
    /// are served all the same.
    pub(crate) fn line(&self, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = format!("{}.{:03} {text}\n", now.as_secs(), now.subsec_millis());
        let _ = match self {
            Self::Stderr => io::stderr().write_all(line.as_bytes()),
            Self::File(file) => (&*file).write_all(line.as_bytes()),
            Self::Nowhere => Ok(()),
        };
    }
}
