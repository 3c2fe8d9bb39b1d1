//! Threads that fetch what a source has not at hand, so that no fault loop waits for a device.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Source, SourceError};

/// Fetches in flight at once, for one source.
const MAX_THREADS: usize = 8;

/// A thread without work for this long ends.
const IDLE: Duration = Duration::from_secs(2);

/// Whether a guest's thread waits for the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// A fault waits: before everything else.
    Demand,
    /// A prefault.
    Background,
}

/// A range to fetch, and where the bytes go.
pub struct FetchJob {
    /// The first byte.
    pub offset: u64,
    /// How many bytes.
    pub len: usize,
    /// Called once, on a fetch thread, with the bytes.
    pub done: Box<dyn FnOnce(Result<Vec<u8>, SourceError>) + Send>,
}

/// The fetch threads of one source. They start when there is work and end when there is none.
pub struct Fetcher {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn Source>,
    queue: Mutex<Queue>,
    work: Condvar,
}

#[derive(Default)]
struct Queue {
    demand: VecDeque<FetchJob>,
    background: VecDeque<FetchJob>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> usize {
        self.demand.len() + self.background.len()
    }
}

impl Fetcher {
    /// Threads for `source`; none is started yet.
    pub fn new(source: Arc<dyn Source>) -> Self {
        let shared = Shared { source, queue: Mutex::default(), work: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// The source that is fetched from.
    pub fn source(&self) -> &Arc<dyn Source> {
        &self.shared.source
    }

    /// Queues a job; its `done` is called even if no thread could be started.
    pub fn submit(&self, job: FetchJob, urgency: Urgency) {
        let mut queue = self.shared.lock();
        match urgency {
            Urgency::Demand => queue.demand.push_back(job),
            Urgency::Background => queue.background.push_back(job),
        }
        if queue.idle < queue.waiting() && queue.threads < MAX_THREADS {
            let shared = Arc::clone(&self.shared);
            let started = thread::Builder::new()
                .name("uffd-fetch".to_owned())
                .stack_size(256 << 10)
                .spawn(move || shared.run());
            match started {
                Ok(_) => queue.threads += 1,
                // Others will come to it. If there are none, this fails loudly, not silently.
                Err(_) if queue.threads > 0 => {}
                Err(error) => {
                    let jobs: Vec<_> = take_all(&mut queue);
                    drop(queue);
                    for FetchJob { offset, done, .. } in jobs {
                        let cause = format!("no thread could be started to read it: {error}");
                        done(Err(SourceError::Io { offset, cause }));
                    }
                    return;
                }
            }
        }
        drop(queue);
        self.shared.work.notify_one();
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        // Threads in the middle of a read end when it returns; nobody waits for them.
        let mut queue = self.shared.lock();
        queue.closed = true;
        drop(take_all(&mut queue));
        drop(queue);
        self.shared.work.notify_all();
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let queue = self.shared.lock();
        f.debug_struct("Fetcher")
            .field("waiting", &queue.waiting())
            .field("threads", &queue.threads)
            .finish()
    }
}

fn take_all(queue: &mut Queue) -> Vec<FetchJob> {
    queue
        .demand
        .drain(..)
        .collect::<Vec<_>>()
        .into_iter()
        .chain(queue.background.drain(..))
        .collect()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic runs under this lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            let offset = job.offset;
            // A source that panics is a source that failed: its fault is answered all the same.
            let fetched = catch_unwind(AssertUnwindSafe(|| {
                let mut buffer = vec![0; job.len];
                self.source.fetch(offset, &mut buffer).map(|()| buffer)
            }));
            (job.done)(fetched.unwrap_or_else(|_| {
                Err(SourceError::Io { offset, cause: "the source panicked".to_owned() })
            }));
        }
    }

    /// The next job, or `None` when it is time for this thread to end.
    fn next(&self) -> Option<FetchJob> {
        let mut queue = self.lock();
        loop {
            let next = queue.demand.pop_front().or_else(|| queue.background.pop_front());
            if next.is_some() {
                return next;
            }
            if queue.closed {
                queue.threads -= 1;
                return None;
            }
            queue.idle += 1;
            let (guard, timeout) =
                self.work.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            queue.idle -= 1;
            if timeout.timed_out() && queue.waiting() == 0 {
                queue.threads -= 1;
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Chunk;
    use std::sync::mpsc;

    /// Fetches wait for a word from the test; what was asked for first is reported.
    struct Slow {
        started: mpsc::SyncSender<u64>,
        go: Mutex<mpsc::Receiver<()>>,
    }

    impl Source for Slow {
        fn len(&self) -> u64 {
            1 << 20
        }
        fn lookup(&self, _offset: u64, len: u64, _page: u64) -> Chunk<'_> {
            Chunk::Absent(len)
        }
        fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
            self.started.send(offset).unwrap();
            self.go.lock().unwrap().recv().unwrap();
            buffer.fill(7);
            Ok(())
        }
    }

    #[test]
    fn demand_overtakes_the_background_and_every_job_is_answered() {
        let (started, starts) = mpsc::sync_channel(100);
        let (go, gone) = mpsc::channel();
        let fetcher = Fetcher::new(Arc::new(Slow { started, go: Mutex::new(gone) }));
        let (tx, rx) = mpsc::channel();
        let job = |offset| {
            let tx = tx.clone();
            let done = Box::new(move |result: Result<Vec<u8>, _>| {
                tx.send((offset, result.unwrap().len())).unwrap();
            });
            FetchJob { offset, len: 10, done }
        };
        // All threads are busy with the first jobs.
        for offset in 0..MAX_THREADS as u64 {
            fetcher.submit(job(offset), Urgency::Background);
            starts.recv().unwrap();
        }
        fetcher.submit(job(100), Urgency::Background);
        fetcher.submit(job(200), Urgency::Demand);
        go.send(()).unwrap();
        assert_eq!(starts.recv().unwrap(), 200);
        go.send(()).unwrap();
        assert_eq!(starts.recv().unwrap(), 100);
        (0..MAX_THREADS).for_each(|_| go.send(()).unwrap());
        let mut answered: Vec<_> = rx.iter().take(MAX_THREADS + 2).collect();
        answered.sort_unstable();
        let expected = (0..MAX_THREADS as u64).chain([100, 200]).map(|offset| (offset, 10));
        assert_eq!(answered, expected.collect::<Vec<_>>());
    }
}
