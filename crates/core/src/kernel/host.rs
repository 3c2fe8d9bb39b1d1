//! What this host lets this process do: asked of the kernel itself, not of its version.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{getsockopt, sockopt};
use userfaultfd_sys as sys;

use super::ioctl;
use super::process::{descriptor_of, open_pidfd};

/// Whether something can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Yes.
    Granted,
    /// The kernel has it, and this process may not use it.
    Denied,
    /// The kernel does not have it.
    Absent,
    /// The kernel refused for another reason, as an errno.
    Refused(i32),
}

impl<T> From<nix::Result<T>> for Access {
    fn from(result: nix::Result<T>) -> Self {
        match result {
            Ok(_) => Self::Granted,
            Err(Errno::EPERM | Errno::EACCES) => Self::Denied,
            // An unknown flag, system call, device, ioctl and socket option, in this order.
            Err(
                Errno::EINVAL | Errno::ENOSYS | Errno::ENOENT | Errno::ENOTTY | Errno::ENOPROTOOPT,
            ) => Self::Absent,
            Err(other) => Self::Refused(other as i32),
        }
    }
}

/// The ways to a userfaultfd and what the kernel offers for it, and what sessions use besides.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    /// `userfaultfd(2)` for faults of the kernel too, which KVM needs.
    pub system_call: Access,
    /// `userfaultfd(2)` for faults of user mode only (Linux 5.11), which needs no privilege.
    pub user_mode_only: Access,
    /// `/dev/userfaultfd` (Linux 6.1), for faults of the kernel too.
    pub device: Access,
    /// The features (`UFFD_FEATURE_…`) the kernel offers, if a userfaultfd can be had at all.
    pub features: Option<u64>,
    /// Descriptors of processes (Linux 5.3), by which a guest's end is seen.
    pub pidfd: Access,
    /// The descriptor of the process that connected (`SO_PEERPIDFD`, Linux 6.5).
    pub peer_pidfd: Access,
    /// Memory with a descriptor, in which page states are kept.
    pub memfd: Access,
}

impl Host {
    /// Tries everything once. Nothing is left behind.
    pub fn probe() -> Self {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        let kernel = create(flags);
        let user = create(flags | sys::UFFD_USER_MODE_ONLY.cast_signed());
        let device = create_by_device(flags);
        let any = [&user, &kernel, &device].into_iter().find_map(|uffd| uffd.as_ref().ok());
        Self {
            features: any.and_then(features),
            system_call: kernel.into(),
            user_mode_only: user.into(),
            device: device.into(),
            pidfd: open_pidfd(std::process::id().cast_signed()).into(),
            peer_pidfd: peer_pidfd().into(),
            memfd: memfd_create(c"uffd-rs-probe", MFdFlags::MFD_CLOEXEC).into(),
        }
    }
}

/// Whether this process may take a copy of the descriptor `number` of the process `pid`, as it has to
/// of a VMM whose guest it takes over. The copy is closed at once.
pub fn may_take_descriptor(pid: i32, number: i32) -> Access {
    open_pidfd(pid).and_then(|pidfd| descriptor_of(&pidfd, number)).into()
}

pub(super) fn create(flags: i32) -> nix::Result<OwnedFd> {
    // SAFETY: the call takes one integer and creates a descriptor.
    owned(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })
}

pub(super) fn create_by_device(flags: i32) -> nix::Result<OwnedFd> {
    let open = File::options().read(true).write(true).open("/dev/userfaultfd");
    let device = open.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    let new = nix::request_code_none!(sys::USERFAULTFD_IOC, 0);
    // SAFETY: USERFAULTFD_IOC_NEW takes the flags as an integer and creates a descriptor.
    owned(i64::from(unsafe { libc::ioctl(device.as_raw_fd(), new, flags) }))
}

/// Owns the descriptor that a system call has just made.
fn owned(result: i64) -> nix::Result<OwnedFd> {
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The kernel answers with everything it has, whatever is asked for.
fn features(uffd: &OwnedFd) -> Option<u64> {
    let mut api = sys::uffdio_api { api: sys::UFFD_API, features: 0, ioctls: 0 };
    // SAFETY: the argument is the struct of this ioctl and lives across the call.
    unsafe { ioctl::api(uffd.as_raw_fd(), &mut api) }.ok()?;
    Some(api.features)
}

fn peer_pidfd() -> nix::Result<OwnedFd> {
    let (socket, _peer) = UnixStream::pair().map_err(|_| Errno::EMFILE)?;
    getsockopt(&socket.as_fd(), sockopt::PeerPidfd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tests_need_is_there() {
        let host = Host::probe();
        for access in [host.user_mode_only, host.pidfd, host.memfd] {
            assert_eq!(access, Access::Granted, "{host:?}");
        }
        let remove = sys::UFFD_FEATURE_EVENT_REMOVE;
        assert!(host.features.is_some_and(|features| features & remove != 0), "{host:?}");
    }

    #[test]
    fn an_errno_becomes_a_meaning() {
        let access = |errno: Errno| Access::from(nix::Result::<()>::Err(errno));
        assert_eq!(access(Errno::EPERM), Access::Denied);
        assert_eq!(access(Errno::ENOSYS), Access::Absent);
        assert_eq!(access(Errno::EMFILE), Access::Refused(Errno::EMFILE as i32));
    }
}
