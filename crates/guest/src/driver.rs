//! Starts a guest process and speaks to it.
//!
//! Every wait has a deadline, and its error says what the guest printed meanwhile: a test of page
//! faults that fails mostly fails by somebody waiting for ever.

mod conversation;
mod error;
mod thread;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use self::conversation::Conversation;
pub use self::conversation::Pending;
pub use self::error::DriverError;
pub use self::thread::Thread;
use crate::options::Options;
use crate::protocol::{Death, Op, PageState, Ready, Rss, Whereabouts};
use crate::runs::Runs;

/// How long a guest may take to answer, unless the builder says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A guest to be started.
#[derive(Clone, Debug)]
pub struct GuestBuilder {
    program: PathBuf,
    leading: Vec<OsString>,
    options: Options,
    deadline: Duration,
}

impl GuestBuilder {
    /// Runs the guest by `program`, which is `uffd-guest` or ends in
    /// [`program::main`](crate::program::main).
    pub fn new(program: impl Into<PathBuf>, options: Options) -> Self {
        Self { program: program.into(), leading: Vec::new(), options, deadline: DEADLINE }
    }

    /// Puts an argument before those of the guest, for programs that need to be told.
    #[must_use]
    pub fn leading_arg(mut self, arg: impl Into<OsString>) -> Self {
        self.leading.push(arg.into());
        self
    }

    /// How long the guest may take to answer anything.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Starts the guest and waits until it has handed off.
    pub fn spawn(self) -> Result<Guest, DriverError> {
        let child = Command::new(&self.program)
            .args(&self.leading)
            .args(self.options.to_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child =
            child.map_err(|error| DriverError::Start { program: self.program, error })?;
        let conversation = Conversation::with(&mut child);
        let mut guest = Guest {
            child,
            conversation,
            deadline: self.deadline,
            ready: Ready { pid: 0, page_size: 0, regions: Vec::new(), user_mode_only: false },
        };
        guest.ready = guest.conversation.ready(self.deadline)?;
        Ok(guest)
    }
}

/// A running guest. It is killed and reaped when dropped.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    conversation: Conversation,
    deadline: Duration,
    ready: Ready,
}

impl Guest {
    /// What the guest said of itself.
    pub const fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its process.
    pub const fn pid(&self) -> i32 {
        self.ready.pid
    }

    /// Pages of all its regions.
    pub fn pages(&self) -> u64 {
        self.ready.regions.iter().map(|region| region.pages).sum()
    }

    /// One of its threads; it starts when first used.
    pub const fn thread(&self, number: u32) -> Thread<'_> {
        Thread::new(&self.conversation, self.deadline, number)
    }

    /// Asks for something and does not wait.
    pub fn start<T: DeserializeOwned>(&self, thread: u32, op: Op) -> Pending<T> {
        self.conversation.ask(thread, op, self.deadline)
    }

    /// Asks for something and waits for the answer.
    pub fn call<T: DeserializeOwned>(&self, thread: u32, op: Op) -> Result<T, DriverError> {
        self.start(thread, op).get()
    }

    /// What the page tables say, whatever its threads wait for.
    pub fn pagemap(&self, page: u64, count: u64) -> Result<Runs<PageState>, DriverError> {
        self.call(0, Op::Pagemap { page, count })
    }

    /// How much memory is resident.
    pub fn rss(&self) -> Result<Rss, DriverError> {
        self.call(0, Op::Rss)
    }

    /// Where its threads are, and which pages they wait for.
    pub fn whereabouts(&self) -> Result<Vec<Whereabouts>, DriverError> {
        self.call(0, Op::Whereabouts)
    }

    /// Makes all threads that wait for a page fault again.
    pub fn wake_all(&self) -> Result<(), DriverError> {
        self.call(0, Op::WakeAll)
    }

    /// Sets or clears O_NONBLOCK on the userfaultfd, which it shares with its handler.
    pub fn set_nonblocking(&self, on: bool) -> Result<(), DriverError> {
        self.call(0, Op::SetNonblocking { on })
    }

    /// Closes the socket of the handoff.
    pub fn close_socket(&self) -> Result<(), DriverError> {
        self.call(0, Op::CloseSocket)
    }

    /// Gives the number of the userfaultfd to another one; with `keep`, the guest has the first one
    /// under another number.
    pub fn reuse_number(&self, keep: bool) -> Result<(), DriverError> {
        self.call(0, Op::ReuseNumber { keep })
    }

    /// Has the guest die after it touched so many more pages.
    pub fn die_after(&self, how: Death, touches: u64) -> Result<(), DriverError> {
        self.call(0, Op::Die { how, after_touches: Some(touches) })
    }

    /// Has the guest die now, and waits for its end.
    pub fn die(&mut self, how: Death) -> Result<ExitStatus, DriverError> {
        let _: Pending<()> = self.start(0, Op::Die { how, after_touches: None });
        self.wait_exit()
    }

    /// Has the guest exit in good order, and waits for its end.
    pub fn exit(&mut self) -> Result<ExitStatus, DriverError> {
        let _: Pending<()> = self.start(0, Op::Exit);
        self.wait_exit()
    }

    /// Kills the guest from outside, and waits for its end.
    pub fn kill(&mut self) -> Result<ExitStatus, DriverError> {
        // It may have ended by itself; the wait tells.
        let _ = self.child.kill();
        self.wait_exit()
    }

    /// Waits until the guest has ended by itself.
    pub fn wait_exit(&mut self) -> Result<ExitStatus, DriverError> {
        let start = Instant::now();
        while start.elapsed() < self.deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(DriverError::Timeout {
            what: "the end of the guest".into(),
            waited: self.deadline,
            waiting: self.conversation.whereabouts(),
            printed: self.stderr(),
        })
    }

    /// What the guest printed on its standard error so far.
    pub fn stderr(&self) -> String {
        self.conversation.printed()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
