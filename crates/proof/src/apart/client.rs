//! The process that serves, as whoever started it sees it.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::words::{Ask, Line, Request, Role};
use crate::cast::Cast;
use crate::facts::{Ending, Figures};
use crate::observe::DEADLINE;
use crate::serving::Asked;

/// Why a guest is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Stays the same from version to version.
    pub code: String,
    /// For people.
    pub text: String,
}

/// What was told of a guest.
#[derive(Debug)]
pub(super) enum Told {
    Notice(String),
    Ended(Ending, Figures),
}

type Arrival = Result<(u64, Option<i32>, Receiver<Told>), Refused>;
type Answer = Box<dyn FnOnce(Value) + Send>;

/// A serving process. It is ended with its standard input, and killed if that is of no use.
#[derive(Debug)]
pub(super) struct Handler {
    process: Mutex<Child>,
    pid: u32,
    mouth: Mutex<Option<ChildStdin>>,
    next: AtomicU64,
    arrivals: Receiver<Arrival>,
    waiting: Arc<Waiting>,
}

/// Who waits for an answer.
#[derive(Default)]
struct Waiting(Mutex<HashMap<u64, Answer>>);

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(lock(&self.0).keys()).finish()
    }
}

impl Handler {
    pub(super) fn start(cast: &Cast, role: &Role) -> Arc<Self> {
        let role = serde_json::to_string(role).expect("a role is plain data");
        let mut process = Command::new(cast.program())
            .args(["handler", &role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process that serves");
        let (pid, mouth) = (process.id(), process.stdin.take());
        let output = process.stdout.take().expect("a pipe");
        let (arrived, arrivals) = unbounded();
        let (ready, is_ready) = unbounded();
        let waiting = Arc::<Waiting>::default();
        let ears = Ears { arrived, ready, waiting: waiting.clone(), guests: HashMap::new() };
        thread::spawn(move || ears.listen(output));
        is_ready.recv_timeout(DEADLINE).expect("the process that serves is ready");
        Arc::new(Self {
            process: Mutex::new(process),
            pid,
            mouth: Mutex::new(mouth),
            next: AtomicU64::new(1),
            arrivals,
            waiting,
        })
    }

    pub(super) const fn pid(&self) -> u32 {
        self.pid
    }

    /// The next guest, or why there is none.
    pub(super) fn next_guest(&self) -> Arrival {
        self.heard(&self.arrivals, "what became of the guest")
    }

    /// The next word on `channel`.
    pub(super) fn heard<T>(&self, channel: &Receiver<T>, what: &str) -> T {
        channel
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|error| panic!("process {} does not tell {what}: {error}", self.pid))
    }

    pub(super) fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        what: &'static str,
        guest: u64,
        ask: Ask,
    ) -> Asked<T> {
        let (asked, answer) = Asked::new(what);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let take = move |value| {
            let value = serde_json::from_value(value).expect("an answer to the question");
            let _ = answer.send(value);
        };
        lock(&self.waiting.0).insert(id, Box::new(take));
        let request = Request { id, guest, ask };
        let mut line = serde_json::to_string(&request).expect("a request is plain data");
        line.push('\n');
        if let Some(mouth) = lock(&self.mouth).as_mut() {
            // A process that has ended answers nothing, which its ears tell.
            let _ = mouth.write_all(line.as_bytes());
        }
        asked
    }

    /// VmHWM, in bytes.
    pub(super) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.expect("a peak of resident memory") << 10
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        lock(&self.mouth).take();
        let mut process = lock(&self.process);
        let start = std::time::Instant::now();
        while matches!(process.try_wait(), Ok(None)) {
            if start.elapsed() >= DEADLINE {
                let _ = process.kill();
                let _ = process.wait();
                return;
            }
            thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

/// Listens to the process until its end.
struct Ears {
    arrived: Sender<Arrival>,
    ready: Sender<()>,
    waiting: Arc<Waiting>,
    /// Those whose sessions have not ended.
    guests: HashMap<u64, Sender<Told>>,
}

impl Ears {
    fn listen(mut self, output: ChildStdout) {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            self.hear(serde_json::from_str(&line).expect("the process speaks its language"));
        }
        // Nobody answers any more.
        lock(&self.waiting.0).clear();
    }

    fn hear(&mut self, line: Line) {
        match line {
            Line::Ready => drop(self.ready.send(())),
            Line::Guest { number, pid } => {
                let (sender, told) = unbounded();
                self.guests.insert(number, sender);
                let _ = self.arrived.send(Ok((number, pid, told)));
            }
            Line::Refused { code, text } => {
                let _ = self.arrived.send(Err(Refused { code, text }));
            }
            Line::Notice { guest, text } => {
                let told = self.guests.get(&guest).expect("a notice comes before the end");
                let _ = told.send(Told::Notice(text));
            }
            Line::Ended { guest, ending, figures } => {
                let told = self.guests.remove(&guest).expect("a session ends once");
                let _ = told.send(Told::Ended(ending, figures));
            }
            Line::Answer { id, answer } => {
                if let Some(take) = lock(&self.waiting.0).remove(&id) {
                    take(answer);
                }
            }
            Line::EndedBefore { id } => drop(lock(&self.waiting.0).remove(&id)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
