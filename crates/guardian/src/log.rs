//! What the guardian tells: a line for each guest that it serves or gives back, and each trouble.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Takes lines, and writes them when nobody waits: a disk may take its time.
#[derive(Debug)]
pub(crate) struct Log {
    place: Place,
    lines: String,
}

/// Where lines go.
#[derive(Debug)]
enum Place {
    Stderr,
    File(File),
    Nowhere,
}

impl Log {
    pub(crate) const fn stderr() -> Self {
        Self::to(Place::Stderr)
    }

    pub(crate) const fn nowhere() -> Self {
        Self::to(Place::Nowhere)
    }

    pub(crate) fn file(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        file.map(|file| Self::to(Place::File(file)))
            .map_err(|error| format!("cannot log to {}: {error}", path.display()))
    }

    const fn to(place: Place) -> Self {
        Self { place, lines: String::new() }
    }

    /// One line, with the seconds since 1970 before it.
    #[expect(clippy::disallowed_methods, reason = "it is for people, and nothing depends on it")]
    pub(crate) fn line(&mut self, text: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(self.lines, "{}.{:03} {text}", now.as_secs(), now.subsec_millis());
    }

    /// Writes what there is. Where that cannot be it is lost: guests are served all the same.
    pub(crate) fn write(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if lines.is_empty() {
            return;
        }
        let _ = match &mut self.place {
            Place::Stderr => io::stderr().write_all(lines.as_bytes()),
            Place::File(file) => file.write_all(lines.as_bytes()),
            Place::Nowhere => Ok(()),
        };
    }
}
