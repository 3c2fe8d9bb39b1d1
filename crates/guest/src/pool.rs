//! The host's pool of 2 MiB pages, as somebody uses it who has nothing to do with any guest.

use crate::memory::Memory;
use crate::options::Place;
use crate::raw::recover_from_sigbus;

const HUGE: u64 = 2 << 20;

/// A mapping of huge pages that takes them out of the pool and gives them back.
#[derive(Debug)]
pub struct PoolUser(Memory);

impl PoolUser {
    /// Maps so many pages, and takes none yet.
    pub fn map(pages: u64) -> nix::Result<Self> {
        recover_from_sigbus()?;
        Memory::map(&[pages], HUGE, Place::Rising).map(Self)
    }

    /// Takes as many pages as there are; how many it has now.
    pub fn take(&self) -> u64 {
        let had = |page: &u64| matches!(self.0.store(*page, 0, 1), Ok(Ok(())));
        (0..self.0.pages()).filter(had).count() as u64
    }

    /// Gives all of them back.
    pub fn give_back(&self) -> nix::Result<()> {
        self.0.give_back()
    }
}
