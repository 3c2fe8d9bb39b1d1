//! What a manager is asked.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Options {
    /// Where it is told what becomes of the service: a path, or @ and a name.
    pub(crate) notify: String,
    /// How many descriptors it keeps.
    pub(crate) store: usize,
    /// Where it listens for the service.
    #[serde(default)]
    pub(crate) listen: Vec<String>,
    /// How often it wants a sign of life, in microseconds.
    pub(crate) watchdog_usec: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Order {
    /// Starts the service, with these variables besides or instead of its own.
    Start {
        program: Vec<String>,
        #[serde(default)]
        env: BTreeMap<String, String>,
    },
    Kill {
        signal: i32,
    },
    /// Keeps something that is no userfaultfd.
    Keep {
        name: String,
    },
    /// Keeps something by another name.
    Rename {
        from: String,
        to: String,
    },
    /// Tells the names of all that is kept.
    Store,
    /// Reads nothing of what it is told, or does so again.
    Deaf {
        deaf: bool,
    },
}
