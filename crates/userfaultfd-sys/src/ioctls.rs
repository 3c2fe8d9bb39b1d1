//! The ioctls of the descriptor: their numbers, arguments and modes.

use core::mem::{offset_of, size_of};

/// The ioctl type of the descriptor.
pub const UFFDIO: u8 = 0xAA;

/// Number of `UFFDIO_REGISTER`.
pub const _UFFDIO_REGISTER: u64 = 0x00;
/// Number of `UFFDIO_UNREGISTER`.
pub const _UFFDIO_UNREGISTER: u64 = 0x01;
/// Number of `UFFDIO_WAKE`.
pub const _UFFDIO_WAKE: u64 = 0x02;
/// Number of `UFFDIO_COPY`.
pub const _UFFDIO_COPY: u64 = 0x03;
/// Number of `UFFDIO_ZEROPAGE`.
pub const _UFFDIO_ZEROPAGE: u64 = 0x04;
/// Number of `UFFDIO_WRITEPROTECT`.
pub const _UFFDIO_WRITEPROTECT: u64 = 0x06;
/// Number of `UFFDIO_CONTINUE`.
pub const _UFFDIO_CONTINUE: u64 = 0x07;
/// Number of `UFFDIO_POISON`.
pub const _UFFDIO_POISON: u64 = 0x08;
/// Number of `UFFDIO_API`.
pub const _UFFDIO_API: u64 = 0x3F;

/// Agrees on version and features; comes before any other ioctl.
pub const UFFDIO_API: u32 = 0xc018_aa3f;
/// Starts handling the faults of a range.
pub const UFFDIO_REGISTER: u32 = 0xc020_aa00;
/// Gives a range back to the kernel.
pub const UFFDIO_UNREGISTER: u32 = 0x8010_aa01;
/// Wakes the threads that wait in a range.
pub const UFFDIO_WAKE: u32 = 0x8010_aa02;
/// Installs pages with given bytes.
pub const UFFDIO_COPY: u32 = 0xc028_aa03;
/// Installs pages of zeros.
pub const UFFDIO_ZEROPAGE: u32 = 0xc020_aa04;
/// Sets or clears write protection.
pub const UFFDIO_WRITEPROTECT: u32 = 0xc018_aa06;
/// Maps pages that are in the page cache.
pub const UFFDIO_CONTINUE: u32 = 0xc020_aa07;
/// Makes accesses to absent pages end in SIGBUS.
pub const UFFDIO_POISON: u32 = 0xc020_aa08;

/// Which way the argument of an ioctl goes, seen from the caller.
#[derive(Clone, Copy)]
enum Direction {
    Read = 2,
    ReadWrite = 3,
}

/// The encoding of `_IOR` and `_IOWR` on the architectures supported here.
const fn ioc<Argument>(direction: Direction, nr: u64) -> u64 {
    (direction as u64) << 30 | (size_of::<Argument>() as u64) << 16 | (UFFDIO as u64) << 8 | nr
}

const _: () = {
    use Direction::{Read, ReadWrite};
    assert!(UFFDIO_API as u64 == ioc::<uffdio_api>(ReadWrite, _UFFDIO_API));
    assert!(UFFDIO_REGISTER as u64 == ioc::<uffdio_register>(ReadWrite, _UFFDIO_REGISTER));
    assert!(UFFDIO_UNREGISTER as u64 == ioc::<uffdio_range>(Read, _UFFDIO_UNREGISTER));
    assert!(UFFDIO_WAKE as u64 == ioc::<uffdio_range>(Read, _UFFDIO_WAKE));
    assert!(UFFDIO_COPY as u64 == ioc::<uffdio_copy>(ReadWrite, _UFFDIO_COPY));
    assert!(UFFDIO_ZEROPAGE as u64 == ioc::<uffdio_zeropage>(ReadWrite, _UFFDIO_ZEROPAGE));
    assert!(
        UFFDIO_WRITEPROTECT as u64 == ioc::<uffdio_writeprotect>(ReadWrite, _UFFDIO_WRITEPROTECT)
    );
    assert!(UFFDIO_CONTINUE as u64 == ioc::<uffdio_continue>(ReadWrite, _UFFDIO_CONTINUE));
    assert!(UFFDIO_POISON as u64 == ioc::<uffdio_poison>(ReadWrite, _UFFDIO_POISON));
};

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the ioctl encoding is checked for x86-64 and aarch64 only");

/// The ioctls a descriptor has before anything is registered.
pub const UFFD_API_IOCTLS: u64 = 1 << _UFFDIO_REGISTER | 1 << _UFFDIO_UNREGISTER | 1 << _UFFDIO_API;
/// The ioctls a registered range of anonymous memory may have.
pub const UFFD_API_RANGE_IOCTLS: u64 = 1 << _UFFDIO_WAKE
    | 1 << _UFFDIO_COPY
    | 1 << _UFFDIO_ZEROPAGE
    | 1 << _UFFDIO_WRITEPROTECT
    | 1 << _UFFDIO_CONTINUE
    | 1 << _UFFDIO_POISON;
/// The ioctls a registered range of hugetlb memory may have.
pub const UFFD_API_RANGE_IOCTLS_BASIC: u64 = UFFD_API_RANGE_IOCTLS & !(1 << _UFFDIO_ZEROPAGE);

