//! What is to be measured, as plain data.

use std::ops::Range;

use uffd_core::session::{FaultAround, SessionOptions};
use uffd_core::units::PageRange;
use uffd_guest::protocol::Bench;

/// A guest, whoever serves it, and what it does meanwhile: one bar of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Contender {
    /// Its name, the same in every round.
    pub(crate) name: &'static str,
    pub(crate) snapshot: Snapshot,
    /// Whether the snapshot is out of the page cache when the guest starts.
    pub(crate) cold: bool,
    pub(crate) handler: Handler,
    pub(crate) script: Script,
}

/// The contents of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Snapshot {
    pub(crate) pages: u64,
    pub(crate) page_size: u64,
    /// Of 1000 runs of 64 KiB, how many are holes of the file.
    pub(crate) zero_per_mille: u64,
}

impl Snapshot {
    pub(crate) const fn small(pages: u64) -> Self {
        Self { pages, page_size: 4096, zero_per_mille: 0 }
    }

    pub(crate) const fn huge(pages: u64) -> Self {
        Self { pages, page_size: 2 << 20, zero_per_mille: 0 }
    }
}

/// Who answers the guest's faults.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Handler {
    /// Nobody: the guest maps the file itself.
    File,
    /// Nobody: the memory is registered nowhere, and what is missing is zero-filled by the kernel.
    Kernel,
    /// One thread: poll, read one event, COPY one page.
    Plain(Plain),
    /// Nobody either: the whole memory is filled by COPYs of 2 MiB.
    RawCopy {
        /// Whether the file was mapped, and its pages entered into the page table, before.
        mapped_before: bool,
        /// How many of them share the work.
        threads: u64,
    },
    /// A session of uffd-rs.
    Uffd(SessionOptions),
    /// A session of uffd-rs on a snapshot that has served another guest just before.
    UffdAgain(SessionOptions),
    /// A session of uffd-rs that has the pages of the trace in a file of their own.
    UffdPacked(SessionOptions),
}

/// What a handler does that keeps no states.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain {
    /// Whether its mapping of a warm file is populated before it listens.
    pub(crate) populated: bool,
    /// Whether it unregisters what is given back.
    pub(crate) unregisters: bool,
}

impl Plain {
    /// The least there can be: what it serves after a REMOVE is wrong.
    pub(crate) const FLOOR: Self = Self { populated: true, unregisters: false };
    /// One that maps the file and copies from it.
    pub(crate) const MAPPING: Self = Self { populated: false, unregisters: false };
    /// As the example handlers of Firecracker.
    pub(crate) const UNREGISTERING: Self = Self { populated: true, unregisters: true };
}

impl Handler {
    /// The least handler.
    pub(crate) const FLOOR: Self = Self::Plain(Plain::FLOOR);

    /// How its session is to behave, if it has one.
    pub(crate) const fn session(self) -> Option<SessionOptions> {
        match self {
            Self::Uffd(options) | Self::UffdAgain(options) | Self::UffdPacked(options) => {
                Some(options)
            }
            Self::File | Self::Kernel | Self::Plain(_) | Self::RawCopy { .. } => None,
        }
    }

    /// uffd-rs as it comes.
    pub(crate) fn defaults() -> Self {
        Self::Uffd(SessionOptions::default())
    }

    /// uffd-rs with other options.
    pub(crate) fn with(change: impl FnOnce(&mut SessionOptions)) -> Self {
        let mut options = SessionOptions::default();
        change(&mut options);
        Self::Uffd(options)
    }

    /// uffd-rs with one page a fault.
    pub(crate) fn one_page() -> Self {
        Self::with(|options| options.fault_around = FaultAround::Off)
    }
}

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
    /// The second half of its memory is there. One thread gives that back, page by page, while
    /// others touch pages.
    Churn { bench: Bench },
    /// So many threads, all of which wait before the first is served, share all pages at random.
    Waiting { threads: u32, seed: u64 },
    /// Every other page is there. The guest touches pages, and its handler is disturbed.
    Stall { bench: Bench, by: Disturbance },
    /// So many guests touch pages at once.
    Together { guests: u64, bench: Bench },
    /// So many guests touch a few pages, then none does anything for so long.
    Idle { guests: u64, millis: u64 },
}

impl Script {
    /// Where threads stay, unless that is left to the scheduler.
    pub(crate) const fn placement(&self) -> Placement {
        match self {
            // Whoever fills memory may use all cores, as the guest does nothing.
            Self::Fill | Self::Idle { .. } => Placement::Free,
            Self::Together { .. } => Placement::TwoCores,
            Self::Touch { .. }
            | Self::GiveBack { .. }
            | Self::UseAgain { .. }
            | Self::Churn { .. }
            | Self::Stall { .. }
            | Self::Waiting { .. } => Placement::Apart,
        }
    }

    /// Of so many pages, those that are there before anything is measured.
    pub(crate) fn filled(&self, pages: u64) -> Vec<PageRange> {
        match self {
            Self::GiveBack { .. } | Self::UseAgain { .. } => vec![PageRange::new(0, pages)],
            Self::Churn { .. } => vec![PageRange::new(pages / 2, pages)],
            // As many runs of pages as there can be.
            Self::Stall { .. } => {
                (0..pages).step_by(2).map(|page| PageRange::new(page, page + 1)).collect()
            }
            Self::Touch { .. }
            | Self::Fill
            | Self::Waiting { .. }
            | Self::Together { .. }
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
    },
}

impl Ahead {
    /// The trace of a guest that was served page by page, so that it has every page touched.
    pub(crate) fn trace_by_one_page(of: Bench) -> Self {
        let recorder = SessionOptions { fault_around: FaultAround::Off, ..Default::default() };
        Self::Trace { of, recorder: Box::new(recorder) }
    }
}
