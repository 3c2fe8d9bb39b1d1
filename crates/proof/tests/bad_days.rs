//! What can go wrong around a state directory and a recovery, from a file system without room to a
//! guest that dies in the middle.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use uffd_core::kernel::Process;
use uffd_core::ledger::{StateDir, StateDirError};
use uffd_core::recovery::{Left, NotTaken, Obstruction, Prospect, Spares};
use uffd_core::session::{End, NoObserver, Owner, Session};
use uffd_core::source::{Fetcher, FileSource};
use uffd_guest::driver::Guest;
use uffd_guest::pattern::Pattern;
use uffd_guest::protocol::Expect;
use uffd_proof::{Cast, Keeper, Keeping, MemoryLimit, SMALL};
use userfaultfd_sys as sys;

const PAGES: u64 = 24;

fn keeping() -> Keeping {
    let cast = Cast::new(env!("CARGO_BIN_EXE_uffd-proof-role"));
    Keeping::by(cast, Pattern::new(31, SMALL), &[10, PAGES - 10], Some(true))
}

/// Names in the state directory, but for the lock of whoever serves.
fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| name != "server.lock").collect()
}

/// The one ledger there is.
fn ledger(keeping: &Keeping) -> std::path::PathBuf {
    let names = names(keeping.state_dir());
    let [name] = &names[..] else { panic!("{names:?}") };
    keeping.state_dir().join(name)
}

fn is_served_on(keeping: &Keeping, guest: &Guest) {
    let mut keeper = keeping.keeper();
    assert_eq!(keeper.recovered(), 1, "{:?}", keeper.left());
    assert_eq!(guest.thread(0).verify(1, 1, &[Expect::Stamp(9)]).unwrap().wrong, 0);
    assert_eq!(guest.thread(0).verify(2, PAGES - 2, &[Expect::Source]).unwrap().wrong, 0);
    let export = keeper.export();
    assert!(export.exact && export.dirty.iter().eq(&[1]), "{export:?}");
}

/// A guest with one page written that `keeper` serves.
fn guest(keeping: &Keeping, keeper: &Keeper) -> Guest {
    let guest = keeping.guest(keeper, |_| {});
    guest.thread(0).write(1, 1, 9).unwrap();
    guest
}

