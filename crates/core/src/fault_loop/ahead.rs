//! While the guest works, the page that it will come to next is copied into memory of our own: of
//! 2 MiB pages, which from there takes half as long to install as from the page cache.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::guest::Guest;
use super::next::Next;
use crate::kernel::HugeBuffer;
use crate::source::Source;
use crate::states::PageState;
use crate::units::{PageIndex, PageRange, PageSize};

/// Bytes copied before events are looked for again.
const STEP: usize = 128 << 10;

/// Buffers of all guests of the process.
const MOST_BUFFERS: usize = 8;

/// A guest that has not come to its page for so long gives its buffer back.
const KEPT: Duration = Duration::from_millis(100);

/// Bytes that are copied of a page whose fault has come, if the rest is to be copied while it waits:
/// the whole copy saves less than its last quarter takes.
const ENOUGH: usize = HugeBuffer::LEN / 8 * 7;

/// A guest that came to its page sooner than this, the last time, has no work meanwhile.
const AT_WORK: Duration = Duration::from_micros(100);

/// The base-2 logarithm of the most pages in a row that are not copied.
const MOST_DOUBT: u32 = 6;

/// The page that somebody who walks through memory comes to next, and how much of it is here.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    page: Option<PageIndex>,
    buffer: Option<Buffer>,
    /// Bytes of the page in the buffer.
    len: usize,
    /// When it was last of use.
    since: Option<Instant>,
    /// When the last page was served, and how long the guest then took to come to the next.
    served: Option<Instant>,
    pause: Duration,
    /// How often in a row the guest came before the copy was there, and the pages that are left
    /// alone for that.
    vain: u32,
    doubt: u32,
}

impl Ahead {
    /// The bytes of `page`, if all of them are here.
    pub(super) fn bytes(&self, page: PageIndex) -> Option<&[u8]> {
        let buffer = self.buffer.as_ref().filter(|_| self.page == Some(page))?;
        let bytes = buffer.0.as_slice();
        (self.len == bytes.len()).then_some(bytes)
    }

    /// A fault on `page`, read at that time, is about to be served: what little is missing of its
    /// copy is added.
    pub(super) fn finish(
        &mut self,
        guest: &Guest,
        (page, read_at): (PageIndex, Instant),
        source: &dyn Source,
    ) {
        if let Some(served) = self.served.take() {
            self.pause = read_at.saturating_duration_since(served);
        }
        if self.page == Some(page) && self.len >= ENOUGH {
            while self.bytes(page).is_none() && self.copy(guest, page, source) {}
        }
    }

    /// A fault on `page` was served from the source.
    pub(super) fn served(&mut self, guest: &Guest, page: PageIndex) {
        let memory = &guest.memory;
        if memory.page_size() != PageSize::Huge {
            return;
        }
        self.learn(page);
        self.served = Some(Instant::now());
        let Some(region) = memory.layout().region_of(page).map(|region| region.pages) else {
            return;
        };
        let is_installed = |page| memory.states.get(page).is_installed();
        let walks = page > region.start && is_installed(PageIndex(page.0 - 1));
        self.page = Some(page.next()).filter(|next| walks && region.contains(*next));
    }

    /// Whether copying ahead pays.
    fn learn(&mut self, page: PageIndex) {
        if self.bytes(page).is_some() {
            self.vain = 0;
        } else if self.page.is_some() && self.len > 0 {
            self.vain = (self.vain + 1).min(MOST_DOUBT);
            self.doubt = 1 << self.vain;
        }
        self.doubt = self.doubt.saturating_sub(1);
        self.len = 0;
        self.since = self.buffer.as_ref().map(|_| Instant::now());
    }

    /// Copies some more of the page, or gives up what is of no use; whether there was anything to
    /// do.
    pub(super) fn prepare(&mut self, guest: &Guest, source: &dyn Source) -> bool {
        if let Some(page) = self.page
            && self.doubt == 0
            && self.pause >= AT_WORK
            && guest.memory.states.get(page) == PageState::Unfaulted
            && self.copy(guest, page, source)
        {
            return true;
        }
        let is_over = self.since.is_some_and(|since| since.elapsed() >= KEPT);
        if is_over {
            (self.page, self.buffer, self.since, self.len) = (None, None, None, 0);
        }
        is_over
    }

    fn copy(&mut self, guest: &Guest, page: PageIndex, source: &dyn Source) -> bool {
        if self.buffer.is_none() {
            self.buffer = Buffer::new();
            self.since = Some(Instant::now());
        }
        let Some(Buffer(buffer)) = &mut self.buffer else { return false };
        let bytes = buffer.as_mut_slice();
        let room = bytes.len().min(self.len + STEP);
        let room = &mut bytes[self.len..room];
        if room.is_empty() {
            return false;
        }
        let offset = guest.want(PageRange::single(page)).offset + self.len as u64;
        let copied = source.copy(offset, room);
        self.len += copied;
        if copied < room.len() {
            // Not all of it is at hand: whoever comes to it looks it up.
            (self.page, self.len) = (None, 0);
        }
        true
    }

    /// When the buffer is given back.
    pub(super) fn next(&self) -> Next {
        self.since.and_then(|since| since.checked_add(KEPT)).into()
    }
}

/// One of the buffers that this process has.
#[derive(Debug)]
struct Buffer(HugeBuffer);

static BUFFERS: AtomicUsize = AtomicUsize::new(0);

impl Buffer {
    /// A buffer, if there is one left.
    fn new() -> Option<Self> {
        let more = |count| (count < MOST_BUFFERS).then_some(count + 1);
        BUFFERS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let buffer = HugeBuffer::new();
        if buffer.is_err() {
            BUFFERS.fetch_sub(1, Ordering::Relaxed);
        }
        buffer.ok().map(Self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        BUFFERS.fetch_sub(1, Ordering::Relaxed);
    }
}
