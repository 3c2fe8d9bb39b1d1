//! What can be asked of `UFFDIO_API`.

/// Write-protect faults on anonymous memory are reported with `UFFD_PAGEFAULT_FLAG_WP`.
pub const UFFD_FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
/// `fork(2)` is reported, with a descriptor for the child.
pub const UFFD_FEATURE_EVENT_FORK: u64 = 1 << 1;
/// `mremap(2)` is reported.
pub const UFFD_FEATURE_EVENT_REMAP: u64 = 1 << 2;
/// `madvise(2)` with `MADV_DONTNEED` or `MADV_REMOVE` is reported.
pub const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;
/// hugetlb memory can be registered for missing pages.
pub const UFFD_FEATURE_MISSING_HUGETLBFS: u64 = 1 << 4;
/// Shared memory can be registered for missing pages.
pub const UFFD_FEATURE_MISSING_SHMEM: u64 = 1 << 5;
/// `munmap(2)` is reported.
pub const UFFD_FEATURE_EVENT_UNMAP: u64 = 1 << 6;
/// A fault raises SIGBUS in the thread instead of an event.
pub const UFFD_FEATURE_SIGBUS: u64 = 1 << 7;
/// A fault carries the id of its thread.
pub const UFFD_FEATURE_THREAD_ID: u64 = 1 << 8;
/// hugetlb memory can be registered for minor faults.
pub const UFFD_FEATURE_MINOR_HUGETLBFS: u64 = 1 << 9;
/// Shared memory can be registered for minor faults.
pub const UFFD_FEATURE_MINOR_SHMEM: u64 = 1 << 10;
/// A fault carries the exact address, not that of its page.
pub const UFFD_FEATURE_EXACT_ADDRESS: u64 = 1 << 11;
/// Write protection works on hugetlb and shared memory too.
pub const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
/// Write protection covers pages which are not populated yet.
pub const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
/// `UFFDIO_POISON` is known.
pub const UFFD_FEATURE_POISON: u64 = 1 << 14;
/// The kernel resolves write-protect faults by itself; `PAGEMAP_SCAN` finds the written pages.
pub const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
/// `UFFDIO_MOVE` is known.
pub const UFFD_FEATURE_MOVE: u64 = 1 << 16;

/// Every feature known here.
pub const UFFD_API_FEATURES: u64 = UFFD_FEATURE_PAGEFAULT_FLAG_WP
    | UFFD_FEATURE_EVENT_FORK
    | UFFD_FEATURE_EVENT_REMAP
    | UFFD_FEATURE_EVENT_REMOVE
    | UFFD_FEATURE_MISSING_HUGETLBFS
    | UFFD_FEATURE_MISSING_SHMEM
    | UFFD_FEATURE_EVENT_UNMAP
    | UFFD_FEATURE_SIGBUS
    | UFFD_FEATURE_THREAD_ID
    | UFFD_FEATURE_MINOR_HUGETLBFS
    | UFFD_FEATURE_MINOR_SHMEM
    | UFFD_FEATURE_EXACT_ADDRESS
    | UFFD_FEATURE_WP_HUGETLBFS_SHMEM
    | UFFD_FEATURE_WP_UNPOPULATED
    | UFFD_FEATURE_POISON
    | UFFD_FEATURE_WP_ASYNC
    | UFFD_FEATURE_MOVE;

const _: () = assert!(UFFD_API_FEATURES == (1 << 17) - 1, "no bit is left out, none counts twice");
