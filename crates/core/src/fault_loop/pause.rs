//! Pauses between tries, each longer than the one before.

use std::time::{Duration, Instant};

/// How long to pause.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    first: Duration,
    longest: Duration,
}

/// While the address space is changing: it takes the guest's thread a moment to go on.
pub(super) const CHANGING: Pauses =
    Pauses { first: Duration::from_micros(10), longest: Duration::from_millis(5) };

/// While a page cannot be had.
pub(super) const TROUBLED: Pauses =
    Pauses { first: Duration::from_millis(1), longest: Duration::from_millis(100) };

impl Pauses {
    /// The pause after so many.
    pub(super) fn after(self, attempts: u32) -> Duration {
        self.first.saturating_mul(1 << attempts.min(16)).min(self.longest)
    }
}

/// Work that something keeps from being done.
#[derive(Debug)]
pub(super) struct Blocked {
    since: Instant,
    pub(super) until: Instant,
    attempts: u32,
}

impl Blocked {
    /// Puts another try off; since when that has been going on.
    pub(super) fn again(slot: &mut Option<Self>, pauses: Pauses) -> Instant {
        let now = Instant::now();
        let blocked = slot.get_or_insert(Self { since: now, until: now, attempts: 0 });
        blocked.until = now + pauses.after(blocked.attempts);
        blocked.attempts = blocked.attempts.saturating_add(1);
        blocked.since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        for pauses in [CHANGING, TROUBLED] {
            assert_eq!(pauses.after(0), pauses.first);
            let grows = |attempts| {
                let (now, next) = (pauses.after(attempts), pauses.after(attempts + 1));
                next == now * 2 || next == pauses.longest
            };
            assert!((0..40).all(grows));
            assert_eq!(pauses.after(u32::MAX), pauses.longest);
        }
    }

    #[test]
    fn work_that_stays_blocked_counts_from_the_first_time() {
        let mut slot = None;
        let since = Blocked::again(&mut slot, CHANGING);
        let until = slot.as_ref().unwrap().until;
        assert_eq!(Blocked::again(&mut slot, CHANGING), since);
        assert!(slot.unwrap().until > until);
    }
}