/// Handle accesses to absent pages.
pub const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;
/// Handle writes to protected pages.
pub const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;
/// Handle accesses to pages which are in the page cache and not mapped.
pub const UFFDIO_REGISTER_MODE_MINOR: u64 = 1 << 2;
/// Every register mode known here.
pub const UFFD_API_REGISTER_MODES: u64 =
    UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MINOR;

/// Leave waiting threads asleep.
pub const UFFDIO_COPY_MODE_DONTWAKE: u64 = 1 << 0;
/// Install the pages write-protected.
pub const UFFDIO_COPY_MODE_WP: u64 = 1 << 1;
/// Leave waiting threads asleep.
pub const UFFDIO_ZEROPAGE_MODE_DONTWAKE: u64 = 1 << 0;
/// Protect; without it, unprotect.
pub const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1 << 0;
/// Leave waiting threads asleep.
pub const UFFDIO_WRITEPROTECT_MODE_DONTWAKE: u64 = 1 << 1;
/// Leave waiting threads asleep.
pub const UFFDIO_CONTINUE_MODE_DONTWAKE: u64 = 1 << 0;
/// Map the pages write-protected.
pub const UFFDIO_CONTINUE_MODE_WP: u64 = 1 << 1;
/// Leave waiting threads asleep.
pub const UFFDIO_POISON_MODE_DONTWAKE: u64 = 1 << 0;

/// Argument of `UFFDIO_API`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffdio_api {
    /// `UFFD_API`.
    pub api: u64,
    /// The features asked for; on return, those which the kernel has.
    pub features: u64,
    /// On return, a bit for each ioctl the descriptor has.
    pub ioctls: u64,
}

/// Argument of `UFFDIO_WAKE` and `UFFDIO_UNREGISTER`, and part of others.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffdio_range {
    /// The first address.
    pub start: u64,
    /// The length in bytes.
    pub len: u64,
}

/// Argument of `UFFDIO_REGISTER`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffdio_register {
    /// What to register.
    pub range: uffdio_range,
    /// `UFFDIO_REGISTER_MODE_*`.
    pub mode: u64,
    /// On return, a bit for each ioctl the range has.
    pub ioctls: u64,
}

/// Argument of `UFFDIO_COPY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffdio_copy {
    /// Where in the registered memory.
    pub dst: u64,
    /// The bytes, in the caller's memory.
    pub src: u64,
    /// The length in bytes.
    pub len: u64,
    /// `UFFDIO_COPY_MODE_*`.
    pub mode: u64,
    /// On return, the bytes done, or a negated errno.
    pub copy: i64,
}

/// Argument of `UFFDIO_ZEROPAGE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffdio_zeropage {
    /// Where.
    pub range: uffdio_range,
    /// `UFFDIO_ZEROPAGE_MODE_*`.
    pub mode: u64,
    /// On return, the bytes done, or a negated errno.
    pub zeropage: i64,
}

/// Argument of `UFFDIO_WRITEPROTECT`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffdio_writeprotect {
    /// Where.
    pub range: uffdio_range,
    /// `UFFDIO_WRITEPROTECT_MODE_*`.
    pub mode: u64,
}

/// Argument of `UFFDIO_CONTINUE`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffdio_continue {
    /// Where.
    pub range: uffdio_range,
    /// `UFFDIO_CONTINUE_MODE_*`.
    pub mode: u64,
    /// On return, the bytes done, or a negated errno.
    pub mapped: i64,
}

/// Argument of `UFFDIO_POISON`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct uffdio_poison {
    /// Where.
    pub range: uffdio_range,
    /// `UFFDIO_POISON_MODE_*`.
    pub mode: u64,
    /// On return, the bytes done, or a negated errno.
    pub updated: i64,
}

const _: () = {
    assert!(size_of::<uffdio_api>() == 24);
    assert!(offset_of!(uffdio_api, features) == 8);
    assert!(offset_of!(uffdio_api, ioctls) == 16);
    assert!(size_of::<uffdio_range>() == 16);
    assert!(offset_of!(uffdio_range, len) == 8);
    assert!(size_of::<uffdio_register>() == 32);
    assert!(offset_of!(uffdio_register, mode) == 16);
    assert!(offset_of!(uffdio_register, ioctls) == 24);
    assert!(size_of::<uffdio_copy>() == 40);
    assert!(offset_of!(uffdio_copy, src) == 8);
    assert!(offset_of!(uffdio_copy, len) == 16);
    assert!(offset_of!(uffdio_copy, mode) == 24);
    assert!(offset_of!(uffdio_copy, copy) == 32);
    assert!(size_of::<uffdio_zeropage>() == 32);
    assert!(offset_of!(uffdio_zeropage, mode) == 16);
    assert!(offset_of!(uffdio_zeropage, zeropage) == 24);
    assert!(size_of::<uffdio_writeprotect>() == 24);
    assert!(offset_of!(uffdio_writeprotect, mode) == 16);
    assert!(size_of::<uffdio_continue>() == 32);
    assert!(offset_of!(uffdio_continue, mode) == 16);
    assert!(offset_of!(uffdio_continue, mapped) == 24);
    assert!(size_of::<uffdio_poison>() == 32);
    assert!(offset_of!(uffdio_poison, mode) == 16);
    assert!(offset_of!(uffdio_poison, updated) == 24);
};
