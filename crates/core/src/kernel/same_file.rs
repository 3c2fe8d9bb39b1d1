//! Whether two descriptors are of one open file.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::fstat;
use nix::unistd::gettid;

/// Of `kcmp(2)`.
const KCMP_FILE: i32 = 0;

/// Asks the kernel. An error where it must not be asked and the answer cannot be known otherwise.
pub(crate) fn is_same_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> nix::Result<bool> {
    let (this, one_fd, other_fd) = (gettid().as_raw(), one.as_raw_fd(), other.as_raw_fd());
    // SAFETY: plain integers.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, this, this, KCMP_FILE, one_fd, other_fd) };
    match Errno::result(order) {
        Ok(order) => Ok(order == 0),
        // Containers often forbid it. One open file has one inode; since Linux 5.12 every
        // userfaultfd has one of its own.
        Err(errno) => {
            let (one, other) = (fstat(one)?, fstat(other)?);
            match (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) {
                true => Err(errno),
                false => Ok(false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_copy_is_the_same_and_the_same_path_is_not() {
        let file = File::open("/dev/null").unwrap();
        let (copy, other) = (file.try_clone().unwrap(), File::open("/dev/null").unwrap());
        assert_eq!(is_same_file(file.as_fd(), copy.as_fd()), Ok(true));
        assert_eq!(is_same_file(file.as_fd(), other.as_fd()), Ok(false));
    }
}
