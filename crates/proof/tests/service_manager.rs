//! What a service manager is told and keeps, by a socket of the test's own.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::process::{Command, Stdio};

use nix::sys::eventfd::EventFd;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use uffd_core::service_manager::{Phase, ServiceManager, take_inherited};

/// The next message, and whether a descriptor came with it.
fn next(socket: &UnixDatagram) -> (String, bool) {
    let mut bytes = [0; 4096];
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut pieces = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut space), flags).unwrap();
    let rights = |control| match control {
        ControlMessageOwned::ScmRights(fds) => fds,
        _ => Vec::new(),
    };
    let fds: Vec<_> = message.cmsgs().unwrap().flat_map(rights).collect();
    let len = message.bytes;
    // What came is the test's to close; it ends soon.
    (String::from_utf8(bytes[..len].to_vec()).unwrap(), !fds.is_empty())
}

#[test]
fn it_is_told_of_each_phase_and_keeps_descriptors_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let manager = ServiceManager::at(path.as_os_str()).unwrap();
    let pid = std::process::id();
    manager.tell(Phase::Ready).unwrap();
    assert_eq!(next(&socket), (format!("READY=1\nMAINPID={pid}"), false));
    manager.tell(Phase::Reloading).unwrap();
    let (text, _) = next(&socket);
    let micros = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0);
    manager.status("serves\n3 guests").unwrap();
    assert_eq!(next(&socket), ("STATUS=serves 3 guests".to_owned(), false));
    manager.is_alive().unwrap();
    assert_eq!(next(&socket), ("WATCHDOG=1".to_owned(), false));
    let event = EventFd::new().unwrap();
    manager.keep("a-guest", event.as_fd()).unwrap();
    assert_eq!(next(&socket), ("FDSTORE=1\nFDPOLL=0\nFDNAME=a-guest".to_owned(), true));
    manager.forget("a-guest").unwrap();
    assert_eq!(next(&socket), ("FDSTOREREMOVE=1\nFDNAME=a-guest".to_owned(), false));
    manager.tell(Phase::Stopping).unwrap();
    assert_eq!(next(&socket), ("STOPPING=1".to_owned(), false));
}

#[test]
fn it_may_have_an_abstract_name_and_nothing_else() {
    let name = format!("uffd-test-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    ServiceManager::at(format!("@{name}").as_ref()).unwrap().is_alive().unwrap();
    assert_eq!(next(&socket).0, "WATCHDOG=1");
    for wrong in ["", "relative/path", "vsock:2:1234"] {
        assert!(ServiceManager::at(wrong.as_ref()).is_err(), "{wrong}");
    }
    ServiceManager::at("/nowhere/at/all".as_ref()).unwrap().is_alive().unwrap_err();
}

/// It takes nothing in: whoever tells it goes on.
#[test]
fn one_that_hangs_holds_nobody_up_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let _socket = UnixDatagram::bind(&path).unwrap();
    let manager = ServiceManager::at(path.as_os_str()).unwrap();
    // Its queue has room for some hundreds at most, whatever the host allows.
    assert!((0..100_000).any(|_| manager.is_alive().is_err()));
}

/// Run again by a shell, which opens the descriptors as a service manager does.
#[test]
fn what_is_inherited_is_taken_once_by_its_name() {
    const STAGE: &str = "UFFD_TEST_INHERITED";
    let name = "what_is_inherited_is_taken_once_by_its_name";
    if std::env::var_os(STAGE).is_some() {
        let (spares, socket) = take_inherited(3, "first:second:vms.socket").unwrap();
        let mut names: Vec<_> = spares.keys().cloned().collect();
        names.sort();
        assert_eq!(names, ["first", "second"]);
        assert!(spares.values().all(|fd| !is_inherited_by_programs(fd)));
        let listener = UnixListener::from(socket.unwrap());
        assert!(listener.local_addr().unwrap().as_pathname().is_some());
        assert!(take_inherited(1, "first").is_err(), "taken again");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixListener::bind(folder.path().join("vms.socket")).unwrap();
    let output = Command::new("sh")
        .args(["-c", "exec \"$0\" --exact \"$1\" --test-threads=1 3</dev/null 4</dev/zero 5<&0"])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(STAGE, "1")
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn is_inherited_by_programs(fd: &OwnedFd) -> bool {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    let flags = fcntl(fd, FcntlArg::F_GETFD).unwrap();
    !FdFlag::from_bits_retain(flags).contains(FdFlag::FD_CLOEXEC)
}

#[test]
fn what_is_not_there_is_not_taken() {
    assert!(take_inherited(u32::MAX, "").is_err());
}
