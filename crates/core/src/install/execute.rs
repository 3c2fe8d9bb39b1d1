//! The second step: one install, by one ioctl. Needs no page state, so that several threads may
//! execute at once; who the pages belong to was decided before, and what came of it is told after.

use std::time::{Duration, Instant};

use super::plan::{Fill, Install};
use crate::kernel::{Bytes, Outcome, Protection, Uffd, Wake, ZeroBytes};
use crate::layout::Layout;
use crate::policy::{Access, Method, Rules};
use crate::units::{GuestAddr, PageIndex};

/// How long a thread that gives memory back may need to go on.
const GAP: Duration = Duration::from_micros(100);

/// Until when the address space may be free for an instant, after REMOVEs were read.
///
/// The thread that gives memory back needs a moment to go on; then the address space is free until
/// its next `madvise`, which may come at once. Whoever sleeps or reads events in between misses
/// that moment each time, and a fault would starve beside a busy balloon.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gap(Option<Instant>);

impl Gap {
    /// REMOVEs were just read.
    pub(crate) fn begins() -> Self {
        Self(Some(Instant::now() + GAP))
    }

    pub(crate) fn is_due(self, now: Instant) -> bool {
        self.0.is_some_and(|until| now < until)
    }

    /// Asks again for as long as the moment may come, on behalf of a thread that waits.
    pub(crate) fn insist(self, access: Access, ask: impl Fn() -> Outcome) -> Outcome {
        loop {
            for _ in 0..8 {
                let outcome = ask();
                if outcome != Outcome::Again || access == Access::Ahead {
                    return outcome;
                }
                std::hint::spin_loop();
            }
            if !self.is_due(Instant::now()) {
                return Outcome::Again;
            }
            // It may need this very core.
            std::thread::yield_now();
        }
    }
}

/// What it takes to execute.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tools<'a> {
    pub(super) uffd: &'a Uffd,
    pub(super) layout: &'a Layout,
    pub(super) zeros: &'a ZeroBytes,
    pub(super) rules: Rules,
    pub(super) gap: Gap,
    pub(super) wake: Wake,
}

/// What came of an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Executed {
    pub(super) outcome: Outcome,
    /// Whether bytes were copied, as opposed to the shared zero page mapped.
    pub(super) copied: bool,
}

impl Tools<'_> {
    pub(super) fn execute(&self, install: &Install<'_>) -> Executed {
        let Install { pages, fill, access } = *install;
        let addr = self.addr(pages.start);
        let page = self.rules.page_size.bytes();
        let len = pages.len() * page;
        let (method, _) = self.rules.plan(access, fill.is_zeros());
        match (method, fill) {
            (Method::ZeroPage, Fill::OwnZeros) => {
                self.copy(addr, self.zeros(len), Protection::Writable, access)
            }
            (Method::ZeroPage, _) => {
                match self.gap.insist(access, || self.uffd.zeropage(addr, len, self.wake)) {
                    // Or it is absent and has the mark of a VMM that protected it all the same:
                    // COPY takes such a page and ZEROPAGE does not. A copy is told from a page
                    // that was written by its protection.
                    Outcome::Exists => {
                        let tracked = self.rules.tracking.is_on() && access != Access::Write;
                        let protection =
                            if tracked { Protection::WriteProtected } else { Protection::Writable };
                        self.copy(addr, self.zeros(page), protection, access)
                    }
                    outcome => Executed { outcome, copied: false },
                }
            }
            (Method::CopySource(protection), Fill::Bytes(bytes)) => {
                self.copy(addr, bytes.first(len), protection, access)
            }
            (Method::CopyZeros(protection) | Method::CopySource(protection), _) => {
                self.copy(addr, self.zeros(len), protection, access)
            }
        }
    }

    fn copy(
        &self,
        addr: GuestAddr,
        bytes: Bytes<'_>,
        protection: Protection,
        access: Access,
    ) -> Executed {
        let ask = || self.uffd.copy(addr, bytes, protection, self.wake);
        Executed { outcome: self.gap.insist(access, ask), copied: true }
    }

    fn zeros(&self, len: u64) -> Bytes<'_> {
        self.zeros.bytes(len.min(ZeroBytes::LEN as u64))
    }

    fn addr(&self, page: PageIndex) -> GuestAddr {
        self.layout.addr_of(page).expect("pages come from the layout")
    }
}
