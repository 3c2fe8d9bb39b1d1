//! What `read(2)` on the descriptor returns.

use core::mem::{offset_of, size_of};

/// A thread waits for a page.
pub const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
/// The process forked.
pub const UFFD_EVENT_FORK: u8 = 0x13;
/// A range was moved by `mremap(2)`.
pub const UFFD_EVENT_REMAP: u8 = 0x14;
/// A range is being given back by `madvise(2)`.
pub const UFFD_EVENT_REMOVE: u8 = 0x15;
/// A range was unmapped.
pub const UFFD_EVENT_UNMAP: u8 = 0x16;

/// The access was a write.
pub const UFFD_PAGEFAULT_FLAG_WRITE: u64 = 1 << 0;
/// The page is present and write-protected.
pub const UFFD_PAGEFAULT_FLAG_WP: u64 = 1 << 1;
/// The page is in the page cache and not mapped.
pub const UFFD_PAGEFAULT_FLAG_MINOR: u64 = 1 << 2;

/// One event.
///
/// The kernel declares it packed; all its fields are aligned by nature, so that `repr(C)` gives
/// the same layout and leaves references to them sound.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct uffd_msg {
    /// One of `UFFD_EVENT_*`: which member of `arg` is valid.
    pub event: u8,
    /// Unused.
    pub reserved1: u8,
    /// Unused.
    pub reserved2: u16,
    /// Unused.
    pub reserved3: u32,
    /// What happened.
    pub arg: uffd_msg_arg,
}

/// The part of an event which depends on its kind.
#[repr(C)]
#[derive(Clone, Copy)]
pub union uffd_msg_arg {
    /// Of `UFFD_EVENT_PAGEFAULT`.
    pub pagefault: uffd_msg_pagefault,
    /// Of `UFFD_EVENT_FORK`.
    pub fork: uffd_msg_fork,
    /// Of `UFFD_EVENT_REMAP`.
    pub remap: uffd_msg_remap,
    /// Of `UFFD_EVENT_REMOVE` and `UFFD_EVENT_UNMAP`.
    pub remove: uffd_msg_remove,
    /// As raw words.
    pub reserved: uffd_msg_reserved,
}

/// A fault.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct uffd_msg_pagefault {
    /// `UFFD_PAGEFAULT_FLAG_*`.
    pub flags: u64,
    /// The address, that of the page unless `UFFD_FEATURE_EXACT_ADDRESS` was asked for.
    pub address: u64,
    /// What a feature added.
    pub feat: uffd_msg_pagefault_feat,
}

/// What a feature adds to a fault.
#[repr(C)]
#[derive(Clone, Copy)]
pub union uffd_msg_pagefault_feat {
    /// The thread, with `UFFD_FEATURE_THREAD_ID`.
    pub ptid: u32,
}

/// A fork.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffd_msg_fork {
    /// The descriptor of the child's memory, open in the reader.
    pub ufd: u32,
}

/// A move.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffd_msg_remap {
    /// The old address.
    pub from: u64,
    /// The new address.
    pub to: u64,
    /// The old length.
    pub len: u64,
}

/// A range that was given back or unmapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffd_msg_remove {
    /// The first address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
}

/// The size of the union.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffd_msg_reserved {
    /// Unused.
    pub reserved1: u64,
    /// Unused.
    pub reserved2: u64,
    /// Unused.
    pub reserved3: u64,
}

const _: () = {
    assert!(size_of::<uffd_msg>() == 32);
    assert!(offset_of!(uffd_msg, event) == 0);
    assert!(offset_of!(uffd_msg, arg) == 8);
    assert!(size_of::<uffd_msg_arg>() == 24);
    assert!(offset_of!(uffd_msg_pagefault, flags) == 0);
    assert!(offset_of!(uffd_msg_pagefault, address) == 8);
    assert!(offset_of!(uffd_msg_pagefault, feat) == 16);
    assert!(offset_of!(uffd_msg_remap, from) == 0);
    assert!(offset_of!(uffd_msg_remap, to) == 8);
    assert!(offset_of!(uffd_msg_remap, len) == 16);
    assert!(offset_of!(uffd_msg_remove, start) == 0);
    assert!(offset_of!(uffd_msg_remove, end) == 8);
};
