//! Who answers a guest's faults.

use uffd_core::session::{FaultAround, SessionOptions};

/// Who answers the guest's faults.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Handler {
    /// Nobody: the guest maps the file itself.
    File,
    /// Nobody: the memory is registered nowhere, and what is missing is zero-filled by the kernel.
    Kernel,
    /// One thread: poll, read one event, COPY one page.
    Plain(Plain),
    /// No handler either: the whole memory is filled by COPYs of 2 MiB.
    RawCopy {
        /// Whether the file was mapped, and its pages entered into the page table, before.
        mapped_before: bool,
        /// How many of them share the work.
        threads: u64,
    },
    /// A session of uffd-rs.
    Uffd(SessionOptions),
    /// A session of uffd-rs whose guest is known to have pages of 2 MiB before it comes.
    UffdExpecting(SessionOptions),
    /// A session of uffd-rs whose guest outlives its process.
    UffdKept(SessionOptions),
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
            Self::Uffd(options)
            | Self::UffdExpecting(options)
            | Self::UffdKept(options)
            | Self::UffdAgain(options)
            | Self::UffdPacked(options) => Some(options),
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
