//! The host's pool of 2 MiB pages, as somebody uses it who has nothing to do with any guest.

use std::num::NonZeroUsize;

use nix::errno::Errno;

use crate::memory::bytes;
use crate::raw::Mapping;

const HUGE: u64 = 2 << 20;

/// Promises so many pages of the pool to a mapping, so that nobody else can have them, and gives
/// them back at once; false if the pool has not so many.
pub fn take_and_give_back(pages: u64) -> nix::Result<bool> {
    let Some(len) = NonZeroUsize::new(bytes(pages * HUGE)) else { return Ok(true) };
    match Mapping::reserve_huge(len) {
        Ok(()) => Ok(true),
        Err(Errno::ENOMEM) => Ok(false),
        Err(errno) => Err(errno),
    }
}
