//! A snapshot file: mapped read-only, its holes known, its cold pages fetched.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek};
use rustix::fs::{AtFlags, StatxFlags, statx};
use thiserror::Error;

use super::{Chunk, Source, SourceError};
use crate::kernel::{FileMap, mincore_is_truthful};

/// Residency is looked up for this many bytes at once.
const BLOCK: u64 = 256 << 10;

/// The page size that the page cache counts in.
const HOST_PAGE: u64 = 4096;

/// For how long a block found in the page cache is taken to be there still. Evicted sooner, a
/// page of it is read inside the install: slower for that moment, and still right.
const WARM_FOR_MS: u32 = 1000;

/// For how long the file is taken to be as long as it was. A copy past its end fails by itself,
/// but the host page in which it ends reads as zeros from there on, and nothing else tells.
const LENGTH_FOR_MS: u32 = 1;

/// Why a snapshot file cannot be served.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The file could not be opened or inspected.
    #[error("cannot open the snapshot {}: {cause}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is a directory, a socket or something else that cannot be mapped.
    #[error("the snapshot {} is {kind}; give the guest's memory file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        kind: &'static str,
    },
    /// It has no bytes.
    #[error("the snapshot {} is empty; was it written completely?", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It could not be mapped.
    #[error("cannot map the snapshot {}: {cause}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// A guest's memory file.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    file: File,
    map: FileMap,
    len: u64,
    /// Where the file has data, as ascending, disjoint byte ranges; between them are holes.
    data: Vec<(u64, u64)>,
    /// For each block, when it was last found resident: milliseconds since `opened`, plus one.
    warm: Vec<AtomicU32>,
    /// Where the file was found to end, once that is before `len`; it stays at that.
    cut_at: AtomicU64,
    /// When its length was last looked at, as in `warm`.
    length_seen: AtomicU32,
    opened: Instant,
    residency_known: bool,
}

