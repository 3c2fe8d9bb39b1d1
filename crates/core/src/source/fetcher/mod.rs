//! Fetching what a source has not at hand on threads of its own, so that no fault loop waits for
//! a device: fair between guests, each range once, and no more bytes than the budget allows.

mod lanes;
mod requests;
mod threads;

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::budget::{Account, Budget, OWN, Permit};
use super::{Piece, Source, SourceError, Urgency, Want};
use lanes::ClientId;
use requests::WaiterId;
use threads::Shared;

/// The fetch threads of one source. They start when there is work and end when there is none.
#[derive(Debug)]
pub struct Fetcher {
    threads: Arc<Threads>,
    budget: Arc<Budget>,
    /// On behalf of guests that are expected.
    expected: OnceLock<Client>,
}

/// Keeps the threads for as long as there is a fetcher or a client of it.
struct Threads(Arc<Shared>);

/// Pages to fetch, and where they go.
pub struct FetchJob {
    /// The pages. Of more than 2 MiB only the start is fetched.
    pub want: Want,
    /// Called once, on a fetch thread, unless the ticket was dropped before; must not block.
    pub done: Done,
}

type Done = Box<dyn FnOnce(Result<Delivery, SourceError>) + Send>;

/// What was fetched: a start of what was asked for, at least its first page. Counts as memory in
/// use until it is dropped.
#[derive(Debug)]
pub struct Delivery {
    piece: Piece,
    _permit: Permit,
}

impl Delivery {
    /// The contents.
    pub const fn piece(&self) -> &Piece {
        &self.piece
    }
}

/// There is no room for more bytes of this guest just now. Once there is it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One guest's way to a fetcher. Dropping it takes back all its requests.
pub struct Client {
    threads: Arc<Threads>,
    account: Account,
    id: ClientId,
}

/// A request that is under way. Dropping it takes the request back: nothing is begun for it any
/// more, and nobody is told, unless that is happening at this moment.
#[must_use = "dropping it takes the request back"]
pub struct Ticket {
    shared: Arc<Shared>,
    waiter: WaiterId,
}

impl Fetcher {
    /// Threads for `source`, with the budget that all guests of this process share; none is
    /// started yet.
    pub fn new(source: Arc<dyn Source>) -> Self {
        Self::with_budget(source, Budget::of_process())
    }

    /// Threads for `source`, with another budget.
    pub fn with_budget(source: Arc<dyn Source>, budget: Arc<Budget>) -> Self {
        let threads = Arc::new(Threads(Arc::new(Shared::new(source))));
        Self { threads, budget, expected: OnceLock::new() }
    }

    /// A guest of 2 MiB pages is going to come: what the source has at hand is made ready for it, as
    /// by [`Client::prepare`].
    pub fn expect_huge_pages(&self) {
        self.expected.get_or_init(|| self.client(|| {})).prepare();
    }

    /// The source that is fetched from.
    pub fn source(&self) -> &Arc<dyn Source> {
        self.threads.0.source()
    }

    /// A guest's way to the source. After it was told [`Full`], `room` is called on any thread,
    /// with nothing locked, once there is room for what was refused; must not block.
    pub fn client(&self, room: impl Fn() + Send + Sync + 'static) -> Client {
        let id = self.threads.0.lock().requests.join();
        let account = self.budget.open_account(Arc::new(room));
        Client { threads: Arc::clone(&self.threads), account, id }
    }
}

impl Client {
    /// The source that is fetched from.
    pub fn source(&self) -> &Arc<dyn Source> {
        self.threads.0.source()
    }

    /// Queues a job. Its `done` is called even if no thread can be started. A guest that has
    /// nothing in use for its faults is never told that it is [`Full`] when it asks for one.
    pub fn try_submit(&self, job: FetchJob, urgency: Urgency) -> Result<Ticket, Full> {
        let FetchJob { mut want, done } = job;
        want.len = want.len.min(OWN);
        let permit = self.account.take(want.len, urgency).ok_or(Full)?;
        let shared = &self.threads.0;
        let mut state = shared.lock();
        let waiter = state.requests.fetch((self.id, urgency), want, permit, done);
        shared.call_a_thread(state, self.id, urgency);
        Ok(Ticket { shared: Arc::clone(shared), waiter })
    }

    /// Tells the source that these bytes will be asked for soon, in the background.
    pub fn announce(&self, ranges: Vec<Range<u64>>) {
        let shared = &self.threads.0;
        let mut state = shared.lock();
        state.requests.announce(self.id, ranges);
        shared.call_a_thread(state, self.id, Urgency::Background);
    }

    /// Makes what the source has at hand ready in the background, once for all guests: a look-up of
    /// much at once is cheap then.
    pub fn prepare(&self) {
        let shared = &self.threads.0;
        let mut state = shared.lock();
        state.requests.prepare(self.id);
        shared.call_a_thread(state, self.id, Urgency::Background);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let dropped = self.threads.0.lock().requests.leave(self.id);
        drop(dropped);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let dropped = self.shared.lock().requests.cancel(self.waiter);
        drop(dropped);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.lock();
        f.debug_struct("Threads")
            .field("queued", &state.requests.queued())
            .field("threads", &state.threads)
            .finish()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ticket").field(&self.waiter).finish()
    }
}

#[cfg(test)]
mod tests;
