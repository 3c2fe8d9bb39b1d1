//! One connection: what makes a handoff, in how many pieces, and what does not.

use std::{
    io::{self, Write},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, poll},
    unistd::{getegid, geteuid, getpid, pipe},
};

use super::*;
use crate::units::{GuestAddr, PageIndex};

fn is_userfaultfd(fd: &OwnedFd) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
    link.as_os_str() == "anon_inode:[userfaultfd]"
}

fn refused(bytes: &str, fds: &[BorrowedFd<'_>]) -> HandoffError {
    let (vmm, connection) = pair();
    send(&vmm, bytes, fds);
    receive(connection).unwrap_err()
}

#[test]
fn one_message_makes_a_guest() {
    let (vmm, connection) = pair();
    send(&vmm, GUEST, &[uffd().as_fd()]);
    let handoff = receive(connection).unwrap();

    assert!(is_userfaultfd(&handoff.uffd));
    assert_eq!(handoff.layout.regions().len(), 2);
    assert_eq!(handoff.layout.page_at(GuestAddr(122_880)), Some(PageIndex(3)));
    let peer = Peer { pid: Some(getpid()), uid: geteuid().as_raw(), gid: getegid().as_raw() };
    assert_eq!(handoff.peer, peer);
}

#[test]
fn descriptors_are_closed_on_exec() {
    let (vmm, connection) = pair();
    send(&vmm, GUEST, &[uffd().as_fd()]);
    let handoff = receive(connection).unwrap();
    for fd in [handoff.uffd.as_fd(), handoff.socket.as_fd()] {
        let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }
}

#[test]
fn the_connection_stays_open_until_the_guest_ends_it() {
    let (vmm, connection) = pair();
    send(&vmm, GUEST, &[uffd().as_fd()]);
    let handoff = receive(connection).unwrap();

    // Nothing but its end is waited for.
    let end = |timeout: u16| {
        let mut socket = [PollFd::new(handoff.socket.as_fd(), PollFlags::empty())];
        poll(&mut socket, timeout).unwrap()
    };
    assert_eq!(end(0), 0);
    drop(vmm);
    assert_eq!(end(DEADLINE), 1);
}

#[test]
fn nothing_can_be_said_after_the_handoff() {
    let (mut vmm, connection) = pair();
    send(&vmm, GUEST, &[uffd().as_fd()]);
    let _handoff = receive(connection).unwrap();
    assert_eq!(vmm.write(b"more").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_guest_that_closes_at_once_is_a_guest() {
    let (vmm, connection) = pair();
    send(&vmm, GUEST, &[uffd().as_fd()]);
    drop(vmm);
    receive(connection).unwrap();
}

#[test]
fn a_message_may_be_split_at_every_byte() {
    let uffd = uffd();
    let fd: &[BorrowedFd<'_>] = &[uffd.as_fd()];
    let none: &[BorrowedFd<'_>] = &[];
    for at in 1..GUEST.len() {
        let (first, second) = GUEST.split_at(at);
        for pieces in [[(first, fd), (second, none)], [(first, none), (second, fd)]] {
            let (vmm, ours) = UnixStream::pair().unwrap();
            let reader = ours.try_clone().unwrap();
            let connection = Connection::new(ours).unwrap();
            let handoff = thread::scope(|scope| {
                scope.spawn(|| send_one_by_one(&vmm, &reader, &pieces));
                receive(connection).unwrap()
            });
            assert_eq!(handoff.layout.page_count(), 5, "split at {at}");
        }
    }
}

#[test]
fn a_message_may_come_byte_by_byte_and_the_descriptor_after_it() {
    let uffd = uffd();
    let fd: &[BorrowedFd<'_>] = &[uffd.as_fd()];
    let none: &[BorrowedFd<'_>] = &[];
    let mut pieces: Vec<_> = (0..GUEST.len()).map(|at| (&GUEST[at..=at], none)).collect();
    pieces.push((" \n", fd));

    let (vmm, ours) = UnixStream::pair().unwrap();
    let reader = ours.try_clone().unwrap();
    let connection = Connection::new(ours).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| send_one_by_one(&vmm, &reader, &pieces));
        receive(connection).unwrap();
    });
}

#[test]
fn a_message_of_any_length_is_read_whole() {
    for count in [64_u64, 2000] {
        let region = |n: u64| {
            let (base, offset) = (1 << 40 | n << 20, n * 4096);
            format!(r#"{{"base_host_virt_addr":{base},"size":4096,"offset":{offset}}}"#)
        };
        let message = format!("[{}]", (0..count).map(region).collect::<Vec<_>>().join(","));
        assert!(message.len() > 1024);

        let (vmm, connection) = pair();
        send(&vmm, &message, &[uffd().as_fd()]);
        let limits = Limits { snapshot_len: count * 4096, ..limits() };
        let handoff = connection.receive(&limits, never().as_fd()).unwrap();
        assert_eq!(handoff.layout.page_count(), count);
    }
}

#[test]
fn the_userfaultfd_is_found_wherever_it_stands_and_the_rest_is_closed() {
    let uffd = uffd();
    for at in 0..3 {
        let (reader, writer) = pipe().unwrap();
        let mut fds = vec![writer.as_fd(); 2];
        fds.insert(at, uffd.as_fd());
        let (vmm, connection) = pair();
        send(&vmm, GUEST, &fds);
        let handoff = receive(connection).unwrap();
        assert!(is_userfaultfd(&handoff.uffd));

        drop(writer);
        let mut end = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        poll(&mut end, DEADLINE).unwrap();
        assert_eq!(end[0].revents(), Some(PollFlags::POLLHUP), "a writer is still open");
    }
}

#[test]
fn a_second_descriptor_may_come_in_a_piece_of_its_own() {
    let (memory, uffd) = (memory(), uffd());
    let (vmm, connection) = pair();
    send(&vmm, &GUEST[..9], &[memory.as_fd()]);
    send(&vmm, &GUEST[9..], &[uffd.as_fd()]);
    assert!(is_userfaultfd(&receive(connection).unwrap().uffd));
}

#[test]
fn what_is_no_userfaultfd_is_named() {
    let error = refused(GUEST, &[memory().as_fd()]);
    assert!(matches!(error, HandoffError::NotUserfaultfd { .. }));
    assert_eq!(error.code(), "ERR_UFFD_HANDOFF_DESCRIPTOR");
    assert!(error.to_string().contains("/memfd:guest"), "{error}");
}

#[test]
fn two_userfaultfds_are_refused_together_or_apart() {
    let (one, two) = (uffd(), uffd());
    let error = refused(GUEST, &[one.as_fd(), two.as_fd()]);
    assert!(matches!(error, HandoffError::SeveralUserfaultfds));

    let (vmm, connection) = pair();
    send(&vmm, GUEST, &[one.as_fd()]);
    send(&vmm, GUEST, &[two.as_fd()]);
    let error = receive(connection).unwrap_err();
    assert!(matches!(error, HandoffError::SeveralUserfaultfds), "{error}");
}

#[test]
fn two_messages_are_refused() {
    let error = refused(&format!("{GUEST}\n{GUEST}"), &[uffd().as_fd()]);
    let count = GUEST.len();
    assert!(
        matches!(error, HandoffError::Message(MessageError::TrailingBytes { count: c }) if c == count),
        "{error}"
    );

    let (vmm, connection) = pair();
    send(&vmm, GUEST, &[uffd().as_fd()]);
    send(&vmm, GUEST, &[]);
    let error = receive(connection).unwrap_err();
    assert!(matches!(error, HandoffError::Message(MessageError::TrailingBytes { .. })), "{error}");
}

#[test]
fn as_many_descriptors_as_are_allowed_fit_and_more_are_an_error() {
    let (uffd, memory) = (uffd(), memory());
    let mut fds = vec![memory.as_fd(); 15];
    fds.push(uffd.as_fd());
    let (vmm, connection) = pair();
    send(&vmm, GUEST, &fds);
    receive(connection).unwrap();

    let error = refused(GUEST, &[uffd.as_fd(); 20]);
    assert!(matches!(error, HandoffError::Truncated { .. }), "{error}");
    assert_eq!(error.code(), "ERR_UFFD_HANDOFF_TRUNCATED");
}

#[test]
fn silence_ends_with_what_was_missing() {
    let limits = Limits { timeout: Duration::from_millis(20), ..limits() };
    let uffd = uffd();
    let fd = [uffd.as_fd()];
    let cases: [(&str, &[BorrowedFd<'_>], Missing); 4] = [
        ("", &[], Missing::Both),
        ("[{", &[], Missing::Both),
        ("[{", &fd, Missing::ArrayEnd),
        (GUEST, &[], Missing::Descriptor),
    ];
    for (bytes, fds, expected) in cases {
        let (vmm, connection) = pair();
        if !bytes.is_empty() {
            send(&vmm, bytes, fds);
        }
        let start = Instant::now();
        let error = connection.receive(&limits, never().as_fd()).unwrap_err();
        assert!(start.elapsed() >= limits.timeout);
        assert_eq!(error.code(), "ERR_UFFD_HANDOFF_TIMEOUT");
        let HandoffError::Timeout { received, missing, .. } = error else { panic!("{error}") };
        assert_eq!((received, missing), (bytes.len(), expected));
    }
}

#[test]
fn a_guest_that_never_stops_talking_meets_the_deadline_too() {
    let limits = Limits {
        timeout: Duration::from_millis(20),
        max_message: usize::MAX,
        ..Limits::new(SNAPSHOT_LEN)
    };
    let (mut vmm, connection) = pair();
    let error = thread::scope(|scope| {
        scope.spawn(move || while vmm.write_all(b" ").is_ok() {});
        connection.receive(&limits, never().as_fd()).unwrap_err()
    });
    assert!(matches!(error, HandoffError::Timeout { missing: Missing::Both, .. }), "{error}");
}

#[test]
fn what_comes_after_the_deadline_is_too_late() {
    let (vmm, connection) = pair();
    send(&vmm, GUEST, &[uffd().as_fd()]);
    let limits = Limits { timeout: Duration::ZERO, ..limits() };
    let error = connection.receive(&limits, never().as_fd()).unwrap_err();
    assert!(matches!(error, HandoffError::Timeout { received: 0, .. }), "{error}");
}

#[test]
fn an_early_end_says_what_was_missing() {
    let uffd = uffd();
    let fd = [uffd.as_fd()];
    let cases: [(&str, &[BorrowedFd<'_>], Missing); 4] = [
        ("", &[], Missing::Both),
        (&GUEST[..30], &[], Missing::Both),
        (&GUEST[..30], &fd, Missing::ArrayEnd),
        (GUEST, &[], Missing::Descriptor),
    ];
    for (bytes, fds, expected) in cases {
        let (vmm, connection) = pair();
        if !bytes.is_empty() {
            send(&vmm, bytes, fds);
        }
        drop(vmm);
        let error = receive(connection).unwrap_err();
        assert_eq!(error.code(), "ERR_UFFD_HANDOFF_CLOSED");
        let HandoffError::Closed { received, missing } = error else { panic!("{error}") };
        assert_eq!((received, missing), (bytes.len(), expected));
    }
}

#[test]
fn a_guest_that_dies_with_unread_bytes_on_its_side_is_closed_too() {
    let (vmm, mut ours) = UnixStream::pair().unwrap();
    ours.write_all(b"hello").unwrap();
    let connection = Connection::new(ours).unwrap();
    drop(vmm);
    let error = receive(connection).unwrap_err();
    assert!(matches!(error, HandoffError::Closed { received: 0, .. }), "{error}");
}

#[test]
fn a_wrong_message_is_refused_without_its_descriptor() {
    for (bytes, code) in [
        ("[]", "ERR_UFFD_HANDOFF_REGION"),
        ("hello", "ERR_UFFD_HANDOFF_JSON"),
        (r#"[{"size":1}]"#, "ERR_UFFD_HANDOFF_FIELD"),
    ] {
        assert_eq!(refused(bytes, &[]).code(), code, "{bytes}");
    }
}

#[test]
fn a_message_past_the_limit_is_refused() {
    let (vmm, connection) = pair();
    let limits = Limits { max_message: GUEST.len() - 1, ..limits() };
    send(&vmm, GUEST, &[uffd().as_fd()]);
    let error = connection.receive(&limits, never().as_fd()).unwrap_err();
    assert!(matches!(error, HandoffError::TooLarge { limit } if limit == GUEST.len() - 1));

    let (vmm, connection) = pair();
    let limits = Limits { max_message: GUEST.len(), ..limits };
    send(&vmm, GUEST, &[uffd().as_fd()]);
    connection.receive(&limits, never().as_fd()).unwrap();
}

#[test]
fn a_wait_can_be_called_off_before_and_while_it_lasts() {
    let cancel = never();
    cancel.write(1).unwrap();
    let (vmm, connection) = pair();
    send(&vmm, GUEST, &[uffd().as_fd()]);
    let error = connection.receive(&limits(), cancel.as_fd()).unwrap_err();
    assert!(matches!(error, HandoffError::Cancelled));

    let cancel = never();
    let (vmm, ours) = UnixStream::pair().unwrap();
    let reader = ours.try_clone().unwrap();
    let connection = Connection::new(ours).unwrap();
    let error = thread::scope(|scope| {
        scope.spawn(|| {
            // The second piece would go out only once the first was read: by then it waits.
            send_one_by_one(&vmm, &reader, &[("[", &[]), ("{", &[])]);
            cancel.write(1).unwrap();
        });
        connection.receive(&limits(), cancel.as_fd()).unwrap_err()
    });
    assert!(matches!(error, HandoffError::Cancelled));
}

#[test]
fn who_left_without_a_word_is_nobody_when_the_wait_is_called_off_as_well() {
    let cancel = never();
    cancel.write(1).unwrap();
    let (vmm, connection) = pair();
    drop(vmm);
    assert!(connection.receive(&limits(), cancel.as_fd()).unwrap_err().is_nobody());
}
