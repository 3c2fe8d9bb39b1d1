//! Threads that give memory back without end, as a balloon does that a VMM resumes with.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crate::memory::{Memory, bytes};
use crate::protocol::Refusal;

/// Threads at work, each on one of the last pages.
#[derive(Debug)]
pub(crate) struct Storm {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<nix::Result<u64>>>,
}

impl Storm {
    /// Begins. The first round of each thread waits until somebody reads the events.
    pub(crate) fn begin(memory: &Memory, threads: u32) -> io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let page_size = bytes(memory.page_size);
        let start = |number: u64| {
            let page = memory.pages() - 1 - number % memory.pages();
            let (mapping, offset) = memory.mapped(page).map_err(|_| io::ErrorKind::InvalidInput)?;
            let over = Arc::clone(&over);
            thread::Builder::new().name(format!("storm {number}")).spawn(move || {
                let mut rounds = 0;
                while !over.load(Ordering::Relaxed) {
                    mapping.dont_need(offset, page_size)?;
                    rounds += 1;
                }
                Ok(rounds)
            })
        };
        let threads = (0..u64::from(threads)).map(start).collect::<io::Result<_>>()?;
        Ok(Self { over, threads })
    }

    /// Ends it; how often memory was given back.
    pub(crate) fn calm(self) -> Result<u64, Refusal> {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.threads.into_iter().map(JoinHandle::join);
        ended
            .map(|rounds| {
                rounds
                    .map_err(|_| Refusal::new("a thread of the storm panicked"))?
                    .map_err(Refusal::from)
            })
            .sum()
    }
}
