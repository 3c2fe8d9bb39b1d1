//! Whether a userfaultfd is for the memory of this very process. Who served that would wait for
//! itself as soon as it touched a page of it.

use std::num::NonZero;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use userfaultfd_sys as sys;

use super::descriptor::LOWEST_OF_GUESTS;
use super::host::{create, create_by_device};
use super::ioctl;

/// A page at this size and alignment is one wherever Linux runs.
const PAGE: usize = 64 << 10;

/// Addresses that no guest has.
const LOWEST: std::ops::Range<usize> = PAGE..16 * PAGE;
const _: () = assert!(LOWEST.end as u64 == LOWEST_OF_GUESTS.0);

/// Memory of this process that has a userfaultfd already: a second one cannot be registered for
/// it, and to a userfaultfd of another process there is nothing here. Nobody ever touches it.
struct Mirror {
    address: u64,
    _uffd: OwnedFd,
}

/// Made once, and kept.
static MIRROR: Mutex<Option<Mirror>> = Mutex::new(None);

/// Asks the kernel whether `uffd` is for this process's memory. Waits for the lock of whose memory
/// it is.
pub(crate) fn is_for_own_memory(uffd: BorrowedFd<'_>) -> nix::Result<bool> {
    let Some(address) = mirror()? else { return Ok(false) };
    let range = sys::uffdio_range { start: address, len: PAGE as u64 };
    let mode = sys::UFFDIO_REGISTER_MODE_MISSING;
    let mut arg = sys::uffdio_register { range, mode, ioctls: 0 };
    // SAFETY: the kernel writes only to `arg`, and registers nothing of this process: what is
    // there is registered with another userfaultfd, which is an error.
    match unsafe { ioctl::register(uffd.as_raw_fd(), &mut arg) } {
        Err(Errno::EBUSY) => Ok(true),
        Err(_) => Ok(false),
        Ok(_) => {
            // Another process that has memory so low, for whatever reason: as it was before.
            // SAFETY: the kernel only reads `range`, and has just registered it.
            let _ = unsafe { ioctl::unregister(uffd.as_raw_fd(), &mut arg.range) };
            Ok(false)
        }
    }
}

/// Where the mirror is, or `None` where this process cannot have a userfaultfd at all.
fn mirror() -> nix::Result<Option<u64>> {
    // Made under the lock: nothing that can panic or wait runs there.
    let mut mirror = MIRROR.lock().unwrap_or_else(PoisonError::into_inner);
    if mirror.is_none() {
        *mirror = make()?;
    }
    Ok(mirror.as_ref().map(|mirror| mirror.address))
}

fn make() -> nix::Result<Option<Mirror>> {
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let created = create(flags | sys::UFFD_USER_MODE_ONLY.cast_signed());
    let uffd = match created.or_else(|_| create_by_device(flags)) {
        Ok(uffd) => uffd,
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(errno),
        Err(_) => return Ok(None),
    };
    let mut api = sys::uffdio_api { api: sys::UFFD_API, features: 0, ioctls: 0 };
    // SAFETY: the argument is the struct of this ioctl and lives across the call.
    unsafe { ioctl::api(uffd.as_raw_fd(), &mut api)? };

    let start = map()?;
    let range = sys::uffdio_range { start, len: PAGE as u64 };
    let mode = sys::UFFDIO_REGISTER_MODE_MISSING;
    let mut arg = sys::uffdio_register { range, mode, ioctls: 0 };
    // SAFETY: the memory was mapped for this, and nobody touches it.
    unsafe { ioctl::register(uffd.as_raw_fd(), &mut arg)? };
    Ok(Some(Mirror { address: start, _uffd: uffd }))
}

/// Maps the lowest page that can be had and that nothing can be done with.
fn map() -> nix::Result<u64> {
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
    let length = NonZero::new(PAGE).ok_or(Errno::EINVAL)?;
    let mut last = Errno::ENOMEM;
    for address in LOWEST.step_by(PAGE) {
        // SAFETY: what is there already is not replaced.
        match unsafe { mmap_anonymous(NonZero::new(address), length, ProtFlags::PROT_NONE, flags) }
        {
            Ok(mapped) => return Ok(mapped.addr().get() as u64),
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn own(initialised: bool) -> OwnedFd {
        let uffd = create(libc::O_CLOEXEC | libc::O_NONBLOCK).unwrap();
        if initialised {
            let mut api = sys::uffdio_api { api: sys::UFFD_API, features: 0, ioctls: 0 };
            // SAFETY: the argument is the struct of this ioctl and lives across the call.
            unsafe { ioctl::api(uffd.as_raw_fd(), &mut api).unwrap() };
        }
        uffd
    }

    #[test]
    fn a_userfaultfd_of_this_process_is_known_every_time() {
        for _ in 0..3 {
            assert_eq!(is_for_own_memory(own(true).as_fd()), Ok(true));
        }
    }

    #[test]
    fn one_that_is_for_nothing_yet_and_what_is_none_are_not() {
        assert_eq!(is_for_own_memory(own(false).as_fd()), Ok(false));
        assert_eq!(is_for_own_memory(std::io::stderr().as_fd()), Ok(false));
    }
}
