//! Memory this process maps: the snapshot, and zeros to copy from.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;

use memmap2::{MmapOptions, MmapRaw};
use nix::libc;

/// Bytes that only the kernel reads, as the source of an install.
///
/// They may lie in a mapped file that somebody truncates, where a read by this process would
/// raise SIGBUS; so there is no way to look at them, and the kernel answers EFAULT instead.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    start: NonNull<u8>,
    len: u64,
    mapped: PhantomData<&'a [u8]>,
}

impl<'a> Bytes<'a> {
    /// How many bytes there are.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first `len` bytes. Panics if there are fewer.
    #[must_use]
    pub fn first(self, len: u64) -> Self {
        assert!(len <= self.len, "{len} of {} bytes", self.len);
        Self { len, ..self }
    }

    /// Those after the first `len` bytes. Panics if there are fewer.
    #[must_use]
    pub fn after(self, len: u64) -> Self {
        assert!(len <= self.len, "after {len} of {} bytes", self.len);
        let skipped = usize::try_from(len).expect("bytes in memory can be counted");
        // SAFETY: as just asserted, the new start lies inside the bytes or right behind them.
        let start = unsafe { self.start.add(skipped) };
        Self { start, len: self.len - len, ..self }
    }

    pub(super) fn addr(&self) -> u64 {
        self.start.as_ptr().expose_provenance() as u64
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(slice: &'a [u8]) -> Self {
        Self { start: NonNull::from(slice).cast(), len: slice.len() as u64, mapped: PhantomData }
    }
}

/// A file mapped read-only and shared: its pages are the page cache's own.
#[derive(Debug)]
pub struct FileMap {
    map: MmapRaw,
}

/// The page size the host's page cache and `mincore` count in.
const HOST_PAGE: usize = 4096;

impl FileMap {
    /// Maps the first `len` bytes of `file`; `len` must not be 0.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(len).map_raw_read_only(file)?;
        Ok(Self { map })
    }

    /// The bytes `offset..offset + len`. Panics where they pass the end of the mapping.
    pub fn bytes(&self, offset: usize, len: usize) -> Bytes<'_> {
        let start = self.at(offset, len);
        Bytes { start, len: len as u64, mapped: PhantomData }
    }

    /// How many bytes from `offset` on, at most `len`, are in the page cache (`mincore(2)`).
    /// `offset` must be a multiple of 4096.
    pub fn resident(&self, offset: usize, len: usize) -> usize {
        const STEP: usize = 512;
        let mut done = 0;
        while done < len {
            let part = (len - done).min(STEP * HOST_PAGE);
            let start = self.at(offset + done, part);
            let mut pages = [0_u8; STEP];
            // SAFETY: the range is mapped, and `pages` has a byte for each of its pages.
            if unsafe { libc::mincore(start.as_ptr().cast(), part, pages.as_mut_ptr()) } != 0 {
                return done;
            }
            let count = part.div_ceil(HOST_PAGE);
            match pages[..count].iter().position(|page| page & 1 == 0) {
                Some(absent) => return done + absent * HOST_PAGE,
                None => done += part,
            }
        }
        len
    }

    /// Puts pages that are in the page cache into this process's page table, so that the
    /// kernel's copy need not fault them in one by one. Only a hint: errors do not matter.
    pub fn populate(&self, offset: usize, len: usize) {
        let start = self.at(offset, len);
        // SAFETY: the range is mapped; populating for reading changes no contents.
        unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_POPULATE_READ) };
    }

    /// Tells the kernel not to read around page faults: the handler knows better what is next.
    pub fn expect_random_access(&self) {
        // SAFETY: the range is the whole mapping; the advice changes no contents.
        unsafe { libc::madvise(self.map.as_mut_ptr().cast(), self.map.len(), libc::MADV_RANDOM) };
    }

    fn at(&self, offset: usize, len: usize) -> NonNull<u8> {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.map.len()), "{offset} + {len} bytes");
        // SAFETY: `offset` is inside the mapping, as just asserted; mappings are never null.
        unsafe { NonNull::new_unchecked(self.map.as_mut_ptr().add(offset)) }
    }
}

/// Zeros to copy from, where the zero page cannot be mapped: into hugetlb, and with write
/// protection. Never written, so they take up no memory of their own.
#[derive(Debug)]
pub struct ZeroBytes {
    map: MmapRaw,
}

impl ZeroBytes {
    /// Zeros in stock: the most that [`bytes`](Self::bytes) gives.
    pub const LEN: usize = 2 << 20;

    /// Maps [`LEN`](Self::LEN) zeros.
    pub fn new() -> io::Result<Self> {
        let map = MmapOptions::new().len(Self::LEN).map_anon()?.make_read_only()?;
        Ok(Self { map: map.into() })
    }

    /// `len` zeros. Panics if `len` is more than [`LEN`](Self::LEN).
    pub fn bytes(&self, len: u64) -> Bytes<'_> {
        let start = NonNull::new(self.map.as_mut_ptr()).expect("a mapping is never null");
        Bytes { start, len: Self::LEN as u64, mapped: PhantomData }.first(len)
    }
}

/// Whether `mincore` tells this process the truth about `file`: only its owner, a process that
/// may write it, or one with CAP_FOWNER is told; everybody else hears that all is resident.
pub(crate) fn mincore_is_truthful(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let owner = file.metadata().is_ok_and(|meta| meta.uid() == nix::unistd::geteuid().as_raw());
    owner || nix::unistd::geteuid().is_root() || {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
        nix::unistd::access(path.as_str(), nix::unistd::AccessFlags::W_OK) == Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn residency_follows_the_page_cache() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&[7; 64 * HOST_PAGE]).unwrap();
        file.sync_all().unwrap();
        let map = FileMap::new(&file, 64 * HOST_PAGE).unwrap();
        assert_eq!(map.resident(0, 64 * HOST_PAGE), 64 * HOST_PAGE);

        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        use std::os::unix::fs::FileExt;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        assert_eq!(map.resident(0, 64 * HOST_PAGE), 0);
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        file.read_exact_at(&mut [0], 32 * HOST_PAGE as u64).unwrap();
        assert_eq!(map.resident(0, 64 * HOST_PAGE), 0);
        assert_eq!(map.resident(32 * HOST_PAGE, HOST_PAGE), HOST_PAGE);
    }

    #[test]
    #[should_panic(expected = "4096 + 1 bytes")]
    fn bytes_past_the_end_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        FileMap::new(&file, 4096).unwrap().bytes(4096, 1);
    }
}
