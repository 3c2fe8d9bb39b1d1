//! Accepting guests: one thread that waits for connections, and one for each of them.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::arrival::Arrival;
use super::shared::{Shared, UnderWay};
use super::{Refusal, ServerObserver, ServerOptions};
use crate::handoff::{AcceptError, Connection, HandoffError, Listener};
use crate::kernel::{Waker, serve_guests, stay_behind};
use crate::session::SessionError;
use crate::source::Fetcher;

/// Handoffs that may be under way at once. More wait in the socket's backlog, so that peers who
/// say nothing cannot use up the process.
const MOST_HANDOFFS: usize = 64;

/// Where many guests come at once, what their handoffs leave to be closed waits for a core. Only what
/// waits for longer than this waits for a peer.
const BRIEF: Duration = Duration::from_secs(1);

/// How soon is looked again meanwhile.
const BRIEF_PAUSE: Duration = Duration::from_millis(2);

/// How soon is looked again whether the guests that came before were heard of.
const BEHIND_PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Acceptor {
    pub(super) listener: Listener,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) options: ServerOptions,
    pub(super) observer: Arc<dyn ServerObserver>,
    pub(super) shared: Arc<Shared>,
}

impl Acceptor {
    pub(super) fn run(self) {
        let (shared, observer) = (Arc::clone(&self.shared), Arc::clone(&self.observer));
        wait_for_any([&shared.opened, &shared.stop]);
        serve_guests();
        self.accept();
        // The socket is gone. A server whose socket broke goes on with what is under way.
        wait_for_any([&shared.stop]);
        shared.gate.close(|| observer.refused(HandoffError::Cancelled.into()));
        // Whoever was in the middle of a handoff is told to give it up, and does so at once.
        while shared.handoffs() > 0 {
            wait_for_any([&shared.room]);
            shared.room.clear();
        }
    }

    fn accept(self) {
        let mut pause = PollTimeout::NONE;
        let mut crowded_since = None;
        while !self.shared.stop.is_awake() {
            let full = self.shared.handoffs() >= MOST_HANDOFFS;
            let waits = full || pause != PollTimeout::NONE;
            let (stop, room) = (self.shared.stop.as_fd(), self.shared.room.as_fd());
            let next = if waits { room } else { self.listener.as_fd() };
            let mut fds = [stop, room, next].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            let _ = poll(&mut fds, std::mem::replace(&mut pause, PollTimeout::NONE));
            self.shared.room.clear();
            if full || self.shared.stop.is_awake() {
                continue;
            }
            if self.observer.is_behind() {
                pause = PollTimeout::try_from(BEHIND_PAUSE).unwrap_or(PollTimeout::ZERO);
                continue;
            }
            match self.listener.accept() {
                Ok(connection) => {
                    crowded_since = None;
                    connection.into_iter().for_each(|connection| self.hand_over(connection));
                }
                Err(error) if is_brief(&error, &mut crowded_since, Instant::now()) => {
                    pause = PollTimeout::try_from(BRIEF_PAUSE).unwrap_or(PollTimeout::ZERO);
                }
                Err(error) => {
                    let wait = error.retry_after();
                    self.observer.troubled(error);
                    let Some(wait) = wait else { return };
                    pause = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
                }
            }
        }
        // Guests that were left a moment ago want the core on which the socket is closed.
        let _behind = stay_behind();
        drop(self);
    }

    /// A thread for the guest: first for its handoff, then for its faults.
    fn hand_over(&self, connection: Connection) {
        let arrival = Arrival {
            fetcher: Arc::clone(&self.fetcher),
            options: self.options.clone(),
            observer: Arc::clone(&self.observer),
            shared: Arc::clone(&self.shared),
            under_way: UnderWay::begin(&self.shared),
        };
        let started = thread::Builder::new()
            .name("uffd-guest".to_owned())
            .stack_size(256 << 10)
            .spawn(move || arrival.serve(connection));
        if let Err(error) = started {
            self.observer.refused(Refusal::Session(SessionError::Resources {
                what: "a thread for its faults",
                cause: error.to_string(),
            }));
        }
    }
}

/// Whether it says no more than that many came at once: nobody need be told.
fn is_brief(error: &AcceptError, crowded_since: &mut Option<Instant>, now: Instant) -> bool {
    matches!(error, AcceptError::Crowded { .. })
        && now.saturating_duration_since(*crowded_since.get_or_insert(now)) < BRIEF
}

fn wait_for_any<const N: usize>(wakers: [&Waker; N]) {
    while !wakers.iter().any(|waker| waker.is_awake()) {
        let mut fds = wakers.map(|waker| PollFd::new(waker.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut fds, PollTimeout::NONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_told_of_once_it_stays() {
        let crowded = AcceptError::Crowded { path: "uffd.sock".into(), count: 64 };
        let (mut since, begin) = (None, Instant::now());
        for (after, is_told) in [(0, false), (999, false), (1000, true), (1050, true)] {
            let now = begin + Duration::from_millis(after);
            assert_eq!(!is_brief(&crowded, &mut since, now), is_told, "{after} ms");
        }
        // Another one, after somebody was accepted.
        since = None;
        assert!(is_brief(&crowded, &mut since, begin + Duration::from_secs(9)));
        let source = std::io::Error::from_raw_os_error(24);
        let exhausted = AcceptError::Exhausted { path: "uffd.sock".into(), source };
        assert!(!is_brief(&exhausted, &mut since, begin));
    }
}
