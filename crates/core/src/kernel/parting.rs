//! Closing a descriptor without waiting for what it takes.

use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::libc;

/// Closes `fd`, which a stranger had a hand in, at the end of a thread. What waits in a socket's
/// queue is closed with it, and a close may wait for as long as a stranger says (SO_LINGER); but
/// the kernel lets nobody linger who is ending. The thread is not waited for.
///
/// Returns `fd` where there is no thread or no memory for that.
pub(crate) fn close_at_end_of_thread(fd: OwnedFd) -> Result<(), OwnedFd> {
    let (ready, is_ready) = mpsc::channel();
    let (closed, is_closed) = mpsc::channel::<()>();
    let keeper = thread::Builder::new().name("uffd-parting".to_owned()).stack_size(64 << 10);
    let started = keeper.spawn(move || {
        if own_table().is_ok() {
            let _ = ready.send(());
            // Nothing is ever sent: its sender goes when `fd` is closed.
            let _ = is_closed.recv();
        }
    });
    match started.is_ok() && is_ready.recv().is_ok() {
        true => {
            // Not the last: the thread's table has a copy.
            drop(fd);
            drop(closed);
            Ok(())
        }
        false => Err(fd),
    }
}

/// Gives the calling thread a copy of the table of descriptors.
fn own_table() -> nix::Result<()> {
    const NONE: u32 = u32::MAX;
    // As `unshare`, which containers often forbid: of the copy, a range is closed that is empty.
    // SAFETY: plain integers. The thread ends without a look at any descriptor.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, NONE, NONE, libc::CLOSE_RANGE_UNSHARE) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn it_is_closed_at_last() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        close_at_end_of_thread(theirs.into()).unwrap();
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
    }
}
