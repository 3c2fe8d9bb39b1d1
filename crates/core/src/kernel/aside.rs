//! Work done aside: by a process that shares this one's memory and has a table of descriptors of
//! its own. What it receives never is in this process, and is closed when it ends, by a kernel
//! that may take its time over it: nobody waits for that here.

use std::ffi::c_uint;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, clone};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Large enough for buffers of some kilobytes in a build that is not optimised.
const STACK: usize = 256 << 10;

/// A process that has done its work, and ends once all it has received is closed. It has to be
/// [`reap`](Self::reap)ed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving(Pid);

/// The copy of this process's descriptors that work aside has. Only there can it be had.
#[derive(Debug)]
pub(crate) struct OwnTable(());

/// Runs `work` aside and returns when it has returned. It must not wait for anything: the calling
/// thread, like that of a `vfork`, goes on only then.
pub(crate) fn aside(work: &mut dyn FnMut(&OwnTable)) -> nix::Result<Leaving> {
    let mut stack = vec![0; STACK];
    // A panic would be lost: the process ends, and what it was to find out is not there.
    let work = || isize::from(catch_unwind(AssertUnwindSafe(|| work(&OwnTable(())))).is_err());
    // A handler of this process's signals would run there.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // No signal at its end, so that nobody else who waits for children takes it for one of theirs.
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: as with `vfork`, this thread is stopped until the other process no longer uses the
    // shared memory. So the stack and what `work` borrows outlive their use, thread-local state
    // has one user at a time, and to all other threads it is as if this one had run `work`.
    let cloned = unsafe { clone(Box::new(work), &mut stack, flags, None) };
    mask.thread_set_mask()?;
    cloned.map(Leaving)
}

impl Leaving {
    /// Whether the process has ended, with all it had closed. Once it has, it is forgotten.
    pub(crate) fn try_reap(&self) -> bool {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
        // Where the parent's SIGCHLD is ignored the kernel forgets it at once: ECHILD.
        !matches!(waitpid(self.0, Some(flags)), Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
    }

    /// Waits for that, however long it takes.
    pub(crate) fn reap(self) {
        while waitpid(self.0, Some(WaitPidFlag::__WALL)) == Err(Errno::EINTR) {}
    }
}

impl OwnTable {
    /// Gives these the lowest numbers that are free and closes all above, so that what is received
    /// from here on comes last in the table. A table is closed from its start to its end: if the
    /// end takes for ever, nothing of this process is held open by that.
    pub(crate) fn put_first<const COUNT: usize>(
        &self,
        fds: [BorrowedFd<'_>; COUNT],
    ) -> rustix::io::Result<[OwnedFd; COUNT]> {
        let mut copies = [const { None }; COUNT];
        for (copy, fd) in copies.iter_mut().zip(fds) {
            *copy = Some(rustix::io::fcntl_dupfd_cloexec(fd, 0)?);
        }
        let copies = copies.map(|copy| copy.expect("one for each"));
        let last = copies.iter().map(|fd| fd.as_fd().as_raw_fd()).max();
        self.close_from(last.map_or(0, |last| last + 1))?;
        Ok(copies)
    }

    fn close_from(&self, first: RawFd) -> rustix::io::Result<()> {
        let (first, last, flags) = (first.cast_unsigned(), c_uint::MAX, 0_u32);
        // SAFETY: plain integers; the descriptors are copies that only this process has.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
        match result {
            0 => Ok(()),
            _ => Err(rustix::io::Errno::from_raw_os_error(Errno::last_raw())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn what_is_done_aside_is_seen_here_and_its_descriptors_are_not() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (mut found, mut numbers) = (0, Vec::with_capacity(2));
        let leaving = aside(&mut |table| {
            let kept = table.put_first([ours.as_fd(), theirs.as_fd()]).unwrap();
            numbers.extend(kept.iter().map(|fd| fd.as_fd().as_raw_fd()));
            // Copies: both go on here.
            std::mem::forget(kept);
            found = std::process::id();
        });
        leaving.unwrap().reap();
        assert_ne!(found, 0);
        assert_ne!(found, std::process::id());
        assert_eq!(numbers.len(), 2);
        theirs.write_all(b"x").unwrap();
        let mut byte = [0];
        (&ours).read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn a_panic_aside_ends_nothing_here() {
        aside(&mut |_| panic!("on purpose")).unwrap().reap();
    }

    #[test]
    fn what_has_ended_is_reaped_once() {
        let leaving = aside(&mut |_| {}).unwrap();
        while !leaving.try_reap() {
            std::thread::yield_now();
        }
        assert!(leaving.try_reap());
    }
}
