//! Memory this process maps: the snapshot, and zeros to copy from.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::LazyLock;

use memmap2::{MmapOptions, MmapRaw};
use nix::libc;

use super::slices::InPieces;

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

// SAFETY: as with a shared slice, nothing is ever written through them, and they live as long.
unsafe impl Send for Bytes<'_> {}
// SAFETY: the same.
unsafe impl Sync for Bytes<'_> {}

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

    /// A copy, for tests, whose files nobody cuts while they are looked at.
    #[cfg(test)]
    pub(crate) fn to_vec(self) -> Vec<u8> {
        let len = usize::try_from(self.len).expect("bytes in memory can be counted");
        // SAFETY: the bytes are mapped for as long as `self` lives, and as long as they are said.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) }.to_vec()
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
    /// A page far behind the file's end, which can never be in the page cache.
    beyond: Option<MmapRaw>,
}

impl Drop for FileMap {
    /// To take many pages out of the page table takes milliseconds, in which a guest may want the
    /// core that another process serves by now.
    fn drop(&mut self) {
        let mut pieces = InPieces::begin();
        for start in (0..self.map.len()).step_by(LET_GO_AT_ONCE) {
            let len = LET_GO_AT_ONCE.min(self.map.len() - start);
            // SAFETY: inside the mapping, which nobody can look at any more.
            let piece = unsafe { self.map.as_mut_ptr().add(start) };
            // SAFETY: the same; the bytes are the file's.
            unsafe { libc::madvise(piece.cast(), len, libc::MADV_DONTNEED) };
            pieces.done();
        }
    }
}

/// How much of a mapping is taken out of the page table at once: some ten microseconds.
const LET_GO_AT_ONCE: usize = 2 << 20;

/// The page size the host's page cache and `mincore` count in.
const HOST_PAGE: usize = 4096;

/// The largest piece in which the page cache keeps a file, aligned to its own size.
const LARGEST_FOLIO: u64 = 2 << 20;

