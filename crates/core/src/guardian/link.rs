//! A server's connection with the guardian: a thread that keeps it up, starts another guardian when
//! one is lost, and tells it of all guests again.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::channel::{Channel, ChannelError};
use super::error::GuardianError;
use super::launch::Launch;
use super::message::{Answer, PROTOCOL, Request};
use super::news::{News, Observer};
use super::post::{PostError, visit};
use super::proof;
use crate::kernel::{Process, Waker};
use crate::ledger::{DirLock, Spares, StateDir};

/// How long an answer of the guardian's is waited for.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);

/// How long it may take to meet the first one.
const STARTS_WITHIN: Duration = Duration::from_secs(5);

/// How often it is tried to send what there was no room for.
const RETRY_EVERY: Duration = Duration::from_millis(20);

/// The pause before a lost guardian is looked for or started again. It doubles up to the longest; a
/// guardian that lived for longer than that is looked for at once.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(super) struct Link {
    pub(super) dir: Arc<StateDir>,
    /// Without it there is no guardian for new guests.
    pub(super) launch: Option<Launch>,
    pub(super) observer: Box<dyn Observer>,
    pub(super) waker: Waker,
    pub(super) state: Mutex<State>,
    /// Something changed that is waited for.
    pub(super) changed: Condvar,
}

#[derive(Debug, Default)]
pub(super) struct State {
    connection: Option<Connection>,
    pub(super) wards: HashMap<String, Entrusted>,
    /// Guests that this server could not take over: each guardian is to serve them.
    pub(super) left: HashSet<String>,
    /// Copies of userfaultfds that the guardian has sent.
    pub(super) copies: Spares,
    pub(super) has_all_copies: bool,
    /// Guests that were asked for.
    pub(super) wanted: HashSet<String>,
    /// How the first attempt went, once it is known.
    pub(super) met: Option<Result<(), GuardianError>>,
    was_met: bool,
    /// Too many wait at its door, which was told.
    is_crowded: bool,
    /// Why the last connection was lost or could not be made.
    pub(super) last_trouble: Option<String>,
    /// How many connections there were.
    pub(super) connections: u64,
    /// Answers to questions that ask for nothing but a sign of life.
    pub(super) signs_of_life: u64,
    /// Somebody waits for a guardian: the next attempt is made at once.
    is_in_a_hurry: bool,
    pub(super) closing: bool,
}

#[derive(Debug)]
struct Connection {
    channel: Channel,
    process: Process,
    welcomed: bool,
    /// Since when an answer is due.
    waits: Option<Instant>,
    is_silent: bool,
    broken: Option<ChannelError>,
}

#[derive(Debug)]
pub(super) struct Entrusted {
    /// To entrust it again to the next guardian.
    uffd: OwnedFd,
    answered: bool,
    /// The guardian that is there would serve it at once.
    guarded: bool,
    /// The server has let go of it. Until somebody has it each guardian is told so: what one was told
    /// may have died with it.
    pub(super) left: bool,
}

impl Entrusted {
    pub(super) const fn new(uffd: OwnedFd) -> Self {
        Self { uffd, answered: false, guarded: false, left: false }
    }

    const fn is_unanswered(&self) -> bool {
        !self.answered && !self.left
    }
}

impl State {
    fn meet(&mut self, how: Result<(), GuardianError>) {
        if !self.was_met {
            self.was_met = true;
            self.met = Some(how);
        }
    }

    /// How many guests the guardian would serve at once, as far as it has answered.
    pub(super) fn guarded(&self) -> usize {
        match self.connection {
            Some(_) => self.wards.values().filter(|ward| ward.guarded && !ward.left).count(),
            None => 0,
        }
    }

    fn awaits_answers(&self) -> bool {
        let is_new = self.connection.as_ref().is_some_and(|connection| !connection.welcomed);
        is_new || self.wards.values().any(Entrusted::is_unanswered)
    }

    /// Whether there is a guardian that has answered for each guest it was told of.
    pub(super) fn is_met(&self) -> bool {
        self.connection.is_some() && !self.awaits_answers()
    }

    /// The guardian's process, if there is one.
    pub(super) fn process(&self) -> Option<&Process> {
        self.connection.as_ref().map(|connection| &connection.process)
    }

    /// The guests that were let go of, as far as nobody was seen to have them.
    pub(super) fn left(&self) -> Vec<String> {
        let left = self.wards.iter().filter(|(_, ward)| ward.left);
        left.map(|(id, _)| id.clone()).collect()
    }
}

/// Why a connection is over.
enum Over {
    Closing,
    Lost(GuardianError),
}

