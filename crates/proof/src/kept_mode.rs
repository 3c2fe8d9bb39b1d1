//! The modes in which a guest that outlives its handler has to be right: both page sizes, and
//! whoever tracks its writes.

use std::fmt;

use uffd_guest::options::{Options, Register};
use userfaultfd_sys as sys;

use crate::case::{HUGE, SMALL};

/// Who learns of a guest's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracks {
    /// Nobody.
    Nobody,
    /// Its handler, by write-protect faults.
    Handler,
    /// The kernel (WP_ASYNC).
    Kernel,
}

/// One mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptMode {
    /// Bytes of a page.
    pub page_size: u64,
    /// Who tracks its writes.
    pub tracks: Tracks,
}

impl KeptMode {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self { page_size: SMALL, tracks: Tracks::Nobody },
        Self { page_size: SMALL, tracks: Tracks::Handler },
        Self { page_size: SMALL, tracks: Tracks::Kernel },
        Self { page_size: HUGE, tracks: Tracks::Nobody },
        Self { page_size: HUGE, tracks: Tracks::Handler },
        Self { page_size: HUGE, tracks: Tracks::Kernel },
    ];

    /// Whether pages are huge.
    pub const fn is_huge(self) -> bool {
        self.page_size == HUGE
    }

    /// Whether anybody tracks writes.
    pub fn is_tracked(self) -> bool {
        self.tracks != Tracks::Nobody
    }

    /// What a guest of this mode registers and negotiates.
    pub fn guest(self, options: &mut Options) {
        if self.tracks == Tracks::Kernel {
            options.register = Register::WriteProtect;
            options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP
                | sys::UFFD_FEATURE_WP_HUGETLBFS_SHMEM
                | sys::UFFD_FEATURE_WP_ASYNC
                | sys::UFFD_FEATURE_WP_UNPOPULATED;
        }
    }
}

impl fmt::Display for KeptMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = if self.is_huge() { "2 MiB" } else { "4 KiB" };
        let tracks = match self.tracks {
            Tracks::Nobody => "not tracked",
            Tracks::Handler => "tracked",
            Tracks::Kernel => "tracked by the kernel",
        };
        write!(f, "{size}, {tracks}")
    }
}
