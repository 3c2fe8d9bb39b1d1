//! The guest's process by its pidfd, and the eventfd that wakes a fault loop.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{getsockopt, sockopt};

use crate::units::GuestAddr;

/// For what memory is registered with a userfaultfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Missing pages.
    Missing,
    /// Writes to protected pages.
    WriteProtect,
}

/// A process that cannot be mistaken for another one that got its number later.
#[derive(Clone, Debug)]
pub struct Process {
    pid: i32,
    pidfd: Arc<OwnedFd>,
}

impl Process {
    /// The process at the other end of `socket`, or `None` where it is in a pid namespace that
    /// cannot be seen from here. ESRCH if it has exited.
    pub fn peer_of(socket: &impl AsFd) -> nix::Result<Option<Self>> {
        let pid = getsockopt(socket, sockopt::PeerCredentials)?.pid();
        if pid == 0 {
            return Ok(None);
        }
        // SO_PEERPIDFD (Linux 6.5) names the very process; before, its number has to do.
        match getsockopt(socket, sockopt::PeerPidfd) {
            Ok(pidfd) => Ok(Some(Self { pid, pidfd: pidfd.into() })),
            Err(Errno::ENOPROTOOPT) => Ok(Some(Self::open(pid)?)),
            // The kernel forgets the peer once it is reaped.
            Err(Errno::EINVAL | Errno::ENODATA | Errno::ESRCH) => Err(Errno::ESRCH),
            Err(other) => Err(other),
        }
    }

    /// The process with the number `pid` that was started at `started`, as
    /// [`started`](Self::started) told. ESRCH if it has exited, whoever has its number now.
    pub fn find(pid: i32, started: u64) -> std::io::Result<Self> {
        proc_is_ours()?;
        let process = Self::open(pid)?;
        // Asked in this order: the number cannot pass to another one before the pidfd tells.
        let same = process.started();
        if process.has_exited() {
            return Err(Errno::ESRCH.into());
        }
        if same? == started { Ok(process) } else { Err(Errno::ESRCH.into()) }
    }

    /// This very process.
    pub fn own() -> nix::Result<Self> {
        Self::open(std::process::id().cast_signed())
    }

    /// A child of this process that nobody has waited for yet.
    pub fn of_child(child: &std::process::Child) -> nix::Result<Self> {
        Self::open(child.id().cast_signed())
    }

    fn open(pid: i32) -> nix::Result<Self> {
        Ok(Self { pid, pidfd: open_pidfd(pid)?.into() })
    }

    /// Waits until it has exited, or the time is up; whether it has.
    pub fn wait_until_exited(&self, within: Duration) -> nix::Result<bool> {
        let until = Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if Instant::now() < until => {}
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// When it was started, in clock ticks since the host was: field 22 of `/proc/PID/stat`.
    pub fn started(&self) -> std::io::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The name of the program comes second, in parentheses, and may contain anything.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let started = fields.split_whitespace().nth(19).and_then(|field| field.parse().ok());
        started.ok_or_else(|| std::io::Error::other("/proc/PID/stat has no start time"))
    }

