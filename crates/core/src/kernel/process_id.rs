//! Which process it is, without its number: that may be another one's later, and cannot be seen at
//! all from another pid namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt};
use rustix::fs::{fstat, fstatfs};

use super::process::{open_pidfd, signal};

/// The file system that pidfds are of since Linux 6.9: there each process has its own inode, which
/// no other ever gets.
const PIDFS: u64 = 0x5049_4446;

/// What tells a process from others.
#[derive(Debug)]
pub(crate) struct ProcessId(Known);

#[derive(Debug)]
enum Known {
    Inode(u64),
    /// Its number, and what says whether it still has it.
    Number(i32, OwnedFd),
}

impl ProcessId {
    /// The process at the other end of `socket`, or `None` where the kernel cannot say which it
    /// is: it is in a pid namespace that cannot be seen from here and the kernel is older than
    /// 6.9, or it is gone already.
    pub(crate) fn of_peer(socket: &UnixStream) -> nix::Result<Option<Self>> {
        let pid = getsockopt(socket, sockopt::PeerCredentials)?.pid();
        let pidfd = match getsockopt(socket, sockopt::PeerPidfd) {
            // Before Linux 6.5.
            Err(Errno::ENOPROTOOPT) if pid > 0 => open_pidfd(pid),
            pidfd => pidfd,
        };
        let pidfd = match pidfd {
            Ok(pidfd) => pidfd,
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(errno),
            Err(_) => return Ok(None),
        };
        if let Some(inode) = inode(&pidfd) {
            return Ok(Some(Self(Known::Inode(inode))));
        }
        Ok((pid > 0).then_some(Self(Known::Number(pid, pidfd))))
    }

    /// The process of this pidfd, which has this number here.
    pub(crate) fn of(pidfd: BorrowedFd<'_>, pid: i32) -> std::io::Result<Self> {
        let known = match inode(pidfd) {
            Some(inode) => Known::Inode(inode),
            None => Known::Number(pid, pidfd.try_clone_to_owned()?),
        };
        Ok(Self(known))
    }

    /// Whether both are one process.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Known::Inode(one), Known::Inode(other)) => one == other,
            // A number is not given again before its process is reaped: two processes that both
            // have theirs still, and the same, are one.
            (Known::Number(one, pidfd), Known::Number(other, other_pidfd)) => {
                one == other && has_number(pidfd) && has_number(other_pidfd)
            }
            _ => false,
        }
    }
}

fn inode(pidfd: impl AsFd) -> Option<u64> {
    let system = fstatfs(&pidfd).ok()?;
    let is_pidfs = u64::try_from(system.f_type) == Ok(PIDFS);
    is_pidfs.then(|| fstat(&pidfd).ok().map(|stat| stat.st_ino)).flatten()
}

/// Whether the process has not been reaped yet. It need not be one that we may send a signal.
fn has_number(pidfd: &OwnedFd) -> bool {
    signal(pidfd.as_fd(), 0) != Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn by_number(pid: u32) -> ProcessId {
        let pid = pid.cast_signed();
        ProcessId(Known::Number(pid, open_pidfd(pid).unwrap()))
    }

    #[test]
    fn a_process_is_itself() {
        let (one, other) = UnixStream::pair().unwrap();
        let ids = [&one, &other].map(|end| ProcessId::of_peer(end).unwrap().unwrap());
        assert!(ids[0].is(&ids[1]));
    }

    #[test]
    fn a_number_counts_for_as_long_as_its_process_has_it() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let ids = [child.id(), child.id(), std::process::id()].map(by_number);
        assert!(ids[0].is(&ids[1]) && !ids[0].is(&ids[2]));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!ids[0].is(&ids[1]));
    }
}
