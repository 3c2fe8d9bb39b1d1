//! Snapshot files, in the page cache or out of it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
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
        File::open(&path)?.sync_all()?;
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

/// Reads the file where the page cache has not all of it.
fn warm(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let len = usize::try_from(file.metadata()?.len())?;
    if FileMap::new(&file, len)?.resident(0, len) < len {
        let mut buffer = vec![0; 1 << 20];
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
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
