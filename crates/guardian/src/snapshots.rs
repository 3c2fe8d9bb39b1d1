//! The snapshots of the guests: each is opened once, before it is needed, and proved to be the one
//! that a guest was restored from by what the open file holds.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use uffd_core::ledger::SnapshotPlace;
use uffd_core::source::{Fetcher, FileSource};

/// A snapshot as a ledger names it.
pub(crate) type Key = (PathBuf, u64, String);

/// What is known of a snapshot.
#[derive(Debug)]
enum Known {
    /// A thread opens it, which may take as long as its device likes.
    Opening,
    Open(Arc<Fetcher>),
}

/// All snapshots of guests that are there.
#[derive(Debug, Default)]
pub(crate) struct Snapshots(HashMap<Key, Known>);

pub(crate) fn key(place: &SnapshotPlace) -> Key {
    (place.path.clone(), place.length, place.fingerprint.clone())
}

impl Snapshots {
    /// The snapshot, if it is open. If nobody knows of it yet, `open` is called to have it opened.
    pub(crate) fn get(
        &mut self,
        place: &SnapshotPlace,
        open: impl FnOnce(),
    ) -> Option<&Arc<Fetcher>> {
        let known = self.0.entry(key(place)).or_insert_with(|| {
            open();
            Known::Opening
        });
        match known {
            Known::Open(fetcher) => Some(fetcher),
            Known::Opening => None,
        }
    }

    /// It was opened, or could not be: then it is tried again when it is asked for the next time.
    pub(crate) fn opened(&mut self, key: Key, result: Option<Arc<Fetcher>>) {
        match result {
            Some(fetcher) => drop(self.0.insert(key, Known::Open(fetcher))),
            None => drop(self.0.remove(&key)),
        }
    }

    /// Closes those that no guest has.
    pub(crate) fn keep_only<'a>(&mut self, used: impl Iterator<Item = &'a Key>) {
        let used: std::collections::HashSet<&Key> = used.collect();
        self.0.retain(|key, _| used.contains(key));
    }
}

/// Opens a snapshot and looks whether it is the one that is meant.
pub(crate) fn open(place: &SnapshotPlace) -> Result<Arc<Fetcher>, String> {
    let source = FileSource::open(&place.path).map_err(|error| error.to_string())?;
    let found = SnapshotPlace::of(&source)
        .map_err(|error| format!("cannot read the snapshot {}: {error}", place.path.display()))?;
    if !found.is_same(place) {
        return Err(format!(
            "{} is another snapshot by now ({} bytes, fingerprint {}) than the guest was restored \
             from ({} bytes, fingerprint {}): keep it for as long as its guests live",
            place.path.display(),
            found.length,
            found.fingerprint,
            place.length,
            place.fingerprint,
        ));
    }
    Ok(Arc::new(Fetcher::new(Arc::new(source))))
}
