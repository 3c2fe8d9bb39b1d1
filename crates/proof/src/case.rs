//! The modes in which every proof has to hold: both page sizes, with and without dirty tracking.

use std::ops::Deref;

use uffd_core::session::DirtyTracking;
use uffd_guest::pattern::Pattern;

use crate::hugepages::HugePages;
use crate::stage::{Stage, StageBuilder};

/// Bytes of a small page.
pub const SMALL: u64 = 4096;

/// Bytes of a huge page.
pub const HUGE: u64 = 2 << 20;

/// One mode.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The guest program.
    pub guest: &'static str,
    /// Bytes of a page.
    pub page_size: u64,
    /// Whether dirty pages are tracked.
    pub tracking: bool,
}

/// Makes a test for each mode out of each function of a [`Case`].
#[macro_export]
macro_rules! in_all_modes {
    ($($proof:ident),* $(,)?) => {$(
        mod $proof {
            use $crate::{Case, HUGE, SMALL};

            const GUEST: &str = env!("CARGO_BIN_EXE_uffd-proof-guest");

            #[test]
            fn small_pages() {
                super::$proof(Case { guest: GUEST, page_size: SMALL, tracking: false });
            }
            #[test]
            fn small_pages_tracked() {
                super::$proof(Case { guest: GUEST, page_size: SMALL, tracking: true });
            }
            #[test]
            fn huge_pages() {
                super::$proof(Case { guest: GUEST, page_size: HUGE, tracking: false });
            }
            #[test]
            fn huge_pages_tracked() {
                super::$proof(Case { guest: GUEST, page_size: HUGE, tracking: true });
            }
        }
    )*};
}

impl Case {
    /// Whether pages are huge.
    pub const fn is_huge(self) -> bool {
        self.page_size == HUGE
    }

    /// The contents of the snapshot, without zero pages.
    pub const fn pattern(self) -> Pattern {
        Pattern::new(41, self.page_size)
    }

    /// A snapshot of `pages` pages, served.
    pub fn open(self, pages: u64) -> Setting {
        self.open_with(self.pattern(), &[pages], |stage| stage)
    }

    /// A snapshot of `pattern` in `regions`, served with other options.
    pub fn open_with(
        self,
        pattern: Pattern,
        regions: &[u64],
        change: impl FnOnce(StageBuilder) -> StageBuilder,
    ) -> Setting {
        let pages: u64 = regions.iter().sum();
        let huge = self.is_huge().then(|| HugePages::reserve(pages).expect("huge pages"));
        let stage = StageBuilder::new(self.guest, pattern, regions).session(|options| {
            options.dirty_tracking =
                if self.tracking { DirtyTracking::On } else { DirtyTracking::Off };
        });
        Setting { stage: change(stage).open(), huge }
    }
}

/// A stage, and the huge pages its guests may have.
#[derive(Debug)]
pub struct Setting {
    stage: Stage,
    huge: Option<HugePages>,
}

impl Setting {
    /// The pool of huge pages, where pages are huge.
    pub const fn pool(&self) -> Option<&HugePages> {
        self.huge.as_ref()
    }
}

impl Deref for Setting {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}
