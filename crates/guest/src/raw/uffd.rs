//! What the `userfaultfd` crate does not do.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

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
    let fd = create_uninitialised()?.into_raw_fd();
    // SAFETY: the descriptor is new, and `uffd` owns it from here on.
    let uffd = unsafe { Uffd::from_raw_fd(fd) };
    let mut api = sys::uffdio_api { api: sys::UFFD_API, features, ioctls: 0 };
    // SAFETY: the argument is the struct of this ioctl and lives across the call.
    unsafe { uffdio_api(fd, &raw mut api)? };
    Ok(uffd)
}

/// Creates one whose features nobody has asked for yet.
pub(crate) fn create_uninitialised() -> nix::Result<OwnedFd> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | sys::UFFD_USER_MODE_ONLY.cast_signed();
    // SAFETY: the call takes one integer and creates a descriptor.
    owned(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
}

/// Gives the number of a descriptor to another open file. Whoever uses it does not notice.
pub(crate) fn replace(old: BorrowedFd<'_>, new: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: plain integers. The number stays that of an open file, which its owner closes.
    let done = unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) };
    Errno::result(done).map(drop)
}

/// Sets up an io_uring, and does nothing with it.
pub(crate) fn set_up_io_uring() -> nix::Result<OwnedFd> {
    // `struct io_uring_params` has 120 bytes; zeros ask for nothing in particular.
    let mut params = [0_u64; 15];
    // SAFETY: the kernel writes only to `params`, and creates a descriptor.
    owned(unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, params.as_mut_ptr()) })
}

/// Owns the descriptor that a system call has just made.
fn owned(result: i64) -> nix::Result<OwnedFd> {
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives a signal back to the kernel's default action.
pub(crate) fn set_default_action(of: Signal) {
    // SAFETY: the default action runs no code of this process.
    let _ = unsafe { signal(of, SigHandler::SigDfl) };
}
