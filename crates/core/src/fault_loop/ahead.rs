//! While the guest works, the pages of 2 MiB that it will come to next are installed.

use super::Turn;
use super::guest::{Asker, Guest};
use crate::install::{Fill, Install, Obstacle, Stopped};
use crate::kernel::free_huge_pages;
use crate::policy::Access;
use crate::source::{Chunk, Scratch, Source};
use crate::states::PageState;
use crate::units::{PageIndex, PageRange, PageSize};
use crate::window::Walks;

/// Pages that the guest may still need from the host's pool.
fn missing(guest: &Guest) -> u64 {
    let counts = guest.memory.states.counts();
    counts.unfaulted + counts.removed
}

/// The pages that somebody who walks through memory comes to next.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    walks: Walks,
    left: PageRange,
}

impl Ahead {
    /// A fault on `page` was served from the source.
    pub(super) fn served(&mut self, guest: &Guest, page: PageIndex) {
        let page_size = guest.memory.page_size();
        if page_size != PageSize::Huge {
            return;
        }
        let Some(region) = guest.memory.layout().region_of(page) else { return };
        let most = guest.options.fault_around.ahead(page_size);
        self.left = self.walks.came_to(region.pages, page, most);
        // A page that nobody comes to may be the one that somebody waits for.
        if !self.left.is_empty() && missing(guest) > free_huge_pages() {
            self.left = PageRange::default();
        }
    }

    /// Installs the next of them, if its bytes are at hand; whether events are to be looked for now.
    pub(super) fn step(
        &mut self,
        guest: &mut Guest,
        source: &dyn Source,
        scratch: &mut Scratch,
    ) -> Turn<bool> {
        if self.left.is_empty() {
            return Ok(false);
        }
        // A copy takes as long as many small faults.
        if guest.memory.uffd().has_events() {
            return Ok(true);
        }
        let pages = PageRange::single(self.left.start);
        self.left.start = pages.end;
        scratch.begin(guest.journal.clock.look());
        let is_missing = guest.memory.states.get(pages.start) == PageState::Unfaulted;
        let bytes = match is_missing.then(|| guest.planner(source, scratch).look(pages)) {
            Some(Chunk::Ready(bytes)) => bytes,
            // Whoever comes to it looks it up again, and to what lies behind it.
            Some(Chunk::Zeros(_) | Chunk::Absent(_)) | None => {
                self.left = PageRange::default();
                return Ok(true);
            }
        };
        let install = Install { pages, fill: Fill::Bytes(bytes), access: Access::Ahead };
        let (_, result) = guest.install(&[install], Asker::Fault);
        if let Err(Stopped { obstacle, .. }) = result {
            self.left = PageRange::default();
            // Of anything else the thread is told that comes to it.
            if matches!(obstacle, Obstacle::Present | Obstacle::Doubtful | Obstacle::Gone) {
                guest.answer(obstacle, pages)?;
            }
        }
        Ok(true)
    }
}
