//! Random accesses, and what was found.

use serde::{Deserialize, Serialize};

/// Random accesses. Every page is written and given back by one thread, its owner, and read by all.
///
/// The guest remembers what each page went through from one soak to the next; other ops on the
/// same pages are not known to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Soak {
    /// Of all choices.
    pub seed: u64,
    /// How many threads.
    pub threads: u32,
    /// The first page.
    pub page: u64,
    /// How many, or all the rest.
    pub count: Option<u64>,
    /// Consecutive pages with one owner, and the most given back at once.
    pub chunk: u64,
    /// Operations of each thread.
    pub ops: u64,
    /// Stop after this time, operations left or not.
    pub millis: Option<u64>,
    /// Weight of reading an own page, exactly checked.
    pub read: u32,
    /// Weight of writing a page whole.
    pub write: u32,
    /// Weight of writing one word.
    pub word: u32,
    /// Weight of giving back a run of pages.
    pub madvise: u32,
    /// Weight of reading any page while its owner may be at work on it.
    pub peek: u32,
}

impl Default for Soak {
    fn default() -> Self {
        Self {
            seed: 0,
            threads: 4,
            page: 0,
            count: None,
            chunk: 16,
            ops: 10_000,
            millis: None,
            read: 30,
            write: 10,
            word: 20,
            madvise: 10,
            peek: 30,
        }
    }
}

/// The outcome of a soak.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoakReport {
    /// Own pages read.
    pub reads: u64,
    /// Pages written whole.
    pub writes: u64,
    /// Words written.
    pub words: u64,
    /// Runs given back.
    pub madvises: u64,
    /// Pages given back.
    pub removed_pages: u64,
    /// Any pages read.
    pub peeks: u64,
    /// Own pages read once more when all threads had ended.
    pub final_reads: u64,
    /// Pages on which a wrong word was found.
    pub wrong: u64,
    /// The first of them.
    pub examples: Vec<SoakMistake>,
    /// How long it took.
    pub nanos: u64,
}

/// A word which no legal history of its page explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoakMistake {
    /// Which page.
    pub page: u64,
    /// The offset of the word in it.
    pub at: u64,
    /// The word, in hexadecimal.
    pub word: String,
    /// What that word means there: the snapshot, zeros, a version of the page, or where it belongs.
    pub found: String,
    /// What could have been there.
    pub expected: String,
    /// The thread that read it.
    pub thread: u32,
}
