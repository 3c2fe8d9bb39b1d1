//! While the guest works, the page that it will come to next is made ready: of 2 MiB pages, which
//! take longer to look up and map than to copy.

use super::guest::Guest;
use crate::source::Source;
use crate::states::PageState;
use crate::units::{PageIndex, PageRange, PageSize};

/// A page that somebody who walks through memory comes to next.
#[derive(Debug, Default)]
pub(super) struct Ahead(Option<PageIndex>);

impl Ahead {
    /// A fault on `page` was served from the source.
    pub(super) fn served(&mut self, guest: &Guest, page: PageIndex) {
        let memory = &guest.memory;
        if memory.page_size() != PageSize::Huge {
            return;
        }
        let Some(region) = memory.layout().region_of(page).map(|region| region.pages) else {
            return;
        };
        let is_installed = |page| memory.states.get(page).is_installed();
        let walks = page > region.start && is_installed(PageIndex(page.0 - 1));
        self.0 = Some(page.next()).filter(|next| walks && region.contains(*next));
    }

    /// Makes the page ready, if there is one; whether there was.
    pub(super) fn prepare(&mut self, guest: &Guest, source: &dyn Source) -> bool {
        let Some(page) = self.0.take() else { return false };
        if guest.memory.states.get(page) != PageState::Unfaulted {
            return false;
        }
        let want = guest.want(PageRange::single(page));
        source.prepare(want.offset, want.len);
        true
    }
}
