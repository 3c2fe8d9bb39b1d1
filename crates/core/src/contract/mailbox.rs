//! How messages get to a fault loop: a queue, and an eventfd that wakes it.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::command::{Command, Message};
use crate::kernel::Waker;

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

    /// The descriptor that announces messages was found readable: there may be some.
    pub(crate) fn announced(&self) {
        self.waker.found_readable();
    }

    /// The next message, if there is one.
    pub(crate) fn next(&self) -> Option<Message> {
        self.receiver.try_recv().ok()
    }
}
