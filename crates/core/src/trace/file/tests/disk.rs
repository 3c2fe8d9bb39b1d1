use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use super::super::{MAX_FILE_BYTES, TraceError};
use super::*;

fn files(dir: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| name(entry.unwrap())).collect();
    names.sort();
    names
}

/// Why `path` cannot be loaded; the file is named in any case.
fn refused(path: &Path) -> (TraceError, String) {
    let error = Trace::load(path).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    (error, text)
}

#[test]
fn a_saved_trace_is_loaded_and_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("boot.trace");
    for trace in [reads([1, 2, 3]), reads([4]), reads([])] {
        trace.save(&path).unwrap();
        assert_eq!(Trace::load(&path).unwrap(), trace);
        assert_eq!(Trace::load_for(&path, &trace.snapshot()).unwrap(), trace);
        assert_eq!(files(dir.path()), ["boot.trace"]);
    }
    // As readable as the umask lets any file be.
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&path), mode(&plain));
}

#[test]
fn a_name_as_long_as_can_be_is_saved_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x".repeat(255));
    reads([1]).save(&path).unwrap();
    assert!(Trace::load(&path).is_ok());
}

#[test]
fn a_link_is_followed_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    reads([1]).save(&file).unwrap();
    symlink("file", &link).unwrap();
    reads([2]).save(&link).unwrap();
    assert!(link.is_symlink());
    assert_eq!(Trace::load(&file).unwrap(), reads([2]));
}

#[test]
fn what_is_no_file_is_neither_read_nor_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let link = dir.path().join("null");
    symlink("/dev/null", &link).unwrap();
    for path in [dir.path(), &pipe, &link] {
        assert_eq!(refused(path).0.code(), "ERR_UFFD_TRACE_LOAD");
        let error = reads([1]).save(path).unwrap_err();
        assert_eq!(error.code(), "ERR_UFFD_TRACE_SAVE");
        assert!(error.to_string().contains(path.to_str().unwrap()));
    }
    assert_eq!(files(dir.path()), ["null", "pipe"]);
    assert_eq!(fs::canonicalize(&link).unwrap(), Path::new("/dev/null"));
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let path = Path::new("/no/such/directory/boot.trace");
    assert!(refused(path).1.contains("No such file"));
    let text = reads([1]).save(path).unwrap_err().to_string();
    assert_eq!(
        text,
        "cannot save the trace /no/such/directory/boot.trace: No such file or directory (os error \
         2); a trace saved there before is unchanged"
    );
}

#[test]
fn a_trace_of_another_snapshot_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("boot.trace");
    let memory = dir.path().join("mem");
    fs::write(&memory, [1; 8192]).unwrap();
    let first = SnapshotId::of_path(&memory, PageSize::Small).unwrap();
    Trace::new(first, vec![read(1, 5)]).unwrap().save(&path).unwrap();
    assert!(Trace::load_for(&path, &first).is_ok());

    fs::write(&memory, [2; 8192]).unwrap();
    let second = SnapshotId::of_path(&memory, PageSize::Small).unwrap();
    let error = Trace::load_for(&path, &second).unwrap_err();
    assert_eq!(error.code(), "ERR_UFFD_TRACE_WRONG_SNAPSHOT");
    let text = error.to_string();
    let [first, second] = [first, second].map(|id| id.fingerprint.to_string());
    for part in [path.to_str().unwrap(), &first, &second] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

#[test]
fn a_file_that_is_cut_or_changed_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("boot.trace");
    let bytes = reads([1, 2, 3]).to_bytes();
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        assert!(refused(&path).0.code().starts_with("ERR_UFFD_TRACE_"));
    }
    fs::write(&path, [&bytes[..30], &[!bytes[30]], &bytes[31..]].concat()).unwrap();
    assert_eq!(refused(&path).0.code(), "ERR_UFFD_TRACE_DAMAGED");
}

#[test]
fn a_huge_file_is_refused_without_being_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("boot.trace");
    let file = File::create(&path).unwrap();
    file.set_len(1 << 42).unwrap();
    assert_eq!(refused(&path).0.code(), "ERR_UFFD_TRACE_NOT_A_TRACE");
    let mut header = reads([]).to_bytes();
    header[12..20].copy_from_slice(&(1_u64 << 42).to_le_bytes());
    file.write_all_at(&header[..20], 0).unwrap();
    assert_eq!(refused(&path).0.code(), "ERR_UFFD_TRACE_TOO_LARGE");
    file.set_len(MAX_FILE_BYTES).unwrap();
    assert_eq!(refused(&path).0.code(), "ERR_UFFD_TRACE_DAMAGED");
}
