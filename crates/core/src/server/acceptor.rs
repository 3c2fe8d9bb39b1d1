//! Accepting guests: one thread that waits for connections, and one for each of them.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::arrival::Arrival;
use super::shared::{Shared, UnderWay};
use super::{Refusal, ServerObserver, ServerOptions};
use crate::handoff::{Connection, HandoffError, Listener};
use crate::kernel::Waker;
use crate::session::SessionError;
use crate::source::Fetcher;

/// Handoffs that may be under way at once. More wait in the socket's backlog, so that peers who
/// say nothing cannot use up the process.
const MOST_HANDOFFS: usize = 64;

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
            match self.listener.accept() {
                Ok(Some(connection)) => self.hand_over(connection),
                Ok(None) => {}
                Err(error) => {
                    let wait = error.retry_after();
                    self.observer.troubled(error);
                    let Some(wait) = wait else { return };
                    pause = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
                }
            }
        }
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

fn wait_for_any<const N: usize>(wakers: [&Waker; N]) {
    while !wakers.iter().any(|waker| waker.is_awake()) {
        let mut fds = wakers.map(|waker| PollFd::new(waker.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut fds, PollTimeout::NONE);
    }
}