impl FileSource {
    /// Opens and maps a memory file.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let open = |cause| SnapshotError::Open { path: path.to_owned(), cause };
        let kind = std::fs::metadata(path).map_err(open)?.file_type();
        if !kind.is_file() {
            // Opening a fifo would wait for a writer, so this is asked first.
            let kind = match kind {
                kind if kind.is_dir() => "a directory",
                kind if kind.is_socket() => "a socket",
                kind if kind.is_fifo() => "a pipe",
                _ => "a device",
            };
            return Err(SnapshotError::NotAFile { path: path.to_owned(), kind });
        }
        let file = File::open(path).map_err(open)?;
        let len = file.metadata().map_err(open)?.len();
        if len == 0 {
            return Err(SnapshotError::Empty { path: path.to_owned() });
        }
        let map = |cause| SnapshotError::Map { path: path.to_owned(), cause };
        let size = usize::try_from(len).map_err(|_| map(Errno::EFBIG.into()))?;
        let map = FileMap::new(&file, size).map_err(map)?;
        map.expect_random_access();
        let blocks = size.div_ceil(1 << 18);
        Ok(Self {
            path: path.to_owned(),
            data: data_ranges(&file, len),
            warm: std::iter::repeat_with(AtomicU32::default).take(blocks).collect(),
            cut_at: AtomicU64::new(u64::MAX),
            length_seen: AtomicU32::new(1),
            opened: Instant::now(),
            residency_known: mincore_is_truthful(&file),
            file,
            map,
            len,
        })
    }

    /// The file's path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes of the file are data, not holes.
    pub fn data_bytes(&self) -> u64 {
        self.data.iter().map(|(start, end)| end - start).sum()
    }

    /// The data range that ends after `offset`, if there is one.
    fn data_after(&self, offset: u64) -> Option<(u64, u64)> {
        let next = self.data.partition_point(|(_, end)| *end <= offset);
        self.data.get(next).copied()
    }

    /// How many bytes from `offset` on, at most `len`, can be installed without waiting for
    /// the disk, for pages of `page` bytes. Remembers blocks that are.
    fn warm_bytes(&self, offset: u64, len: u64, page: u64, now: u32) -> u64 {
        if !self.residency_known {
            return len;
        }
        let end = offset + len;
        let mut at = offset;
        while at < end {
            let (start, stop) = self.block_around(at);
            let known = &self.warm[self.block(at)];
            let seen = known.load(Ordering::Relaxed);
            if seen == 0 || now.wrapping_sub(seen) > WARM_FOR_MS {
                if self.is_resident(start, stop) {
                    // A copy of a huge page that meets a page we have not mapped is made twice,
                    // and takes two huge pages meanwhile. For small pages mapping all of a block
                    // costs more than it saves.
                    if page > HOST_PAGE {
                        self.data_in(start, stop).for_each(|(start, end)| {
                            self.map.populate(to_usize(start), to_usize(end - start));
                        });
                    }
                    known.store(now, Ordering::Relaxed);
                } else {
                    // A block with a gap in its residency: ask about the very pages.
                    let wanted = end.min(stop) - at;
                    let there = self.resident(at, wanted);
                    if there < wanted {
                        return at + there - offset;
                    }
                }
            }
            at = stop;
        }
        len
    }

    /// Where the bytes end that can be copied: at the file's end, in whole host pages.
    fn end_of_copies(&self, now: u32) -> u64 {
        if now.wrapping_sub(self.length_seen.load(Ordering::Relaxed)) >= LENGTH_FOR_MS {
            self.length_seen.store(now, Ordering::Relaxed);
            // As the kernel knows it: a file server is not asked, which could take long.
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
            if let Ok(found) = statx(&self.file, c"", flags, StatxFlags::SIZE)
                && found.stx_size < self.len
            {
                self.cut_at.fetch_min(found.stx_size, Ordering::Relaxed);
            }
        }
        self.cut_at.load(Ordering::Relaxed) & !(HOST_PAGE - 1)
    }

    /// Whether all the data of a block is in the page cache. Its holes never are.
    fn is_resident(&self, start: u64, stop: u64) -> bool {
        self.data_in(start, stop)
            .all(|(start, end)| self.resident(start, end - start) >= end - start)
    }

    /// The data between two block borders, rounded outwards to the host's pages.
    fn data_in(&self, start: u64, stop: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.data.partition_point(|(_, end)| *end <= start);
        self.data[first..]
            .iter()
            .take_while(move |(from, _)| *from < stop)
            .map(move |(from, end)| (from.max(&start) & !(HOST_PAGE - 1), (*end).min(stop)))
    }

    fn resident(&self, offset: u64, len: u64) -> u64 {
        self.map.resident(to_usize(offset), to_usize(len)) as u64
    }

    /// Where the block around `offset` starts and ends.
    fn block_around(&self, offset: u64) -> (u64, u64) {
        let start = offset - offset % BLOCK;
        (start, (start + BLOCK).min(self.len))
    }

    fn block(&self, offset: u64) -> usize {
        to_usize(offset / BLOCK)
    }

    fn now(&self) -> u32 {
        // Wraps after seven weeks, and the differences taken of it are right even then.
        let ms = self.opened.elapsed().as_millis() & u128::from(u32::MAX);
        u32::try_from(ms).unwrap_or(0).max(1)
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn lookup(&self, offset: u64, len: u64, page: u64) -> Chunk<'_> {
        // A page with any data in it is not a hole.
        let (start, end) = match self.data_after(offset) {
            None => return Chunk::Zeros(len),
            Some((start, end)) => (start - start % page, end.next_multiple_of(page)),
        };
        if start > offset {
            return Chunk::Zeros(len.min(start - offset));
        }
        let len = len.min(end - offset);
        let now = self.now();
        let there = len.min(self.end_of_copies(now).saturating_sub(offset));
        let warm = self.warm_bytes(offset, there, page, now);
        let warm = warm - warm % page;
        if warm > 0 {
            return Chunk::Ready(self.map.bytes(to_usize(offset), to_usize(warm)));
        }
        Chunk::Absent(len)
    }

    fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let end = offset + buffer.len() as u64;
        let cut_at = self.cut_at.load(Ordering::Relaxed);
        if end > cut_at {
            // Should it have grown again, that is not what the guest was restored from.
            return Err(SourceError::Truncated { offset, len: cut_at });
        }
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let len = self.file.metadata().map_or(offset, |meta| meta.len());
                self.cut_at.fetch_min(len, Ordering::Relaxed);
                Err(SourceError::Truncated { offset, len })
            }
            Err(error) => Err(SourceError::Io { offset, cause: error.to_string() }),
        }
    }

    fn will_need(&self, offset: u64, len: u64) {
        if let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) {
            let _ = posix_fadvise(&self.file, offset, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    /// Starts to read the blocks around it, as the kernel does around a page fault: one
    /// large request to the device costs little more than a small one, and what lies nearby is
    /// wanted soon. Where the block before was in use, the one behind is read ahead.
    fn will_need_around(&self, offset: u64, len: u64) {
        let (start, _) = self.block_around(offset);
        let (_, stop) = self.block_around(offset + len - 1);
        let before = to_usize(start / BLOCK).checked_sub(1);
        let walks = before.is_some_and(|block| self.warm[block].load(Ordering::Relaxed) != 0);
        let stop = if walks { (stop + BLOCK).min(self.len) } else { stop };
        self.will_need(start, stop - start);
    }
}

/// Where `file` has data (`lseek(2)`, SEEK_DATA). A file system that cannot tell has only data.
fn data_ranges(file: &File, len: u64) -> Vec<(u64, u64)> {
    let seek = |offset: u64, whence| -> nix::Result<u64> {
        let at = lseek(file, i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?, whence)?;
        u64::try_from(at).map_err(|_| Errno::EOVERFLOW)
    };
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < len {
        let start = match seek(at, Whence::SeekData) {
            Ok(start) => start.min(len),
            Err(Errno::ENXIO) => break,
            Err(_) => at,
        };
        let end = seek(start, Whence::SeekHole).map_or(len, |end| end.min(len));
        if end > start {
            ranges.push((start, end));
        }
        at = end.max(start + 1);
    }
    ranges
}

/// Offsets inside a mapping fit in memory.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("an offset into a mapped file fits in memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const PAGE: u64 = HOST_PAGE;

    /// Waits until the source has noticed; it looks from time to time.
    fn until_absent(source: &FileSource, page: u64) {
        let start = Instant::now();
        while !matches!(source.lookup(page * PAGE, PAGE, PAGE), Chunk::Absent(_)) {
            assert!(start.elapsed() < Duration::from_secs(30), "page {page} is still copied");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_page_in_which_the_file_was_cut_is_not_copied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mem");
        std::fs::write(&path, vec![7; 8 * 4096]).unwrap();
        let source = FileSource::open(&path).unwrap();
        let copied = |from: u64, pages: u64| {
            matches!(source.lookup(from * PAGE, pages * PAGE, PAGE), Chunk::Ready(_))
        };
        assert!(copied(0, 8));

        let file = File::options().write(true).open(&path).unwrap();
        let len = 4 * PAGE + 100;
        file.set_len(len).unwrap();
        until_absent(&source, 4);
        assert!(copied(0, 8) && copied(3, 1), "what is still there is still copied");
        let mut page = vec![0; 4096];
        source.fetch(3 * PAGE, &mut page).unwrap();
        for lost in 4..8 {
            assert!(matches!(source.lookup(lost * PAGE, PAGE, PAGE), Chunk::Absent(_)));
            let offset = lost * PAGE;
            let error = source.fetch(offset, &mut page).unwrap_err();
            assert_eq!(error, SourceError::Truncated { offset, len });
        }

        // Zeros that fill the place of what was cut off are not the snapshot.
        file.set_len(8 * PAGE).unwrap();
        for lost in 4..8 {
            assert!(source.fetch(lost * PAGE, &mut page).is_err());
        }
        assert!(matches!(source.lookup(4 * PAGE, PAGE, PAGE), Chunk::Absent(_)));
    }
}
