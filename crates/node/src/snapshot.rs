//! The snapshot that a server's guests have: which one it is, found out once and when asked.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use uffd_core::source::FileSource;
use uffd_core::trace::{SnapshotId, TraceError};
use uffd_core::units::PageSize;

/// Held by objects of JavaScript, so it holds no file: those would wait for the garbage collector.
pub(crate) struct Snapshot {
    path: PathBuf,
    /// Gone with the last session and the server.
    source: Weak<FileSource>,
    file: FileKey,
    id: Mutex<Option<SnapshotId>>,
}

/// Tells whether the file at a path is still the one that was served.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileKey {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl From<Metadata> for FileKey {
    fn from(file: Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.len(),
            modified: (file.mtime(), file.mtime_nsec()),
        }
    }
}

impl Snapshot {
    pub(crate) fn new(source: &Arc<FileSource>) -> io::Result<Self> {
        Ok(Self {
            path: std::path::absolute(source.path())?,
            source: Arc::downgrade(source),
            file: source.file().metadata()?.into(),
            id: Mutex::default(),
        })
    }

    /// Which snapshot it is, seen in pages of this size. Reads up to 4 MiB the first time, so not
    /// to be called on a thread that must not wait.
    pub(crate) fn id(&self, page_size: PageSize) -> Result<SnapshotId, TraceError> {
        let mut known = self.id.lock().unwrap_or_else(PoisonError::into_inner);
        let id = match *known {
            Some(id) => id,
            None => self
                .find_out()
                .map_err(|cause| TraceError::Snapshot { path: self.path.clone(), cause })?,
        };
        *known = Some(id);
        Ok(id.with_page_size(page_size))
    }

    fn find_out(&self) -> io::Result<SnapshotId> {
        if let Some(source) = self.source.upgrade() {
            return SnapshotId::of_source(&source, PageSize::Small);
        }
        // Nobody serves it any more, so it is opened again. What is there now may be another.
        let file = File::open(&self.path)?;
        if FileKey::from(file.metadata()?) != self.file {
            return Err(io::Error::other(
                "the file has been changed or replaced since it was served",
            ));
        }
        SnapshotId::of_file(&file, PageSize::Small)
    }
}
