//! Entries of a trace as JavaScript carries them: two words each, in a `BigUint64Array`.

use napi::bindgen_prelude::BigUint64Array;
use uffd_core::trace::TraceEntry;

pub(crate) fn to_words(entries: &[TraceEntry]) -> BigUint64Array {
    let words: Vec<u64> = entries.iter().flat_map(|entry| entry.to_words()).collect();
    words.into()
}

/// A word without its pair is left out.
pub(crate) fn from_words(words: &[u64]) -> Vec<TraceEntry> {
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().map(|pair| TraceEntry::from_words(*pair)).collect()
}
