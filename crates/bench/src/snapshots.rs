//! Snapshot files, in the page cache or out of it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek};
use tempfile::TempDir;
use uffd_core::kernel::FileMap;
use uffd_core::units::PageRange;
use uffd_guest::pattern::Pattern;
use uffd_guest::snapshot::{ZeroPages, create};

use crate::Result;
use crate::packed::Packed;
use crate::plan::Snapshot;

/// The files made so far; they go with it.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: TempDir,
    made: HashMap<Snapshot, PathBuf>,
}

impl Snapshots {
    pub(crate) fn in_dir(dir: Option<&Path>) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("uffd-bench-");
        let dir = dir.map_or_else(|| builder.tempdir(), |dir| builder.tempdir_in(dir))?;
        Ok(Self { dir, made: HashMap::new() })
    }

    /// A place for sockets and lists of pages.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file of a snapshot, in the page cache or out of it.
    pub(crate) fn file(&mut self, snapshot: Snapshot, cold: bool) -> Result<PathBuf> {
        let path = match self.made.get(&snapshot) {
            Some(path) => path.clone(),
            None => self.make(snapshot)?,
        };
        if cold {
            cool(&path)?;
        } else {
            warm(&path)?;
        }
        Ok(path)
    }

    /// A copy of `pages` of a snapshot, packed; in the page cache or out of it.
    pub(crate) fn packed(
        &mut self,
        snapshot: Snapshot,
        pages: &[PageRange],
        cold: bool,
    ) -> Result<PathBuf> {
        let (file, path) = (self.file(snapshot, false)?, self.dir.path().join("packed"));
        Packed::write(&file, pages, snapshot.page_size, &path)?;
        if cold {
            cool(&path)?;
            cool(&file)?;
        }
        Ok(path)
    }

    fn make(&mut self, snapshot: Snapshot) -> Result<PathBuf> {
        let path = self.dir.path().join(format!("mem-{}", self.made.len()));
        create(&path, &snapshot.pattern(), snapshot.pages, ZeroPages::Holes)?;
        // Pages that are still to be written cannot be dropped, and writing them takes time later.
        let file = File::open(&path)?;
        file.sync_all()?;
        // To be read in again, see `warm`.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        self.made.insert(snapshot, path.clone());
        Ok(path)
    }
}

impl Snapshot {
    pub(crate) const fn pattern(&self) -> Pattern {
        Pattern::new(1, self.page_size).with_zero_runs(self.zero_per_mille)
    }

    pub(crate) const fn bytes(&self) -> u64 {
        self.pages * self.page_size
    }
}

/// Reads the data that the page cache has not, holes left out. In pages of 4 KiB, as most file
/// systems have them: what was written, or read ahead, may lie there in larger ones, which cost
/// less to map.
fn warm(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
    let map = FileMap::new(&file, usize::try_from(file.metadata()?.len())?)?;
    let mut buffer = vec![0; 1 << 20];
    let mut end = 0;
    while let Some(data) = data_from(&file, end)? {
        end = data.end;
        let len = usize::try_from(data.end - data.start)?;
        if map.resident(usize::try_from(data.start)?, len) < len {
            for at in data.clone().step_by(buffer.len()) {
                let part = buffer.len().min(usize::try_from(data.end - at)?);
                file.read_exact_at(&mut buffer[..part], at)?;
            }
        }
    }
    Ok(())
}

/// The first run of data at or after `offset`.
fn data_from(file: &File, offset: u64) -> Result<Option<Range<u64>>> {
    let seek = |offset: u64, whence| -> Result<Option<u64>> {
        match lseek(file, i64::try_from(offset)?, whence) {
            Ok(found) => Ok(Some(u64::try_from(found)?)),
            // There is nothing but a hole, or nothing at all.
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    };
    let Some(start) = seek(offset, Whence::SeekData)? else { return Ok(None) };
    Ok(seek(start, Whence::SeekHole)?.map(|end| start..end))
}

/// Drops the file from the page cache, and makes sure of that.
fn cool(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    let len = usize::try_from(file.metadata()?.len())?;
    if FileMap::new(&file, len)?.resident(0, len) > 0 {
        return Err(
            format!("{} stays in the page cache; choose another --dir", path.display()).into()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_found_between_holes() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.set_len(4 << 20).unwrap();
        assert_eq!(data_from(&file, 0).unwrap(), None);
        file.write_all_at(&[1; 64 << 10], 1 << 20).unwrap();
        file.write_all_at(&[1; 64 << 10], 3 << 20).unwrap();
        let data = |from| data_from(&file, from).unwrap();
        assert_eq!(data(0), Some(1 << 20..(1 << 20) + (64 << 10)));
        assert_eq!(data(2 << 20), Some(3 << 20..(3 << 20) + (64 << 10)));
        assert_eq!(data((3 << 20) + (64 << 10)), None);
    }
}
