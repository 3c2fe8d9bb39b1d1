//! Saving a trace when the disk is full, and when the process is killed in the middle.
//!
//! A process of its own for each case: limits and mounts must not meet other tests.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use uffd_core::trace::{FilledWith, Fingerprint, SnapshotId, Trace, TraceEntry};
use uffd_core::units::{PageIndex, PageSize};

/// Where a child of this program is to save traces.
const DIRECTORY: &str = "UFFD_TEST_SAVE_IN";

/// A trace of so many entries, each about two bytes in a file.
fn trace(entries: u64) -> Trace {
    let snapshot = SnapshotId {
        length: 1 << 32,
        page_size: PageSize::Small,
        fingerprint: Fingerprint([7; 16]),
    };
    let entry =
        |n| TraceEntry::new(PageIndex(n), false, FilledWith::Source, Duration::from_micros(10 * n));
    Trace::new(snapshot, (0..entries).map(entry).collect()).unwrap()
}

const OLD: u64 = 10;
const TOO_LARGE: u64 = 100_000;

fn path_in(directory: &Path) -> PathBuf {
    directory.join("boot.trace")
}

fn files(directory: &Path) -> Vec<String> {
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    fs::read_dir(directory).unwrap().map(|entry| name(entry.unwrap())).collect()
}

/// Saves a trace there is no room for over one there was room for.
fn save_without_room(directory: &Path, make_scarce: impl FnOnce(), errno: nix::Error) {
    let path = path_in(directory);
    trace(OLD).save(&path).unwrap();
    make_scarce();
    let error = trace(TOO_LARGE).save(&path).unwrap_err();
    assert_eq!(error.code(), "ERR_UFFD_TRACE_NO_SPACE");
    let (text, reason) = (error.to_string(), std::io::Error::from(errno).to_string());
    for part in [path.to_str().unwrap(), &reason, "make room"] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    assert_eq!(Trace::load(&path).unwrap(), trace(OLD));
    assert_eq!(files(directory), ["boot.trace"]);
}

fn limit_file_size() {
    // Without it the kernel ends the process instead of the write.
    SigSet::from(Signal::SIGXFSZ).thread_block().unwrap();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 16 << 10, hard).unwrap();
}

/// Runs one test of this program again, in a process that has [`DIRECTORY`] set.
fn child(test: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn passes(test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let output = child(test, directory.path()).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn is_child() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

#[test]
fn at_the_limit_of_file_sizes_the_old_trace_stays() {
    let Some(directory) = is_child() else {
        return passes("at_the_limit_of_file_sizes_the_old_trace_stays");
    };
    save_without_room(&directory, limit_file_size, nix::Error::EFBIG);
}

#[test]
fn on_a_full_disk_the_old_trace_stays() {
    let Some(directory) = is_child() else {
        return passes("on_a_full_disk_the_old_trace_stays");
    };
    // A disk of 64 KiB that only this thread sees. Whoever may not mount one gets the limit,
    // which takes the same way through the program.
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        assert!(!nix::unistd::geteuid().is_root(), "root may unshare its mounts");
        return save_without_room(&directory, limit_file_size, nix::Error::EFBIG);
    }
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("none"), &directory, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
    save_without_room(&directory, || {}, nix::Error::ENOSPC);
}

#[test]
fn killed_in_the_middle_a_save_leaves_the_old_trace_or_the_new() {
    let (one, two) = (trace(20_000), trace(30_000));
    if let Some(directory) = is_child() {
        // Until killed.
        loop {
            for trace in [&one, &two] {
                trace.save(&path_in(&directory)).unwrap();
                println!("saved");
            }
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let path = path_in(directory.path());
    let test = "killed_in_the_middle_a_save_leaves_the_old_trace_or_the_new";
    for round in 0..20 {
        let mut child = child(test, directory.path());
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let saves = output.by_ref().lines().filter(|line| {
            let line = line.as_ref().unwrap();
            line.ends_with("saved")
        });
        assert!(saves.take(1 + round % 3).count() > 0);
        // A little further each time, to end it at another point of the next save.
        for _ in 0..round * 50 {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
        let found = Trace::load(&path).unwrap();
        assert!(found == one || found == two);
    }
    // What is left over can be told from a trace by its name, and is in nobody's way.
    for name in files(directory.path()).iter().filter(|name| *name != "boot.trace") {
        assert!(name.starts_with(".boot.trace.") && name.ends_with(".tmp"), "{name}");
    }
    trace(OLD).save(&path).unwrap();
    assert_eq!(Trace::load(&path).unwrap(), trace(OLD));
}
