//! The names by which the manager knows guests' userfaultfds: they tell the state directory and the
//! guest.

use std::os::unix::ffi::OsStrExt;

use crate::ledger::StateDir;

/// What the names of guests begin with; a service may keep others besides.
const PREFIX: &str = "uffd-rs-";

/// Whether a name is that of a guest.
pub(super) fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// What the names of all guests of a directory begin with. Guests of another one are another server's,
/// in this process or a later one.
pub(super) fn prefix_of(dir: &StateDir) -> String {
    let path = dir.path().canonicalize().unwrap_or_else(|_| dir.path().to_owned());
    format!("{PREFIX}{:08x}-", crc32fast::hash(path.as_os_str().as_bytes()))
}
