//! Who is at the other end of a connection. That it is of the same user proves little: any program of
//! that user could say anything. What is believed is the lock that its process holds in the state
//! directory, as the kernel lists it.

use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use thiserror::Error;

use crate::kernel::{Process, proc_is_ours};
use crate::ledger::{DirLock, StateDir};

/// Why the other end is not believed.
#[derive(Debug, Error)]
pub enum Unproven {
    /// It belongs to somebody else.
    #[error("it belongs to user {found}, and this is user {user}")]
    User {
        /// Its user.
        found: u32,
        /// This one's.
        user: u32,
    },
    /// Its process does not have the lock.
    #[error("its process {pid} does not have the lock on {lock} in the state directory")]
    Lock {
        /// The process.
        pid: i32,
        /// The lock's file.
        lock: &'static str,
    },
    /// It cannot be seen which process it is.
    #[error("it cannot be seen which process it is: {0}")]
    Unseen(String),
}

/// The list is put together piece by piece, and may miss a lock while others come and go.
const LOOKS: u32 = 3;

/// The process at the other end of `socket`, if it has the lock `theirs` in `dir`, as this one has
/// `ours` there.
pub(super) fn holder(
    socket: &impl AsFd,
    dir: &StateDir,
    ours: DirLock,
    theirs: DirLock,
) -> Result<Process, Unproven> {
    let unseen = |cause: &dyn std::fmt::Display| Unproven::Unseen(cause.to_string());
    let credentials = getsockopt(socket, PeerCredentials).map_err(|error| unseen(&error))?;
    let user = nix::unistd::geteuid().as_raw();
    if credentials.uid() != user {
        return Err(Unproven::User { found: credentials.uid(), user });
    }
    proc_is_ours().map_err(|error| unseen(&error))?;
    let process = Process::peer_of(socket)
        .map_err(|error| unseen(&error))?
        .ok_or_else(|| unseen(&"it is in another pid namespace"))?;
    let ours = dir.inode_of(ours).map_err(|error| unseen(&error))?;
    let inode = dir.inode_of(theirs).map_err(|error| unseen(&error))?;
    for _ in 0..LOOKS {
        let text = std::fs::read_to_string("/proc/locks").map_err(|error| unseen(&error))?;
        let is_peers = |pid| pid == process.pid();
        let held = holds(&text, (own_pid(), ours), is_peers, inode);
        // Its number could have been given to another process by now; the pidfd knows.
        if process.has_exited() {
            return Err(unseen(&"it has exited"));
        }
        if held {
            return Ok(process);
        }
    }
    Err(Unproven::Lock { pid: process.pid(), lock: theirs.name() })
}

/// Whether anybody has the lock `theirs` in `dir`, where this process has `ours`. Also where that
/// cannot be seen.
pub(super) fn is_held(dir: &StateDir, ours: DirLock, theirs: DirLock) -> bool {
    let look = || {
        let (ours, theirs) = (dir.inode_of(ours)?, dir.inode_of(theirs));
        let theirs = match theirs {
            // Nobody ever had it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            inode => inode?,
        };
        let text = std::fs::read_to_string("/proc/locks")?;
        let anybody = |_| true;
        Ok::<_, std::io::Error>(holds(&text, (own_pid(), ours), anybody, theirs))
    };
    (0..LOOKS).any(|_| look().unwrap_or(true))
}

/// Which of `ids` are guests whose ledgers in `dir` are there and locked by nobody, this process having
/// the lock `ours` there. None where that cannot be seen.
pub(super) fn ownerless(dir: &StateDir, ours: DirLock, ids: Vec<String>) -> Vec<String> {
    let look = |ids: Vec<String>| {
        let inodes: Vec<_> = ids
            .into_iter()
            .filter_map(|id| Some((std::fs::metadata(dir.finished(&id)).ok()?.ino(), id)))
            .collect();
        let ours = dir.inode_of(ours)?;
        let text = std::fs::read_to_string("/proc/locks")?;
        let seen = |(inode, id)| {
            let held = is_held_in(&text, (own_pid(), ours), inode)?;
            (!held).then_some(id)
        };
        Ok::<_, std::io::Error>(inodes.into_iter().filter_map(seen).collect::<Vec<_>>())
    };
    (0..LOOKS).try_fold(ids, |ids, _| look(ids)).unwrap_or_default()
}

/// Whether anybody has a lock on `inode`; none where our own is not listed, which tells the device.
fn is_held_in(proc_locks: &str, ours: (i32, u64), inode: u64) -> Option<bool> {
    let is_listed = holds(proc_locks, ours, |pid| pid == ours.0, ours.1);
    is_listed.then(|| holds(proc_locks, ours, |_| true, inode))
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Whether a process that `is_theirs` has a lock (`flock(2)`) on `inode`, of the file system where we
/// have `ours`. Which device the kernel names for it is told by our own lock: `stat(2)` may have
/// another number.
fn holds(proc_locks: &str, ours: (i32, u64), is_theirs: impl Fn(i32) -> bool, inode: u64) -> bool {
    let locks = || proc_locks.lines().filter_map(parse);
    let mut devices = locks().filter(|&(pid, _, on)| (pid, on) == ours);
    devices.any(|(_, device, _)| {
        locks().any(|(pid, at, on)| is_theirs(pid) && on == inode && at == device)
    })
}

/// "1: FLOCK  ADVISORY  WRITE 4711 00:2b:1234 0 EOF": who has it, on what device, on what inode.
/// Those who only wait have an arrow before the kind.
fn parse(line: &str) -> Option<(i32, &str, u64)> {
    let mut words = line.split_whitespace().skip(1);
    if (words.next()?, words.nth(1)?) != ("FLOCK", "WRITE") {
        return None;
    }
    let pid = words.next()?.parse().ok()?;
    let (device, inode) = words.next()?.rsplit_once(':')?;
    Some((pid, device, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "\
1: FLOCK  ADVISORY  WRITE 70 00:2b:5 0 EOF
2: FLOCK  ADVISORY  WRITE 71 00:2b:6 0 EOF
2: -> FLOCK  ADVISORY  WRITE 72 00:2b:6 0 EOF
3: POSIX  ADVISORY  WRITE 73 00:2b:6 0 EOF
4: FLOCK  ADVISORY  READ  74 00:2b:6 0 EOF
5: FLOCK  ADVISORY  WRITE 75 00:2c:6 0 EOF
6: FLOCK  ADVISORY  WRITE 76 00:2b:7 0 EOF
";

    #[test]
    fn only_who_has_the_lock_alone_on_that_very_file_holds_it() {
        let holds = |pid| holds(LOCKS, (70, 5), |other| other == pid, 6);
        let holders: Vec<_> = (70..80).filter(|&pid| holds(pid)).collect();
        assert_eq!(holders, [71]);
    }

    #[test]
    fn what_nobody_has_is_known_where_our_own_lock_is_listed() {
        let is_held = |ours, inode| is_held_in(LOCKS, (70, ours), inode);
        assert_eq!((is_held(5, 6), is_held(5, 9)), (Some(true), Some(false)));
        assert_eq!(is_held(4, 9), None);
    }

    #[test]
    fn without_a_lock_of_our_own_nobody_holds_any() {
        assert!(!holds(LOCKS, (80, 5), |_| true, 6));
        assert!(!holds("garbage\n1: FLOCK\n", (70, 5), |_| true, 6));
    }
}
