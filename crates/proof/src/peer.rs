//! Peers of a server that need be no VMM: they send what they like, and pass on what is another's.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use uffd_core::handoff::{Limits, Listener};
use uffd_core::kernel::Waker;
use uffd_core::layout::Layout;
use uffd_core::units::PageSize;
use uffd_guest::driver::Guest;

/// A connection to a server.
#[derive(Debug)]
pub struct Peer(UnixStream);

impl Peer {
    /// Connects to the socket at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        UnixStream::connect(path).map(Self)
    }

    /// Sends one piece of a message, with descriptors.
    pub fn send(&self, bytes: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_all(bytes.as_bytes(), &numbers(fds), MsgFlags::empty())
    }

    /// The same for the last byte out of band.
    pub fn send_out_of_band(&self, byte: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_all(byte.as_bytes(), &numbers(fds), MsgFlags::MSG_OOB)
    }

    /// Hands off memory that lies like this, with its userfaultfd.
    pub fn hand_off(&self, layout: &Layout, uffd: BorrowedFd<'_>) -> io::Result<()> {
        self.send(&regions(layout), &[uffd])
    }

    /// Sends all of `bytes`, however long the server takes to read them; the descriptors go with
    /// the first.
    pub(crate) fn send_all(&self, bytes: &[u8], fds: &[RawFd], flags: MsgFlags) -> io::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let mut rights = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let (stream, flags) = (self.0.as_raw_fd(), flags | MsgFlags::MSG_NOSIGNAL);
        let mut rest = bytes;
        while !rest.is_empty() {
            let sent = sendmsg::<()>(stream, &[IoSlice::new(rest)], rights, flags, None)?;
            (rest, rights) = (&rest[sent..], &[]);
        }
        Ok(())
    }

    /// Says that nothing more will be said.
    pub(crate) fn hang_up(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }
}

fn numbers(fds: &[BorrowedFd<'_>]) -> Vec<RawFd> {
    fds.iter().map(AsRawFd::as_raw_fd).collect()
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<UnixStream> for Peer {
    fn from(stream: UnixStream) -> Self {
        Self(stream)
    }
}

/// A guest process whose handoff was received and not passed on yet.
#[derive(Debug)]
pub struct Wanderer {
    /// The guest.
    pub guest: Guest,
    /// Its userfaultfd.
    pub uffd: OwnedFd,
    /// Its regions, as it described them.
    pub regions: String,
}

impl Wanderer {
    /// Starts a guest that hands off to the given socket, which is of this process.
    ///
    /// # Panics
    /// If it does not.
    pub fn start(start: impl FnOnce(&Path) -> Guest) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = Listener::bind(&dir.path().join("uffd.sock")).expect("a socket");
        let guest = start(listener.path());
        let connection = listener.accept().expect("a connection").expect("the guest's");
        let never = Waker::new().expect("an eventfd");
        let handoff = connection.receive(&Limits::new(u64::MAX), never.as_fd());
        let handoff = handoff.expect("a handoff");
        Self { guest, regions: regions(&handoff.layout), uffd: handoff.uffd }
    }

    /// Hands it off to whoever listens at `path`, as this process's.
    pub fn hand_off(&self, path: &Path) -> io::Result<Peer> {
        let peer = Peer::connect(path)?;
        peer.send(&self.regions, &[self.uffd.as_fd()])?;
        Ok(peer)
    }
}

fn regions(layout: &Layout) -> String {
    let size = match layout.page_size() {
        PageSize::Small => crate::SMALL,
        PageSize::Huge => crate::HUGE,
    };
    let regions = layout.regions().iter().map(|region| {
        let (base, start) = (region.base.0, region.pages.start.0 * size);
        let bytes = region.pages.end.0 * size - start;
        format!(
            r#"{{"base_host_virt_addr":{base},"size":{bytes},"offset":{start},"page_size":{size}}}"#
        )
    });
    format!("[{}]", regions.collect::<Vec<_>>().join(","))
}
