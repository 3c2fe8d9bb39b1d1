//! The socket's path: what may be there already, and what is left of it.

use std::{
    os::{
        fd::AsRawFd,
        unix::{
            fs::{MetadataExt, PermissionsExt, lchown, symlink},
            net::{UnixDatagram, UnixListener},
        },
    },
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket},
    unistd::{Uid, setfsuid},
};
use tempfile::tempdir;

use super::*;
use crate::handoff::socket_file::{BoundFile, bind_narrowly};

fn refused(path: &Path) -> BindError {
    let error = Listener::bind(path).unwrap_err();
    assert!(error.to_string().contains(&format!("{path:?}")), "{error}");
    error
}

#[test]
fn guests_come_one_by_one_and_nobody_waits_for_them() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(listener.path(), path);
    assert!(listener.accept().unwrap().is_none());

    let vmm = UnixStream::connect(&path).unwrap();
    let connection = listener.accept().unwrap().unwrap();
    assert!(listener.accept().unwrap().is_none());
    send(&vmm, GUEST, &[uffd().as_fd()]);
    receive(connection).unwrap();
}

#[test]
fn a_refused_guest_does_not_end_the_listener() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let listener = Listener::bind(&path).unwrap();

    drop(UnixStream::connect(&path).unwrap());
    let gone = listener.accept().unwrap().unwrap();
    assert!(matches!(receive(gone), Err(HandoffError::Closed { .. })));

    let vmm = UnixStream::connect(&path).unwrap();
    send(&vmm, GUEST, &[uffd().as_fd()]);
    receive(listener.accept().unwrap().unwrap()).unwrap();
}

#[test]
fn the_socket_is_for_whom_it_was_meant() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let access = SocketAccess { owner: Some((1234, 5678)), mode: Some(0o620) };
    let listener = Listener::bind_for(&path, access).unwrap();
    let file = std::fs::metadata(&path).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (1234, 5678, 0o620));
    UnixStream::connect(&path).unwrap();
    assert!(listener.accept().unwrap().is_some());
}

#[test]
fn it_never_is_for_more_than_it_was_meant_for() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let access = SocketAccess { mode: Some(0o600), ..SocketAccess::default() };
    let _socket = bind_narrowly(&path, access).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
}

#[test]
fn what_was_put_in_its_place_is_left_as_it_is() {
    let dir = tempdir().unwrap();
    let (path, precious) = (dir.path().join("uffd.sock"), dir.path().join("precious"));
    fs::write(&precious, "").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
    let replacements: [&dyn Fn(); 4] = [
        &|| {},
        &|| symlink(&precious, &path).unwrap(),
        &|| fs::write(&path, "").unwrap(),
        // A socket of somebody else.
        &|| {
            drop(UnixListener::bind(&path).unwrap());
            lchown(&path, Some(1234), None).unwrap();
        },
    ];
    for replace in replacements {
        let access = SocketAccess { owner: Some((1234, 5678)), mode: Some(0o666) };
        let socket = bind_narrowly(&path, access).unwrap();
        fs::remove_file(&path).unwrap();
        replace();
        let error = BoundFile::of(&path, &socket).unwrap_err();
        assert!(matches!(error, BindError::Replaced { .. }), "{error}");
        assert_eq!(error.code(), "ERR_UFFD_SOCKET_REPLACED");
        let _ = fs::remove_file(&path);
    }
    let file = fs::metadata(&precious).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o7777), (0, 0o600));
}

#[test]
fn whoever_swaps_links_in_all_the_time_has_no_other_file_given_to_them() {
    const TRIES: usize = 300;
    let dir = tempdir().unwrap();
    let (path, precious) = (dir.path().join("uffd.sock"), dir.path().join("precious"));
    fs::write(&precious, "").unwrap();
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let link = dir.path().join("link");
            while !is_over.load(Ordering::Relaxed) {
                symlink(&precious, &link).unwrap();
                fs::rename(&link, &path).unwrap();
                // Whoever binds may have removed it as a socket that nobody listens on.
                let _ = fs::remove_file(&path);
            }
        });
        let access = SocketAccess { owner: Some((1234, 5678)), mode: Some(0o666) };
        for _ in 0..TRIES {
            let _ = Listener::bind_for(&path, access);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let file = fs::metadata(&precious).unwrap();
    assert_eq!((file.uid(), file.mode() & 0o7777), (0, 0o600));
}

#[test]
fn whoever_may_not_give_the_socket_away_is_told_and_leaves_none() {
    let dir = tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = dir.path().join("uffd.sock");
    let mode = SocketAccess { mode: Some(0o600), ..SocketAccess::default() };
    let owner = SocketAccess { owner: Some((0, 0)), ..SocketAccess::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The right to give files away goes with the user that files are opened as.
            setfsuid(Uid::from_raw(12345));
            drop(Listener::bind_for(&path, mode).unwrap());
            let error = Listener::bind_for(&path, owner).unwrap_err();
            assert!(matches!(error, BindError::Owner { uid: 0, gid: 0, .. }), "{error}");
            assert_eq!(error.code(), "ERR_UFFD_SOCKET_OWNER");
        });
    });
    assert!(!path.exists());
}

