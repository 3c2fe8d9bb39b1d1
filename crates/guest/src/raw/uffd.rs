//! What the `userfaultfd` crate does not do.

use std::os::fd::FromRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, Signal, signal};
use userfaultfd::Uffd;
use userfaultfd_sys as sys;

nix::ioctl_readwrite!(uffdio_api, sys::UFFDIO, sys::_UFFDIO_API, sys::uffdio_api);

/// Creates a descriptor for faults of user mode by the system call alone.
///
/// It needs no privilege, but the crate gives up where `/dev/userfaultfd` exists and is closed to
/// the caller.
pub(crate) fn create_user_mode_only(features: u64) -> nix::Result<Uffd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | sys::UFFD_USER_MODE_ONLY.cast_signed();
    // SAFETY: the call takes one integer and creates a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new, and `uffd` owns it from here on.
    let uffd = unsafe { Uffd::from_raw_fd(fd) };
    let mut api = sys::uffdio_api { api: sys::UFFD_API, features, ioctls: 0 };
    // SAFETY: the argument is the struct of this ioctl and lives across the call.
    unsafe { uffdio_api(fd, &raw mut api)? };
    Ok(uffd)
}

/// Gives a signal back to the kernel's default action.
pub(crate) fn set_default_action(of: Signal) {
    // SAFETY: the default action runs no code of this process.
    let _ = unsafe { signal(of, SigHandler::SigDfl) };
}
