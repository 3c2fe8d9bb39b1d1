//! The fill table: what a missing page is filled with, how, and what its state becomes. Pure.

use crate::kernel::Protection;
use crate::states::PageState;
use crate::units::PageSize;

/// What a missing page is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The snapshot's bytes, which may turn out to be zeros.
    Source,
    /// Zeros, whatever the snapshot holds.
    Zeros,
    /// Nothing: accesses raise SIGBUS.
    Poison,
}

/// Why a page is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A thread waits to read it.
    Read,
    /// A thread waits to write it.
    Write,
    /// Nobody waits: a prefault, or a neighbour filled around a fault. Counts as a read.
    Ahead,
}

/// How to fill a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// UFFDIO_ZEROPAGE: the shared zero page, no host memory.
    ZeroPage,
    /// UFFDIO_COPY of zeros.
    CopyZeros(Protection),
    /// UFFDIO_COPY of the source's bytes.
    CopySource(Protection),
}

/// Who learns of the first write to a page that was filled for a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracking {
    /// Nobody: nothing can be said about later writes.
    Off,
    /// The fault loop, by a write-protect fault.
    Sync,
    /// The kernel, which clears the protection itself (WP_ASYNC); PAGEMAP_SCAN tells.
    Async,
}

impl Tracking {
    /// Whether pages filled for reading are installed write-protected.
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}

/// The one rule: the source if and only if the page was never installed; zeros in every other
/// state. A poisoned page stays poisoned: neither is true of it.
pub const fn content(state: PageState) -> Content {
    match state {
        PageState::Unfaulted => Content::Source,
        PageState::Poisoned => Content::Poison,
        PageState::Clean | PageState::Zero | PageState::Dirty | PageState::Removed => {
            Content::Zeros
        }
    }
}

/// What decides how the pages of one guest are filled, besides their states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The guest's page size.
    pub page_size: PageSize,
    /// Who learns of writes.
    pub tracking: Tracking,
    /// Whether the guest's page map tells which zero pages were written, so that they need no
    /// protection.
    pub page_map_tells: bool,
}

impl Rules {
    /// Whether pages of zeros stay unprotected although writes are tracked.
    pub const fn unprotected_zeros(self) -> bool {
        self.tracking.is_on() && self.page_map_tells && matches!(self.page_size, PageSize::Small)
    }

    /// How a page is filled, with the source's bytes or (`zeros`) with zeros, and its new state.
    pub const fn plan(self, access: Access, zeros: bool) -> (Method, PageState) {
        let write = matches!(access, Access::Write);
        let tracked = self.tracking.is_on() && !(zeros && self.unprotected_zeros());
        let protection =
            if tracked && !write { Protection::WriteProtected } else { Protection::Writable };
        let method = match (zeros, self.page_size, protection) {
            (false, _, _) => Method::CopySource(protection),
            // ZEROPAGE followed by WRITEPROTECT would leave a window in which a write is lost, and
            // hugetlb has no zero page: both copy zeros, in one step. So does a page that is about
            // to be written: the write would have the kernel copy the shared page at once.
            (true, PageSize::Small, Protection::Writable) if !write => Method::ZeroPage,
            (true, _, _) => Method::CopyZeros(protection),
        };
        let state = match (write, zeros) {
            (true, _) => PageState::Dirty,
            (false, true) => PageState::Zero,
            (false, false) => PageState::Clean,
        };
        (method, state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{Ahead, Read, Write};
    use Method::{CopySource, CopyZeros, ZeroPage};
    use PageSize::{Huge, Small};
    use PageState::{Clean, Dirty, Poisoned, Removed, Unfaulted, Zero};
    use Protection::{Writable, WriteProtected};
    use Tracking::{Async, Off, Sync};

    #[test]
    fn only_a_page_never_installed_is_filled_from_the_source() {
        for state in PageState::ALL {
            let expected = match state {
                Unfaulted => Content::Source,
                Clean | Zero | Dirty | Removed => Content::Zeros,
                Poisoned => Content::Poison,
            };
            assert_eq!(content(state), expected, "{state:?}");
        }
    }

    /// Every row of the table in the design, spelled out.
    #[test]
    fn the_table() {
        let plan = |page_size, tracking, access, zeros| {
            Rules { page_size, tracking, page_map_tells: false }.plan(access, zeros)
        };
        for access in [Read, Ahead] {
            for (size, zeros) in [(Small, ZeroPage), (Huge, CopyZeros(Writable))] {
                assert_eq!(plan(size, Off, access, true), (zeros, Zero));
                assert_eq!(plan(size, Off, access, false), (CopySource(Writable), Clean));
            }
            for (size, tracking) in [(Small, Sync), (Small, Async), (Huge, Sync), (Huge, Async)] {
                let zeros = (CopyZeros(WriteProtected), Zero);
                assert_eq!(plan(size, tracking, access, true), zeros);
                let source = (CopySource(WriteProtected), Clean);
                assert_eq!(plan(size, tracking, access, false), source);
            }
        }
        for tracking in [Off, Sync, Async] {
            for size in [Small, Huge] {
                assert_eq!(plan(size, tracking, Write, true), (CopyZeros(Writable), Dirty));
                assert_eq!(plan(size, tracking, Write, false), (CopySource(Writable), Dirty));
            }
        }
    }

    #[test]
    fn zeros_whose_writes_the_page_map_tells_are_left_unprotected() {
        for tracking in [Sync, Async] {
            let rules = Rules { page_size: Small, tracking, page_map_tells: true };
            for access in [Read, Ahead] {
                assert_eq!(rules.plan(access, true), (ZeroPage, Zero));
                let source = (CopySource(WriteProtected), Clean);
                assert_eq!(rules.plan(access, false), source);
            }
            assert_eq!(rules.plan(Write, true), (CopyZeros(Writable), Dirty));
            let huge = Rules { page_size: Huge, ..rules };
            assert_eq!(huge.plan(Read, true), (CopyZeros(WriteProtected), Zero));
        }
    }
}
