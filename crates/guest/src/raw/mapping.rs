//! Memory of the guest, seen as words that anybody may change at any time.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use super::access::{self, Poisoned};

/// Anonymous private memory, which lives as long as the process.
///
/// It is never unmapped as a whole, because a thread may be waiting for one of its pages for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    base: NonNull<c_void>,
    len: usize,
}

// SAFETY: the memory belongs to no thread, and is only ever accessed as atomic words.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes in pages of `page_size`, without reserving memory for them.
    pub(crate) fn anonymous(len: NonZeroUsize, page_size: u64) -> nix::Result<Self> {
        let mut flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        if page_size > 4096 {
            flags |= MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB;
        }
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing one.
        let base = unsafe {
            mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, flags)?
        };
        Ok(Self { base, len: len.get() })
    }

    /// Reserves `len` bytes of huge pages for a moment.
    pub(crate) fn reserve_huge(len: NonZeroUsize) -> nix::Result<()> {
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_HUGETLB | MapFlags::MAP_HUGE_2MB;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing one, and
        // nobody else has learnt of it when it goes.
        unsafe {
            let base = mmap_anonymous(None, len, ProtFlags::PROT_NONE, flags)?;
            munmap(base, len.get())
        }
    }

    /// Maps so much in so many parts that the process may have no other mapping.
    pub(crate) fn as_many_as_possible() -> nix::Result<Self> {
        const PAGE: usize = 4096;
        let most = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        let most = most.trim().parse().unwrap_or(1 << 20);
        let len = NonZeroUsize::new(2 * PAGE * most).ok_or(Errno::EINVAL)?;
        let all = Self::anonymous(len, PAGE as u64)?;
        for at in 0..most {
            match all.punch_gap(2 * PAGE * at, PAGE) {
                Ok(()) => {}
                Err(Errno::ENOMEM) => return Ok(all),
                Err(errno) => return Err(errno),
            }
        }
        Ok(all)
    }

    pub(crate) const fn len(self) -> usize {
        self.len
    }

    /// Maps the first `len` bytes of `file`; what is written stays in this process.
    pub(crate) fn of_file(len: NonZeroUsize, file: impl AsFd) -> nix::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing one.
        let base = unsafe { mmap(None, len, protection, flags, file, 0)? };
        Ok(Self { base, len: len.get() })
    }

    /// The address of the byte at `offset`.
    pub(crate) fn address(self, offset: usize) -> u64 {
        self.at(offset, 0).as_ptr() as u64
    }

    /// The words of `len` bytes at `offset`. Accessing an absent page blocks until it is there.
    pub(crate) fn words(self, offset: usize, len: usize) -> &'static [AtomicU64] {
        let start = self.at(offset, len);
        assert!(start.cast::<AtomicU64>().is_aligned(), "words start at multiples of 8");
        // SAFETY: the range lies in the mapping, which stays for the life of the process, and
        // nothing in this process sees it other than as atomics. What the kernel does to the
        // pages behind it (zeros after madvise, installs) is one more concurrent writer. After
        // `unmap_part` an access ends the process, as it would end any guest.
        unsafe { std::slice::from_raw_parts(start.as_ptr().cast::<AtomicU64>(), len / 8) }
    }

    /// Reads the word at `offset`, or learns that its page is poisoned.
    pub(crate) fn load(self, offset: usize) -> Result<u64, Poisoned> {
        access::load(self.words(offset, 8).as_ptr())
    }

    /// Writes the word at `offset`, or learns that its page is poisoned.
    pub(crate) fn store(self, offset: usize, word: u64) -> Result<(), Poisoned> {
        access::store(self.words(offset, 8).as_ptr(), word)
    }

    /// `madvise(MADV_DONTNEED)`.
    pub(crate) fn dont_need(self, offset: usize, len: usize) -> nix::Result<()> {
        // SAFETY: the range lies in the mapping, whose users expect it to change at any time.
        unsafe { madvise(self.at(offset, len), len, MmapAdvise::MADV_DONTNEED) }
    }

    /// `madvise(MADV_FREE)`: the pages stay until the kernel needs them.
    pub(crate) fn free(self, offset: usize, len: usize) -> nix::Result<()> {
        // SAFETY: as for `dont_need`.
        unsafe { madvise(self.at(offset, len), len, MmapAdvise::MADV_FREE) }
    }

    /// Writes `len` bytes at `offset` to `file`, so that it is the kernel which reads them.
    pub(crate) fn write_to(
        self,
        file: BorrowedFd<'_>,
        offset: usize,
        len: usize,
    ) -> nix::Result<usize> {
        // SAFETY: the range lies in the mapping; the kernel answers EFAULT where it cannot read.
        // nix's own function wants a slice of bytes, which this memory never is.
        let written = unsafe {
            let start = self.at(offset, len).as_ptr();
            libc::pwrite(file.as_raw_fd(), start, len, 0)
        };
        Errno::result(written).map(isize::unsigned_abs)
    }

    /// Replaces a part by a hole which stays reserved, so that nothing else is mapped there.
    pub(crate) fn punch_gap(self, offset: usize, len: usize) -> nix::Result<()> {
        let start = NonZeroUsize::new(self.at(offset, len).as_ptr() as usize);
        let Some(len) = NonZeroUsize::new(len) else {
            return Ok(());
        };
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED;
        // SAFETY: only a part of this mapping is replaced, before any of its words is used.
        unsafe { mmap_anonymous(start, len, ProtFlags::PROT_NONE, flags).map(drop) }
    }

    /// Unmaps a part. Later accesses end the process with SIGSEGV.
    pub(crate) fn unmap_part(self, offset: usize, len: usize) -> nix::Result<()> {
        // SAFETY: only a part of this mapping goes, and no `&mut` or plain `&` points into it.
        unsafe { munmap(self.at(offset, len), len) }
    }

    /// Maps the start of `file` over a part.
    pub(crate) fn cover_part(self, offset: usize, len: usize, file: impl AsFd) -> nix::Result<()> {
        let start = NonZeroUsize::new(self.at(offset, len).as_ptr() as usize);
        let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED;
        // SAFETY: only a part of this mapping is replaced, whose users expect it to change at any
        // time.
        unsafe { mmap(start, len, ProtFlags::PROT_READ, flags, file, 0).map(drop) }
    }

    fn at(self, offset: usize, len: usize) -> NonNull<c_void> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        assert!(inside, "{len} bytes at {offset} are not in a mapping of {} bytes", self.len);
        // SAFETY: the offset was just found to lie in the mapping.
        unsafe { self.base.byte_add(offset) }
    }
}
