//! What a proof asks of whoever serves a guest, and is told: the same in this process and in
//! another. Every answer is waited for with a deadline, so that a session which is frozen fails a
//! proof instead of hanging it.

use std::fmt;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use uffd_core::units::PageRange;
use uffd_guest::driver::Guest;
use uffd_guest::options::Options;

use crate::facts::{Ending, Exported, Figures, Prefaulted};
use crate::observe::DEADLINE;

/// A snapshot that is being served.
pub trait Staged {
    /// A guest with other options. One at a time: guests are told apart by their order.
    fn guest_with(&self, change: &dyn Fn(&mut Options)) -> Box<dyn Serving>;
}

/// A guest that is being served.
pub trait Serving: Sync {
    /// The guest process.
    fn guest(&self) -> &Guest;
    /// The guest process, to be ended.
    fn guest_mut(&mut self) -> &mut Guest;
    /// What its pages are.
    fn export(&self) -> Asked<Exported>;
    /// What was counted.
    fn figures(&self) -> Asked<Figures>;
    /// Answers once nothing is in hand.
    fn settle(&self) -> Asked<()>;
    /// Pages are installed before they are asked for.
    fn prefault(&self, ranges: Vec<PageRange>) -> Asked<Prefaulted>;
    /// Its session is to end.
    fn begin_stop(&self);
    /// How its session ended, and what was counted: told exactly once.
    fn end(&self) -> (Ending, Figures);
}

/// A question that may not have been answered yet.
#[derive(Debug)]
#[must_use = "a question that nobody waits for may not have been answered"]
pub struct Asked<T> {
    what: &'static str,
    answer: Receiver<T>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The session had ended.
    Ended,
    /// What was asked was not answered in time.
    Late(&'static str, Duration),
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the session has ended"),
            Self::Late(what, waited) => write!(f, "no answer to {what} in {waited:?}"),
        }
    }
}

impl<T> Asked<T> {
    /// A question, and where its answer goes. Whoever drops that answers that the session ended.
    pub(crate) fn new(what: &'static str) -> (Self, Sender<T>) {
        let (sender, answer) = bounded(1);
        (Self { what, answer }, sender)
    }

    /// A question that is answered already.
    pub(crate) fn answered(what: &'static str, answer: T) -> Self {
        let (asked, sender) = Self::new(what);
        let _ = sender.send(answer);
        asked
    }

    /// Waits for the answer.
    pub fn get(self) -> Result<T, Unanswered> {
        match self.answer.recv_timeout(DEADLINE) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Disconnected) => Err(Unanswered::Ended),
            Err(RecvTimeoutError::Timeout) => Err(Unanswered::Late(self.what, DEADLINE)),
        }
    }

    /// Whether the answer is there.
    pub fn is_done(&self) -> bool {
        !self.answer.is_empty()
    }
}
