//! Handoffs of every dialect, end to end, by a guest in a process of its own.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use uffd_core::handoff::HandoffError;
use uffd_core::server::Refusal;
use uffd_core::session::SessionError;
use uffd_guest::options::{Dialect, Options, Split, UserModeOnly};
use uffd_guest::protocol::Expect;
use uffd_proof::{Case, HUGE, SMALL, Setting};
use userfaultfd_sys as sys;

const PAGES: u64 = 5;

fn open(page_size: u64) -> Setting {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let case = Case { guest, page_size, tracking: false };
    case.open_with(case.pattern(), &[3, 2], |stage| stage)
}

fn is_served(setting: &Setting, change: impl FnOnce(&mut Options)) {
    let guest = setting.guest_with(change);
    assert_eq!(guest.session.pid(), Some(guest.pid()));
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    guest.thread(0).madvise(1, 1).unwrap();
    assert_eq!(guest.thread(0).verify(1, 1, &[Expect::Zeros]).unwrap().wrong, 0);
}

#[test]
fn every_version_of_firecracker_is_understood() {
    let small = open(SMALL);
    is_served(&small, |options| options.dialect = Dialect::V1_1);
    is_served(&small, |options| options.dialect = Dialect::V1_7);
    is_served(&small, |options| options.dialect = Dialect::V1_12);
    let huge = open(HUGE);
    is_served(&huge, |options| options.dialect = Dialect::V1_7);
}

#[test]
fn a_body_in_pieces_is_put_together() {
    let setting = open(SMALL);
    for split in [Split::First, Split::Last] {
        is_served(&setting, |options| options.split = Some(split));
    }
}

#[test]
fn more_descriptors_are_no_harm() {
    let setting = open(SMALL);
    is_served(&setting, |options| options.extra_fds = 1);
}

#[test]
fn a_socket_that_closes_at_once_is_that_of_an_old_firecracker() {
    let setting = open(SMALL);
    is_served(&setting, |options| options.close_socket = true);
}

#[test]
fn faults_of_user_mode_are_enough() {
    let setting = open(SMALL);
    is_served(&setting, |options| options.user_mode_only = UserModeOnly::Yes);
}

#[test]
fn a_descriptor_with_every_harmless_feature_is_served() {
    let setting = open(SMALL);
    is_served(&setting, |options| {
        options.features |= sys::UFFD_FEATURE_EVENT_UNMAP
            | sys::UFFD_FEATURE_THREAD_ID
            | sys::UFFD_FEATURE_EXACT_ADDRESS
            | sys::UFFD_FEATURE_POISON
            | sys::UFFD_FEATURE_MOVE;
    });
}

#[test]
fn features_whose_events_cannot_be_served_are_refused_by_name() {
    let setting = open(SMALL);
    for (bit, name) in [
        (sys::UFFD_FEATURE_EVENT_FORK, "EVENT_FORK"),
        (sys::UFFD_FEATURE_EVENT_REMAP, "EVENT_REMAP"),
        (sys::UFFD_FEATURE_SIGBUS, "SIGBUS"),
    ] {
        let refusal = setting.refusal(|options| options.features |= bit);
        assert!(matches!(refusal, Refusal::Session(SessionError::Features(_))), "{refusal:?}");
        assert_eq!(refusal.code(), "ERR_UFFD_FEATURES");
        assert!(refusal.to_string().contains(name), "{refusal}");
    }
    is_served(&setting, |_| {});
}

