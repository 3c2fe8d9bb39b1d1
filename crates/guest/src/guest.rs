//! The guest itself, shared by its threads.
//!
//! No lock is held while guest memory is accessed: a thread may wait for a page for ever, and
//! must not take anybody with it.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, Mutex, OnceLock};

use userfaultfd::Uffd;

use crate::fate::Fate;
use crate::history::History;
use crate::lock::lock;
use crate::memory::{Memory, bytes};
use crate::pattern::Pattern;
use crate::protocol::Refusal;
use crate::raw::Mapping;
use crate::storm::Storm;
use crate::tracks::Tracks;

/// Everything the threads of a guest share.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) memory: Memory,
    pub(crate) pattern: Pattern,
    pub(crate) uffd: Uffd,
    pub(crate) socket: Mutex<Option<UnixStream>>,
    pub(crate) tracks: Tracks,
    pub(crate) fate: Fate,
    pub(crate) storm: Mutex<Option<Storm>>,
    /// As many mappings as the process may have.
    pub(crate) crowd: Mutex<Option<Mapping>>,
    histories: OnceLock<Vec<History>>,
    barriers: Mutex<HashMap<String, (usize, Arc<Barrier>)>>,
}

impl Guest {
    pub(crate) fn new(
        memory: Memory,
        pattern: Pattern,
        uffd: Uffd,
        socket: Option<UnixStream>,
        storm: Option<Storm>,
    ) -> Self {
        Self {
            memory,
            pattern,
            uffd,
            socket: Mutex::new(socket),
            tracks: Tracks::default(),
            fate: Fate::default(),
            storm: Mutex::new(storm),
            crowd: Mutex::default(),
            histories: OnceLock::new(),
            barriers: Mutex::default(),
        }
    }

    /// To be called before each touch of a page: tells where the thread is, should it wait, and
    /// brings the death that comes after so many touches.
    pub(crate) fn about_to_touch(&self, page: u64) {
        self.tracks.follow(page);
        self.fate.count_touch();
    }

    /// What a page went through in soaks. Kept from the first of them on: most guests have none.
    pub(crate) fn history(&self, page: u64) -> &History {
        let all = || (0..self.memory.pages()).map(|_| History::default()).collect();
        &self.histories.get_or_init(all)[bytes(page)]
    }

    /// Waits for the others at a barrier.
    pub(crate) fn meet(&self, name: &str, parties: usize) -> Result<(), Refusal> {
        let (expected, barrier) = lock(&self.barriers)
            .entry(name.to_owned())
            .or_insert_with(|| (parties, Arc::new(Barrier::new(parties))))
            .clone();
        if expected != parties {
            return Err(Refusal::new(format!("barrier {name} is for {expected} threads")));
        }
        barrier.wait();
        Ok(())
    }
}