impl From<GuardianError> for Over {
    fn from(error: GuardianError) -> Self {
        Self::Lost(error)
    }
}

impl Link {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something has changed.
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something has changed, for so long.
    pub(super) fn wait_for<'a>(
        &self,
        state: MutexGuard<'a, State>,
        within: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed.wait_timeout(state, within).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits for an answer, unless nobody is there who answers in time.
    pub(super) fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State>,
        unanswered: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        let is_there = |state: &State| {
            state.connection.as_ref().is_some_and(|connection| !connection.is_silent)
        };
        self.changed
            .wait_timeout_while(state, ANSWERS_WITHIN, |state| unanswered(state) && is_there(state))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// Sends a message if there is anybody; what there is no room for now is sent by the thread.
    /// Whether there was anybody.
    pub(super) fn say(&self, state: &mut State, request: &Request, fd: Option<OwnedFd>) -> bool {
        let Some(connection) = &mut state.connection else { return false };
        // The thread takes the connection down.
        connection.broken = connection.channel.send(request, fd).err();
        if matches!(request, Request::Entrust { .. } | Request::Give { .. }) {
            connection.waits.get_or_insert_with(Instant::now);
        }
        // The thread may have to wait for room, or for an answer.
        self.waker.wake();
        true
    }

    /// Until the client is dropped.
    pub(super) fn keep_in_touch(&self) {
        let (begun, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let since = Instant::now();
            let error = match self.connect().map_err(Over::from).and_then(|()| self.attend()) {
                Ok(never) => match never {},
                Err(Over::Closing) => return,
                Err(Over::Lost(error)) => error,
            };
            if since.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            // One that was just about to end when it was found is none.
            let again = error.passes() && begun.elapsed() < STARTS_WITHIN;
            let goes_on = self.lost(again, error);
            // There is no other one to be had, or whoever asked for the first gives up.
            let is_other_to_be_had = self.launch.is_some() || again;
            if !goes_on || !is_other_to_be_had || self.is_closing_within(pause) {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The connection is over, or could not be made; whether there may be another one. The first is
    /// tried `again` at most.
    fn lost(&self, again: bool, error: GuardianError) -> bool {
        let mut state = self.lock();
        state.connection = None;
        state.last_trouble = Some(error.to_string());
        let was_met = state.was_met;
        if matches!(error, GuardianError::Post(PostError::Crowded)) {
            // Told once: it is tried again until it hears somebody.
            let is_known = std::mem::replace(&mut state.is_crowded, true);
            state.meet(Err(PostError::Crowded.into()));
            drop(state);
            if !is_known {
                self.observer.heard(News::Troubled(error));
            }
            self.changed.notify_all();
            return true;
        }
        if !was_met && !again {
            state.meet(Err(error));
        } else if was_met {
            drop(state);
            self.observer.heard(News::Troubled(error));
        }
        self.changed.notify_all();
        was_met || again
    }

    /// Finds the guardian, or starts one, and tells it of all guests.
    fn connect(&self) -> Result<(), GuardianError> {
        let visitor = match visit(&self.dir)? {
            Some(visitor) => visitor,
            None => {
                let launch = self.launch.as_ref().ok_or(GuardianError::Nobody)?;
                let launched = launch.start(&self.dir);
                match visit(&self.dir)? {
                    // Whoever started it.
                    Some(visitor) => visitor,
                    None => return Err(launched.err().unwrap_or(GuardianError::Nobody)),
                }
            }
        };
        let mut channel = visitor.channel;
        channel.send(&Request::Hello { version: PROTOCOL }, None)?;
        let mut state = self.lock();
        self.forget_the_taken(&mut state);
        for (id, ward) in &mut state.wards {
            let copy = ward.uffd.try_clone().map_err(GuardianError::Resources)?;
            channel.send(&Request::Entrust { id: id.clone() }, Some(copy))?;
            (ward.answered, ward.guarded) = (false, false);
            if ward.left {
                channel.send(&Request::Left { id: id.clone(), soon: false }, None)?;
            }
        }
        for id in &state.left {
            channel.send(&Request::Left { id: id.clone(), soon: false }, None)?;
        }
        (state.is_crowded, state.is_in_a_hurry) = (false, false);
        state.connections += 1;
        state.connection = Some(Connection {
            channel,
            process: visitor.process,
            welcomed: false,
            waits: Some(Instant::now()),
            is_silent: false,
            broken: None,
        });
        Ok(())
    }

    /// Hears what the guardian says.
    fn attend(&self) -> Result<std::convert::Infallible, Over> {
        loop {
            self.wait_for_something();
            self.waker.clear();
            let mut news = Vec::new();
            let heard = self.hear(&mut news);
            // Whoever is told must not find anything locked.
            news.into_iter().for_each(|news| self.observer.heard(news));
            heard?;
        }
    }

    fn wait_for_something(&self) {
        let (socket, timeout) = {
            let state = self.lock();
            let Some(connection) = &state.connection else { return };
            let due = connection.waits.filter(|_| !connection.is_silent);
            let left = due.map(|since| ANSWERS_WITHIN.saturating_sub(since.elapsed()));
            // A little later, so that it is over by then.
            let left = left.map(|left| left + Duration::from_millis(1));
            // That there is room for bytes does not mean that there is room for a descriptor.
            let retry = connection.channel.has_waiting().then_some(RETRY_EVERY);
            let timeout = left.into_iter().chain(retry).min();
            (connection.channel.socket(), timeout)
        };
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.waker.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(&mut fds, timeout);
    }

    fn hear(&self, news: &mut Vec<News>) -> Result<(), Over> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.closing {
            return Err(Over::Closing);
        }
        while let Some(connection) = &mut state.connection {
            if let Some(error) = connection.broken.take() {
                return Err(GuardianError::from(error).into());
            }
            connection.channel.flush().map_err(GuardianError::from)?;
            let received = connection.channel.receive().map_err(GuardianError::from)?;
            let Some((answer, fd)) = received else { break };
            connection.waits = Some(Instant::now());
            connection.is_silent = false;
            self.understand(state, answer, fd, news)?;
        }
        let awaits = state.awaits_answers();
        let Some(connection) = &mut state.connection else { return Ok(()) };
        if !awaits {
            connection.waits = None;
        }
        if let Some(since) = connection.waits
            && since.elapsed() >= ANSWERS_WITHIN
            && !connection.is_silent
        {
            connection.is_silent = true;
            let (pid, waited) = (connection.process.pid(), ANSWERS_WITHIN);
            news.push(News::Troubled(GuardianError::Silent { pid, waited }));
            state.meet(Err(GuardianError::Silent { pid, waited }));
            self.changed.notify_all();
        }
        Ok(())
    }

    fn understand(
        &self,
        state: &mut State,
        answer: Answer,
        fd: Option<OwnedFd>,
        news: &mut Vec<News>,
    ) -> Result<(), GuardianError> {
        match answer {
            Answer::Welcome { version: PROTOCOL } => {
                if let Some(connection) = &mut state.connection {
                    connection.welcomed = true;
                    news.push(News::Met { pid: connection.process.pid() });
                }
                state.meet(Ok(()));
            }
            Answer::Welcome { version: found } => return Err(GuardianError::Version { found }),
            Answer::Refused { why } => return Err(GuardianError::Refused { why }),
            Answer::Guarded { id } => {
                if let Some(ward) = state.wards.get_mut(&id) {
                    (ward.answered, ward.guarded) = (true, true);
                    news.push(News::Guarded { id });
                }
            }
            Answer::Unguarded { id, why } => {
                if let Some(ward) = state.wards.get_mut(&id) {
                    (ward.answered, ward.guarded) = (true, false);
                    news.push(News::Unguarded { id, why });
                }
            }
            Answer::Copy { id } => drop(fd.map(|fd| state.copies.insert(id, fd))),
            Answer::AllCopies => state.has_all_copies = true,
            // Of no guest: it was only asked whether it gets on.
            Answer::Given { id } if id.is_empty() => state.signs_of_life += 1,
            Answer::Given { id } => {
                // It took too long, and nobody waits any more: somebody has to serve the guest.
                if !state.wanted.remove(&id) {
                    self.say(state, &Request::Left { id, soon: false }, None);
                }
            }
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Whoever waits for a guardian has the next attempt made now.
    pub(super) fn hurry(&self, state: &mut State) {
        state.is_in_a_hurry = state.connection.is_none();
        self.waker.wake();
    }

    /// Forgets of the guests that were let go of those that somebody has, and those that ended.
    pub(super) fn forget_the_taken(&self, state: &mut State) {
        let left = state.left();
        if left.is_empty() {
            return;
        }
        let ownerless = proof::ownerless(&self.dir, DirLock::Server, left);
        state.wards.retain(|id, ward| !ward.left || ownerless.contains(id));
    }

    /// Waits for so long, unless the client is dropped; whether it is.
    fn is_closing_within(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let mut state = self.lock();
            if state.closing || std::mem::take(&mut state.is_in_a_hurry) {
                return state.closing;
            }
            drop(state);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let _ = poll(&mut [PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)], timeout);
            self.waker.clear();
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("dir", &self.dir).field("launch", &self.launch).finish()
    }
}
