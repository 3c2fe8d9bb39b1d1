//! Peers who send what no VMM would: nobody waits for their descriptors to be closed.
#![allow(clippy::unwrap_used, reason = "a proof fails by panicking")]

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use uffd_guest::protocol::Expect;
use uffd_guest::strangers::Lingering;
use uffd_proof::{Case, SMALL, Setting};

const PAGES: u64 = 4;
const REGIONS: &str = r#"[{"base_host_virt_addr":1099511627776,"size":16384,"offset":0}]"#;

fn open() -> Setting {
    let guest = env!("CARGO_BIN_EXE_uffd-proof-guest");
    let case = Case { guest, page_size: SMALL, tracking: false };
    case.open_with(case.pattern(), &[PAGES], |stage| stage)
}

fn send(stream: &UnixStream, bytes: &str, fds: &[BorrowedFd<'_>]) {
    let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let body = [IoSlice::new(bytes.as_bytes())];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &body, &rights, MsgFlags::MSG_NOSIGNAL, None);
    assert_eq!(sent.unwrap(), bytes.len());
}

#[test]
fn sockets_that_linger_hold_up_nobody() {
    let setting = open();
    let peers: Vec<_> = (0..70)
        .map(|_| {
            let Lingering { socket, reader } = Lingering::new(3600).unwrap();
            let stream = UnixStream::connect(setting.server().path()).unwrap();
            send(&stream, REGIONS, &[socket.as_fd()]);
            // Whoever closes it last waits; where the server was quicker, that is not this thread.
            std::thread::spawn(move || drop(socket));
            (stream, reader)
        })
        .collect();
    for _ in &peers {
        assert_eq!(setting.next_refusal().code(), "ERR_UFFD_HANDOFF_DESCRIPTOR");
    }
    let guest = setting.guest();
    assert_eq!(guest.thread(0).verify(0, PAGES, &[Expect::Source]).unwrap().wrong, 0);
    setting.server().stop();
    drop(peers);
}
