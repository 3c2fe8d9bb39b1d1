//! Waiting for a guest that may never speak.

use std::{
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use super::HandoffError;

/// Waiting for a stream, with two ways out.
pub(super) struct Wait<'a> {
    stream: &'a UnixStream,
    cancel: BorrowedFd<'a>,
    /// `None` if it lies further away than the clock can tell.
    deadline: Option<Instant>,
}

/// What ended a wait.
pub(super) enum Woken {
    Readable,
    Cancelled,
    TimeIsUp,
}

impl<'a> Wait<'a> {
    /// The time runs from now.
    pub(super) fn new(stream: &'a UnixStream, cancel: BorrowedFd<'a>, timeout: Duration) -> Self {
        Self { stream, cancel, deadline: Instant::now().checked_add(timeout) }
    }

    /// Looks at the way out first: a peer that never stops talking cannot keep us here.
    pub(super) fn until_readable(&self) -> Result<Woken, HandoffError> {
        loop {
            let left = self.deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let mut fds = [
                PollFd::new(self.cancel, PollFlags::POLLIN),
                PollFd::new(self.stream.as_fd(), PollFlags::POLLIN),
            ];
            match ppoll(&mut fds, left.map(TimeSpec::from_duration), None) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(error) => {
                    return Err(HandoffError::Io {
                        doing: "wait for the guest's handoff",
                        source: error.into(),
                    });
                }
            }
            if fds[0].any() != Some(false) {
                return Ok(Woken::Cancelled);
            }
            if left == Some(Duration::ZERO) {
                return Ok(Woken::TimeIsUp);
            }
            if fds[1].any() != Some(false) {
                return Ok(Woken::Readable);
            }
        }
    }
}
