//! How a session is to behave.

use std::time::Duration;

use crate::units::PageSize;

/// Whether dirty pages are tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirtyTracking {
    /// If the VMM registered its memory for write protection, and not otherwise.
    #[default]
    Auto,
    /// Always: the registration is upgraded, and a guest for which that fails is refused.
    On,
    /// Never: nothing is installed write-protected.
    Off,
}

/// What becomes of a page that cannot be had before the deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unservable {
    /// It is poisoned: accesses raise SIGBUS, which ends a stock Firecracker. Where the kernel
    /// cannot (before Linux 6.6), the session fails as with [`Fail`](Self::Fail).
    #[default]
    Poison,
    /// The guest is killed, and the session fails.
    Kill,
    /// The session fails; the orchestrator decides about the guest, whose threads wait.
    Fail,
}

/// How many pages may be filled when one is missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FaultAround {
    /// Exactly the one.
    Off,
    /// As many as the access pattern asks for, as far as is sensible.
    #[default]
    Adaptive,
    /// As many as the access pattern asks for, at most so many pages.
    AtMost(u64),
}

impl FaultAround {
    /// The most pages of the source's bytes to fill at once.
    pub(crate) fn pages(self, page_size: PageSize) -> u64 {
        self.at_most(crate::window::widest(page_size))
    }

    /// The most pages of zeros to fill at once.
    pub(crate) fn zeros(self, page_size: PageSize) -> u64 {
        self.at_most(crate::window::widest_of_zeros(page_size))
    }

    /// The most pages to fill at once with zeros of the guest's own: they are about to be written, or
    /// have to be protected.
    pub(crate) fn written(self, page_size: PageSize) -> u64 {
        self.at_most(crate::window::widest_of_written(page_size))
    }

    /// The most pages to install ahead of somebody who walks.
    pub(crate) fn ahead(self, page_size: PageSize) -> u64 {
        let most = crate::window::most_ahead(page_size);
        match self {
            Self::Off => 0,
            Self::Adaptive => most,
            Self::AtMost(pages) => most.min(pages.saturating_sub(1)),
        }
    }

    fn at_most(self, sensible: u64) -> u64 {
        // One page is wider than the widest window where pages are huge.
        let sensible = sensible.max(1);
        match self {
            Self::Off => 1,
            Self::Adaptive => sensible,
            Self::AtMost(pages) => pages.clamp(1, sensible),
        }
    }
}

/// How a session is to behave. The default is safe, and fast on an ordinary host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Whether dirty pages are tracked.
    pub dirty_tracking: DirtyTracking,
    /// How many pages may be filled when one is missed.
    pub fault_around: FaultAround,
    /// What becomes of a page that cannot be had before the deadline.
    pub on_unservable: Unservable,
    /// How long a fault may wait for a page that cannot be had. 30 seconds.
    pub fault_deadline: Duration,
    /// Whether first touches are recorded, 16 bytes each.
    pub trace: bool,
    /// Whether the loop may try to read for some microseconds before it sleeps.
    pub short_waits: bool,
    /// Whether 2 MiB of small pages that are all installed become a transparent huge page.
    pub collapse: bool,
    /// Whether the guest is killed when its session fails: its threads would wait for ever.
    pub kill_on_failure: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            dirty_tracking: DirtyTracking::Auto,
            fault_around: FaultAround::Adaptive,
            on_unservable: Unservable::Poison,
            fault_deadline: Duration::from_secs(30),
            trace: true,
            short_waits: true,
            collapse: false,
            kill_on_failure: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_a_page_at_least_and_is_sensible_at_most() {
        for size in [PageSize::Small, PageSize::Huge] {
            let sensible = FaultAround::Adaptive.pages(size);
            assert_eq!(FaultAround::Off.pages(size), 1);
            assert_eq!(FaultAround::AtMost(0).pages(size), 1);
            assert_eq!(FaultAround::AtMost(u64::MAX).pages(size), sensible);
            assert!(sensible >= 1);
        }
        assert_eq!(FaultAround::AtMost(3).pages(PageSize::Small), 3);
        let ahead = |around: FaultAround| around.ahead(PageSize::Huge);
        let all = [FaultAround::Off, FaultAround::AtMost(1), FaultAround::AtMost(2)];
        assert_eq!(all.map(ahead), [0, 0, 1]);
        assert_eq!(FaultAround::Adaptive.ahead(PageSize::Small), 0);
    }
}
