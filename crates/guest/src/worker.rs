//! The guest itself, shared by its threads, and the threads.
//!
//! No lock is held while guest memory is accessed: a thread may wait for a page for ever, and
//! must not take anybody with it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use userfaultfd::Uffd;

use crate::memory::{Memory, OutOfRange};
use crate::ops;
use crate::ops::soak::History;
use crate::pattern::Pattern;
use crate::protocol::{Death, Line, Op, Outcome, Refusal, Reply};
use crate::tracks::Tracks;

/// Everything the threads of a guest share.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) memory: Memory,
    pub(crate) pattern: Pattern,
    pub(crate) uffd: Uffd,
    pub(crate) socket: Mutex<Option<UnixStream>>,
    pub(crate) histories: Vec<History>,
    barriers: Mutex<HashMap<String, (usize, Arc<Barrier>)>>,
    pub(crate) tracks: Tracks,
    fate: Fate,
}

/// A death that was asked for in advance.
#[derive(Debug, Default)]
struct Fate {
    armed: AtomicBool,
    touches_left: AtomicU64,
    how: Mutex<Option<Death>>,
}

impl Guest {
    pub(crate) fn new(
        memory: Memory,
        pattern: Pattern,
        uffd: Uffd,
        socket: Option<UnixStream>,
    ) -> Self {
        let histories = (0..memory.pages()).map(|_| History::default()).collect();
        Self {
            memory,
            pattern,
            uffd,
            socket: Mutex::new(socket),
            histories,
            barriers: Mutex::default(),
            tracks: Tracks::default(),
            fate: Fate::default(),
        }
    }

    /// To be called before each touch of a page: tells where the thread is, should it wait, and
    /// brings the death that comes after so many touches.
    pub(crate) fn about_to_touch(&self, page: u64) {
        self.tracks.follow(page);
        if self.fate.armed.load(Ordering::Relaxed)
            && self.fate.touches_left.fetch_sub(1, Ordering::Relaxed) == 0
            && let Some(how) = *lock(&self.fate.how)
        {
            die(how);
        }
    }

    /// Dies, or prepares to.
    pub(crate) fn die(&self, how: Death, after_touches: Option<u64>) {
        let Some(touches) = after_touches else { die(how) };
        *lock(&self.fate.how) = Some(how);
        self.fate.touches_left.store(touches, Ordering::Relaxed);
        self.fate.armed.store(true, Ordering::Relaxed);
    }

    /// Waits for the others at a barrier.
    pub(crate) fn meet(&self, name: &str, parties: usize) -> Result<(), Refusal> {
        let (expected, barrier) = lock(&self.barriers)
            .entry(name.to_owned())
            .or_insert_with(|| (parties, Arc::new(Barrier::new(parties))))
            .clone();
        if expected != parties {
            return Err(refusal(format!("barrier {name} is for {expected} threads")));
        }
        barrier.wait();
        Ok(())
    }
}

fn die(how: Death) -> ! {
    match how {
        Death::Exit => std::process::exit(0),
        Death::Abort => std::process::abort(),
        Death::Kill => {
            let _ = kill(Pid::this(), Signal::SIGKILL);
            std::process::abort()
        }
    }
}

/// The threads of a guest, started when first asked for.
#[derive(Debug)]
pub(crate) struct Workers {
    guest: Arc<Guest>,
    threads: HashMap<u32, Sender<(u64, Op)>>,
}

impl Workers {
    pub(crate) fn new(guest: Arc<Guest>) -> Self {
        Self { guest, threads: HashMap::new() }
    }

    /// Has `thread` execute a request, after those it has already.
    pub(crate) fn submit(&mut self, thread: u32, id: u64, op: Op) -> io::Result<()> {
        if !self.threads.contains_key(&thread) {
            let (sender, requests) = mpsc::channel::<(u64, Op)>();
            let guest = Arc::clone(&self.guest);
            thread::Builder::new().name(format!("guest {thread}")).spawn(move || {
                for (id, op) in requests {
                    reply(id, execute(&guest, &op));
                }
            })?;
            self.threads.insert(thread, sender);
        }
        if let Some(sender) = self.threads.get(&thread) {
            sender.send((id, op)).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

/// Executes an op; a panic is a refusal too, for every request has a reply.
pub(crate) fn execute(guest: &Guest, op: &Op) -> Result<Value, Refusal> {
    catch_unwind(AssertUnwindSafe(|| ops::execute(guest, op)))
        .unwrap_or_else(|_| Err(refusal("the guest panicked; its standard error says why")))
}

pub(crate) fn reply(id: u64, outcome: Result<Value, Refusal>) {
    let outcome = outcome.map_or_else(Outcome::Error, Outcome::Ok);
    say(&Line::Reply(Reply { id, outcome }));
}

/// Writes one line to standard output.
pub(crate) fn say(line: &Line) {
    let mut text = serde_json::to_string(line).expect("lines are plain data");
    text.push('\n');
    // Nobody to tell if the driver is gone; standard input ends then, and the guest with it.
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

pub(crate) fn refusal(message: impl Into<String>) -> Refusal {
    Refusal { message: message.into(), errno: None }
}

impl From<nix::Error> for Refusal {
    fn from(errno: nix::Error) -> Self {
        Self { message: errno.to_string(), errno: Some(errno as i32) }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self { message: error.to_string(), errno: error.raw_os_error() }
    }
}

impl From<OutOfRange> for Refusal {
    fn from(_: OutOfRange) -> Self {
        refusal("the guest does not have all of these pages")
    }
}

/// Locks; a thread that panicked leaves nothing half done behind these locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
