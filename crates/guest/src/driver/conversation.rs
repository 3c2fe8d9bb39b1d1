//! Requests and replies, matched by their ids.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::marker::PhantomData;
use std::process::{Child, ChildStdin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use super::error::DriverError;
use crate::lock::lock;
use crate::protocol::{Line, Op, Outcome, Ready, Refusal, Reply, Request, Whereabouts};

/// How long is waited for what only makes an error say more.
const BRIEF: Duration = Duration::from_secs(10);

/// What was heard from the guest.
#[derive(Debug, Default)]
struct Heard {
    ready: Option<Ready>,
    failed: Option<Refusal>,
    outcomes: HashMap<u64, Outcome>,
    /// Standard output has ended, and with it the guest.
    ended: bool,
    /// All that it printed has been read.
    all_printed: bool,
}

#[derive(Debug, Default)]
struct Ears {
    heard: Mutex<Heard>,
    news: Condvar,
    printed: Mutex<String>,
    process: AtomicU64,
}

impl Ears {
    fn hear(&self, line: Result<Line, String>) {
        let mut heard = lock(&self.heard);
        match line {
            Ok(Line::Ready(ready)) => heard.ready = Some(ready),
            Ok(Line::Failed(why)) => heard.failed = Some(why),
            Ok(Line::Reply(Reply { id, outcome })) => {
                heard.outcomes.insert(id, outcome);
            }
            Err(noise) => lock(&self.printed).push_str(&noise),
        }
        self.news.notify_all();
    }

    /// Waits until `of` finds something, the guest has ended, or time is up.
    fn wait<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut of: impl FnMut(&mut Heard) -> Option<T>,
    ) -> Result<T, DriverError> {
        let start = Instant::now();
        let mut heard = lock(&self.heard);
        loop {
            if let Some(found) = of(&mut heard) {
                return Ok(found);
            }
            if heard.ended {
                drop(self.all_printed(heard));
                let (what, printed) = (what.into(), lock(&self.printed).clone());
                return Err(DriverError::Gone { what, status: self.status(), printed });
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                let (what, printed) = (what.into(), lock(&self.printed).clone());
                let waiting = Vec::new();
                return Err(DriverError::Timeout { what, waited: timeout, waiting, printed });
            }
            heard = match self.news.wait_timeout(heard, left) {
                Ok((heard, _)) => heard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Waits for what it printed last, which may still be on its way. Whoever it started may have its
    /// standard error as well, and live on.
    fn all_printed<'a>(&self, heard: MutexGuard<'a, Heard>) -> MutexGuard<'a, Heard> {
        let is_missing = |heard: &mut Heard| !heard.all_printed;
        match self.news.wait_timeout_while(heard, BRIEF, is_missing) {
            Ok((heard, _)) => heard,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    /// How the process ended, without reaping it: that is for its owner.
    fn status(&self) -> String {
        let pid = i32::try_from(self.process.load(Ordering::Relaxed)).unwrap_or_default();
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        // Its output ends a moment before the process does.
        let start = Instant::now();
        while start.elapsed() < BRIEF {
            match waitid(Id::Pid(Pid::from_raw(pid)), flags) {
                Ok(WaitStatus::StillAlive) => thread::sleep(Duration::from_millis(2)),
                Ok(WaitStatus::Exited(_, status)) => return format!("exit status {status}"),
                Ok(WaitStatus::Signaled(_, signal, _)) => return signal.to_string(),
                Ok(status) => return format!("{status:?}"),
                Err(_) => return "reaped already".into(),
            }
        }
        "its output, that is; the process lives".into()
    }
}

/// Both ends of the pipes to a guest.
#[derive(Clone, Debug)]
pub(super) struct Conversation {
    mouth: Arc<Mutex<Option<ChildStdin>>>,
    ears: Arc<Ears>,
    next: Arc<AtomicU64>,
}

impl Conversation {
    /// Takes the pipes of a child and starts to listen.
    pub(super) fn with(child: &mut Child) -> Self {
        let ears = Arc::new(Ears::default());
        ears.process.store(child.id().into(), Ordering::Relaxed);
        if let Some(output) = child.stdout.take() {
            let ears = Arc::clone(&ears);
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    ears.hear(serde_json::from_str(&line).map_err(|_| line + "\n"));
                }
                lock(&ears.heard).ended = true;
                ears.news.notify_all();
            });
        }
        if let Some(mut errors) = child.stderr.take() {
            let ears = Arc::clone(&ears);
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(len @ 1..) = errors.read(&mut bytes) {
                    lock(&ears.printed).push_str(&String::from_utf8_lossy(&bytes[..len]));
                }
                lock(&ears.heard).all_printed = true;
                ears.news.notify_all();
            });
        }
        let mouth = Arc::new(Mutex::new(child.stdin.take()));
        Self { mouth, ears, next: Arc::new(AtomicU64::new(1)) }
    }

    /// Waits for the handoff.
    pub(super) fn ready(&self, timeout: Duration) -> Result<Ready, DriverError> {
        let outcome = self.ears.wait("the handoff", timeout, |heard| {
            heard.ready.take().map(Ok).or_else(|| heard.failed.take().map(Err))
        });
        outcome?.map_err(DriverError::GaveUp)
    }

    /// Sends a request.
    pub(super) fn ask<T>(&self, thread: u32, op: Op, deadline: Duration) -> Pending<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let what = format!("{op:?} on thread {thread}");
        let mut line = serde_json::to_string(&Request { id, thread, op }).unwrap_or_default();
        line.push('\n');
        if let Some(mouth) = lock(&self.mouth).as_mut() {
            // A guest that does not listen has ended, which the wait for its reply tells better.
            let _ = mouth.write_all(line.as_bytes());
        }
        Pending { conversation: self.clone(), id, what, deadline, answer: PhantomData }
    }

    /// Where the threads of the guest are, if it still listens.
    pub(super) fn whereabouts(&self) -> Vec<Whereabouts> {
        let asked = self.ask::<Vec<Whereabouts>>(0, Op::Whereabouts, BRIEF);
        match self.ears.wait("", BRIEF, |heard| heard.outcomes.remove(&asked.id)) {
            Ok(Outcome::Ok(answer)) => serde_json::from_value(answer).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    pub(super) fn printed(&self) -> String {
        lock(&self.ears.printed).clone()
    }
}

/// A request that may not have been answered yet.
#[must_use = "a request that nobody waits for may not have been carried out"]
pub struct Pending<T> {
    conversation: Conversation,
    id: u64,
    what: String,
    deadline: Duration,
    answer: PhantomData<fn() -> T>,
}

impl<T> Pending<T> {
    /// Whether the answer is there, or will never come because the guest ended.
    pub fn is_done(&self) -> bool {
        let heard = lock(&self.conversation.ears.heard);
        heard.ended || heard.outcomes.contains_key(&self.id)
    }

    /// Whether the answer fails to come for a while, as it does while the thread waits for a page.
    pub fn stays_pending(&self, for_: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < for_ {
            if self.is_done() {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        !self.is_done()
    }
}

impl<T: DeserializeOwned> Pending<T> {
    /// Waits for the answer until the deadline of the guest.
    pub fn get(self) -> Result<T, DriverError> {
        let deadline = self.deadline;
        self.wait(deadline)
    }

    /// Waits for the answer for `timeout`.
    pub fn wait(self, timeout: Duration) -> Result<T, DriverError> {
        let what = self.what;
        let of = |heard: &mut Heard| heard.outcomes.remove(&self.id);
        let mut heard = self.conversation.ears.wait(&what, timeout, of);
        if let Err(DriverError::Timeout { waiting, .. }) = &mut heard {
            *waiting = self.conversation.whereabouts();
        }
        match heard? {
            Outcome::Ok(answer) => {
                serde_json::from_value(answer).map_err(|error| DriverError::Garbled { what, error })
            }
            Outcome::Error(why) => Err(DriverError::Refused { what, why }),
        }
    }
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({})", self.what)
    }
}
