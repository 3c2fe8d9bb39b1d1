//! Threads that fetch what a source has not at hand, so that no fault loop waits for a device.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::{Source, SourceError};

/// Fetches in flight at once, for one source.
const MAX_THREADS: usize = 8;

/// Of those, fetches that nobody waits for: a fault finds a thread free however slow they are.
const MAX_BACKGROUND: usize = 6;

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

/// What a fetch thread does next.
enum Job {
    Fetch(FetchJob, Urgency),
    /// Nobody waits for it, and nobody is told.
    Announce(Vec<Range<u64>>),
}

impl Job {
    const fn urgency(&self) -> Urgency {
        match self {
            Self::Fetch(_, urgency) => *urgency,
            Self::Announce(_) => Urgency::Background,
        }
    }
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
    demand: VecDeque<Job>,
    background: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Threads at work on a fetch that nobody waits for.
    in_background: usize,
    closed: bool,
}

impl Queue {
    fn waiting(&self) -> usize {
        self.demand.len() + self.background.len()
    }

    /// Jobs that a thread could begin now.
    fn startable(&self) -> usize {
        let room = MAX_BACKGROUND - self.in_background;
        self.demand.len() + self.background.len().min(room)
    }

    /// The next job to begin, demand first.
    fn start_next(&mut self) -> Option<Job> {
        if let Some(job) = self.demand.pop_front() {
            return Some(job);
        }
        if self.in_background == MAX_BACKGROUND {
            return None;
        }
        let job = self.background.pop_front()?;
        self.in_background += 1;
        Some(job)
    }

    fn take_all(&mut self) -> Vec<Job> {
        self.demand.drain(..).chain(self.background.drain(..)).collect()
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
        self.queue(Job::Fetch(job, urgency));
    }

    /// Tells the source that these bytes will be asked for soon, in the background.
    pub fn announce(&self, ranges: Vec<Range<u64>>) {
        self.queue(Job::Announce(ranges));
    }

    fn queue(&self, job: Job) {
        let mut queue = self.shared.lock();
        match job.urgency() {
            Urgency::Demand => queue.demand.push_back(job),
            Urgency::Background => queue.background.push_back(job),
        }
        if queue.idle < queue.startable() && queue.threads < MAX_THREADS {
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
                    let jobs = queue.take_all();
                    drop(queue);
                    for job in jobs {
                        let Job::Fetch(FetchJob { offset, done, .. }, _) = job else { continue };
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
        drop(queue.take_all());
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

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that can panic runs under this lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut done = None;
        while let Some(job) = self.next(done) {
            done = Some(job.urgency());
            match job {
                Job::Fetch(job, urgency) => self.fetch(job, urgency),
                Job::Announce(ranges) => {
                    // Whatever is wrong with the source shows when the bytes are asked for.
                    let _ = catch_unwind(AssertUnwindSafe(|| {
                        for Range { start, end } in ranges {
                            self.source.will_need(start, end - start);
                        }
                    }));
                }
            }
        }
    }

    fn fetch(&self, FetchJob { offset, len, done }: FetchJob, urgency: Urgency) {
        // A source that panics is a source that failed: its fault is answered all the same.
        let fetched = catch_unwind(AssertUnwindSafe(|| {
            if urgency == Urgency::Demand {
                self.source.will_need_around(offset, len as u64);
            }
            let mut buffer = vec![0; len];
            self.source.fetch(offset, &mut buffer).map(|()| buffer)
        }));
        done(fetched.unwrap_or_else(|_| {
            Err(SourceError::Io { offset, cause: "the source panicked".to_owned() })
        }));
    }

    /// The next job after one that is `done`, or `None` when it is time for this thread to end.
    fn next(&self, done: Option<Urgency>) -> Option<Job> {
        let mut queue = self.lock();
        if done == Some(Urgency::Background) {
            queue.in_background -= 1;
        }
        loop {
            let next = queue.start_next();
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
            if timeout.timed_out() && queue.startable() == 0 {
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
        // As many as may be are busy with what nobody waits for.
        for offset in 0..MAX_BACKGROUND as u64 {
            fetcher.submit(job(offset), Urgency::Background);
            starts.recv().unwrap();
        }
        fetcher.submit(job(100), Urgency::Background);
        // A fault is fetched for all the same, until all threads are busy.
        let reserved = MAX_THREADS - MAX_BACKGROUND;
        for offset in 0..reserved as u64 {
            fetcher.submit(job(50 + offset), Urgency::Demand);
            assert_eq!(starts.recv().unwrap(), 50 + offset);
        }
        fetcher.submit(job(200), Urgency::Demand);
        go.send(()).unwrap();
        assert_eq!(starts.recv().unwrap(), 200);
        (0..MAX_THREADS + 1).for_each(|_| go.send(()).unwrap());
        assert_eq!(starts.recv().unwrap(), 100);
        let mut answered: Vec<_> = rx.iter().take(MAX_THREADS + 2).collect();
        answered.sort_unstable();
        let background = 0..MAX_BACKGROUND as u64;
        let demand = (0..reserved as u64).map(|offset| 50 + offset);
        let expected = background.chain(demand).chain([100, 200]).map(|offset| (offset, 10));
        assert_eq!(answered, expected.collect::<Vec<_>>());
    }

    /// Reports what is announced, and panics on some of it.
    struct Listens(mpsc::Sender<String>);

    impl Source for Listens {
        fn len(&self) -> u64 {
            1 << 20
        }
        fn lookup(&self, _offset: u64, len: u64, _page: u64) -> Chunk<'_> {
            Chunk::Absent(len)
        }
        fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
            self.0.send(format!("fetch {offset} {}", buffer.len())).unwrap();
            Ok(())
        }
        fn will_need(&self, offset: u64, len: u64) {
            assert_ne!(offset, 13, "on purpose");
            self.0.send(format!("need {offset} {len}")).unwrap();
        }
        fn will_need_around(&self, offset: u64, len: u64) {
            self.0.send(format!("around {offset} {len}")).unwrap();
        }
    }

    #[test]
    fn a_source_hears_what_is_announced_and_what_a_fault_waits_for() {
        let (heard, hears) = mpsc::channel();
        let fetcher = Fetcher::new(Arc::new(Listens(heard)));
        let next = || hears.recv().unwrap();
        fetcher.announce(vec![5..8, 20..30]);
        assert_eq!([next(), next()], ["need 5 3", "need 20 10"]);
        let (tx, rx) = mpsc::channel();
        let job = |offset| {
            let tx = tx.clone();
            FetchJob { offset, len: 4, done: Box::new(move |_| tx.send(()).unwrap()) }
        };
        fetcher.submit(job(40), Urgency::Background);
        assert_eq!(next(), "fetch 40 4");
        fetcher.submit(job(50), Urgency::Demand);
        assert_eq!([next(), next()], ["around 50 4", "fetch 50 4"]);
        // More panics than there are threads: each of them goes on.
        (0..2 * MAX_THREADS).for_each(|_| fetcher.announce(vec![13..14, 13..15]));
        fetcher.submit(job(60), Urgency::Background);
        assert_eq!(next(), "fetch 60 4");
        assert_eq!(rx.iter().take(3).count(), 3);
    }
}
