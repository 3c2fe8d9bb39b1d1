//! The guest's process by its pidfd, and the eventfd that wakes a fault loop.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{getsockopt, sockopt};

/// A process that cannot be mistaken for another one that got its number later.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
}

impl Process {
    /// The process at the other end of `socket`, or `None` where it is in a pid namespace that
    /// cannot be seen from here. ESRCH if it has exited.
    pub fn peer_of(socket: &UnixStream) -> nix::Result<Option<Self>> {
        let pid = getsockopt(socket, sockopt::PeerCredentials)?.pid();
        if pid == 0 {
            return Ok(None);
        }
        // SO_PEERPIDFD (Linux 6.5) names the very process; before, its number has to do.
        match getsockopt(socket, sockopt::PeerPidfd) {
            Ok(pidfd) => Ok(Some(Self { pid, pidfd })),
            Err(Errno::ENOPROTOOPT) => Ok(Some(Self { pid, pidfd: open_pidfd(pid)? })),
            // The kernel forgets the peer once it is reaped.
            Err(Errno::EINVAL | Errno::ENODATA | Errno::ESRCH) => Err(Errno::ESRCH),
            Err(other) => Err(other),
        }
    }

    /// The process's number, for messages and `/proc`.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it has exited, reaped or not.
    pub fn has_exited(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Sends SIGKILL.
    pub fn kill(&self) -> nix::Result<()> {
        signal(self.pidfd.as_fd(), libc::SIGKILL)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Sends a signal, or with 0 only asks whether one could be sent.
pub(super) fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> nix::Result<()> {
    let (pidfd, null) = (pidfd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: plain integers and a null siginfo, which the system call allows.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, null, 0_u32) };
    Errno::result(result).map(drop)
}

pub(super) fn open_pidfd(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0_u32) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor (close-on-exec) for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Wakes a thread that polls it; any number of wakes before it looks count as one.
#[derive(Debug)]
pub struct Waker {
    eventfd: EventFd,
    awake: AtomicBool,
}

impl Waker {
    /// An eventfd that nobody has written yet.
    pub fn new() -> nix::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self { eventfd: EventFd::from_flags(flags)?, awake: AtomicBool::new(false) })
    }

    /// Makes the descriptor readable.
    pub fn wake(&self) {
        // In this order, or a clear in between would leave a descriptor that is readable and not
        // known to be: its poller would never sleep again. A full counter is readable as well.
        let _ = self.eventfd.write(1);
        self.awake.store(true, Ordering::Release);
    }

    /// Whether there was a wake since the last [`clear`](Self::clear), without a system call.
    pub fn is_awake(&self) -> bool {
        self.awake.load(Ordering::Acquire)
    }

    /// Forgets past wakes; call it before looking at what they announced.
    pub fn clear(&self) {
        // A wake in between is at worst seen twice.
        self.awake.swap(false, Ordering::AcqRel);
        let _ = self.eventfd.read();
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn is_readable(waker: &Waker) -> bool {
        let mut fds = [PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(1)
    }

    #[test]
    fn a_wake_is_seen_and_forgotten() {
        let waker = Waker::new().unwrap();
        assert!(!waker.is_awake() && !is_readable(&waker));
        waker.wake();
        waker.wake();
        assert!(waker.is_awake() && is_readable(&waker));
        waker.clear();
        assert!(!waker.is_awake() && !is_readable(&waker));
    }

    /// Readable and not known to be, it would end every sleep at once and never be cleared.
    #[test]
    fn a_wake_in_the_middle_of_a_clear_leaves_no_descriptor_that_stays_readable() {
        let waker = Waker::new().unwrap();
        let both = Barrier::new(2);
        let mut stuck = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    both.wait();
                    waker.wake();
                    both.wait();
                }
            });
            for _ in 0..20_000 {
                both.wait();
                waker.clear();
                both.wait();
                stuck += u32::from(!waker.is_awake() && is_readable(&waker));
                waker.clear();
            }
        });
        assert_eq!(stuck, 0);
    }
}
