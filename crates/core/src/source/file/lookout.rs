//! What others may do to a snapshot while it is served: cut it short, and take away the right to
//! know what of it is in the page cache.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{AtFlags, StatxFlags, statx};

use super::HOST_PAGE;
use crate::kernel::FileMap;

/// For how long the file is taken to be as it was. A copy past its end fails by itself, but the
/// host page in which it ends reads as zeros from there on, and nothing else tells.
const FOR_MS: u32 = 1;

/// Keeps watch over a file.
#[derive(Debug)]
pub(super) struct Lookout {
    len: u64,
    /// Where it was found to end, once that is before `len`; it stays at that.
    cut_at: AtomicU64,
    /// When its length was last looked at, in milliseconds.
    measured: AtomicU32,
    told: AtomicBool,
    /// When it was last asked whether we are told.
    asked: AtomicU32,
}

impl Lookout {
    pub(super) fn new(map: &FileMap, len: u64, now: u32) -> Self {
        Self {
            len,
            cut_at: AtomicU64::new(u64::MAX),
            measured: AtomicU32::new(now),
            told: AtomicBool::new(map.tells_residency()),
            asked: AtomicU32::new(now),
        }
    }

    /// Where the bytes end that can be copied: at the file's end, in whole host pages.
    pub(super) fn end(&self, file: &File, now: u32) -> u64 {
        if is_over(&self.measured, now) {
            // As the kernel knows it: a file server is not asked, which could take long.
            let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
            if let Ok(found) = statx(file, c"", flags, StatxFlags::SIZE) {
                self.found_len(found.stx_size);
            }
        }
        let end = self.cut_at().min(self.len.next_multiple_of(HOST_PAGE));
        end - end % HOST_PAGE
    }

    /// Whether the kernel tells us what is in the page cache, and whether that is new. To be asked
    /// before the kernel is.
    pub(super) fn ask_told(&self, map: &FileMap, now: u32) -> (bool, bool) {
        if !is_over(&self.asked, now) {
            return (self.told(), false);
        }
        let told = map.tells_residency();
        (told, self.told.swap(told, Ordering::Relaxed) != told)
    }

    /// Whether the kernel told us what is in the page cache when it was last asked.
    pub(super) fn told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// The file was found to have this length.
    pub(super) fn found_len(&self, len: u64) {
        if len < self.len {
            self.cut_at.fetch_min(len, Ordering::Relaxed);
        }
    }

    /// Where the file was cut; behind everything if it was not.
    pub(super) fn cut_at(&self) -> u64 {
        self.cut_at.load(Ordering::Relaxed)
    }
}

/// Whether what was seen at that time is to be looked at again, which begins a new time.
fn is_over(seen: &AtomicU32, now: u32) -> bool {
    let over = now.wrapping_sub(seen.load(Ordering::Relaxed)) >= FOR_MS;
    if over {
        seen.store(now, Ordering::Relaxed);
    }
    over
}
