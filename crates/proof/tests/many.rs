//! Many sessions in one process, and what is left of them. All of it in one test: descriptors and
//! threads are counted, which takes a process that nobody else is at work in.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use uffd_core::handoff::{AcceptError, Limits, Listener};
use uffd_core::kernel::Waker;
use uffd_core::session::{End, NoObserver, Session, SessionError, SessionOptions};
use uffd_core::source::{Fetcher, FileSource};
use uffd_guest::driver::GuestBuilder;
use uffd_guest::options::{Options, Register};
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Expect;
use uffd_guest::snapshot::{self, ZeroPages};
use uffd_proof::{Case, SMALL, Stage, StageBuilder, assert_idle, cost_of, threads_named, until};
use userfaultfd_sys as sys;

const GUEST: &str = env!("CARGO_BIN_EXE_uffd-proof-guest");

/// What the open descriptors of this process are, counted by kind.
fn descriptors() -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for fd in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = fs::read_link(fd.path()) else { continue };
        let target = target.to_string_lossy();
        let kind = target.split(":[").next().unwrap_or_default();
        *kinds.entry(kind.to_owned()).or_default() += 1;
    }
    kinds
}

fn open_files() -> usize {
    descriptors().values().sum()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn stage() -> StageBuilder {
    let case = Case { guest: GUEST, page_size: SMALL, tracking: false };
    let stage = StageBuilder::new(GUEST, case.pattern(), &[16, 16]);
    // Whatever this process may open.
    stage.server(|options| options.max_guests = Some(1000))
}

#[test]
fn sessions_come_and_go_and_leave_nothing_behind() {
    // Whatever is made once and kept is made by the first.
    let first = stage().open();
    let guest = first.guest();
    assert_eq!(guest.thread(0).verify(0, 32, &[Expect::Source]).unwrap().wrong, 0);
    drop(guest);
    drop(first);
    until("its threads to end", || threads_named("uffd-guest").is_empty());
    until("its helpers to end", || threads() == 2);
    let before = (descriptors(), threads());

    two_hundred_guests_cost_nothing_while_they_are_idle(&stage().open());
    refused_guests_leave_nothing(&stage().open());
    a_process_out_of_descriptors_serves_when_it_has_some_again(stage().open());
    a_session_is_all_there_or_says_what_it_lacks();

    // Fetch threads go when there was nothing to do for a while.
    until("all threads to end", || threads() == before.1);
    assert_eq!(descriptors(), before.0);
}

fn two_hundred_guests_cost_nothing_while_they_are_idle(stage: &Stage) {
    let guests: Vec<_> = (0..200).map(|_| stage.guest()).collect();
    let touches: Vec<_> =
        guests.iter().map(|guest| guest.thread(0).start_verify(0, 32, &[Expect::Source])).collect();
    for touch in touches {
        assert_eq!(touch.get().unwrap().wrong, 0);
    }
    // Commands from many sides, so that loops are woken and fall asleep in every way.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for guest in guests.iter().cycle().take(4000) {
                    guest.session.want_trace();
                }
            });
        }
    });
    guests.iter().for_each(|guest| guest.session.settle().unwrap());
    assert_eq!(threads_named("uffd-guest").len(), guests.len());
    assert_idle();

    // One at work does not wake the others.
    let idle: Vec<_> = threads_named("uffd-guest");
    let before: Vec<_> = idle.iter().map(|tid| cost_of(*tid)).collect();
    guests[0].thread(0).madvise(0, 32).unwrap();
    guests[0].thread(0).verify(0, 32, &[Expect::Zeros]).unwrap();
    let after: Vec<_> = idle.iter().map(|tid| cost_of(*tid)).collect();
    let woken = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert!(woken <= 1, "{woken} loops were woken by one guest");

    // They end in every way.
    for (number, guest) in guests.into_iter().enumerate() {
        match number % 3 {
            0 => drop(guest),
            1 => assert_eq!(guest.session.stop(), End::Stopped),
            _ => {
                let mut guest = guest;
                guest.guest.kill().unwrap();
                assert_eq!(guest.end().0, End::GuestExited);
            }
        }
    }
}

