//! What a server's end has to know of guests whose handoff is over and whose session is not begun:
//! that may take as long as the guest likes, and nobody waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Open for as long as guests are let in.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    preparing: usize,
}

/// A guest that is being prepared for. Told of by whoever comes first: the one that prepares, or
/// the one that closes the gate.
#[derive(Debug)]
pub(super) struct Preparing(Option<Arc<Gate>>);

impl Gate {
    /// Begins to prepare, unless the gate is closed.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Preparing> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        state.preparing += 1;
        Some(Preparing(Some(Arc::clone(self))))
    }

    /// Lets nobody through any more, and tells of each who was under way.
    pub(super) fn close(&self, mut tell: impl FnMut()) {
        let mut state = self.lock();
        state.closed = true;
        (0..std::mem::take(&mut state.preparing)).for_each(|_| tell());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Preparing {
    /// Tells what came of it, unless the gate was closed meanwhile. Says whether it did.
    pub(super) fn tell(mut self, tell: impl FnOnce()) -> bool {
        let Some(gate) = self.0.take() else { return false };
        let mut state = gate.lock();
        if state.closed {
            return false;
        }
        state.preparing -= 1;
        tell();
        true
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        // A panic: there is nothing to tell.
        if let Some(gate) = self.0.take() {
            let mut state = gate.lock();
            state.preparing = state.preparing.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_of_once_before_the_gate_is_closed_or_by_it() {
        let gate = Arc::new(Gate::default());
        let mut told = Vec::new();
        let (early, late, gone) = (gate.enter(), gate.enter(), gate.enter());
        assert!(early.unwrap().tell(|| told.push("early")));
        drop(gone);
        gate.close(|| told.push("closed"));
        assert!(!late.unwrap().tell(|| told.push("late")));
        assert!(gate.enter().is_none());
        gate.close(|| told.push("again"));
        assert_eq!(told, ["early", "closed"]);
    }
}