/// Runs something on a thread that sees a tmpfs of `size` in the place of the state directory; so do
/// the processes that it starts.
fn on_a_tmpfs(keeping: &Keeping, size: &str, run: impl FnOnce() + Send) {
    let dir = keeping.state_dir();
    fs::create_dir(dir).unwrap();
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        let options = format!("size={size},mode=0700");
        mount(Some("none"), dir, Some("tmpfs"), MsFlags::empty(), Some(&*options)).unwrap();
        run();
    };
    let done = std::thread::scope(|scope| scope.spawn(inside).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Fills the file system of `dir` but for so many bytes.
fn fill(dir: &Path, but: u64) -> std::path::PathBuf {
    let path = dir.join("ballast");
    let mut file = File::create(&path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let len = file.metadata().unwrap().len();
    file.set_len(len - but).unwrap();
    path
}

#[test]
fn a_full_directory_refuses_guests_and_loses_none() {
    let keeping = keeping();
    on_a_tmpfs(&keeping, "256k", || {
        let dir = keeping.state_dir();
        assert!(StateDir::open(dir).unwrap().is_in_memory());
        let keeper = keeping.keeper();
        let first = guest(&keeping, &keeper);
        let ballast = fill(dir, 4096);
        // There is room for a probe and for no ledger.
        let _second = keeping.guest_of_anybody(|_| {});
        let refused = keeper.next().unwrap();
        assert!(refused.starts_with("refused") && refused.contains("ledger"), "{refused}");
        assert_eq!(names(dir).len(), 2, "of the one that is served, and the ballast");
        // Whom it serves it serves on.
        assert_eq!(first.thread(0).verify(2, 9, &[Expect::Source]).unwrap().wrong, 0);
        drop(keeper);
        fs::remove_file(ballast).unwrap();
        let ballast = fill(dir, 0);
        let error = StateDir::open(dir).unwrap_err();
        assert!(matches!(error, StateDirError::Io { .. }), "{error}");
        assert_eq!(error.code(), "ERR_UFFD_STATE_DIR");
        assert!(error.to_string().contains(&*dir.to_string_lossy()), "{error}");
        fs::remove_file(ballast).unwrap();
        is_served_on(&keeping, &first);
    });
}

/// There is no room for the trace: nothing is lost of it but its order.
#[test]
fn a_directory_that_is_full_by_now_costs_the_trace_its_order() {
    let keeping = keeping().fill_alone();
    on_a_tmpfs(&keeping, "256k", || {
        let mut keeper = keeping.keeper();
        let guest = keeping.guest(&keeper, |_| {});
        let ballast = fill(keeping.state_dir(), 0);
        let order = [9, 3, 20, 4];
        for page in order {
            guest.thread(0).touch(page, 1).unwrap();
        }
        guest.thread(0).write(1, 1, 9).unwrap();
        assert_eq!(keeper.ask("settle"), "Ok(())");
        assert_eq!(keeper.trace(), [&order[..], &[1]].concat());
        keeper.kill();
        fs::remove_file(ballast).unwrap();
        let mut keeper = keeping.keeper();
        assert_eq!((keeper.recovered(), keeper.trace()), (1, vec![1, 3, 4, 9, 20]));
        // From now on there is room.
        guest.thread(0).touch(15, 1).unwrap();
        assert_eq!(keeper.ask("settle"), "Ok(())");
        keeper.kill();
        let mut keeper = keeping.keeper();
        assert_eq!(keeper.trace(), [1, 3, 4, 9, 20, 15]);
        keeper.kill();
        is_served_on(&keeping, &guest);
    });
}

/// Its number tells which descriptor of the guest's process was its own once; that it still is says
/// the memory, which is registered with one.
#[test]
fn another_userfaultfd_of_the_same_number_is_not_taken_for_the_guests() {
    for keep in [true, false] {
        let keeping = keeping();
        let mut keeper = keeping.keeper();
        let guest = guest(&keeping, &keeper);
        keeper.kill();
        guest.reuse_number(keep).unwrap();
        let keeper = keeping.keeper();
        let left = ["left ERR_UFFD_RECOVERY_MEMORY".to_owned()];
        assert_eq!((keeper.recovered(), keeper.left()), (0, &left[..]), "{keep}");
        assert!(ledger(&keeping).exists());
    }
}

/// It seems there that the guest's process was started at another time: that is no other process.
#[test]
fn whoever_counts_time_from_elsewhere_leaves_the_guest_alone() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = guest(&keeping, &keeper);
    keeper.kill();
    let elsewhere = keeping.dir().join("elsewhere");
    let program = keeping.program().display();
    let script = format!("#!/bin/sh\nexec unshare -T --boottime 1000000 {program} \"$@\"\n");
    fs::write(&elsewhere, script).unwrap();
    fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o755)).unwrap();
    let there = keeping.keeper_by(&elsewhere);
    let left = ["left ERR_UFFD_RECOVERY_NAMESPACE".to_owned()];
    assert_eq!((there.recovered(), there.left()), (0, &left[..]));
    drop(there);
    is_served_on(&keeping, &guest);
}

/// Whoever takes more memory than there is for it is killed like by SIGKILL.
#[test]
fn a_server_that_ran_out_of_memory_loses_nothing() {
    let keeping = keeping();
    let limit = MemoryLimit::of(32 << 20).unwrap();
    let mut keeper = keeping.keeper();
    let guest = guest(&keeping, &keeper);
    limit.take_in(keeper.pid()).unwrap();
    keeper.tell("hoard");
    let waiting = guest.thread(0).start_verify(2, 9, &[Expect::Source]);
    keeper.killed();
    assert_eq!(limit.kills().unwrap(), 1);
    is_served_on(&keeping, &guest);
    assert_eq!(waiting.get().unwrap().wrong, 0);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_refused_by_name() {
    let keeping = keeping();
    on_a_tmpfs(&keeping, "256k", || {
        let dir = keeping.state_dir();
        let keeper = keeping.keeper();
        let guest = guest(&keeping, &keeper);
        drop(keeper);
        let none = None::<&str>;
        let again = |flags| mount(none, dir, none, MsFlags::MS_REMOUNT | flags, none).unwrap();
        again(MsFlags::MS_RDONLY);
        let error = StateDir::open(dir).unwrap_err();
        assert!(matches!(error, StateDirError::Io { .. }), "{error}");
        assert!(error.to_string().contains("Read-only"), "{error}");
        again(MsFlags::empty());
        is_served_on(&keeping, &guest);
    });
}

#[test]
fn a_directory_on_a_disk_says_so() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let state = dir.path().join("state");
    assert!(!StateDir::open(&state).unwrap().is_in_memory());
    // Whoever looks whether it can be written to leaves nothing behind.
    assert_eq!(names(&state), Vec::<String>::new());
}