fn refused_guests_leave_nothing(stage: &Stage) {
    for _ in 0..10 {
        stage.refusal(|options| {
            options.features |= userfaultfd_sys::UFFD_FEATURE_EVENT_FORK;
            options.extra_fds = 3;
        });
        stage.refusal(|options| options.raw_json = Some("[]".into()));
    }
}

/// The guest connects when nothing can be opened any more, and is served when something can.
fn a_process_out_of_descriptors_serves_when_it_has_some_again(stage: Stage) {
    let dir = tempfile::tempdir().unwrap();
    let (script, started, go) =
        (dir.path().join("guest"), dir.path().join("started"), dir.path().join("go"));
    let wait = format!(
        "#!/bin/sh\n: > '{}'\nwhile ! [ -e '{}' ]; do sleep 0.01; done\nexec '{GUEST}' \"$@\"\n",
        started.display(),
        go.display()
    );
    fs::write(&script, wait).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let stage = stage.guests_by(script);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let before = open_files();
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            let guest = stage.start_guest(|_| {});
            guest.thread(0).verify(0, 32, &[Expect::Source]).unwrap().wrong
        });
        // Then the three pipes to it are all that is left of starting it.
        until("the guest to start", || started.exists() && open_files() == before + 3);
        setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
        let mut files: Vec<File> = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        files.pop();
        fs::write(&go, "").unwrap();
        files.extend(File::open("/dev/null"));
        let trouble = stage.next_trouble();
        assert!(matches!(trouble, AcceptError::Exhausted { .. }), "{trouble:?}");
        assert_eq!(trouble.retry_after(), Some(Duration::from_millis(50)));
        drop(files);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let session = stage.next_guest_or_refusal().unwrap();
        assert_eq!(guest.join().unwrap(), 0);
        drop(session);
    });
}

/// With one descriptor more each time: short of one, a session may not begin without what it
/// would have been good for.
fn a_session_is_all_there_or_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let listener = Listener::bind(&dir.path().join("uffd.sock")).unwrap();
    let pattern = Pattern::new(3, SMALL);
    let snapshot = dir.path().join("mem");
    snapshot::create(&snapshot, &pattern, 4, ZeroPages::Holes).unwrap();
    let fetcher = Arc::new(Fetcher::new(Arc::new(FileSource::open(&snapshot).unwrap())));
    let mut options = Options::new(listener.path(), [4], pattern);
    // For its page map to be needed.
    options.register = Register::WriteProtect;
    options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP
        | sys::UFFD_FEATURE_WP_ASYNC
        | sys::UFFD_FEATURE_WP_UNPOPULATED;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let never = Waker::new().unwrap();
    let mut lacked = BTreeSet::new();
    for spare in 0.. {
        let guest = GuestBuilder::new(GUEST, options.clone()).spawn().unwrap();
        let connection = listener.accept().unwrap().unwrap();
        let handoff = connection.receive(&Limits::new(4 * SMALL), never.as_fd()).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 256, hard).unwrap();
        let mut files: Vec<File> = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            files.push(file);
        }
        files.truncate(files.len() - spare);
        let started = Session::start(
            handoff,
            fetcher.clone(),
            SessionOptions::default(),
            Box::new(NoObserver),
        );
        drop(files);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        match started {
            Ok(session) => {
                assert_eq!(session.pid(), Some(guest.pid()));
                guest.thread(0).verify(0, 4, &[Expect::Source]).unwrap();
                assert!(session.export().unwrap().exact, "without its page map");
                break;
            }
            Err(error @ SessionError::Resources { what, .. }) => {
                assert!(error.to_string().contains("Too many open files"), "{error}");
                lacked.insert(what);
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(lacked.len() > 3, "{lacked:?}");
}
