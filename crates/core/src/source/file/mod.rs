//! A snapshot file: mapped read-only, its holes known, its cold pages fetched.

mod extents;
mod lookout;
mod residency;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use thiserror::Error;

use super::{Chunk, Piece, Scratch, Source, SourceError, Want};
use crate::kernel::{FileMap, read_cached};
use extents::Extents;
use lookout::Lookout;
use residency::Residency;

/// What is read ahead around a page that a fault needs.
const BLOCK: u64 = 256 << 10;

/// The most bytes of an answer that had to be read, where pages are not larger.
const MOST_READ: u64 = 256 << 10;

/// The page size that the page cache counts in.
const HOST_PAGE: u64 = 4096;

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
    /// It ends within a page.
    #[error(
        "the snapshot {} has {len} bytes, and a memory file has a multiple of {HOST_PAGE}; was it \
         written completely, and is it the memory file?",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
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
    extents: Extents,
    lookout: Lookout,
    residency: Residency,
    /// Whether the file system can read without waiting, as far as is known.
    reads_cached: AtomicBool,
    opened: Instant,
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
        if len % HOST_PAGE != 0 {
            return Err(SnapshotError::Length { path: path.to_owned(), len });
        }
        let map = |cause| SnapshotError::Map { path: path.to_owned(), cause };
        let size = usize::try_from(len).map_err(|_| map(Errno::EFBIG.into()))?;
        let map = FileMap::new(&file, size).map_err(map)?;
        map.expect_random_access();
        let source = Self {
            path: path.to_owned(),
            extents: Extents::of(&file, len),
            lookout: Lookout::new(&map, len, FIRST_MS),
            residency: Residency::new(len),
            reads_cached: AtomicBool::new(true),
            opened: Instant::now(),
            file,
            map,
            len,
        };
        source.adapt(source.lookout.told());
        Ok(source)
    }

    /// The file itself.
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The file's path, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes of the file are data, not holes.
    pub fn data_bytes(&self) -> u64 {
        self.extents.bytes()
    }

    /// Whether the kernel tells us what is in the page cache.
    fn is_told(&self, now: u32) -> bool {
        let (told, changed) = self.lookout.ask_told(&self.map, now);
        if changed {
            self.adapt(told);
        }
        told
    }

    /// How many bytes at the start of `range`, which is data, are in our page table. Puts there what
    /// the kernel tells to be in the page cache.
    fn mapped(&self, range: Range<u64>, now: u32) -> u64 {
        self.residency.map(&self.map, &self.extents, range, now, &|| self.is_told(now))
    }

    /// What there is of a single page of data, if it is the first that is wanted of what lies around
    /// it.
    fn first_of_chunk<'a>(&self, page: Range<u64>, now: u32, scratch: &'a Scratch) -> First<'a> {
        let is_single = page.end - page.start == HOST_PAGE;
        if !is_single
            || self.residency.was_there(page.start)
            || !self.reads_cached.load(Ordering::Relaxed)
            || !self.is_told(now)
        {
            return First::Other;
        }
        if !self.is_resident(page.clone()) {
            return First::Absent;
        }
        let buffer = scratch.bytes(to_usize(HOST_PAGE));
        // Evicted meanwhile, or the file cannot be read like this: whoever maps it finds out.
        if self.read_cached(page.start, buffer) < HOST_PAGE {
            return First::Other;
        }
        self.residency.note_wanted(page.start);
        First::Read(buffer)
    }

    /// From now on the kernel tells us what is in the page cache, or does not.
    fn adapt(&self, told: bool) {
        self.residency.forget_all();
        // A read that is not to wait makes the kernel read ahead as far as it sees fit, which
        // could make it wait after all: without leave it reads the page itself and no more.
        let advice = if told {
            PosixFadviseAdvice::POSIX_FADV_NORMAL
        } else {
            PosixFadviseAdvice::POSIX_FADV_RANDOM
        };
        let _ = posix_fadvise(&self.file, 0, 0, advice);
    }

    /// Whether all data of a page is in the page cache.
    fn is_resident(&self, page: Range<u64>) -> bool {
        let resident = self.map.residency(to_usize(page.start), to_usize(page.end - page.start));
        self.extents.within(page.clone()).all(|part| {
            let run = resident.run(to_usize(part.start - page.start)) as u64;
            run >= part.end - part.start
        })
    }

    /// Puts into `buffer` what the page cache has from `offset` on, and zeros for holes; how many
    /// bytes that are.
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> u64 {
        let read = self.fill(offset, buffer, |at, part| match read_cached(&self.file, at, part) {
            Some(count) if count == part.len() => Ok(()),
            Some(count) => Err(at + count as u64),
            None => {
                self.reads_cached.store(false, Ordering::Relaxed);
                Err(at)
            }
        });
        read.err().unwrap_or(offset + buffer.len() as u64) - offset
    }

    /// Fills `buffer` with the bytes from `offset` on: data by `read`, holes with zeros.
    fn fill<E>(
        &self,
        offset: u64,
        buffer: &mut [u8],
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = offset + buffer.len() as u64;
        let mut at = offset;
        for part in self.extents.within(offset..end) {
            buffer[to_usize(at - offset)..to_usize(part.start - offset)].fill(0);
            read(
                part.start,
                &mut buffer[to_usize(part.start - offset)..to_usize(part.end - offset)],
            )?;
            at = part.end;
        }
        buffer[to_usize(at - offset)..].fill(0);
        Ok(())
    }

    fn now(&self) -> u32 {
        self.ms_at(Instant::now())
    }

    fn ms_at(&self, time: Instant) -> u32 {
        // Wraps after seven weeks, and the differences taken of it are right even then.
        let ms = time.saturating_duration_since(self.opened).as_millis() & u128::from(u32::MAX);
        u32::try_from(ms).unwrap_or(0).max(FIRST_MS)
    }
}

