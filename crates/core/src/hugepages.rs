//! The host's pool of 2 MiB pages, as sysfs shows it.

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Whether the pool has no page to give to somebody without a reservation, which is how
/// Firecracker maps. A pool that cannot be looked at is taken to be empty.
pub(crate) fn none_free() -> bool {
    let read = |name: &str| -> Option<u64> {
        std::fs::read_to_string(format!("{POOL}/{name}")).ok()?.trim().parse().ok()
    };
    match (read("free_hugepages"), read("resv_hugepages")) {
        (Some(free), Some(reserved)) => free <= reserved,
        _ => true,
    }
}
