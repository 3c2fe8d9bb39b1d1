//! What a server's threads have in common: the one that accepts, and those of its guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::gate::Gate;
use super::guests::Guests;
use crate::kernel::Waker;

/// What a server's threads have in common.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) stop: Waker,
    /// Guests that were left have been taken over: others may come.
    pub(super) opened: Waker,
    /// A handoff has ended, so that there is room for another.
    pub(super) room: Waker,
    handoffs: AtomicUsize,
    pub(super) gate: Arc<Gate>,
    pub(super) guests: Arc<Guests>,
}

impl Shared {
    pub(super) fn new(guests: Arc<Guests>) -> nix::Result<Self> {
        let (stop, opened, room) = (Waker::new()?, Waker::new()?, Waker::new()?);
        let (handoffs, gate) = (AtomicUsize::new(0), Arc::default());
        Ok(Self { stop, opened, room, handoffs, gate, guests })
    }

    /// How many handoffs are under way.
    pub(super) fn handoffs(&self) -> usize {
        self.handoffs.load(Ordering::Acquire)
    }
}

/// Counts a handoff for as long as it lives.
pub(super) struct UnderWay(Arc<Shared>);

impl UnderWay {
    pub(super) fn begin(shared: &Arc<Shared>) -> Self {
        shared.handoffs.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.handoffs.fetch_sub(1, Ordering::AcqRel);
        self.0.room.wake();
    }
}
