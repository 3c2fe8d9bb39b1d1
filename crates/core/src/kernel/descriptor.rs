//! The guest's userfaultfd: one function an ioctl, each with an [`Outcome`].

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use userfaultfd_sys as sys;

use super::ioctl;
use super::mapping::Bytes;
use crate::units::GuestAddr;

/// What came of an install, a wake or a change of protection. Errnos end here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This many bytes from the start of the range are done and their waiters woken. Fewer than
    /// were asked for means that the rest met an obstacle: ask again from there to learn which.
    Done(u64),
    /// The first page is already present (EEXIST). Nobody was woken. On hugetlb this is also
    /// what an empty pool looks like; see `kernel::Pagemap` for telling them apart.
    Exists,
    /// The address space is changing (EAGAIN): nothing was done. Drain events, then try again.
    Again,
    /// No memory for the page (ENOMEM). Nothing was done.
    NoMemory,
    /// The bytes to install could not be read (EFAULT): the snapshot was truncated, or its
    /// device failed.
    SourceFault,
    /// The guest process is gone (ESRCH).
    Gone,
    /// The range is not registered, or no longer mapped (ENOENT).
    Unmapped,
    /// The kernel refused for a reason that no retry will change, as an errno.
    Refused(i32),
}

impl Outcome {
    fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::EEXIST => Self::Exists,
            Errno::EAGAIN | Errno::EINTR => Self::Again,
            Errno::ENOMEM => Self::NoMemory,
            Errno::EFAULT => Self::SourceFault,
            Errno::ESRCH => Self::Gone,
            Errno::ENOENT => Self::Unmapped,
            other => Self::Refused(other as i32),
        }
    }

    /// COPY and its kin report what was done before an obstacle in a field, together with
    /// EAGAIN; the same field holds a negated errno when nothing was done.
    fn partial(result: nix::Result<i32>, field: i64, len: u64) -> Self {
        match result {
            Ok(_) => Self::Done(len),
            Err(_) if field > 0 => Self::Done(field.unsigned_abs()),
            Err(errno) => Self::from_errno(errno),
        }
    }
}

/// Whether an installed page reports its first write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// The page is writable at once.
    Writable,
    /// The first write to the page raises a write-protect fault (UFFDIO_COPY_MODE_WP).
    WriteProtected,
}

/// Whether an install wakes the threads that wait for its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// At once.
    Now,
    /// Not yet: every wake walks all threads that wait, so a batch of installs has one in the end,
    /// by [`Uffd::wake`].
    Later,
}

/// Below this the kernel is asked about addresses that no guest has: one that had memory there would
/// lose its protection, or its registration, by the question.
pub(crate) const LOWEST_OF_GUESTS: GuestAddr = GuestAddr(0x10_0000);

/// A page that no guest has, and that may be asked about whatever `vm.mmap_min_addr` is.
const NOBODYS: GuestAddr = GuestAddr(LOWEST_OF_GUESTS.0 - 4096);

/// A userfaultfd that belongs to another process.
///
/// See `ioctl_userfaultfd(2)`. All functions may be called while the guest runs; none touches
/// this process's memory other than by reading the given [`Bytes`].
#[derive(Clone, Debug)]
pub struct Uffd(Arc<userfaultfd::Uffd>);

impl Uffd {
    /// Takes the descriptor over and makes its reads non-blocking (`poll` on a blocking
    /// userfaultfd reports only errors).
    pub fn new(fd: OwnedFd) -> nix::Result<Self> {
        // SAFETY: the descriptor is owned, and ownership moves into the new value.
        let uffd = unsafe { userfaultfd::Uffd::from_raw_fd(fd.into_raw_fd()) };
        let uffd = Self(Arc::new(uffd));
        uffd.refuse_to_wait()?;
        Ok(uffd)
    }