#[test]
fn the_file_goes_with_the_listener() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    drop(Listener::bind(&path).unwrap());
    assert!(!path.exists());
}

#[test]
fn a_file_that_is_no_longer_ours_stays() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let listener = Listener::bind(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn a_socket_nobody_listens_on_is_taken_over() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());

    let listener = Listener::bind(&path).unwrap();
    let _vmm = UnixStream::connect(&path).unwrap();
    assert!(listener.accept().unwrap().is_some());
}

#[test]
fn of_many_takeovers_at_once_one_succeeds() {
    const SERVERS: usize = 8;
    for _ in 0..20 {
        let dir = tempdir().unwrap();
        let path = dir.path().join("uffd.sock");
        drop(UnixListener::bind(&path).unwrap());

        let start = Barrier::new(SERVERS);
        let bind = || {
            start.wait();
            Listener::bind(&path)
        };
        let bound: Vec<_> = thread::scope(|scope| {
            let servers: Vec<_> = (0..SERVERS).map(|_| scope.spawn(bind)).collect();
            servers.into_iter().map(|server| server.join().unwrap()).collect()
        });
        let (listeners, errors): (Vec<_>, Vec<_>) = bound.into_iter().partition(Result::is_ok);
        assert_eq!(listeners.len(), 1);
        assert!(errors.iter().all(|e| matches!(e, Err(BindError::InUse { .. }))), "{errors:?}");

        let listener = listeners.into_iter().next().unwrap().unwrap();
        let _vmm = UnixStream::connect(&path).unwrap();
        while listener.accept().unwrap().is_some() {}
        assert!(path.exists());
    }
}

#[test]
fn a_socket_somebody_listens_on_is_left_alone() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let first = Listener::bind(&path).unwrap();
    let error = refused(&path);
    assert!(matches!(error, BindError::InUse { .. }));
    assert_eq!(error.code(), "ERR_UFFD_SOCKET_IN_USE");

    // It was not asked by a connection.
    assert!(first.accept().unwrap().is_none());
    let _vmm = UnixStream::connect(&path).unwrap();
    assert!(first.accept().unwrap().is_some());
}

#[test]
fn a_socket_that_does_not_listen_yet_is_left_alone() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let bound = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(bound.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    assert!(matches!(refused(&path), BindError::InUse { .. }));
    drop(bound);
    Listener::bind(&path).unwrap();
}

#[test]
fn a_listener_in_another_network_namespace_is_left_alone() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let there = thread::scope(|scope| {
        let bind = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            UnixListener::bind(&path).unwrap()
        };
        scope.spawn(bind).join().unwrap()
    });
    assert!(matches!(refused(&path), BindError::InUse { .. }));
    drop(there);
    Listener::bind(&path).unwrap();
}

#[test]
fn a_connection_that_is_left_of_a_listener_does_not_listen() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let first = UnixListener::bind(&path).unwrap();
    let _vmm = UnixStream::connect(&path).unwrap();
    let _accepted = first.accept().unwrap();
    assert!(matches!(refused(&path), BindError::InUse { .. }));
    drop(first);
    Listener::bind(&path).unwrap();
}

#[test]
fn a_live_socket_of_another_kind_is_left_alone() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("uffd.sock");
    let _datagram = UnixDatagram::bind(&path).unwrap();
    assert!(matches!(refused(&path), BindError::InUse { .. }));
}

#[test]
fn what_is_not_a_socket_is_left_alone() {
    let dir = tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "precious").unwrap();
    symlink(dir.path().join("nowhere"), &link).unwrap();
    for path in [&file, &link, dir.path()] {
        let error = refused(path);
        assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
        assert!(path.symlink_metadata().is_ok());
    }
}

#[test]
fn a_path_no_socket_can_have_is_refused() {
    let dir = tempdir().unwrap();
    assert!(matches!(refused(Path::new("")), BindError::NotAPath { .. }));
    assert!(matches!(refused(Path::new("\0abstract")), BindError::NotAPath { .. }));
    assert!(matches!(refused(&dir.path().join("no/uffd.sock")), BindError::NoDirectory { .. }));

    let room = 107 - dir.path().as_os_str().len() - 1;
    let longest = dir.path().join("x".repeat(room));
    Listener::bind(&longest).unwrap();
    let error = refused(&dir.path().join("x".repeat(room + 1)));
    assert!(matches!(error, BindError::PathTooLong { len: 108, .. }));
}

#[test]
fn a_directory_without_permission_is_named() {
    let dir = tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o555)).unwrap();
    let path = dir.path().join("uffd.sock");
    // In a thread of its own: the file-system user is one of the thread's, and root may all.
    let error = thread::spawn(move || {
        setfsuid(Uid::from_raw(65534));
        refused(&path)
    });
    assert!(matches!(error.join().unwrap(), BindError::Denied { .. }));
}
