//! Traces on disk: read whole after a look at the header, replaced in one step.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::format::{HEADER, check_start};
use super::{FormatError, MAX_FILE_BYTES, Trace, TraceError};
use crate::trace::SnapshotId;

impl Trace {
    /// Loads a trace from a file. Memory is bounded by the length of the file, which may have
    /// [`MAX_FILE_BYTES`].
    pub fn load(path: &Path) -> Result<Self, TraceError> {
        let failed = |cause| TraceError::Load { path: path.to_owned(), cause };
        let wrong = |error| TraceError::Format { path: path.to_owned(), error };
        let file = open_regular(path).map_err(failed)?;
        let len = file.metadata().map_err(failed)?.len();

        // What is no trace is told from its start, and not by reading all of it.
        let mut bytes = Vec::new();
        (&file).take(HEADER as u64).read_to_end(&mut bytes).map_err(failed)?;
        let says = check_start(&bytes).map_err(wrong)?;
        if len > MAX_FILE_BYTES {
            return Err(TraceError::TooLarge { path: path.to_owned(), len });
        }
        if says != len {
            return Err(wrong(FormatError::Length { says, has: len }));
        }
        file.take(len - bytes.len() as u64).read_to_end(&mut bytes).map_err(failed)?;
        Self::from_bytes(&bytes).map_err(wrong)
    }

    /// [`load`](Self::load), and refuses the trace if it belongs to another snapshot.
    pub fn load_for(path: &Path, snapshot: &SnapshotId) -> Result<Self, TraceError> {
        let trace = Self::load(path)?;
        trace
            .check(snapshot)
            .map_err(|mismatch| TraceError::WrongSnapshot { path: path.to_owned(), mismatch })?;
        Ok(trace)
    }

    /// Saves the trace. Whatever happens, the file is afterwards either what it was or the whole
    /// new trace, and on disk when this returns. Waits for the disk.
    ///
    /// A symbolic link is followed. A process killed in the middle can leave a file behind whose
    /// name starts with a dot and ends with `.tmp`; an error leaves none.
    pub fn save(&self, path: &Path) -> Result<(), TraceError> {
        let bytes = self.to_bytes();
        let len = bytes.len() as u64;
        let failed = |cause: io::Error| match cause.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                TraceError::NoSpace { path: path.to_owned(), len, cause }
            }
            _ => TraceError::Save { path: path.to_owned(), cause },
        };
        if len > MAX_FILE_BYTES {
            let why = format!("it takes {len} bytes, and a trace may have {MAX_FILE_BYTES}");
            return Err(failed(io::Error::other(why)));
        }
        replace(path, &bytes).map_err(failed)
    }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = target(path)?;
    let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it names no file"));
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let opened = File::open(directory)?;
    let mut hidden = std::ffi::OsString::from(".");
    // A name may have 255 bytes, and the marks of a temporary file have to fit too.
    hidden.push(if name.len() <= 200 { name } else { "trace".as_ref() });
    hidden.push(".");

    // Dropped on an error, and removed with that.
    let mut file = tempfile::Builder::new()
        .prefix(&hidden)
        .suffix(".tmp")
        // As any other file of this user: what the umask leaves.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)?;
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(&target).map_err(|error| error.error)?;
    // The new name is on disk once its directory is.
    opened.sync_all()
}

/// What the path stands for at the end of all links, if that is a file or nothing yet.
fn target(path: &Path) -> io::Result<PathBuf> {
    match fs::metadata(path) {
        // Renaming over a device would remove it.
        Ok(there) if !there.is_file() => Err(not_a_file(&there)),
        Ok(_) => fs::canonicalize(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(path.to_owned()),
        Err(error) => Err(error),
    }
}

/// Opens a file to read, and nothing else: a pipe would wait for a writer.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    let there = file.metadata()?;
    if there.is_file() { Ok(file) } else { Err(not_a_file(&there)) }
}

fn not_a_file(there: &fs::Metadata) -> io::Error {
    let what = if there.is_dir() { "it is a directory" } else { "it is no regular file" };
    io::Error::new(ErrorKind::InvalidInput, what)
}
