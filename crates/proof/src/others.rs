//! Processes that get in the way of a guest and its handler.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};

use crate::cast::Cast;
use crate::observe::DEADLINE;

/// A process of one part, and what it says. It ends with its input.
#[derive(Debug)]
struct Other {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Other {
    fn start(cast: &Cast, args: &[&str]) -> Self {
        let mut process = Command::new(cast.program())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("another process");
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        let (sender, lines) = unbounded();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { process, input, lines }
    }

    fn expect(&self, line: &str) {
        let said = self.lines.recv_timeout(DEADLINE);
        assert_eq!(said.as_deref(), Ok(line), "another process says");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.process.wait();
    }
}

/// Somebody who takes pages out of the pool of huge pages and gives them back, all the time.
#[derive(Debug)]
pub struct Drain {
    _process: Other,
}

impl Drain {
    /// Takes up to `pages` at a time, and pauses between.
    pub fn start(cast: &Cast, pages: u64, pause: Duration) -> Self {
        let (pages, pause) = (pages.to_string(), pause.as_micros().to_string());
        let process = Other::start(cast, &["drain", &pages, &pause]);
        process.expect("draining");
        Self { _process: process }
    }
}

/// Somebody who passes a handoff on and lives.
#[derive(Debug)]
pub struct Relay {
    process: Other,
    socket: PathBuf,
}

impl Relay {
    /// Listens in `dir` and passes on to `forward`.
    pub fn start(cast: &Cast, dir: &Path, forward: &Path) -> Self {
        let socket = dir.join("relay.sock");
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let process = Other::start(cast, &["relay", &text(&socket), &text(forward)]);
        process.expect("listening");
        Self { process, socket }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits until the handoff was passed on.
    ///
    /// # Panics
    /// If it was not in time.
    pub fn wait_until_passed_on(&self) {
        self.process.expect("passed on");
    }

    /// Checks that nobody has killed it: it has to answer.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_lives(&mut self) {
        let input = self.process.input.as_mut().expect("a pipe");
        let asked = input.write_all(b"are you there?\n").and_then(|()| input.flush());
        assert!(asked.is_ok(), "whoever passed the guest on was killed: {asked:?}");
        self.process.expect("here");
    }
}