/// What a killed process may have left there is in nobody's way.
#[test]
fn strange_files_in_it_are_left_alone() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = guest(&keeping, &keeper);
    keeper.kill();
    let dir = keeping.state_dir();
    let strange: Vec<_> = (1..5_000).map(|pid| dir.join(format!(".probe-{pid}"))).collect();
    strange.iter().for_each(|path| drop(File::create(path).unwrap()));
    fs::create_dir(dir.join("folder.new")).unwrap();
    let notes = ["notes", "notes.new"].map(|name| dir.join(name));
    notes.iter().for_each(|path| fs::write(path, "of somebody").unwrap());
    is_served_on(&keeping, &guest);
    for path in notes {
        assert_eq!(fs::read(path).unwrap(), b"of somebody");
    }
}

#[test]
fn a_guest_that_cannot_be_served_leaves_no_ledger() {
    let keeping = keeping();
    let keeper = keeping.keeper();
    let _guest =
        keeping.guest_of_anybody(|options| options.features |= sys::UFFD_FEATURE_EVENT_FORK);
    let refused = keeper.next().unwrap();
    assert!(refused.starts_with("refused"), "{refused}");
    assert_eq!(names(keeping.state_dir()), Vec::<String>::new());
}

#[test]
fn of_two_servers_on_one_directory_the_second_waits_or_is_refused() {
    let keeping = keeping();
    let mut first = keeping.keeper();
    let guest = guest(&keeping, &first);
    let dir = StateDir::open(keeping.state_dir()).unwrap();
    let error = dir.claim(false).unwrap_err();
    assert_eq!(error.code(), "ERR_UFFD_STATE_DIR_IN_USE");
    let mut second = keeping.begin_keeper(|_| {});
    // The second has not even looked at the guest: it answers, and to the first.
    assert_eq!(guest.thread(0).verify(2, 9, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(first.ask("settle"), "Ok(())");
    assert!(!second.is_ready());
    first.kill();
    assert!(second.gets_ready());
    assert_eq!(second.recovered(), 1);
    second.kill();
    is_served_on(&keeping, &guest);
}

/// Whatever whoever takes a guest over is short of, the guest is left to the next, as it was.
#[test]
fn whoever_is_short_of_descriptors_leaves_the_guest_to_the_next() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = guest(&keeping, &keeper);
    keeper.kill();
    let mut outcomes = (0, 0);
    for files in 4..40 {
        let mut keeper = keeping.limited_keeper(files);
        match (keeper.is_ready(), keeper.recovered()) {
            (true, 1) => outcomes.1 += 1,
            (true, 0) => {
                assert_eq!(keeper.left(), ["left ERR_UFFD_RESOURCES"], "{files} descriptors");
                outcomes.0 += 1;
            }
            (true, count) => panic!("{count} guests"),
            // It could not even begin.
            (false, _) => {}
        }
        keeper.kill();
        assert_eq!(names(keeping.state_dir()).len(), 1, "{files} descriptors");
    }
    assert!(outcomes.0 > 0 && outcomes.1 > 0, "{outcomes:?}");
    is_served_on(&keeping, &guest);
}

/// Pages of zeros are not protected where the guest's page map tells which were written. To whoever
/// cannot read that, each of them may have been.
#[test]
fn whoever_cannot_read_the_page_map_says_that_more_may_have_been_written() {
    let keeping = keeping();
    let mut keeper = keeping.keeper();
    let guest = guest(&keeping, &keeper);
    guest.thread(0).madvise(4, 4).unwrap();
    assert_eq!(guest.thread(0).verify(4, 4, &[Expect::Zeros]).unwrap().wrong, 0);
    guest.thread(0).write(5, 1, 11).unwrap();
    assert_eq!(keeper.ask("settle"), "Ok(())");
    keeper.kill();

    let path = ledger(&keeping);
    let mut spares = Spares::new();
    let left = Left::find(&path, &mut spares).unwrap();
    let id = left.id().to_owned();
    drop(left);
    let uffd = the_userfaultfd(&guest);
    spares.insert(id, uffd);
    let source = Arc::new(FileSource::open(keeping.snapshot()).unwrap());
    let export = without_the_right_to_trace(|| {
        let left = Left::find(&path, &mut spares).unwrap();
        let options = left.options();
        let fetcher = Arc::new(Fetcher::new(source));
        let session = Session::recover(left, fetcher, options, Box::new(NoObserver)).unwrap();
        assert_eq!(session.owner(), Some(Owner::Unknowable));
        let export = session.export().unwrap();
        session.begin_hand_over();
        assert_eq!(session.wait(), End::HandedOver);
        export
    });
    assert!(!export.exact);
    assert!([1, 4, 5, 6, 7].iter().all(|page| export.dirty.contains(*page)), "{export:?}");
}

/// A copy of the guest's own, as a guardian would have it.
fn the_userfaultfd(guest: &Guest) -> OwnedFd {
    let stat = fs::read_to_string(format!("/proc/{}/stat", guest.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let started = fields.split_whitespace().nth(19).unwrap().parse().unwrap();
    let process = Process::find(guest.pid(), started).unwrap();
    let number = fs::read_dir(format!("/proc/{}/fd", guest.pid())).unwrap().flatten().find(|fd| {
        fs::read_link(fd.path()).is_ok_and(|it| it.as_os_str() == "anon_inode:[userfaultfd]")
    });
    let number = number.unwrap().file_name().to_str().unwrap().parse().unwrap();
    process.descriptor(number).unwrap()
}

/// Runs something on a thread that may not look into processes that may more than it.
fn without_the_right_to_trace<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        let mut sets = capabilities(None).unwrap();
        for set in [&mut sets.effective, &mut sets.permitted, &mut sets.inheritable] {
            // Each of them is enough to look into a process.
            set.remove(CapabilitySet::SYS_PTRACE);
            set.remove(CapabilitySet::PERFMON | CapabilitySet::SYS_ADMIN);
        }
        set_capabilities(None, sets).unwrap();
        run()
    };
    let done = std::thread::scope(|scope| scope.spawn(inside).join());
    done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn a_guest_that_dies_while_it_is_taken_over_leaves_nothing() {
    let source = |keeping: &Keeping| Arc::new(FileSource::open(keeping.snapshot()).unwrap());
    // Before whoever found it has taken it.
    let keeping_one = keeping();
    let mut keeper = keeping_one.keeper();
    let mut one = guest(&keeping_one, &keeper);
    keeper.kill();
    let found = Prospect::find(&ledger(&keeping_one), &mut Spares::new()).unwrap();
    one.kill().unwrap();
    let Err(NotTaken::Not(error)) = found.take() else { panic!("it is dead") };
    assert!(matches!(error.why, Obstruction::Ended { .. }), "{error}");
    assert_eq!(names(keeping_one.state_dir()), Vec::<String>::new());

    // After that.
    let keeping_two = keeping();
    let mut keeper = keeping_two.keeper();
    let mut two = guest(&keeping_two, &keeper);
    keeper.kill();
    let left = Left::find(&ledger(&keeping_two), &mut Spares::new()).unwrap();
    two.kill().unwrap();
    let fetcher = Arc::new(Fetcher::new(source(&keeping_two)));
    let options = left.options();
    match Session::recover(left, fetcher, options, Box::new(NoObserver)) {
        Ok(session) => assert_eq!(session.wait(), End::GuestExited),
        // And whoever comes next finds out why.
        Err(_) => drop(Left::find(&ledger(&keeping_two), &mut Spares::new()).unwrap_err()),
    }
    assert_eq!(names(keeping_two.state_dir()), Vec::<String>::new());
}
