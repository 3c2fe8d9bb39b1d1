//! The guests of a directory that another server has, looked at by the one that waits for it: what is
//! found out by then, no guest waits for later.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{Prospect, Spares};
use crate::kernel::stay_behind;
use crate::ledger::StateDir;

/// Guests that are served by whoever has the directory, or by its guardian. Nothing of them is touched.
#[derive(Debug, Default)]
pub struct Awaited(HashMap<PathBuf, Prospect>);

impl Awaited {
    /// Looks at the guests that have come since the last time, and forgets those that are gone. What
    /// cannot be looked at now is looked at again when the guests are taken over.
    pub fn look(&mut self, dir: &StateDir) -> io::Result<()> {
        let ledgers = dir.ledgers()?;
        self.0.retain(|path, prospect| ledgers.contains(path) && prospect.is_current());
        let _behind = stay_behind();
        for path in ledgers {
            if !self.0.contains_key(&path)
                && let Ok(found) = Prospect::find(&path, &mut Spares::new())
            {
                self.0.insert(path, found);
            }
        }
        Ok(())
    }

    /// How many guests it is ready for.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What was found out of the guest of the ledger at `path`, if it is still that one.
    pub(super) fn take(&mut self, path: &Path) -> Option<Prospect> {
        self.0.remove(path).filter(Prospect::is_current)
    }
}