impl FileMap {
    /// Maps the first `len` bytes of `file`; `len` must not be 0.
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        let map = MmapOptions::new().len(len).map_raw_read_only(file)?;
        let behind = (len as u64).next_multiple_of(LARGEST_FOLIO) + LARGEST_FOLIO;
        let beyond = MmapOptions::new().offset(behind).len(HOST_PAGE).map_raw_read_only(file);
        Ok(Self { map, beyond: beyond.ok() })
    }

    /// The bytes `offset..offset + len`. Panics where they pass the end of the mapping.
    pub fn bytes(&self, offset: usize, len: usize) -> Bytes<'_> {
        let start = self.at(offset, len);
        Bytes { start, len: len as u64, mapped: PhantomData }
    }

    /// Which pages of `offset..offset + len` are in this process's page table; at most the first
    /// [`Resident::MOST`] bytes are asked about. `None` where that cannot be known.
    pub fn mapped(&self, offset: usize, len: usize) -> Option<Resident> {
        let len = len.min(Resident::MOST);
        Resident::in_page_table(self.at(offset, len), len)
    }

    /// Which pages of `offset..offset + len` are in the page cache; at most the first
    /// [`Resident::MOST`] bytes are asked about. `offset` must be a multiple of 4096. Whether the
    /// answer is to be believed, [`tells_residency`](Self::tells_residency) knows.
    pub fn residency(&self, offset: usize, len: usize) -> Resident {
        let len = len.min(Resident::MOST);
        Resident::of(self.at(offset, len), len)
    }

    /// How many bytes from `offset` on, at most `len`, are in the page cache without a gap.
    pub fn resident(&self, offset: usize, len: usize) -> usize {
        let mut done = 0;
        while done < len {
            let part = (len - done).min(Resident::MOST);
            let run = self.residency(offset + done, part).run(0).min(part);
            done += run;
            if run < part {
                break;
            }
        }
        done
    }

    /// Whether this thread hears the truth about residency: only the file's owner, whoever may
    /// write it, and CAP_FOWNER do; everybody else is told that all is resident (`mincore(2)`).
    /// So it is asked about a page that cannot be.
    pub fn tells_residency(&self) -> bool {
        let Some(beyond) = &self.beyond else { return false };
        let start = NonNull::new(beyond.as_mut_ptr()).expect("a mapping is never null");
        Resident::ask(start, HOST_PAGE).is_some_and(|beyond| beyond.run(0) == 0)
    }

    /// Puts pages into this process's page table, reading what is not in the page cache: there
    /// the kernel's copy finds them without a fault, and they leave the page cache only once the
    /// kernel, short of memory, has taken them out of the table again. Whether it could be done;
    /// kernels before 5.14, which cannot, put them there one by one as they are copied.
    pub fn populate(&self, offset: usize, len: usize) -> bool {
        let start = self.at(offset, len);
        // SAFETY: the range is mapped; populating for reading changes no contents.
        let done = unsafe { libc::madvise(start.as_ptr().cast(), len, libc::MADV_POPULATE_READ) };
        done == 0 || nix::errno::Errno::last() == nix::errno::Errno::EINVAL
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

/// This process's own page map.
static OWN_PAGE_MAP: LazyLock<Option<File>> =
    LazyLock::new(|| File::open("/proc/self/pagemap").ok());

/// Which pages of a range were in the page cache, or in the page table, when that was asked.
#[derive(Debug)]
pub struct Resident {
    pages: [u8; Self::MOST / HOST_PAGE],
    count: usize,
}

impl Resident {
    /// The most bytes that one question is about.
    pub const MOST: usize = 2 << 20;

    fn of(start: NonNull<u8>, len: usize) -> Self {
        let unknown = Self { pages: [0; Self::MOST / HOST_PAGE], count: len.div_ceil(HOST_PAGE) };
        Self::ask(start, len).unwrap_or(unknown)
    }

    /// Asks about a range of a mapping, no longer than [`MOST`](Self::MOST).
    fn ask(start: NonNull<u8>, len: usize) -> Option<Self> {
        let mut pages = [0; Self::MOST / HOST_PAGE];
        let count = len.div_ceil(HOST_PAGE);
        assert!(count <= pages.len(), "{len} bytes");
        // SAFETY: callers give a mapped range; `pages` has a byte for each of its pages.
        let asked = unsafe { libc::mincore(start.as_ptr().cast(), len, pages.as_mut_ptr()) };
        (asked == 0).then_some(Self { pages, count })
    }

    /// Asks the page map (Documentation/admin-guide/mm/pagemap.rst).
    fn in_page_table(start: NonNull<u8>, len: usize) -> Option<Self> {
        const ENTRY: usize = size_of::<u64>();
        let mut entries = [0; Self::MOST / HOST_PAGE * ENTRY];
        let count = len.div_ceil(HOST_PAGE);
        let entries = &mut entries[..count * ENTRY];
        let first = start.as_ptr().addr() / HOST_PAGE * ENTRY;
        OWN_PAGE_MAP.as_ref()?.read_exact_at(entries, first as u64).ok()?;
        let mut pages = [0; Self::MOST / HOST_PAGE];
        for (page, entry) in pages.iter_mut().zip(entries.chunks_exact(ENTRY)) {
            // The highest bit says that the page is present.
            let entry = u64::from_ne_bytes(entry.try_into().expect("eight bytes"));
            *page = u8::from(entry >> 63 != 0);
        }
        Some(Self { pages, count })
    }

    /// Whether the page at `offset`, counted from the start of the range, was there.
    pub fn has(&self, offset: usize) -> bool {
        self.pages[..self.count][offset / HOST_PAGE] & 1 != 0
    }

    /// How many bytes from `offset` on, counted from the start of the range, are there
    /// without a gap, in whole pages.
    pub fn run(&self, offset: usize) -> usize {
        let pages = &self.pages[offset / HOST_PAGE..self.count];
        pages.iter().take_while(|page| **page & 1 != 0).count() * HOST_PAGE
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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    const LEN: usize = 64 * HOST_PAGE;

    /// A file of which nothing is in the page cache.
    fn cold_file() -> File {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&[7; LEN]).unwrap();
        file.sync_all().unwrap();
        evict(&file);
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        file
    }

    fn evict(file: &File) {
        posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    }

    #[test]
    fn residency_follows_the_page_cache() {
        let file = cold_file();
        let map = FileMap::new(&file, LEN).unwrap();
        assert!(map.tells_residency());
        assert_eq!(map.resident(0, LEN), 0);
        file.read_exact_at(&mut [0; 2 * HOST_PAGE], 32 * HOST_PAGE as u64).unwrap();
        let resident = map.residency(0, LEN);
        assert_eq!(
            [31, 32, 33, 34].map(|page| resident.run(page * HOST_PAGE) / HOST_PAGE),
            [0, 2, 1, 0]
        );
        assert_eq!(map.resident(32 * HOST_PAGE, HOST_PAGE), HOST_PAGE);
    }

    #[test]
    fn what_is_in_the_page_table_is_told_apart_from_what_is_in_the_page_cache() {
        let file = cold_file();
        let map = FileMap::new(&file, LEN).unwrap();
        file.read_exact_at(&mut [0; 32 * HOST_PAGE], 0).unwrap();
        let mapped = |page: usize| map.mapped(page * HOST_PAGE, HOST_PAGE).unwrap().run(0) > 0;
        assert!(!(0..64).any(mapped));
        assert!(map.populate(8 * HOST_PAGE, 4 * HOST_PAGE));
        assert!((8..12).all(mapped));
        assert!(!(32..64).any(mapped), "what is not in the page cache was mapped");
        // Cutting the file takes pages out of the table as well.
        file.set_len(10 * HOST_PAGE as u64).unwrap();
        assert!(mapped(9) && !mapped(10));
    }

    #[test]
    fn populated_pages_are_not_evicted() {
        let file = cold_file();
        let map = FileMap::new(&file, LEN).unwrap();
        file.read_exact_at(&mut [0; LEN], 0).unwrap();
        assert!(map.populate(8 * HOST_PAGE, 4 * HOST_PAGE));
        evict(&file);
        // The kernel may have mapped resident pages around them.
        assert!(map.resident(8 * HOST_PAGE, LEN / 2) >= 4 * HOST_PAGE);
        file.set_len(0).unwrap();
        assert!(!map.populate(8 * HOST_PAGE, 4 * HOST_PAGE));
    }

    /// The capability goes by the user of the thread that asks, not by the one that mapped it.
    #[test]
    fn whoever_is_not_told_of_residency_finds_out() {
        let file = cold_file();
        let map = FileMap::new(&file, LEN).unwrap();
        assert!(nix::unistd::geteuid().is_root(), "this test changes its user");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
                assert_eq!(map.resident(0, LEN), LEN, "the kernel claims that all is");
                assert!(!map.tells_residency());
            });
        });
        assert!(map.tells_residency());
        assert_eq!(map.resident(0, LEN), 0);
    }

    #[test]
    #[should_panic(expected = "4096 + 1 bytes")]
    fn bytes_past_the_end_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        FileMap::new(&file, 4096).unwrap().bytes(4096, 1);
    }
}
