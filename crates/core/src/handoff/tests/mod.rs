//! The handoff as a VMM does it, well and badly, over real sockets.

use std::{
    fs,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::Command,
    thread,
    time::Duration,
};

use nix::sys::{eventfd::EventFd, memfd};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::*;

mod listener;
mod receive;
mod resources;

/// Two regions of a snapshot of 5 pages, the second below the first.
const GUEST: &str = concat!(
    r#"[{"base_host_virt_addr":131072,"size":12288,"offset":0,"page_size":4096,"#,
    r#""page_size_kib":4096},{"base_host_virt_addr":122880,"size":8192,"offset":12288,"#,
    r#""page_size":4096,"page_size_kib":4096}]"#
);

const SNAPSHOT_LEN: u64 = 5 * 4096;

/// Milliseconds; long enough for what happens on another thread.
const DEADLINE: u16 = 60_000;

/// Long enough for any machine: no test here waits for it.
fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(60), ..Limits::new(SNAPSHOT_LEN) }
}

fn pair() -> (UnixStream, Connection) {
    let (vmm, ours) = UnixStream::pair().unwrap();
    (vmm, Connection::new(ours).unwrap())
}

fn uffd() -> OwnedFd {
    let uffd = userfaultfd::UffdBuilder::new()
        .close_on_exec(true)
        .non_blocking(true)
        .user_mode_only(false)
        .create()
        .unwrap();
    uffd.as_fd().try_clone_to_owned().unwrap()
}

fn memory() -> OwnedFd {
    memfd::memfd_create("guest", memfd::MFdFlags::MFD_CLOEXEC).unwrap()
}

fn never() -> EventFd {
    EventFd::new().unwrap()
}

/// Sends one piece, its descriptors with it.
fn send(vmm: &UnixStream, bytes: &str, fds: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let body = [IoSlice::new(bytes.as_bytes())];
    let sent = sendmsg(vmm, &body, &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

/// Sends pieces, each only when the other side has read the one before.
fn send_one_by_one(vmm: &UnixStream, reader: &UnixStream, pieces: &[(&str, &[BorrowedFd<'_>])]) {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    for (bytes, fds) in pieces {
        while recv(reader, &mut [0_u8], flags).is_ok_and(|(n, _)| n > 0) {
            thread::yield_now();
        }
        send(vmm, bytes, fds);
    }
}

/// Has the guest's connection received with nobody to call it off.
fn receive(connection: Connection) -> Result<Handoff, HandoffError> {
    connection.receive(&limits(), never().as_fd())
}

/// Runs `body` in a process of its own, where no other test opens descriptors or meets a limit.
/// `test` is the name of the calling test in [`resources`].
fn in_child(test: &str, body: impl FnOnce()) {
    const MARK: &str = "UFFD_TEST_CHILD";
    if std::env::var_os(MARK).is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("handoff::tests::resources::{test}"), "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}
