//! UFFDIO_UNREGISTER, for the contender that gives removed memory back to the kernel.
#![allow(unsafe_code)]

use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

use userfaultfd_sys as sys;

nix::ioctl_read!(ioctl, sys::UFFDIO, sys::_UFFDIO_UNREGISTER, sys::uffdio_range);

/// Leaves a range of the guest to the kernel, which fills with zeros what is missing there.
pub(crate) fn unregister(uffd: impl AsFd, range: Range<u64>) -> nix::Result<()> {
    let mut range = sys::uffdio_range { start: range.start, len: range.end - range.start };
    // SAFETY: the kernel reads `range` and changes how the guest's memory is registered, which is
    // that of another process.
    unsafe { ioctl(uffd.as_fd().as_raw_fd(), &raw mut range) }.map(drop)
}
