//! Descriptors: none leaks, and none left is no end.

use std::{io::Write, os::fd::AsRawFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::tempdir;

use super::*;

/// Runs `body` while this process cannot open anything more.
fn with_no_descriptor_left<T>(body: impl FnOnce() -> T) -> T {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let next_free = memory().as_raw_fd();
    setrlimit(Resource::RLIMIT_NOFILE, next_free.try_into().unwrap(), hard).unwrap();
    let result = body();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    result
}

/// A whole handoff, right or wrong, with the sender's end closed at the end of it.
fn hand_over(bytes: &str, fds: &[BorrowedFd<'_>], cancel: &EventFd) {
    let (mut vmm, connection) = pair();
    let (first, rest) = bytes.split_at(1);
    send(&vmm, first, fds);
    thread::scope(|scope| {
        // Who is refused early finds the socket closed under what it still says.
        scope.spawn(move || vmm.write_all(rest.as_bytes()));
        let _ = connection.receive(&limits(), cancel.as_fd());
    });
}

#[test]
fn nothing_leaks_whatever_comes() {
    in_child("nothing_leaks_whatever_comes", || {
        let (one, two, memory) = (uffd(), uffd(), memory());
        let (one, two, memory) = (one.as_fd(), two.as_fd(), memory.as_fd());
        let many = vec![memory; 40];
        let twice = format!("{GUEST}{GUEST}");
        let long = " ".repeat(limits().max_message + 1);
        let cases: [(&str, &[BorrowedFd<'_>]); 12] = [
            (GUEST, &[one]),
            (GUEST, &[memory, one, memory]),
            (GUEST, &[one, memory, two, memory]),
            (GUEST, &[memory, memory]),
            (GUEST, &[]),
            (GUEST, &many),
            (&GUEST[..50], &[one, memory]),
            ("[]", &[one, memory]),
            ("hello", &[one, memory]),
            (r#"[{"size":-1}]"#, &[memory, one]),
            (&twice, &[one]),
            (&long, &[one, memory]),
        ];

        let (go_on, call_off) = (never(), never());
        call_off.write(1).unwrap();
        let before = open_descriptors();
        for (bytes, fds) in cases {
            for cancel in [&go_on, &call_off] {
                hand_over(bytes, fds, cancel);
                assert_eq!(open_descriptors(), before, "{bytes:.50} with {} of them", fds.len());
            }
        }
    });
}

#[test]
fn a_listener_without_descriptors_lets_guests_wait_and_goes_on() {
    in_child("a_listener_without_descriptors_lets_guests_wait_and_goes_on", || {
        let dir = tempdir().unwrap();
        let path = dir.path().join("uffd.sock");
        let listener = Listener::bind(&path).unwrap();
        let _vmm = UnixStream::connect(&path).unwrap();
        with_no_descriptor_left(|| {
            for _ in 0..3 {
                let error = listener.accept().unwrap_err();
                assert!(matches!(error, AcceptError::Exhausted { .. }), "{error}");
                assert!(error.retry_after().is_some_and(|pause| !pause.is_zero()));
            }
        });
        assert!(listener.accept().unwrap().is_some());
    });
}

#[test]
fn a_descriptor_there_is_no_room_for_is_an_error() {
    in_child("a_descriptor_there_is_no_room_for_is_an_error", || {
        let (vmm, connection) = pair();
        send(&vmm, GUEST, &[uffd().as_fd()]);
        let never = never();
        let error = with_no_descriptor_left(|| connection.receive(&limits(), never.as_fd()));
        assert!(matches!(error, Err(HandoffError::Truncated { taken: 0 })), "{error:?}");
    });
}
