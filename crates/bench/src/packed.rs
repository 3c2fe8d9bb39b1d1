//! A working set in a file of its own, in the order of its trace and read in one sweep: the most
//! that packing could gain. An experiment, not a way to serve guests: nothing ties the file to
//! the snapshot.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Once;

use uffd_core::source::{Chunk, FileSource, Piece, Scratch, Source, SourceError, Want};
use uffd_core::units::{PageIndex, PageRange};

use crate::Result;

/// A snapshot, and a copy of some of its pages.
pub(crate) struct Packed {
    snapshot: FileSource,
    copy: FileSource,
    /// Where in the copy a page is.
    places: HashMap<PageIndex, u64>,
    page_bytes: u64,
    sweep: Once,
}

/// Pages that follow one another in both files, or that are not in the copy.
struct Run {
    /// Where in the copy they begin, in bytes.
    place: Option<u64>,
    len: u64,
}

impl Packed {
    /// Copies `ranges` of a snapshot to `path`.
    pub(crate) fn write(
        snapshot: &Path,
        ranges: &[PageRange],
        page_bytes: u64,
        path: &Path,
    ) -> Result<()> {
        let (from, to) = (File::open(snapshot)?, File::create(path)?);
        let mut at = 0;
        for range in ranges {
            let mut bytes = vec![0; usize::try_from(range.len() * page_bytes)?];
            from.read_exact_at(&mut bytes, range.start.0 * page_bytes)?;
            to.write_all_at(&bytes, at)?;
            at += bytes.len() as u64;
        }
        Ok(to.sync_all()?)
    }

    /// What [`write`](Self::write) made.
    pub(crate) fn open(
        snapshot: &Path,
        ranges: &[PageRange],
        page_bytes: u64,
        path: &Path,
    ) -> Result<Self> {
        let pages = ranges.iter().flat_map(|range| range.pages());
        Ok(Self {
            snapshot: FileSource::open(snapshot)?,
            copy: FileSource::open(path)?,
            places: pages.zip(0..).map(|(page, place)| (page, place * page_bytes)).collect(),
            page_bytes,
            sweep: Once::new(),
        })
    }

    fn place(&self, offset: u64) -> Option<u64> {
        self.places.get(&PageIndex(offset / self.page_bytes)).copied()
    }

    fn run(&self, offset: u64, len: u64) -> Run {
        let place = self.place(offset);
        let follows = |at: &u64| self.place(offset + at) == place.map(|place| place + at);
        let pages = (0..len).step_by(usize::try_from(self.page_bytes).unwrap_or(usize::MAX));
        Run { place, len: pages.take_while(follows).count() as u64 * self.page_bytes }
    }
}

impl Source for Packed {
    fn len(&self) -> u64 {
        self.snapshot.len()
    }

    fn lookup<'a>(&'a self, want: Want, scratch: &'a Scratch) -> Chunk<'a> {
        match self.run(want.offset, want.len) {
            Run { place: Some(offset), len } => {
                self.copy.lookup(Want { offset, len, ..want }, scratch)
            }
            Run { place: None, len } => self.snapshot.lookup(Want { len, ..want }, scratch),
        }
    }

    fn fetch(&self, want: Want) -> std::result::Result<Piece, SourceError> {
        match self.run(want.offset, want.len) {
            Run { place: Some(offset), len } => self.copy.fetch(Want { offset, len, ..want }),
            Run { place: None, len } => self.snapshot.fetch(Want { len, ..want }),
        }
    }

    fn will_need(&self, _offset: u64, _len: u64) {
        self.sweep.call_once(|| self.copy.will_need(0, self.copy.len()));
    }

    fn will_need_around(&self, offset: u64, len: u64) {
        if self.place(offset).is_none() {
            self.snapshot.will_need_around(offset, len);
        }
    }
}
