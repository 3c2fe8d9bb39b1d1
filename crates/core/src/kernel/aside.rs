//! Work done aside: by a process that shares this one's memory and has a table of descriptors of
//! its own. What it receives never is in this process, and is closed when it ends, by a kernel
//! that may take its time over it: nobody waits for that here.

use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, clone};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, open};

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
    /// Has what is received from here on come last in the table, where there is room for so many.
    ///
    /// A table is closed from its start to its end: if the end takes for ever, nothing of this
    /// process is held open by that. It is closed by the process's end alone, where the kernel
    /// lets nobody linger: a copy that is closed before could be the last of something by then.
    pub(crate) fn fill(&self, with: BorrowedFd<'_>, room: u64) {
        let (Some(last), Ok((limit, _))) = (last_of_table(), getrlimit(Resource::RLIMIT_NOFILE))
        else {
            return;
        };
        if u64::from(last.unsigned_abs()) + 1 + room > limit {
            return;
        }
        while let Ok(copy) = rustix::io::fcntl_dupfd_cloexec(with, 0) {
            if copy.into_raw_fd() > last {
                return;
            }
        }
    }
}

/// The highest descriptor that is open.
fn last_of_table() -> Option<RawFd> {
    let mut status = [0; 4096];
    let file = open(c"/proc/self/status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let len = rustix::io::read(&file, &mut status).ok()?;
    let text = std::str::from_utf8(&status[..len]).ok()?;
    // The room there is: all are below.
    let size = text.lines().find_map(|line| line.strip_prefix("FDSize:"))?;
    let size: RawFd = size.trim().parse().ok()?;
    // SAFETY: plain integers; asking changes nothing.
    let is_open = |fd: &RawFd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0;
    (0..size).rev().find(is_open)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd};

    use super::*;

    #[test]
    fn what_is_found_out_aside_is_known_here() {
        let mut found = 0;
        aside(&mut |_| found = std::process::id()).unwrap().reap();
        assert_ne!(found, 0);
        assert_ne!(found, std::process::id());
    }

    #[test]
    fn what_is_opened_aside_comes_last_and_is_not_here() {
        let holes: Vec<_> = (0..40).map(|_| File::open("/dev/null").unwrap()).collect();
        let last = File::open("/dev/null").unwrap();
        drop(holes);
        let (mut before, mut opened) = (None, 0);
        let leaving = aside(&mut |table| {
            before = last_of_table();
            table.fill(last.as_fd(), 1);
            opened = File::open("/dev/null").unwrap().into_raw_fd();
        });
        leaving.unwrap().reap();
        assert!(before.unwrap() >= last.as_raw_fd(), "{before:?}");
        assert!(opened > before.unwrap(), "{opened} is behind {before:?}");
        // Other tests open files as well, though not as many.
        assert!(File::open("/dev/null").unwrap().as_raw_fd() < opened);
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
