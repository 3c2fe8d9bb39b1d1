//! The snapshots of the guests: each is opened once, before it is needed, and proved to be the very
//! file that a guest was restored from.

use std::collections::HashMap;
use std::sync::Arc;

use uffd_core::ledger::SnapshotPlace;
use uffd_core::source::{Fetcher, FileSource};

/// What is known of a snapshot.
#[derive(Debug)]
enum Known {
    /// A thread opens it, which may take as long as its device likes.
    Opening,
    Open(Arc<Fetcher>),
}

/// All snapshots of guests that are there.
#[derive(Debug, Default)]
pub(crate) struct Snapshots(HashMap<SnapshotPlace, Known>);

impl Snapshots {
    /// The snapshot, if it is open. If nobody knows of it yet, `open` is called to have it opened.
    pub(crate) fn get(
        &mut self,
        place: &SnapshotPlace,
        open: impl FnOnce(),
    ) -> Option<&Arc<Fetcher>> {
        let known = self.0.entry(place.clone()).or_insert_with(|| {
            open();
            Known::Opening
        });
        match known {
            Known::Open(fetcher) => Some(fetcher),
            Known::Opening => None,
        }
    }

    /// It was opened, or could not be: then it is tried again when it is asked for the next time.
    pub(crate) fn opened(&mut self, place: SnapshotPlace, result: Option<Arc<Fetcher>>) {
        match result {
            Some(fetcher) => drop(self.0.insert(place, Known::Open(fetcher))),
            None => drop(self.0.remove(&place)),
        }
    }

    /// Closes those that no guest has.
    pub(crate) fn keep_only<'a>(&mut self, used: impl Iterator<Item = &'a SnapshotPlace>) {
        let used: std::collections::HashSet<&SnapshotPlace> = used.collect();
        self.0.retain(|place, _| used.contains(place));
    }
}

/// Opens a snapshot and looks whether it is the one that is meant.
pub(crate) fn open(place: &SnapshotPlace) -> Result<Arc<Fetcher>, String> {
    let source = FileSource::open(&place.path).map_err(|error| error.to_string())?;
    let found = SnapshotPlace::of(&source)
        .map_err(|error| format!("cannot read the snapshot {}: {error}", place.path.display()))?;
    if !found.is_same_file(place) {
        return Err(format!(
            "{} is another file by now ({} bytes, fingerprint {}) than the guest was restored from ({} \
             bytes, fingerprint {}), or was written to: keep it for as long as its guests live",
            place.path.display(),
            found.length,
            found.fingerprint,
            place.length,
            place.fingerprint,
        ));
    }
    Ok(Arc::new(Fetcher::new(Arc::new(source))))
}
