//! Every code that an error of the core can carry.

use napi_derive::napi;

/// In the order of a guest's life. `error.rs` accepts no other while debugging.
pub(crate) const CODES: &[&str] = &[
    "ERR_UFFD_INVALID_OPTION",
    "ERR_UFFD_SNAPSHOT_MISSING",
    "ERR_UFFD_SNAPSHOT_DENIED",
    "ERR_UFFD_SNAPSHOT_NOT_A_FILE",
    "ERR_UFFD_SNAPSHOT_EMPTY",
    "ERR_UFFD_SNAPSHOT_IO",
    "ERR_UFFD_SOCKET_PATH",
    "ERR_UFFD_SOCKET_PATH_TOO_LONG",
    "ERR_UFFD_SOCKET_NO_DIRECTORY",
    "ERR_UFFD_SOCKET_DENIED",
    "ERR_UFFD_SOCKET_NOT_A_SOCKET",
    "ERR_UFFD_SOCKET_IN_USE",
    "ERR_UFFD_SOCKET_IO",
    "ERR_UFFD_RESOURCES",
    "ERR_UFFD_ACCEPT",
    "ERR_UFFD_ACCEPT_EXHAUSTED",
    "ERR_UFFD_ACCEPT_LOST",
    "ERR_UFFD_HANDOFF_JSON",
    "ERR_UFFD_HANDOFF_FIELD",
    "ERR_UFFD_HANDOFF_PAGE_SIZE",
    "ERR_UFFD_HANDOFF_REGION",
    "ERR_UFFD_HANDOFF_SNAPSHOT",
    "ERR_UFFD_HANDOFF_DESCRIPTOR",
    "ERR_UFFD_HANDOFF_TRUNCATED",
    "ERR_UFFD_HANDOFF_TOO_LARGE",
    "ERR_UFFD_HANDOFF_TIMEOUT",
    "ERR_UFFD_HANDOFF_CLOSED",
    "ERR_UFFD_HANDOFF_CANCELLED",
    "ERR_UFFD_HANDOFF_IO",
    "ERR_UFFD_FEATURES",
    "ERR_UFFD_DIRTY_TRACKING",
    "ERR_UFFD_EVENTS",
    "ERR_UFFD_STRAY_FAULT",
    "ERR_UFFD_REFUSED",
    "ERR_UFFD_PAGE",
    "ERR_UFFD_NO_SUCH_PAGES",
    "ERR_UFFD_INTERNAL",
];

/// Every code that an error of the native part can carry.
#[napi(catch_unwind)]
pub fn error_codes() -> Vec<&'static str> {
    CODES.to_vec()
}
