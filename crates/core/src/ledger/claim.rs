//! Which server has a state directory, and which guardian: one at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::inotify;

use super::dir::{DirLock, StateDir, StateDirError};
use crate::kernel::Waker;

/// Keeps others from being for a state directory what this process is, for as long as it lives.
#[derive(Debug)]
pub struct Claim(#[allow(dead_code, reason = "held for its lock")] Flock<File>);

/// How often whoever waits looks again, when nothing says that the other one has let go.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The same right after the other one closed the file: the lock of a process that ends is gone a
/// moment later.
const LOOK_SOON: Duration = Duration::from_millis(1);

/// How often it looks so soon.
const SOON: u32 = 20;

impl StateDir {
    /// Makes this process the one that serves the directory's guests. If there is another one:
    /// waits for it, or refuses.
    pub fn claim(&self, wait: bool) -> Result<Claim, StateDirError> {
        let how = if wait { FlockArg::LockExclusive } else { FlockArg::LockExclusiveNonblock };
        let which = DirLock::Server;
        self.lock(which, self.open_lock(which)?, how).map_err(|(_, error)| error)
    }

    /// Makes this process the directory's guardian, unless there is one.
    pub fn guard(&self) -> Result<Claim, StateDirError> {
        let (which, how) = (DirLock::Guardian, FlockArg::LockExclusiveNonblock);
        self.lock(which, self.open_lock(which)?, how).map_err(|(_, error)| error)
    }

    /// Waits for the server that has the directory, until `given_up` is awake: then the error says
    /// that it is in use. `meanwhile` is called when the wait begins, and whenever a ledger has come to
    /// the directory or gone.
    pub fn claim_unless(
        &self,
        given_up: &Waker,
        mut meanwhile: impl FnMut(),
    ) -> Result<Claim, StateDirError> {
        let which = DirLock::Server;
        let mut file = self.open_lock(which)?;
        let closed = told_of(&self.lock_file(which), inotify::WatchFlags::CLOSE_WRITE);
        let changed = told_of(self.path(), LEDGERS);
        let (mut soon, mut has_changed) = (0, true);
        loop {
            match self.lock(which, file, FlockArg::LockExclusiveNonblock) {
                Err((returned, StateDirError::InUse { .. })) if !given_up.is_awake() => {
                    file = returned;
                }
                claim => return claim.map_err(|(_, error)| error),
            }
            if has_changed {
                meanwhile();
            }
            let wait = if soon > 0 { LOOK_SOON } else { LOOK_EVERY };
            wait_for(given_up, [&closed, &changed], wait);
            has_changed = was_told(&changed);
            let was_closed = was_told(&closed);
            soon = if was_closed { SOON } else { soon.saturating_sub(1) };
        }
    }

    fn open_lock(&self, which: DirLock) -> Result<File, StateDirError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.lock_file(which))
            .map_err(|cause| self.not_locked(which, "open", cause))
    }

    fn lock(
        &self,
        which: DirLock,
        mut file: File,
        how: FlockArg,
    ) -> Result<Claim, (File, StateDirError)> {
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(Claim(lock)),
                Err((returned, Errno::EINTR)) => file = returned,
                Err((file, Errno::EWOULDBLOCK)) => {
                    let path = self.path().to_owned();
                    let error = match which {
                        DirLock::Server => StateDirError::InUse { path },
                        DirLock::Guardian => StateDirError::Guarded { path },
                    };
                    return Err((file, error));
                }
                Err((file, errno)) => {
                    return Err((file, self.not_locked(which, "lock", errno.into())));
                }
            }
        }
    }

    fn lock_file(&self, which: DirLock) -> PathBuf {
        self.path().join(which.name())
    }

    fn not_locked(&self, which: DirLock, doing: &'static str, cause: io::Error) -> StateDirError {
        StateDirError::Io { path: self.lock_file(which), doing, cause }
    }
}

/// What happens in a directory when a ledger comes, and when it goes.
const LEDGERS: inotify::WatchFlags =
    inotify::WatchFlags::MOVED_TO.union(inotify::WatchFlags::DELETE);

/// Is readable when one of `events` has happened to what is at `path`. Without it a waiting server looks
/// now and then for whether the other one is gone.
fn told_of(path: &Path, events: inotify::WatchFlags) -> Option<OwnedFd> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let told = inotify::init(flags).ok()?;
    inotify::add_watch(&told, path, events).ok()?;
    Some(told)
}

/// Waits for `given_up`, for one of `told`, or for so long.
fn wait_for(given_up: &Waker, told: [&Option<OwnedFd>; 2], wait: Duration) {
    let told = told.into_iter().flatten().map(AsFd::as_fd);
    let fds = std::iter::once(given_up.as_fd()).chain(told);
    let mut fds: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut fds, timeout);
}

/// Whether it was readable; it is not any more.
fn was_told(told: &Option<OwnedFd>) -> bool {
    let mut events = [0; 4096];
    told.as_ref().is_some_and(|told| nix::unistd::read(told, &mut events).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(claim: Result<Claim, StateDirError>) -> bool {
        matches!(claim, Err(StateDirError::InUse { .. }))
    }

    #[test]
    fn one_server_at_a_time_has_it() {
        let parent = tempfile::tempdir().unwrap();
        let dir = StateDir::open(parent.path()).unwrap();
        let claim = dir.claim(false).unwrap();
        assert!(in_use(dir.claim(false)));
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| dir.claim(true).map(drop));
            drop(claim);
            waiting.join().unwrap()
        });
        waiting.unwrap();
    }

    #[test]
    fn a_wait_ends_when_the_other_lets_go_or_when_it_is_given_up() {
        let parent = tempfile::tempdir().unwrap();
        let dir = StateDir::open(parent.path()).unwrap();
        let claim = dir.claim(false).unwrap();
        let given_up = Waker::new().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| dir.claim_unless(&given_up, || {}));
            given_up.wake();
            assert!(in_use(waiting.join().unwrap()));
        });
        given_up.clear();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| dir.claim_unless(&given_up, || {}));
            drop(claim);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn the_end_of_whoever_has_it_is_seen_without_looking() {
        let parent = tempfile::tempdir().unwrap();
        let dir = StateDir::open(parent.path()).unwrap();
        let claim = dir.claim(false).unwrap();
        let closed = told_of(&dir.lock_file(DirLock::Server), inotify::WatchFlags::CLOSE_WRITE);
        assert!(closed.is_some());
        drop(claim);
        wait_for(&Waker::new().unwrap(), [&closed, &None], Duration::from_secs(60));
        assert!(was_told(&closed));
    }

    #[test]
    fn whoever_waits_hears_of_ledgers_that_come_and_go() {
        let parent = tempfile::tempdir().unwrap();
        let dir = StateDir::open(parent.path()).unwrap();
        let claim = dir.claim(false).unwrap();
        let given_up = Waker::new().unwrap();
        let (sender, heard) = std::sync::mpsc::channel();
        let hears = || heard.recv_timeout(Duration::from_secs(60)).unwrap();
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| dir.claim_unless(&given_up, || sender.send(()).unwrap()).map(drop));
            hears();
            let (unfinished, ledger) = (dir.unfinished("guest"), dir.finished("guest"));
            std::fs::write(&unfinished, "").unwrap();
            std::fs::rename(&unfinished, &ledger).unwrap();
            hears();
            std::fs::remove_file(&ledger).unwrap();
            hears();
            drop(claim);
            waiting.join().unwrap().unwrap();
        });
    }
}
