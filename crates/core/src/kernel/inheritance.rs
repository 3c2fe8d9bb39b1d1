//! What this process inherits, and what programs that it starts do.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;

/// Marks every descriptor but the three standard ones as none that a program started from here gets,
/// whoever opened it (`close_range(2)`, Linux 5.11).
pub fn pass_on_nothing() -> nix::Result<()> {
    // SAFETY: it closes nothing here, and sets a flag that nobody's correctness rests on the lack of.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(done).map(drop)
}

/// The first descriptor of a service manager's.
const FIRST: i32 = 3;

/// Whether they have been taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the `count` descriptors after the standard ones that a service manager started this process
/// with. Programs that are started from here do not get them.
///
/// EBADF where one of them is not open, or they have been taken before: then nothing is taken.
pub(crate) fn inherited(count: u32) -> nix::Result<Vec<OwnedFd>> {
    let count = i32::try_from(count).map_err(|_| Errno::EBADF)?;
    let numbers = FIRST..FIRST.checked_add(count).ok_or(Errno::EBADF)?;
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Err(Errno::EBADF);
    }
    // SAFETY: plain integers.
    if numbers.clone().any(|number| unsafe { libc::fcntl(number, libc::F_GETFD) } < 0) {
        return Err(Errno::EBADF);
    }
    // SAFETY: they are open; whoever started this process says that they are its own to take, nobody
    // in it has opened them, and they are taken once.
    let fds: Vec<_> = numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect();
    for fd in &fds {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok(fds)
}
