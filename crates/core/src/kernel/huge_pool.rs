//! The host's pool of pages of 2 MiB.

use std::fs::read_to_string;

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Pages that are there for whoever takes them first; none where that cannot be read.
pub(crate) fn free_huge_pages() -> u64 {
    let count = |name| read_to_string(format!("{POOL}/{name}")).ok()?.trim().parse::<u64>().ok();
    let free = || Some(count("free_hugepages")?.saturating_sub(count("resv_hugepages")?));
    free().unwrap_or_default()
}
