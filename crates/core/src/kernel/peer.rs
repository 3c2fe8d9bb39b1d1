//! Who is at the other end of a socket that another part of this process holds.

use nix::errno::Errno;
use nix::libc;

/// The process that connected, or that listened, as the kernel noted it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id here; 0 where it cannot be seen from here.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
}

/// Who is at the other end of the Unix socket with this number (`SO_PEERCRED`).
///
/// ENOTSOCK, EBADF and the like where the number is no connected Unix socket's.
pub fn peer_of(number: i32) -> nix::Result<Peer> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let size = size_of_val(&credentials);
    let mut length = libc::socklen_t::try_from(size).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a number that is no socket is refused; the kernel writes no more than `length` bytes,
    // which are there, into a structure that may hold any bytes.
    let done = unsafe {
        libc::getsockopt(
            number,
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    Errno::result(done)?;
    // A socket of another family has no such peer, and the kernel says so with nobody's numbers.
    if usize::try_from(length) != Ok(size) || credentials.uid == u32::MAX {
        return Err(Errno::ENOTCONN);
    }
    Ok(Peer { pid: credentials.pid, uid: credentials.uid })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_peer_of_a_unix_socket_is_known() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = peer_of(one.as_raw_fd()).unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        assert_eq!(peer, Peer { pid: std::process::id().cast_signed(), uid });
    }

    #[test]
    fn what_is_no_unix_socket_has_no_peer() {
        let file = File::open("/dev/null").unwrap();
        assert_eq!(peer_of(file.as_raw_fd()), Err(Errno::ENOTSOCK));
        assert_eq!(peer_of(-1), Err(Errno::EBADF));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(peer_of(tcp.as_raw_fd()).is_err());
    }
}
