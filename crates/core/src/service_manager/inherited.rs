//! The descriptors that a service manager started this process with: guests' userfaultfds by their
//! names, and sockets.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::net::{SocketAddrUnix, SocketType, getsockname, sockopt};

use super::lock;
use super::names::is_name;
use super::trouble::Trouble;
use crate::kernel::{self, Inherited};

/// What `/proc/self/fd` says of a userfaultfd.
const USERFAULTFD: &str = "anon_inode:[userfaultfd]";

/// What is kept by a guest's name: its userfaultfd, or what else it is.
pub(super) type Copies = HashMap<String, Result<OwnedFd, String>>;

/// Those that were passed: `count` of them (LISTEN_FDS), with `names` (LISTEN_FDNAMES).
///
/// Whatever is neither a guest's nor a socket is left alone, and so are the numbers of sockets: others
/// in this process may know them.
pub(super) fn take(count: &str, names: Option<&str>) -> Result<(Copies, Sockets), Trouble> {
    let wrong = |cause: &dyn ToString| Trouble::Inherited {
        count: count.to_owned(),
        cause: cause.to_string(),
    };
    let number: u32 = count.parse().map_err(|_| wrong(&"it is no number"))?;
    if let Some(names) = names
        && names.split(':').count() != number as usize
    {
        return Err(wrong(&format!("LISTEN_FDNAMES has {} names", names.split(':').count())));
    }
    let all = kernel::inherited(number)
        .map_err(|errno| wrong(&format!("they are not all open, or taken already ({errno})")))?;
    let (mut copies, mut sockets) = (Copies::new(), Vec::new());
    let names = names.into_iter().flat_map(|names| names.split(':')).chain(std::iter::repeat(""));
    for (fd, name) in all.into_iter().zip(names) {
        if is_name(name) {
            // What cannot be looked at stays as it is.
            let Ok(what) = fd.what() else { continue };
            let copy = match what.to_str() {
                Some(USERFAULTFD) => Ok(fd.take()),
                // It may be anybody's, whatever the manager calls it: it is not closed.
                _ => Err(what.display().to_string()),
            };
            copies.insert(name.to_owned(), copy);
        } else if let Some(path) = path_of(&fd) {
            sockets.push(Arc::new(Socket { fd, path }));
        }
    }
    Ok((copies, Sockets(Mutex::new(sockets))))
}

/// Where a Unix socket is.
fn path_of(fd: &Inherited) -> Option<PathBuf> {
    let address = SocketAddrUnix::try_from(getsockname(fd).ok()?).ok()?;
    let path = address.path()?;
    Some(PathBuf::from(std::ffi::OsStr::new(path.to_str().ok()?)))
}

#[derive(Debug)]
struct Socket {
    fd: Inherited,
    path: PathBuf,
}

/// The Unix sockets that were passed.
#[derive(Debug, Default)]
pub(super) struct Sockets(Mutex<Vec<Arc<Socket>>>);

/// One that is used by a server, for as long as this lives. The manager goes on listening.
#[derive(Debug)]
pub(crate) struct InheritedSocket(Arc<Socket>);

impl Sockets {
    pub(super) fn at(&self, path: &Path) -> Option<InheritedSocket> {
        let sockets = lock(&self.0);
        let socket = sockets.iter().find(|socket| is_same_place(&socket.path, path))?;
        Some(InheritedSocket(Arc::clone(socket)))
    }

    pub(super) fn unused(&self) -> Vec<PathBuf> {
        let sockets = lock(&self.0);
        let unused = sockets.iter().filter(|socket| Arc::strong_count(socket) == 1);
        unused.map(|socket| socket.path.clone()).collect()
    }
}

/// Whether two paths name one file, which need not be there.
fn is_same_place(one: &Path, other: &Path) -> bool {
    let place = |path: &Path| {
        let path = std::path::absolute(path).ok()?;
        let folder = path.parent()?.canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    one == other || matches!((place(one), place(other)), (Some(one), Some(other)) if one == other)
}

impl InheritedSocket {
    /// What it is instead of a stream socket that listens, if it is none.
    pub(crate) fn flaw(&self) -> Option<&'static str> {
        match sockopt::socket_type(&self.0.fd) {
            Ok(SocketType::STREAM) => {}
            Ok(SocketType::DGRAM) => return Some("a datagram socket (ListenDatagram=)"),
            Ok(SocketType::SEQPACKET) => {
                return Some("a sequential socket (ListenSequentialPacket=)");
            }
            _ => return Some("no stream socket"),
        }
        match sockopt::socket_acceptconn(&self.0.fd) {
            Ok(true) => None,
            _ => Some("a socket that does not listen (Accept=yes)"),
        }
    }

    /// Whether a server has it besides.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 2
    }

    /// A descriptor of it.
    pub(crate) fn copy(&self) -> io::Result<OwnedFd> {
        self.0.fd.as_fd().try_clone_to_owned()
    }
}