/// The first page that is wanted of what lies around it.
enum First<'a> {
    /// Its bytes.
    Read(&'a [u8]),
    /// It is not in the page cache.
    Absent,
    /// It is not the first, or cannot be read: it is mapped.
    Other,
}

/// The time when the file was opened; 0 stands for never.
const FIRST_MS: u32 = 1;

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn lookup<'a>(&'a self, want: Want, scratch: &'a Scratch) -> Chunk<'a> {
        let Want { offset, len, page } = want;
        let Some(data) = self.extents.after(offset) else { return Chunk::Zeros(len) };
        // A page with any data in it is not a hole.
        let first = data.start - data.start % page;
        if first > offset {
            return Chunk::Zeros(len.min(first - offset));
        }
        let len = len.min(data.end.next_multiple_of(page) - offset);
        let now = self.ms_at(scratch.now());
        let end = self.lookout.end(&self.file, now);
        let there = len.min(end.saturating_sub(offset));
        let whole = |bytes: u64| bytes - bytes % page;
        let all_data = whole(there.min(data.end - offset));
        if self.lookout.told() && data.start <= offset && all_data > 0 {
            match self.first_of_chunk(offset..offset + all_data, now, scratch) {
                First::Read(bytes) => return Chunk::Ready(bytes.into()),
                First::Absent => return Chunk::Absent(len),
                First::Other => {}
            }
            let bytes = whole(self.mapped(offset..offset + all_data, now));
            if bytes > 0 {
                return Chunk::Ready(self.map.bytes(to_usize(offset), to_usize(bytes)));
            }
            if self.lookout.told() {
                return Chunk::Absent(len);
            }
        }
        let told = self.is_told(now);
        // A page with holes in it is put together: copied from the mapping, each of its holes would
        // become a page in the page cache first.
        let worth_a_try = if !self.reads_cached.load(Ordering::Relaxed) || there < page {
            0
        } else if told {
            if self.is_resident(offset..offset + page) { page } else { 0 }
        } else {
            let some = whole(there.min(page.max(MOST_READ)));
            whole(self.residency.promising(offset..offset + some))
        };
        if worth_a_try == 0 {
            return Chunk::Absent(len);
        }
        let buffer = scratch.bytes(to_usize(worth_a_try));
        match whole(self.read_cached(offset, buffer)) {
            0 => {
                self.residency.forget(offset..offset + page);
                Chunk::Absent(len)
            }
            bytes => Chunk::Ready((&*buffer)[..to_usize(bytes)].into()),
        }
    }

    fn fetch(&self, want: Want) -> Result<Piece, SourceError> {
        let Want { offset, len, .. } = want;
        let cut_at = self.lookout.cut_at();
        if want.end() > cut_at {
            // Should it have grown again, that is not what the guest was restored from.
            return Err(SourceError::Truncated { offset, len: cut_at });
        }
        if self.extents.within(offset..want.end()).next().is_none() {
            return Ok(Piece::zeros(len));
        }
        let mut buffer = vec![0; to_usize(len)];
        let read = self.fill(offset, &mut buffer, |at, part| self.file.read_exact_at(part, at));
        match read {
            Ok(()) => {
                if !self.lookout.told() {
                    self.residency.note_read(offset..want.end(), self.now());
                }
                Ok(buffer.into())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let len = self.file.metadata().map_or(offset, |meta| meta.len());
                self.lookout.found_len(len);
                Err(SourceError::Truncated { offset, len })
            }
            Err(error) => Err(SourceError::Io { offset, cause: error.to_string() }),
        }
    }

    /// What is in the page cache is put into our page table: copying it costs half as much then.
    fn prepare(&self, offset: u64, len: u64) {
        let now = self.now();
        let end = self.lookout.end(&self.file, now).min(offset + len);
        if !self.lookout.told() || offset >= end {
            return;
        }
        for part in self.extents.within(offset..end) {
            let len = part.end - part.start;
            if self.mapped(part, now) < len {
                return;
            }
        }
    }

    fn will_need(&self, offset: u64, len: u64) {
        // A hole that is read ahead would become pages in the page cache.
        for part in self.extents.within(offset..offset + len) {
            let part = (i64::try_from(part.start), i64::try_from(part.end - part.start));
            if let (Ok(start), Ok(len)) = part {
                let _ =
                    posix_fadvise(&self.file, start, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
            }
        }
    }

    /// Starts to read the blocks around it, as the kernel does around a page fault: one
    /// large request to the device costs little more than a small one, and what lies nearby is
    /// wanted soon. Where what lies before was in use, the block behind is read ahead.
    fn will_need_around(&self, offset: u64, len: u64) {
        let start = offset - offset % BLOCK;
        let stop = (offset + len).next_multiple_of(BLOCK);
        let walks = start > 0 && self.residency.was_there(start - 1);
        let stop = if walks { stop + BLOCK } else { stop }.min(self.len);
        self.will_need(start, stop - start);
        if !self.lookout.told() {
            self.residency.note_read(start..stop, self.now());
        }
    }
}

/// Offsets inside a mapping fit in memory.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("an offset into a mapped file fits in memory")
}

#[cfg(test)]
mod tests;
