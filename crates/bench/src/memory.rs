//! Guest memory in one piece, and the file it comes from: installs, and nothing else.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use uffd_core::handoff::Handoff;
use uffd_core::kernel::{FileMap, Outcome, Protection, Uffd, Wake};
use uffd_core::units::{GuestAddr, PageRange};

use crate::Result;
use crate::plan::Snapshot;

/// Memory that a guest has handed off.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) uffd: Uffd,
    map: Arc<FileMap>,
    base: u64,
    len: u64,
    page_size: u64,
}

/// Bytes of one COPY where as much as possible is copied.
const PIECE: u64 = 2 << 20;

/// Maps the file of a snapshot; `populated` has its pages entered into the page table at once.
pub(crate) fn map(file: &Path, snapshot: Snapshot, populated: bool) -> Result<FileMap> {
    let len = usize::try_from(snapshot.bytes())?;
    let map = FileMap::new(&File::open(file)?, len)?;
    if populated {
        map.populate(0, len);
    }
    Ok(map)
}

impl Memory {
    pub(crate) fn new(handoff: Handoff, map: Arc<FileMap>, snapshot: Snapshot) -> Result<Self> {
        let base = handoff.layout.regions()[0].base.0;
        let (len, page_size) = (snapshot.bytes(), snapshot.page_size);
        Ok(Self { uffd: Uffd::new(handoff.uffd)?, map, base, len, page_size })
    }

    /// Fills all of it by so many threads.
    pub(crate) fn fill(&self, mapped_before: bool, threads: u64) -> Result<()> {
        let share = (self.len / threads).next_multiple_of(PIECE);
        thread::scope(|scope| {
            let shares = (0..threads).map(|at| (at * share).min(self.len));
            let filling = shares.map(|start| start..self.len.min(start + share));
            let filling: Vec<_> = filling
                .map(|share| scope.spawn(move || self.fill_bytes(share, mapped_before)))
                .collect();
            let done = filling.into_iter().map(|thread| match thread.join() {
                Ok(filled) => filled,
                Err(_) => Err("a thread of raw copy panicked".into()),
            });
            done.collect()
        })
    }

    /// Fills some pages of it.
    pub(crate) fn fill_pages(&self, pages: PageRange) -> Result<()> {
        self.fill_bytes(pages.start.0 * self.page_size..pages.end.0 * self.page_size, true)
    }

    /// With the longest COPYs that make sense.
    fn fill_bytes(&self, bytes: Range<u64>, mapped_before: bool) -> Result<()> {
        let mut offset = bytes.start;
        while offset < bytes.end {
            let len = PIECE.min(bytes.end - offset);
            if !mapped_before {
                self.map.populate(usize::try_from(offset)?, usize::try_from(len)?);
            }
            match self.copy(offset, len) {
                Outcome::Done(done) if done == len => {}
                other => return Err(format!("raw copy at {offset}: {other:?}").into()),
            }
            offset += len;
        }
        Ok(())
    }

    fn copy(&self, offset: u64, len: u64) -> Outcome {
        let bytes = |count: u64| usize::try_from(count).expect("memory of a 64-bit process");
        let source = self.map.bytes(bytes(offset), bytes(len));
        self.uffd.copy(GuestAddr(self.base + offset), source, Protection::Writable, Wake::Now)
    }

    /// Leaves a range of addresses to the kernel, which fills with zeros what is missing there.
    pub(crate) fn unregister(&self, removed: Range<u64>) -> Outcome {
        self.uffd.unregister(GuestAddr(removed.start), removed.end - removed.start)
    }

    /// One fault; false if it has to be tried again.
    pub(crate) fn serve(&self, address: u64) -> bool {
        let offset = (address - self.base) & !(self.page_size - 1);
        match self.copy(offset, self.page_size) {
            Outcome::Again | Outcome::NoMemory => false,
            Outcome::Exists => {
                self.uffd.wake(GuestAddr(self.base + offset), self.page_size);
                true
            }
            _ => true,
        }
    }
}
