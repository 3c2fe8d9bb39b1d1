//! Descriptors that no VMM would send, for handlers to survive.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use userfaultfd_sys as sys;

use crate::raw::{create_uninitialised, create_user_mode_only, set_up_io_uring};

/// A TCP connection with unsent bytes: whoever closes it last waits, for as long as it lingers or
/// until the [`Reader`] goes.
#[derive(Debug)]
pub struct Lingering {
    /// The end that lingers.
    pub socket: OwnedFd,
    /// The end that does not read.
    pub reader: Reader,
}

/// Keeps the other end of a connection, and reads nothing from it.
#[derive(Debug)]
pub struct Reader {
    _stream: TcpStream,
}

impl Lingering {
    /// Lingers for so many seconds.
    pub fn new(seconds: i32) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        // Little room, so that little fills it; accepted connections have the same.
        setsockopt(&listener, sockopt::RcvBuf, &4096)?;
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        let reader = Reader { _stream: listener.accept()?.0 };
        setsockopt(&stream, sockopt::SndBuf, &4096)?;
        stream.set_nonblocking(true)?;
        loop {
            match stream.write(&[0; 16 << 10]) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        // A non-blocking socket lingers as well.
        let linger = libc::linger { l_onoff: 1, l_linger: seconds };
        setsockopt(&stream, sockopt::Linger, &linger)?;
        Ok(Self { socket: stream.into(), reader })
    }
}

/// A userfaultfd for the memory of this process.
pub fn own_userfaultfd() -> io::Result<OwnedFd> {
    let uffd = create_user_mode_only(sys::UFFD_FEATURE_EVENT_REMOVE)?;
    uffd.as_fd().try_clone_to_owned()
}

/// Memory of this process that is registered with a userfaultfd. Whoever touches it waits for
/// somebody who serves it.
#[derive(Debug)]
pub struct Registered {
    /// The userfaultfd.
    pub uffd: OwnedFd,
    /// It is mapped apart from other memory, and nobody has touched it.
    memory: Vec<u8>,
    /// Where its first whole page begins.
    start: usize,
}

const PAGE: usize = 4096;

/// Enough for the allocator to map it apart.
const ROOM: usize = 4 << 20;

impl Registered {
    /// So many pages of 4 KiB.
    pub fn new(pages: usize) -> io::Result<Self> {
        let uffd = create_user_mode_only(sys::UFFD_FEATURE_EVENT_REMOVE)?;
        let mut memory = vec![0; ROOM];
        // Not the first page, which the allocator has written to.
        let start = memory.as_ptr().align_offset(PAGE) + PAGE;
        let registered = memory[start..start + pages * PAGE].as_mut_ptr();
        uffd.register(registered.cast(), pages * PAGE).map_err(io::Error::other)?;
        Ok(Self { uffd: uffd.as_fd().try_clone_to_owned()?, memory, start })
    }

    /// The address of its first page.
    pub fn base(&self) -> u64 {
        self.memory[self.start..].as_ptr().addr() as u64
    }

    /// Reads a byte of a page, which waits for whoever serves it.
    pub fn touch(&self, page: usize) -> u8 {
        self.memory[self.start + page * PAGE]
    }
}

/// A userfaultfd for nothing yet: nobody has said which features it is to have.
pub fn raw_userfaultfd() -> io::Result<OwnedFd> {
    Ok(create_uninitialised()?)
}

/// An io_uring.
pub fn io_uring() -> io::Result<OwnedFd> {
    Ok(set_up_io_uring()?)
}
