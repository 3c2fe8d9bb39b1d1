//! What this process inherits, and what programs that it starts do.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
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

/// A descriptor that a service manager is said to have started this process with. It stays open under
/// its number, which others in this process may know, until it is taken.
#[derive(Debug)]
pub(crate) struct Inherited(i32);

impl Inherited {
    /// What it is, as `/proc/self/fd` has it.
    pub(crate) fn what(&self) -> io::Result<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{}", self.0))
    }

    /// The descriptor itself, from now on. For one that is known to be what the manager has passed:
    /// nobody else in this process closes it then.
    pub(crate) fn take(self) -> OwnedFd {
        // SAFETY: it was open when it was found, and each number is found once in the life of a
        // process. The caller saw that it is what was passed under this number, so that nobody in
        // this process has opened it or owns it.
        unsafe { OwnedFd::from_raw_fd(self.0) }
    }
}

impl AsFd for Inherited {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: it was open when it was found. Should somebody in this process have closed it since,
        // the kernel says so, or it is another one: whoever asks looks at what it is.
        unsafe { BorrowedFd::borrow_raw(self.0) }
    }
}

/// The `count` descriptors after the standard ones that a service manager is said to have started this
/// process with. Programs that are started from here do not get them.
///
/// EBADF where one of them is not open, or they have been found before: then nothing is changed.
pub(crate) fn inherited(count: u32) -> nix::Result<Vec<Inherited>> {
    let count = i32::try_from(count).map_err(|_| Errno::EBADF)?;
    let numbers = FIRST..FIRST.checked_add(count).ok_or(Errno::EBADF)?;
    // SAFETY: plain integers.
    if numbers.clone().any(|number| unsafe { libc::fcntl(number, libc::F_GETFD) } < 0) {
        return Err(Errno::EBADF);
    }
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Err(Errno::EBADF);
    }
    let all: Vec<_> = numbers.map(Inherited).collect();
    for fd in &all {
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok(all)
}
