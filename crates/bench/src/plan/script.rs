//! What a guest does, and what is done to it.

use std::ops::Range;
use std::time::Duration;

use uffd_core::session::{FaultAround, SessionOptions};
use uffd_core::units::PageRange;
use uffd_guest::protocol::Bench;

/// What the guest does, and what is done to it.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// It touches pages.
    Touch {
        bench: Bench,
        /// What is prefaulted from its first moment on.
        ahead: Ahead,
    },
    /// Its memory is filled as fast as that goes; it does nothing.
    Fill,
    /// All of its memory is there; it gives it back, one madvise call for each run of so many
    /// pages.
    GiveBack { run: u64 },
    /// All of its memory is there; it gives it back in pieces of so many pages, then touches it.
    UseAgain { piece: u64, bench: Bench },
    /// All of its memory is there; it reads so many words at random.
    Roam { reads: u64, seed: u64 },
    /// The second half of its memory is there. One thread gives that back, page by page, while
    /// others touch pages.
    Churn { bench: Bench },
    /// So many threads, all of which wait before the first is served, share all pages at random.
    Waiting { threads: u32, seed: u64 },
    /// Every other page is there. The guest touches pages, and its handler is disturbed.
    Stall { bench: Bench, by: Disturbance },
    /// So many guests touch pages at once.
    Together { guests: u64, bench: Bench },
    /// So many guests of servers in processes of their own touch so many pages at once, again and
    /// again, and whoever serves them is interrupted in the middle.
    Outlive { guests: u64, pace: Pace, times: u64, touches: u64, by: Interruption },
    /// So many guests touch a few pages, then none does anything for so long.
    Idle { guests: u64, millis: u64 },
}

impl Script {
    /// Where threads stay, unless that is left to the scheduler.
    pub(crate) const fn placement(&self) -> Placement {
        match self {
            // Whoever fills memory may use all cores, as the guest does nothing.
            Self::Fill | Self::Idle { .. } | Self::Outlive { .. } => Placement::Free,
            Self::Together { .. } => Placement::TwoCores,
            Self::Touch { .. }
            | Self::GiveBack { .. }
            | Self::UseAgain { .. }
            | Self::Roam { .. }
            | Self::Churn { .. }
            | Self::Stall { .. }
            | Self::Waiting { .. } => Placement::Apart,
        }
    }

    /// Of so many pages, those that are there before anything is measured.
    pub(crate) fn filled(&self, pages: u64) -> Vec<PageRange> {
        match self {
            Self::GiveBack { .. } | Self::UseAgain { .. } | Self::Roam { .. } => {
                vec![PageRange::new(0, pages)]
            }
            Self::Churn { .. } => vec![PageRange::new(pages / 2, pages)],
            // As many runs of pages as there can be.
            Self::Stall { .. } => {
                (0..pages).step_by(2).map(|page| PageRange::new(page, page + 1)).collect()
            }
            Self::Touch { .. }
            | Self::Fill
            | Self::Waiting { .. }
            | Self::Together { .. }
            | Self::Outlive { .. }
            | Self::Idle { .. } => Vec::new(),
        }
    }
}

/// What a handler has to do besides serving faults, again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    Nothing,
    /// It tells the state of all pages.
    Export,
}

/// What happens to a server that has a guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interruption {
    Nothing,
    /// It is killed, and the guardian serves.
    Kill,
    /// It hands over to the guardian, which gives back to the next server.
    HandOver,
}

/// What a guest does between its touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// It computes for 5 µs.
    Work,
    /// It sleeps for 4 ms.
    Pause,
}

/// Where threads stay.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Placement {
    /// Wherever the scheduler has them.
    Free,
    /// Handlers on the first core, guests on the others.
    Apart,
    /// All on the first two cores.
    TwoCores,
}

/// What is prefaulted.
#[derive(Clone, Debug)]
pub(crate) enum Ahead {
    Nothing,
    /// These pages.
    Pages(Range<u64>),
    /// What another guest, served like this one but for these options, faulted on when it did
    /// this.
    Trace {
        of: Bench,
        recorder: Box<SessionOptions>,
        /// How long the guest waits for it at the most before its first touch.
        first: Duration,
    },
}

impl Ahead {
    /// The trace of a guest that was served page by page, so that it has every page touched.
    pub(crate) fn trace_by_one_page(of: Bench) -> Self {
        let recorder = SessionOptions { fault_around: FaultAround::Off, ..Default::default() };
        Self::Trace { of, recorder: Box::new(recorder), first: Duration::ZERO }
    }

    /// The same, and the guest waits for it for so long at the most.
    pub(crate) fn trace_first(of: Bench, wait: Duration) -> Self {
        match Self::trace_by_one_page(of) {
            Self::Trace { of, recorder, .. } => Self::Trace { of, recorder, first: wait },
            other => other,
        }
    }
}