    /// Sets O_NONBLOCK where it is not set: the owner shares that flag, and may clear it.
    pub fn refuse_to_wait(&self) -> nix::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(self, FcntlArg::F_GETFL)?);
        if !flags.contains(OFlag::O_NONBLOCK) {
            fcntl(self, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        Ok(())
    }

    /// Whether an event waits to be read, as far as can be told without reading it.
    pub fn has_events(&self) -> bool {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// UFFDIO_COPY: installs `bytes` at `addr`.
    pub fn copy(
        &self,
        addr: GuestAddr,
        bytes: Bytes<'_>,
        protection: Protection,
        wake: Wake,
    ) -> Outcome {
        let mode = match protection {
            Protection::Writable => 0,
            Protection::WriteProtected => sys::UFFDIO_COPY_MODE_WP,
        } | match wake {
            Wake::Now => 0,
            Wake::Later => sys::UFFDIO_COPY_MODE_DONTWAKE,
        };
        let len = bytes.len();
        let mut arg = sys::uffdio_copy { dst: addr.0, src: bytes.addr(), len, mode, copy: 0 };
        // SAFETY: the kernel reads `src..src + len`, which `Bytes` keeps mapped, and writes only
        // to the guest and to `arg`; an unreadable source is an error, not a signal.
        let result = unsafe { ioctl::copy(self.0.as_raw_fd(), &mut arg) };
        Outcome::partial(result, arg.copy, len)
    }

    /// UFFDIO_ZEROPAGE: maps the shared zero page over the range. Not for hugetlb.
    pub fn zeropage(&self, addr: GuestAddr, len: u64, wake: Wake) -> Outcome {
        let range = sys::uffdio_range { start: addr.0, len };
        let mode = match wake {
            Wake::Now => 0,
            Wake::Later => sys::UFFDIO_ZEROPAGE_MODE_DONTWAKE,
        };
        let mut arg = sys::uffdio_zeropage { range, mode, zeropage: 0 };
        // SAFETY: the kernel writes only to the guest and to `arg`.
        let result = unsafe { ioctl::zeropage(self.0.as_raw_fd(), &mut arg) };
        Outcome::partial(result, arg.zeropage, len)
    }

    /// UFFDIO_WRITEPROTECT without the WP mode: lets writes through and wakes the range.
    /// Absent pages are skipped.
    pub fn unprotect(&self, addr: GuestAddr, len: u64) -> Outcome {
        self.write_protect(addr, len, 0)
    }

    /// Lets writes through and wakes nobody; of an absent page it takes the mark that a VMM left
    /// which protected the page all the same (WP_UNPOPULATED).
    pub fn clear_protection(&self, addr: GuestAddr, len: u64) -> Outcome {
        self.write_protect(addr, len, sys::UFFDIO_WRITEPROTECT_MODE_DONTWAKE)
    }

    /// UFFDIO_WRITEPROTECT with the WP mode: the next write to a page that is there is reported.
    /// Without WP_UNPOPULATED an absent page is skipped.
    pub fn protect(&self, addr: GuestAddr, len: u64) -> Outcome {
        let mode = sys::UFFDIO_WRITEPROTECT_MODE_WP;
        self.write_protect(addr, len, mode)
    }

    /// Whether the guest's memory is gone with its process. Touches nothing: the address asked
    /// about is one that no guest has.
    pub fn is_gone(&self) -> bool {
        self.write_protect(NOBODYS, 4096, sys::UFFDIO_WRITEPROTECT_MODE_DONTWAKE) == Outcome::Gone
    }

    fn write_protect(&self, addr: GuestAddr, len: u64, mode: u64) -> Outcome {
        let range = sys::uffdio_range { start: addr.0, len };
        let mut arg = sys::uffdio_writeprotect { range, mode };
        // SAFETY: the kernel changes protection bits in the guest and reads `arg`.
        match unsafe { ioctl::write_protect(self.0.as_raw_fd(), &mut arg) } {
            Ok(_) => Outcome::Done(len),
            Err(errno) => Outcome::from_errno(errno),
        }
    }

    /// UFFDIO_POISON: makes accesses to the range raise SIGBUS, and wakes it. Since Linux 6.6.
    pub fn poison(&self, addr: GuestAddr, len: u64) -> Outcome {
        let range = sys::uffdio_range { start: addr.0, len };
        let mut arg = sys::uffdio_poison { range, mode: 0, updated: 0 };
        // SAFETY: the kernel writes only to the guest's page table and to `arg`.
        let result = unsafe { ioctl::poison(self.0.as_raw_fd(), &mut arg) };
        Outcome::partial(result, arg.updated, len)
    }

    /// UFFDIO_WAKE: makes every thread that waits in the range fault again. Works at any time.
    pub fn wake(&self, addr: GuestAddr, len: u64) -> Outcome {
        let mut range = sys::uffdio_range { start: addr.0, len };
        // SAFETY: the kernel only reads `range`.
        match unsafe { ioctl::wake(self.0.as_raw_fd(), &mut range) } {
            Ok(_) => Outcome::Done(len),
            Err(errno) => Outcome::from_errno(errno),
        }
    }

    /// UFFDIO_UNREGISTER: the range is the kernel's own again, which fills what is missing with
    /// zeros, and everybody who waits in it is woken. Works from another process.
    pub fn unregister(&self, addr: GuestAddr, len: u64) -> Outcome {
        let mut range = sys::uffdio_range { start: addr.0, len };
        // SAFETY: the kernel changes the guest's registration and only reads `range`.
        match unsafe { ioctl::unregister(self.0.as_raw_fd(), &mut range) } {
            Ok(_) => Outcome::Done(len),
            Err(errno) => self.not_registered(errno),
        }
    }

    /// UFFDIO_REGISTER for missing pages and write protection, over the owner's registration.
    pub fn register_write_protect(&self, addr: GuestAddr, len: u64) -> Outcome {
        let mode = sys::UFFDIO_REGISTER_MODE_MISSING | sys::UFFDIO_REGISTER_MODE_WP;
        match self.register(addr, len, mode) {
            Ok(ioctls) if ioctls & (1 << sys::_UFFDIO_WRITEPROTECT) != 0 => Outcome::Done(len),
            Ok(_) => Outcome::Refused(Errno::EOPNOTSUPP as i32),
            Err(errno) => self.not_registered(errno),
        }
    }

    /// UFFDIO_REGISTER for missing pages. Of memory that is registered with this descriptor
    /// already it changes nothing; memory of another one is refused (EBUSY).
    pub fn register_missing(&self, addr: GuestAddr, len: u64) -> Outcome {
        match self.register(addr, len, sys::UFFDIO_REGISTER_MODE_MISSING) {
            Ok(_) => Outcome::Done(len),
            Err(errno) => self.not_registered(errno),
        }
    }

    /// UFFDIO_REGISTER and UFFDIO_UNREGISTER say ENOMEM of a process that is gone as well.
    fn not_registered(&self, errno: Errno) -> Outcome {
        match Outcome::from_errno(errno) {
            Outcome::NoMemory if self.is_gone() => Outcome::Gone,
            outcome => outcome,
        }
    }

    fn register(&self, addr: GuestAddr, len: u64, mode: u64) -> nix::Result<u64> {
        let range = sys::uffdio_range { start: addr.0, len };
        let mut arg = sys::uffdio_register { range, mode, ioctls: 0 };
        // SAFETY: the kernel changes the guest's registration and writes only to `arg`.
        unsafe { ioctl::register(self.0.as_raw_fd(), &mut arg) }?;
        Ok(arg.ioctls)
    }

    /// Whether a REMOVE is under way anywhere in the guest: then nothing can be installed.
    pub fn is_changing(&self) -> bool {
        self.write_protect(NOBODYS, 4096, sys::UFFDIO_WRITEPROTECT_MODE_DONTWAKE) == Outcome::Again
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
