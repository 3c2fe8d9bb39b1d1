//! Threads that lend a hand where work can be done by several at once: one crew for all guests of
//! the process, started when there is such work and ended when there is none.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::slices::serve_guests;

/// A thread without work for this long ends.
const IDLE: Duration = Duration::from_secs(2);

/// Threads of a crew at the most: copies into one guest wait for one another in the kernel.
const MOST: usize = 3;

/// Work that any number of threads may do at once: each does what is left of it.
type Task<'a> = &'a (dyn Fn() + Sync);

/// Threads that help whoever asks.
#[derive(Debug)]
pub(crate) struct Crew {
    most: usize,
    state: Mutex<State>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The same call once for each thread that it is for.
    calls: VecDeque<Arc<Call>>,
    threads: usize,
    idle: usize,
}

/// Work that is being done, for those who come in time.
#[derive(Default)]
struct Call {
    inside: Mutex<Inside>,
    left: Condvar,
}

#[derive(Default)]
struct Inside {
    /// `None` once nobody may begin any more.
    task: Option<Task<'static>>,
    /// Threads of the crew that have begun and not ended.
    count: usize,
    panicked: bool,
}

impl Crew {
    /// The crew of this process: a thread fewer than there are cores, and none on one core.
    pub(crate) fn shared() -> &'static Self {
        static CREW: OnceLock<Crew> = OnceLock::new();
        CREW.get_or_init(|| {
            let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
            Self::new((cores - 1).min(MOST))
        })
    }

    /// A crew of at most so many threads.
    pub(crate) const fn new(most: usize) -> Self {
        let state = State { calls: VecDeque::new(), threads: 0, idle: 0 };
        Self { most, state: Mutex::new(state), called: Condvar::new() }
    }

    /// Runs `task` on this thread and on up to `hands` others of the crew. Those that come while it
    /// runs here help; those that come later find nothing to do: nobody waits for a thread that
    /// the scheduler has not come to. When this returns, `task` runs nowhere any more.
    ///
    /// Panics if `task` panicked on another thread.
    pub(crate) fn run(&'static self, hands: usize, task: Task<'_>) {
        let hands = hands.min(self.most);
        if hands == 0 {
            task();
            return;
        }
        // SAFETY: only the lifetime changes. Threads of the crew reach the task through `inside`,
        // and are counted there for as long as they use it. `closing` takes it out and waits until
        // none is left, before this function returns or unwinds.
        let lasting = unsafe { mem::transmute::<Task<'_>, Task<'static>>(task) };
        let call = Arc::new(Call::default());
        lock(&call.inside).task = Some(lasting);
        let closing = Closing { crew: self, call: &call };
        self.call(&call, hands);
        task();
        drop(closing);
        assert!(!lock(&call.inside).panicked, "work panicked on another thread");
    }

    fn call(&'static self, call: &Arc<Call>, hands: usize) {
        let mut state = lock(&self.state);
        state.calls.extend((0..hands).map(|_| Arc::clone(call)));
        let wanted = state.calls.len().saturating_sub(state.idle);
        let missing = wanted.min(self.most - state.threads);
        for _ in 0..missing {
            let started = thread::Builder::new()
                .name("uffd-crew".to_owned())
                .stack_size(256 << 10)
                .spawn(move || {
                    serve_guests();
                    self.work();
                });
            // Without it, the others do its share.
            state.threads += usize::from(started.is_ok());
        }
        drop(state);
        (0..hands).for_each(|_| self.called.notify_one());
    }

    fn work(&self) {
        go_where_the_process_is();
        let mut state = lock(&self.state);
        loop {
            if let Some(call) = state.calls.pop_front() {
                drop(state);
                call.help();
                state = lock(&self.state);
                continue;
            }
            state.idle += 1;
            let (guard, timeout) =
                self.called.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if timeout.timed_out() && state.calls.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl Call {
    /// Does what is left of the work, unless it is over.
    fn help(&self) {
        let Some(task) = self.enter() else { return };
        // Whoever asked for it is told; this thread goes on.
        let panicked = catch_unwind(AssertUnwindSafe(task)).is_err();
        let mut inside = lock(&self.inside);
        inside.count -= 1;
        inside.panicked |= panicked;
        self.left.notify_one();
    }

    fn enter(&self) -> Option<Task<'static>> {
        let mut inside = lock(&self.inside);
        let task = inside.task?;
        inside.count += 1;
        Some(task)
    }
}

/// Keeps a task from outliving the call of [`Crew::run`] that it was given to.
struct Closing<'a> {
    crew: &'a Crew,
    call: &'a Arc<Call>,
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut inside = lock(&self.call.inside);
        inside.task = None;
        while inside.count > 0 {
            inside = self.call.left.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        drop(inside);
        lock(&self.crew.state).calls.retain(|call| !Arc::ptr_eq(call, self.call));
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

/// A thread begins where the one that started it may run, which somebody may have pinned for its
/// guest's sake. The crew is there for all.
fn go_where_the_process_is() {
    let this = Pid::from_raw(0);
    let process = Pid::this();
    // Where that cannot be, it stays where it is.
    let _ = sched_getaffinity(process).and_then(|cores| sched_setaffinity(this, &cores));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::ThreadId;

    fn crew(most: usize) -> &'static Crew {
        Box::leak(Box::new(Crew::new(most)))
    }

    /// Runs a task that ends once so many threads are in it; which these were.
    fn meet(crew: &'static Crew, threads: usize) -> Vec<ThreadId> {
        let (all, seen) = (Barrier::new(threads), Mutex::new(Vec::new()));
        crew.run(threads - 1, &|| {
            lock(&seen).push(thread::current().id());
            all.wait();
        });
        seen.into_inner().unwrap()
    }

    #[test]
    fn threads_are_in_a_task_at_the_same_time_and_are_used_again() {
        let crew = crew(3);
        let first = meet(crew, 4);
        assert!(first.contains(&thread::current().id()));
        let mut again = meet(crew, 4);
        again.retain(|thread| !first.contains(thread));
        assert_eq!(again, [], "threads that were started anew");
        assert_eq!(lock(&crew.state).threads, 3);
    }

    #[test]
    fn nobody_is_in_a_task_when_it_is_over() {
        let crew = crew(2);
        for _ in 0..2_000 {
            let inside = AtomicUsize::new(0);
            crew.run(2, &|| {
                inside.fetch_add(1, Ordering::SeqCst);
                thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
            });
            assert_eq!(inside.load(Ordering::SeqCst), 0);
        }
        assert!(lock(&crew.state).calls.is_empty());
    }

    /// All threads of the crew are kept from coming.
    #[test]
    fn nobody_waits_for_a_thread_that_does_not_come() {
        let crew = crew(1);
        let (begun, kept) = (Barrier::new(3), Barrier::new(3));
        thread::scope(|scope| {
            scope.spawn(|| {
                crew.run(1, &|| {
                    begun.wait();
                    kept.wait();
                });
            });
            begun.wait();
            let runs = AtomicUsize::new(0);
            crew.run(1, &|| _ = runs.fetch_add(1, Ordering::SeqCst));
            assert_eq!(runs.load(Ordering::SeqCst), 1);
            kept.wait();
        });
    }

    #[test]
    fn a_crew_of_nobody_does_its_work_all_the_same() {
        assert_eq!(meet(crew(0), 1), [thread::current().id()]);
        let crew = crew(0);
        let runs = AtomicUsize::new(0);
        crew.run(3, &|| _ = runs.fetch_add(1, Ordering::SeqCst));
        assert_eq!((runs.into_inner(), lock(&crew.state).threads), (1, 0));
    }

    #[test]
    fn a_panic_comes_to_whoever_asked_and_the_crew_goes_on() {
        let crew = crew(1);
        let here = thread::current().id();
        let both = Barrier::new(2);
        let run = catch_unwind(AssertUnwindSafe(|| {
            crew.run(1, &|| {
                both.wait();
                assert_eq!(thread::current().id(), here, "a panic on purpose");
            });
        }));
        assert!(run.is_err());
        assert_eq!(meet(crew, 2).len(), 2);
    }
}