#[test]
fn a_handoff_that_is_wrong_is_refused_and_the_next_one_served() {
    let setting = open(SMALL);
    for (json, word) in [
        ("[]", "empty"),
        ("{", "array"),
        (r#"[{"base_host_virt_addr":4096,"size":8192,"offset":0,"page_size":8192}]"#, "8192"),
        (r#"[{"base_host_virt_addr":4096,"size":100,"offset":0,"page_size":4096}]"#, "100"),
    ] {
        let refusal = setting.refusal(|options| options.raw_json = Some(json.into()));
        assert!(matches!(refusal, Refusal::Handoff(_)), "{refusal:?}");
        assert!(refusal.to_string().contains(word), "{json}: {refusal}");
    }
    let refusal = setting.refusal(|options| {
        options.no_fd = true;
        options.close_socket = true;
    });
    assert!(matches!(refusal, Refusal::Handoff(HandoffError::Closed { .. })), "{refusal:?}");
    is_served(&setting, |_| {});
}

/// A page size that is not the memory's: the kernel refuses the install, and the session says so.
#[test]
fn a_page_size_that_is_a_lie_ends_the_session_with_an_error() {
    let setting = open(HUGE);
    // Huge pages, declared small.
    let guest = setting.guest_with(|options| options.dialect = Dialect::V1_1);
    let _read = guest.thread(0).start_read(0, 1);
    let (end, _) = guest.end();
    let uffd_core::session::End::Failed(error @ SessionError::Refused { .. }) = end else {
        panic!("{end:?}")
    };
    assert!(error.to_string().contains("page size"), "{error}");
}

#[test]
fn memory_that_is_unmapped_is_nobodys_fault() {
    let setting = open(SMALL);
    let unmap = |options: &mut Options| options.features |= sys::UFFD_FEATURE_EVENT_UNMAP;
    let guest = setting.guest_with(unmap);
    guest.thread(0).touch(0, 2).unwrap();
    guest.thread(0).unmap(1, 1).unwrap();
    assert_eq!(guest.thread(0).verify(2, 3, &[Expect::Source]).unwrap().wrong, 0);
    let all = vec![uffd_core::units::PageRange::new(0, PAGES)];
    assert_eq!(guest.session.prefault(all).unwrap().removed, 1);
    assert!(guest.session.end().is_none());
}

/// How the end of a guest is noticed whose process cannot be seen from here. Asking must change
/// nothing, the protection of pages least of all.
#[test]
fn the_kernel_says_when_a_guests_memory_is_gone() {
    use uffd_core::handoff::{Limits, Listener};
    use uffd_core::kernel::{Bytes, Outcome, Protection, Uffd, Wake, Waker};
    use uffd_guest::driver::GuestBuilder;
    use uffd_guest::options::Register;
    use uffd_guest::pattern::Pattern;

    let dir = tempfile::tempdir().unwrap();
    let listener = Listener::bind(&dir.path().join("uffd.sock")).unwrap();
    let mut options = Options::new(listener.path(), [2], Pattern::new(1, SMALL));
    options.register = Register::WriteProtect;
    options.features |= sys::UFFD_FEATURE_PAGEFAULT_FLAG_WP;
    let guest = GuestBuilder::new(env!("CARGO_BIN_EXE_uffd-proof-guest"), options);
    let mut guest = guest.spawn().unwrap();
    let connection = listener.accept().unwrap().unwrap();
    let never = Waker::new().unwrap();
    let handoff = connection.receive(&Limits::new(2 * SMALL), std::os::fd::AsFd::as_fd(&never));
    let handoff = handoff.unwrap();
    let uffd = Uffd::new(handoff.uffd).unwrap();

    let base = handoff.layout.regions()[0].base;
    let page = vec![7_u8; 4096];
    let installed = uffd.copy(base, Bytes::from(&page[..]), Protection::WriteProtected, Wake::Now);
    assert_eq!(installed, Outcome::Done(4096));
    assert!(!uffd.is_gone());
    assert!(guest.pagemap(0, 1).unwrap().all(|page| page.present && page.wp));
    assert!(guest.pagemap(1, 1).unwrap().all(|page| !page.present));
    assert_eq!(uffd.register_missing(base, SMALL), Outcome::Done(SMALL));
    guest.kill().unwrap();
    assert!(uffd.is_gone());
    assert_eq!(uffd.register_missing(base, SMALL), Outcome::Gone);
    assert_eq!(uffd.register_write_protect(base, SMALL), Outcome::Gone);
    assert_eq!(uffd.unregister(base, SMALL), Outcome::Gone);
}

/// The handoff may come through another process, whose end is not the guest's.
#[test]
fn a_guest_outlives_the_process_that_passed_it_on() {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;
    use std::sync::Arc;

    use uffd_core::handoff::{Limits, Listener};
    use uffd_core::kernel::Waker;
    use uffd_core::session::{End, NoObserver, Session, SessionOptions};
    use uffd_core::source::{Fetcher, FileSource};
    use uffd_guest::driver::GuestBuilder;
    use uffd_guest::pattern::Pattern;
    use uffd_guest::snapshot::{self, ZeroPages};

    let dir = tempfile::tempdir().unwrap();
    let (pattern, snapshot) = (Pattern::new(1, SMALL), dir.path().join("mem"));
    snapshot::create(&snapshot, &pattern, PAGES, ZeroPages::Holes).unwrap();
    let fetcher = Arc::new(Fetcher::new(Arc::new(FileSource::open(&snapshot).unwrap())));

    let listener = Listener::bind(&dir.path().join("guest.sock")).unwrap();
    let options = Options::new(listener.path(), [PAGES], pattern);
    let program = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let mut guest = GuestBuilder::new(program, options.clone()).spawn().unwrap();
    let connection = listener.accept().unwrap().unwrap();
    let never = Waker::new().unwrap();
    let mut handoff = connection.receive(&Limits::new(PAGES * SMALL), never.as_fd()).unwrap();

    let relay = UnixListener::bind(dir.path().join("relay.sock")).unwrap();
    let passing_on = Options { socket: dir.path().join("relay.sock"), silent: true, ..options };
    let mut passer = GuestBuilder::new(program, passing_on).spawn().unwrap();
    handoff.socket = relay.accept().unwrap().0;
    let options = SessionOptions::default();
    let session = Session::start(handoff, fetcher, options, Box::new(NoObserver)).unwrap();
    assert_eq!(session.pid(), Some(passer.pid()));
    assert_eq!(guest.thread(0).verify(0, 1, &[Expect::Source]).unwrap().wrong, 0);

    passer.kill().unwrap();
    uffd_proof::until("the passer's end to be seen", || !session.kill());
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    assert_eq!(session.end(), None);
    guest.kill().unwrap();
    uffd_proof::until("the guest's end to be seen", || session.end() == Some(End::GuestExited));
}
