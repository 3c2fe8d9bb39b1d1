//! The threads that fetch: started when there is work for them, ended when there is none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::Delivery;
use super::lanes::{ClientId, Turn};
use super::requests::{Ended, Requests, Waiter, Work};
use crate::kernel::serve_guests;
use crate::source::{Piece, Source, SourceError, Urgency, Want};

/// A thread without work for this long ends.
const IDLE: Duration = Duration::from_secs(2);

/// Bytes that are made ready before others have their turn: what takes some 50 µs.
const STEP: u64 = 512 << 10;

pub(super) struct Shared {
    source: Arc<dyn Source>,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) requests: Requests,
    pub(super) threads: usize,
    /// Threads that wait for work, and how many of them were called and are not awake yet.
    idle: usize,
    called: usize,
    closed: bool,
}

impl Shared {
    pub(super) fn new(source: Arc<dyn Source>) -> Self {
        Self { source, state: Mutex::default(), work: Condvar::new() }
    }

    pub(super) fn source(&self) -> &Arc<dyn Source> {
        &self.source
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a thread comes to what this guest has queued. Where it may not be begun yet,
    /// one of those at work comes to it.
    pub(super) fn call_a_thread(
        self: &Arc<Self>,
        mut state: MutexGuard<'_, State>,
        client: ClientId,
        urgency: Urgency,
    ) {
        if !state.requests.may_start(client, urgency) {
            return;
        }
        if state.idle > state.called {
            state.called += 1;
            self.work.notify_one();
            return;
        }
        let shared = Arc::clone(self);
        let started = thread::Builder::new()
            .name("uffd-fetch".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                serve_guests();
                shared.run();
            });
        match started {
            Ok(_) => state.threads += 1,
            // Others will come to it. If there are none, this fails loudly, not silently.
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                let queued = state.requests.take_queued();
                drop(state);
                for ended in queued {
                    let cause = format!("no thread could be started to read it: {error}");
                    let offset = ended.want.offset;
                    answer(ended, &Err(SourceError::Io { offset, cause }));
                }
            }
        }
    }

    /// Nobody is there any more to ask or to be told. Threads in the middle of a fetch end when it
    /// returns; nobody waits for them.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }

    fn run(&self) {
        let mut done = None;
        while let Some((turn, work)) = self.next(done) {
            match work {
                Work::Fetch { want, demand } => {
                    let fetched = self.fetch(want, demand);
                    let ended = self.lock().requests.end(turn.job);
                    if let Some(ended) = ended {
                        answer(ended, &fetched);
                    }
                }
                Work::Announce(ranges) => {
                    // Whatever is wrong with the source shows when the bytes are asked for.
                    let _ = catch_unwind(AssertUnwindSafe(|| {
                        for range in ranges {
                            self.source.will_need(range.start, range.end - range.start);
                        }
                    }));
                }
                Work::Prepare => drop(catch_unwind(AssertUnwindSafe(|| self.prepare()))),
            }
            done = Some(turn);
        }
    }

    /// Makes all of the source ready, for as long as there is somebody to use it. Gives way after
    /// each step: the scheduler would let it run on for milliseconds while a guest, or its fault
    /// loop, waits for this core. Of low priority it would be kept from running for as long, and
    /// with this process's mappings locked.
    fn prepare(&self) {
        let mut at = 0;
        while at < self.source.len() && !self.lock().closed {
            let len = STEP.min(self.source.len() - at);
            self.source.prepare(at, len);
            at += len;
            thread::yield_now();
        }
    }

    fn fetch(&self, want: Want, demand: bool) -> Result<Piece, SourceError> {
        // A source that panics is a source that failed: its fault is answered all the same.
        let fetched = catch_unwind(AssertUnwindSafe(|| {
            if demand {
                self.source.will_need_around(want.offset, want.len);
            }
            self.source.fetch(want)
        }));
        let failed = |cause: String| SourceError::Io { offset: want.offset, cause };
        let piece = fetched.unwrap_or_else(|_| Err(failed("the source panicked".to_owned())))?;
        let piece = piece.first(want.len);
        let whole = piece.len() - piece.len() % want.page;
        if whole == 0 {
            let text = format!("it gave {} bytes of a page of {}", piece.len(), want.page);
            return Err(failed(text));
        }
        Ok(piece.first(whole))
    }

    /// The next thing to do after what is `done`, or `None` when it is time for this thread to end.
    fn next(&self, done: Option<Turn>) -> Option<(Turn, Work)> {
        let mut state = self.lock();
        if let Some(turn) = done {
            state.requests.finish(turn);
        }
        let mut tired = false;
        loop {
            let next = state.requests.start();
            if next.is_some() {
                return next;
            }
            if state.closed || tired {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            let (guard, timeout) =
                self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            // Whichever thread wakes first looks for the work that one was called for.
            state.called = state.called.saturating_sub(1);
            tired = timeout.timed_out();
        }
    }
}

/// Tells everybody who waits.
fn answer(ended: Ended, fetched: &Result<Piece, SourceError>) {
    for Waiter { mut permit, done, .. } in ended.waiters {
        let delivery = fetched.clone().map(|piece| {
            permit.shrink(piece.kept());
            Delivery { piece, _permit: permit }
        });
        // What others do with it must not keep the rest from being told.
        let _ = catch_unwind(AssertUnwindSafe(|| done(delivery)));
    }
}
