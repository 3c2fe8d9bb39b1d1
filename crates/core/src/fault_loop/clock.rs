//! What time it is. A look at the clock costs as much as a hundredth of a fault, so the steps that
//! serve one share its looks.

use std::time::Instant;

/// The clock, and what it said last.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<Instant>,
}

impl Clock {
    /// What time it is.
    pub(super) fn look(&mut self) -> Instant {
        let now = Instant::now();
        self.last = Some(now);
        now
    }

    /// What time it was at the last look, if no [time has passed](Self::pass) since.
    pub(super) fn recent(&mut self) -> Instant {
        self.last.unwrap_or_else(|| self.look())
    }

    /// Events were waited for, or read: whatever the clock said is old.
    pub(super) const fn pass(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_shared_until_time_passes() {
        let mut clock = Clock::default();
        let first = clock.recent();
        assert_eq!(clock.recent(), first);
        let second = clock.look();
        assert!(second >= first);
        assert_eq!(clock.recent(), second);
        clock.pass();
        let before = Instant::now();
        assert!(clock.recent() >= before, "an old look after time has passed");
    }
}
