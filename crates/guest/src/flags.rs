//! The flags of the userfaultfd, which the guest shares with whoever serves it: they belong to the
//! open file, and not to either's descriptor.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::guest::Guest;

/// Between two changes: long enough for a handler to run into either.
const PAUSE: Duration = Duration::from_micros(100);

/// Sets or clears O_NONBLOCK.
pub(crate) fn set_nonblocking(fd: impl AsFd, on: bool) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    let flags = if on { flags | OFlag::O_NONBLOCK } else { flags - OFlag::O_NONBLOCK };
    fcntl(&fd, FcntlArg::F_SETFL(flags)).map(drop)
}

/// Clears and sets O_NONBLOCK for as long as the guest lives.
pub(crate) fn play(guest: Arc<Guest>) -> io::Result<()> {
    let player = move || {
        for on in [false, true].into_iter().cycle() {
            if set_nonblocking(guest.uffd.as_fd(), on).is_err() {
                return;
            }
            thread::sleep(PAUSE);
        }
    };
    thread::Builder::new().name("flags".into()).spawn(player).map(drop)
}
