//! Transparent huge pages: the kernel puts one in the place of the small pages of a 2 MiB range
//! (MADV_COLLAPSE, `madvise(2)`).

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::libc;

use super::process::Process;
use crate::units::GuestAddr;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collapse {
    /// A huge page is there, or was already.
    Done,
    /// There is no huge page to be had.
    NoMemory,
    /// Not in this moment: a page is in use otherwise, or being moved.
    Busy,
    /// The kernel does not do it there: a page is missing or protected, a cgroup is at its limit, or
    /// the memory is not of a kind that it does it for.
    Refused(i32),
    /// This process may not do it at all (CAP_SYS_NICE and the right to trace the guest,
    /// `process_madvise(2)`), or the kernel cannot.
    NotAllowed(i32),
    /// The process is gone.
    Gone,
}

/// linux/mman.h, since Linux 6.1.
const MADV_COLLAPSE: i32 = 25;

impl Process {
    /// Collapses the 2 MiB that begin at `start` in the memory of this process. The kernel refuses
    /// where a page is missing and a userfaultfd is registered, or a page is write-protected; no byte
    /// changes. Takes a millisecond or more, and the process's faults wait for part of it.
    pub fn collapse(&self, start: GuestAddr) -> Collapse {
        let base = usize::try_from(start.0).expect("an address of this machine");
        let range = libc::iovec {
            iov_base: std::ptr::with_exposed_provenance_mut(base),
            iov_len: usize::try_from(Collapse::BYTES).expect("2 MiB"),
        };
        // SAFETY: `range` is only read, and the advice changes no byte of the memory that it names,
        // which is that of the process.
        let advised = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                self.as_fd().as_raw_fd(),
                std::ptr::from_ref(&range),
                1_usize,
                MADV_COLLAPSE,
                0_u32,
            )
        };
        Errno::result(advised).map_or_else(Collapse::refused_by, |_| Collapse::Done)
    }
}

impl Collapse {
    /// Bytes of a range, which begins at a multiple of them.
    pub const BYTES: u64 = 2 << 20;

    pub(crate) const fn refused_by(errno: Errno) -> Self {
        match errno {
            Errno::ENOMEM => Self::NoMemory,
            Errno::EAGAIN => Self::Busy,
            Errno::ESRCH => Self::Gone,
            // ENOTTY is a kernel without PAGEMAP_SCAN.
            Errno::EPERM | Errno::EACCES | Errno::ENOSYS | Errno::ENOTTY => {
                Self::NotAllowed(errno as i32)
            }
            other => Self::Refused(other as i32),
        }
    }
}