    /// The number by which it has `own`, an open file of ours (`kcmp(2)`). Takes the right to
    /// trace it.
    pub fn number_of(&self, own: impl AsFd) -> std::io::Result<Option<i32>> {
        proc_is_ours()?;
        let kind = std::fs::read_link(format!("/proc/self/fd/{}", own.as_fd().as_raw_fd()))?;
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            let entry = entry?;
            let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            let Some(number) = number else { continue };
            if std::fs::read_link(entry.path()).is_ok_and(|link| link == kind)
                && self.is_same_file(number, own.as_fd())?
            {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    fn is_same_file(&self, number: i32, own: BorrowedFd<'_>) -> nix::Result<bool> {
        const KCMP_FILE: i32 = 0;
        // SAFETY: plain integers.
        let order = unsafe {
            libc::syscall(
                libc::SYS_kcmp,
                std::process::id().cast_signed(),
                self.pid,
                KCMP_FILE,
                i64::from(own.as_raw_fd()),
                i64::from(number),
            )
        };
        Ok(Errno::result(order)? == 0)
    }

    /// A copy of its descriptor with this number (`pidfd_getfd(2)`). Takes the right to trace it.
    pub fn descriptor(&self, number: i32) -> nix::Result<OwnedFd> {
        descriptor_of(&self.pidfd, number)
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

    /// Whether any of its threads still has its memory: one that is ending has let go of it before
    /// its end can be seen. An error where that cannot be looked at.
    pub fn has_memory(&self) -> std::io::Result<bool> {
        proc_is_ours()?;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let statm = match std::fs::read_to_string(task?.path().join("statm")) {
                Ok(statm) => statm,
                // A thread that ended in the meantime.
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => continue,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            // Size in pages comes first; all are 0 without memory.
            if statm.split_whitespace().any(|field| field != "0") {
                // The number could have been given to another process since; the pidfd knows.
                return Ok(!self.has_exited());
            }
        }
        Ok(false)
    }

    /// Whether all of `ranges` is memory of this process that is registered with a userfaultfd like
    /// this, as `/proc/PID/smaps` shows it (VmFlags, proc(5)). Takes the right to trace it.
    pub fn has_registered(
        &self,
        ranges: &[(GuestAddr, GuestAddr)],
        how: Registration,
    ) -> std::io::Result<bool> {
        let size = |ranges: &[(GuestAddr, GuestAddr)]| -> u64 {
            ranges.iter().map(|(start, end)| end.0 - start.0).sum()
        };
        Ok(size(&self.registered(ranges, how)?) == size(ranges))
    }

    /// Those parts of `ranges`, which do not overlap, that are such memory.
    pub fn registered(
        &self,
        ranges: &[(GuestAddr, GuestAddr)],
        how: Registration,
    ) -> std::io::Result<Vec<(GuestAddr, GuestAddr)>> {
        let wanted = match how {
            Registration::Missing => "um",
            Registration::WriteProtect => "uw",
        };
        proc_is_ours()?;
        let smaps = File::open(format!("/proc/{}/smaps", self.pid))?;
        let mut registered = Vec::new();
        let (mut mapping, mut seen) = ((0, 0), 0);
        for line in BufReader::new(smaps).lines() {
            let line = line?;
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                // One that is joined with others while this is read may come again.
                let (from, to) = (mapping.0.max(seen), mapping.1);
                seen = seen.max(to);
                if flags.split_whitespace().any(|flag| flag == wanted) {
                    let parts =
                        ranges.iter().map(|(start, end)| (from.max(start.0), to.min(end.0)));
                    let parts = parts.filter(|(from, to)| from < to);
                    registered.extend(parts.map(|(from, to)| (GuestAddr(from), GuestAddr(to))));
                }
            } else if let Some(range) = line.split_whitespace().next().and_then(address_range) {
                mapping = range;
            }
        }
        // The number could have been given to another process since; the pidfd knows.
        if self.has_exited() {
            return Err(Errno::ESRCH.into());
        }
        Ok(registered)
    }

    /// Whether it was stopped by a signal or a debugger, as far as can be seen. Its first thread is
    /// looked at.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state =
            stat.rsplit_once(')').and_then(|(_, fields)| fields.trim_start().chars().next());
        // The number could have been given to another process since; the pidfd knows.
        matches!(state, Some('T' | 't')) && !self.has_exited()
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

pub(super) fn descriptor_of(pidfd: &OwnedFd, number: i32) -> nix::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0_u32) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel just made this descriptor (close-on-exec) for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// "7f0000000000-7f0000021000", in hexadecimal.
fn address_range(text: &str) -> Option<(u64, u64)> {
    let (start, end) = text.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

/// In the /proc of another pid namespace a process's number is somebody else's.
pub(crate) fn proc_is_ours() -> std::io::Result<()> {
    // It names a process in every namespace from its own down to the process's: in ours, once.
    // That the number is ours proves nothing, as another namespace may have it for us too.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let ours = match numbers {
        Some(numbers) => numbers.split_whitespace().count() == 1,
        // A kernel without pid namespaces has no such line.
        None => true,
    };
    let link = std::fs::read_link("/proc/self")?;
    if !ours || link.as_os_str() != std::process::id().to_string().as_str() {
        return Err(std::io::Error::other("/proc is that of another pid namespace"));
    }
    Ok(())
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
        // Before the write, since whoever that wakes may take this core at once, and would look in
        // vain until the scheduler takes it back. And after it, or a clear in between would leave a
        // descriptor that is readable and not known to be: its poller would never sleep again.
        self.awake.store(true, Ordering::Release);
        // A full counter is readable as well.
        let _ = self.eventfd.write(1);
        self.awake.store(true, Ordering::Release);
    }

    /// The descriptor was found readable: there was a wake, whatever is known of it.
    pub fn found_readable(&self) {
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
    use std::os::unix::net::UnixStream;
    use std::sync::Barrier;

    fn is_readable(waker: &Waker) -> bool {
        let mut fds = [PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO) == Ok(1)
    }

    #[test]
    fn a_process_is_found_again_by_its_number_and_its_start() {
        let own = Process::own().unwrap();
        let started = own.started().unwrap();
        assert!(!Process::find(own.pid(), started).unwrap().has_exited());
        let error = Process::find(own.pid(), started + 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_process_that_has_ended_has_no_memory_before_it_is_reaped() {
        use std::process::{Command, Stdio};
        assert!(Process::own().unwrap().has_memory().unwrap());
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let process = Process::open(pid).unwrap();
        assert!(process.has_memory().unwrap());
        drop(child.stdin.take());
        let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(30_000_u16)).unwrap();
        assert!(process.has_exited() && !process.has_memory().unwrap());
        child.wait().unwrap();
        // Reaped, it cannot be looked at, or its number is somebody else's.
        assert!(!process.has_memory().unwrap_or(false));
    }

    #[test]
    fn an_open_file_is_found_in_another_process_and_taken_from_it() {
        use std::process::{Command, Stdio};
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut child =
            Command::new("cat").stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let process = Process::open(pid).unwrap();
        let other = process.descriptor(0).unwrap();
        assert_eq!(process.number_of(&other).unwrap(), Some(0));
        assert_eq!(process.number_of(&ours).unwrap(), None);
        assert_eq!(process.descriptor(77).unwrap_err(), Errno::EBADF);
        child.kill().unwrap();
        child.wait().unwrap();
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

    /// Whoever is woken may take the core of the one who woke it.
    #[test]
    fn who_is_woken_finds_that_it_was() {
        let this = nix::unistd::Pid::from_raw(0);
        let mut one_core = nix::sched::CpuSet::new();
        let all = nix::sched::sched_getaffinity(this).unwrap();
        let first = (0..nix::sched::CpuSet::count()).find(|core| all.is_set(*core) == Ok(true));
        one_core.set(first.unwrap()).unwrap();
        let waker = Waker::new().unwrap();
        let cleared = Barrier::new(2);
        let mut missed = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                nix::sched::sched_setaffinity(this, &one_core).unwrap();
                for _ in 0..5_000 {
                    waker.wake();
                    cleared.wait();
                }
            });
            scope.spawn(|| {
                nix::sched::sched_setaffinity(this, &one_core).unwrap();
                for _ in 0..5_000 {
                    let mut fds = [PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
                    assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)), Ok(1));
                    missed += u32::from(!waker.is_awake());
                    waker.clear();
                    cleared.wait();
                }
            });
        });
        assert_eq!(missed, 0);
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
