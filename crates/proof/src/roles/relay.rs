//! A process that takes a guest's handoff, passes it on and lives on: whoever connects is not
//! whose memory it is.

use std::io::{self, BufRead, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use uffd_core::handoff::{Connection, Handoff, Limits};
use uffd_core::kernel::Waker;
use uffd_guest::handoff::RegionJson;

type Failure = Box<dyn std::error::Error>;

pub(super) fn play(args: &[String]) -> Result<(), Failure> {
    let [listen, forward] = args else { return Err("a relay needs two sockets".into()) };
    let listener = UnixListener::bind(listen)?;
    writeln!(io::stdout(), "listening")?;
    let connection = Connection::new(listener.accept()?.0)?;
    let never = Waker::new()?;
    let handoff = connection.receive(&Limits::new(u64::MAX), never.as_fd())?;
    let onward = pass_on(&handoff, forward)?;
    writeln!(io::stdout(), "passed on")?;
    for _ in io::stdin().lock().lines().map_while(Result::ok) {
        writeln!(io::stdout(), "here")?;
    }
    drop((handoff, onward));
    Ok(())
}

fn pass_on(handoff: &Handoff, socket: &str) -> Result<UnixStream, Failure> {
    let page_size = handoff.layout.page_size();
    let regions = handoff.layout.regions().iter().map(|region| RegionJson {
        base_host_virt_addr: region.base.0,
        size: region.size(page_size),
        offset: region.offset(page_size),
        page_size: Some(page_size.bytes()),
        page_size_kib: Some(page_size.bytes()),
    });
    let body = serde_json::to_vec(&regions.collect::<Vec<_>>())?;
    let onward = UnixStream::connect(socket)?;
    let fds = [handoff.uffd.as_raw_fd()];
    let (body, rights) = ([IoSlice::new(&body)], [ControlMessage::ScmRights(&fds)]);
    sendmsg::<()>(onward.as_raw_fd(), &body, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(onward)
}
