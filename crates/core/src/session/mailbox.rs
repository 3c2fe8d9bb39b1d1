//! How the rest of the process speaks to a fault loop: a queue and an eventfd that wakes it.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use thiserror::Error;

use super::reports::{Export, PrefaultReport};
use crate::kernel::Waker;
use crate::source::{Delivery, SourceError};
use crate::stats::Stats;
use crate::trace::TraceEntry;
use crate::units::PageRange;

/// The session had ended before it could answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the session has ended")]
pub struct Ended;

/// Where the answer to a command goes. Called exactly once, on the fault loop's thread or, if
/// the session has ended, on the thread that asked; must not block.
pub struct Reply<T>(Option<Answer<T>>);

type Answer<T> = Box<dyn FnOnce(Result<T, Ended>) + Send>;

impl<T> Reply<T> {
    /// Answers go to `answer`.
    pub fn new(answer: impl FnOnce(Result<T, Ended>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    pub(crate) fn send(mut self, value: T) {
        if let Some(answer) = self.0.take() {
            answer(Ok(value));
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(Ended));
        }
    }
}

/// Names a prefault while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefaultId(pub(crate) u64);

/// What is done to pages that are wanted soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrefaultMode {
    /// They are installed.
    Install,
    /// They are brought into the host's memory; faults install them.
    Fetch,
}

/// What a fault loop is asked to do.
pub(crate) enum Command {
    Prefault {
        mode: PrefaultMode,
        id: PrefaultId,
        ranges: Vec<PageRange>,
        reply: Reply<PrefaultReport>,
    },
    CancelPrefault(PrefaultId),
    Export(Reply<Export>),
    Stats(Reply<Stats>),
    Trace {
        from: usize,
        reply: Reply<Vec<TraceEntry>>,
    },
    /// Answered once no fault is in hand.
    Settle(Reply<()>),
    /// Statistics every so often, and the trace as it grows, go to the observer.
    Report {
        stats_every: Option<std::time::Duration>,
        trace: bool,
    },
    /// The observer can take more of the trace.
    TraceWanted,
    Stop,
}

/// Bytes that were fetched for the fault loop.
pub(crate) struct Fetched {
    pub(crate) pages: PageRange,
    pub(crate) bytes: Result<Delivery, SourceError>,
    /// The prefault they were fetched for; `None` for a fault.
    pub(crate) prefault: Option<PrefaultId>,
}

pub(crate) enum Message {
    Command(Command),
    Fetched(Fetched),
    /// Fetches that were refused for want of room can be asked for again.
    Room,
}

/// The sending side.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    sender: Sender<Message>,
    waker: Arc<Waker>,
}

impl Mailbox {
    /// A mailbox and the loop's side of it.
    pub(crate) fn new() -> nix::Result<(Self, Inbox)> {
        let (sender, receiver) = unbounded();
        let waker = Arc::new(Waker::new()?);
        let inbox = Inbox { receiver, waker: Arc::clone(&waker) };
        Ok((Self { sender, waker }, inbox))
    }

    /// Posts a message. If the loop has ended it is dropped, which answers a command.
    pub(crate) fn post(&self, message: Message) {
        if self.sender.send(message).is_ok() {
            self.waker.wake();
        }
    }

    pub(crate) fn command(&self, command: Command) {
        self.post(Message::Command(command));
    }
}

/// The fault loop's side.
pub(crate) struct Inbox {
    receiver: Receiver<Message>,
    waker: Arc<Waker>,
}

impl Inbox {
    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Whether there may be messages, without a system call.
    pub(crate) fn has_mail(&self) -> bool {
        self.waker.is_awake()
    }

    /// The next message, if there is one.
    pub(crate) fn next(&self) -> Option<Message> {
        self.receiver.try_recv().ok()
    }
}
