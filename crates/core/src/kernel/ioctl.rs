//! The ioctls of `userfaultfd(2)` that the `userfaultfd` crate lacks or reports wrongly, and
//! PAGEMAP_SCAN. Request numbers come from `userfaultfd-sys`, where they are checked.

use userfaultfd_sys as sys;

nix::ioctl_readwrite!(api, sys::UFFDIO, sys::_UFFDIO_API, sys::uffdio_api);
nix::ioctl_readwrite!(copy, sys::UFFDIO, sys::_UFFDIO_COPY, sys::uffdio_copy);
nix::ioctl_readwrite!(zeropage, sys::UFFDIO, sys::_UFFDIO_ZEROPAGE, sys::uffdio_zeropage);
nix::ioctl_readwrite!(
    write_protect,
    sys::UFFDIO,
    sys::_UFFDIO_WRITEPROTECT,
    sys::uffdio_writeprotect
);
nix::ioctl_readwrite!(poison, sys::UFFDIO, sys::_UFFDIO_POISON, sys::uffdio_poison);
nix::ioctl_readwrite!(register, sys::UFFDIO, sys::_UFFDIO_REGISTER, sys::uffdio_register);
nix::ioctl_read!(unregister, sys::UFFDIO, sys::_UFFDIO_UNREGISTER, sys::uffdio_range);
nix::ioctl_read!(wake, sys::UFFDIO, sys::_UFFDIO_WAKE, sys::uffdio_range);

/// `struct pm_scan_arg` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct PmScanArg {
    pub(super) size: u64,
    pub(super) flags: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) walk_end: u64,
    pub(super) vec: u64,
    pub(super) vec_len: u64,
    pub(super) max_pages: u64,
    pub(super) category_inverted: u64,
    pub(super) category_mask: u64,
    pub(super) category_anyof_mask: u64,
    pub(super) return_mask: u64,
}

/// `struct page_region` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct PageRegion {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) categories: u64,
}

const _: () = assert!(size_of::<PmScanArg>() == 96 && size_of::<PageRegion>() == 24);

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, PmScanArg);
