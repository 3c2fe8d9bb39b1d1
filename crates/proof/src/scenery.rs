//! What is there before anybody serves: the snapshot, a place for the socket, and guests to come.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use uffd_guest::driver::{Guest, GuestBuilder};
use uffd_guest::options::Options;
use uffd_guest::pattern::Pattern;
use uffd_guest::snapshot::{self, ZeroPages};

/// The files of a stage.
#[derive(Debug)]
pub(crate) struct Scenery(TempDir);

impl Scenery {
    /// Writes a snapshot, `on_disk` where it can leave the page cache.
    pub(crate) fn with(pattern: &Pattern, pages: u64, zeros: ZeroPages, on_disk: bool) -> Self {
        let dir = if on_disk { tempfile::tempdir_in("/var/tmp") } else { tempfile::tempdir() };
        let scenery = Self(dir.expect("a directory for the stage"));
        snapshot::create(&scenery.snapshot(), pattern, pages, zeros).expect("a snapshot");
        scenery
    }

    pub(crate) fn put_data_every(&self, bytes: u64) {
        let file = File::options().write(true).open(self.snapshot()).expect("the snapshot");
        let len = file.metadata().expect("its length").len();
        for offset in (0..len).step_by(usize::try_from(bytes).expect("a distance in memory")) {
            file.write_all_at(b"not zeros", offset).expect("data in the snapshot");
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        self.dir().join("mem")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("uffd.sock")
    }
}

/// How guests are started.
#[derive(Debug)]
pub(crate) struct Guests {
    program: PathBuf,
    leading: Vec<String>,
    options: Options,
}

impl Guests {
    pub(crate) const fn new(program: PathBuf, leading: Vec<String>, options: Options) -> Self {
        Self { program, leading, options }
    }

    /// The same by another program.
    pub(crate) fn by(self, program: PathBuf) -> Self {
        Self { program, ..self }
    }

    /// Starts one with other options.
    pub(crate) fn spawn(&self, change: impl FnOnce(&mut Options)) -> Guest {
        let mut options = self.options.clone();
        change(&mut options);
        let builder = GuestBuilder::new(&self.program, options);
        let builder = self.leading.iter().fold(builder, GuestBuilder::leading_arg);
        builder.spawn().expect("a guest")
    }
}
