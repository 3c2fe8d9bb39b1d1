//! What is asked of a source, by whom, and whether it is under way. Pages that several ask for are
//! fetched once.

use std::ops::Range;

use rustc_hash::FxHashMap;

use super::Done;
use super::lanes::{ClientId, JobId, Lanes, Turn};
use crate::source::budget::Permit;
use crate::source::{Urgency, Want};

/// Announcements that a guest may have queued. Beyond them the oldest is out of date.
const MOST_ANNOUNCED: usize = 16;

/// All requests to one source.
#[derive(Default)]
pub(super) struct Requests {
    lanes: Lanes,
    jobs: FxHashMap<JobId, Job>,
    /// The fetch of these very pages, queued or under way.
    fetches: FxHashMap<Want, JobId>,
    /// All of the source was made ready, or is about to be.
    prepared: bool,
    last: u64,
}

enum Job {
    Fetch(Fetch),
    Announce(ClientId, Vec<Range<u64>>),
    Prepare(ClientId),
}

struct Fetch {
    want: Want,
    waiters: Vec<Waiter>,
    under_way: bool,
    /// Of waiters that gave up after it was begun: its bytes are in memory all the same.
    kept: Vec<Permit>,
}

/// Who waits for a fetch.
pub(super) struct Waiter {
    number: u64,
    client: ClientId,
    urgency: Urgency,
    pub(super) permit: Permit,
    pub(super) done: Done,
}

/// Names a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId {
    job: JobId,
    number: u64,
}

/// What a fetch thread has to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    Fetch {
        want: Want,
        /// Whether a fault waits for it.
        demand: bool,
    },
    /// Nobody waits for it, and nobody is told.
    Announce(Vec<Range<u64>>),
    /// All of the source is to be made ready. Nobody waits for that either.
    Prepare,
}

/// A waiter that is not told any more. To be dropped where nothing is locked: it may call whoever
/// waits for room.
pub(super) struct Dropped {
    _done: Done,
    _permit: Option<Permit>,
}

/// Whom to tell of a fetch that has come to its end.
pub(super) struct Ended {
    pub(super) want: Want,
    pub(super) waiters: Vec<Waiter>,
    /// To be dropped where nothing is locked.
    _kept: Vec<Permit>,
}

impl Requests {
    pub(super) fn join(&mut self) -> ClientId {
        let client = self.next_number();
        self.lanes.add(client);
        client
    }

    /// Forgets a guest. What nobody else waits for is not begun.
    pub(super) fn leave(&mut self, client: ClientId) -> Vec<Dropped> {
        let mut left = Vec::new();
        self.jobs.retain(|job, it| match it {
            Job::Fetch(fetch) => {
                let of_client = fetch.waiters.iter().filter(|waiter| waiter.client == client);
                left.extend(of_client.map(|waiter| WaiterId { job: *job, number: waiter.number }));
                true
            }
            Job::Announce(owner, _) => *owner != client,
            Job::Prepare(owner) => {
                // The next guest has it done.
                self.prepared &= *owner != client;
                *owner != client
            }
        });
        let dropped = left.into_iter().filter_map(|waiter| self.cancel(waiter)).collect();
        self.lanes.remove(client);
        dropped
    }

    /// Queues a fetch, or joins the one that brings the same pages.
    pub(super) fn fetch(
        &mut self,
        (client, urgency): (ClientId, Urgency),
        want: Want,
        permit: Permit,
        done: Done,
    ) -> WaiterId {
        let number = self.next_number();
        let job = *self.fetches.entry(want).or_insert(number);
        let new =
            || Job::Fetch(Fetch { want, waiters: Vec::new(), under_way: false, kept: Vec::new() });
        if let Job::Fetch(fetch) = self.jobs.entry(job).or_insert_with(new) {
            fetch.waiters.push(Waiter { number, client, urgency, permit, done });
            if !fetch.under_way {
                self.lanes.push(client, urgency, job);
            }
        }
        WaiterId { job, number }
    }

    /// Nobody waits any more where `waiter` did, if it still does.
    pub(super) fn cancel(&mut self, WaiterId { job, number }: WaiterId) -> Option<Dropped> {
        let Some(Job::Fetch(fetch)) = self.jobs.get_mut(&job) else { return None };
        let at = fetch.waiters.iter().position(|waiter| waiter.number == number)?;
        let Waiter { client, urgency, permit, done, .. } = fetch.waiters.remove(at);
        if fetch.under_way {
            fetch.kept.push(permit);
            return Some(Dropped { _done: done, _permit: None });
        }
        self.lanes.withdraw(client, urgency, job);
        if fetch.waiters.is_empty() {
            self.fetches.remove(&fetch.want);
            self.jobs.remove(&job);
        }
        Some(Dropped { _done: done, _permit: Some(permit) })
    }

    /// Queues an announcement.
    pub(super) fn announce(&mut self, client: ClientId, ranges: Vec<Range<u64>>) {
        let of_client = |job: &Job| matches!(job, Job::Announce(owner, _) if *owner == client);
        let queued = self.jobs.iter().filter(|(_, job)| of_client(job)).map(|(id, _)| *id);
        let queued: Vec<JobId> = queued.collect();
        if queued.len() >= MOST_ANNOUNCED
            && let Some(oldest) = queued.into_iter().min()
        {
            self.jobs.remove(&oldest);
            self.lanes.withdraw(client, Urgency::Background, oldest);
        }
        let job = self.next_number();
        self.jobs.insert(job, Job::Announce(client, ranges));
        self.lanes.push(client, Urgency::Background, job);
    }

    /// Queues making all of the source ready, unless that was done.
    pub(super) fn prepare(&mut self, client: ClientId) {
        if std::mem::replace(&mut self.prepared, true) {
            return;
        }
        let job = self.next_number();
        self.jobs.insert(job, Job::Prepare(client));
        self.lanes.push(client, Urgency::Background, job);
    }

    /// Whether what this guest has queued could be begun now.
    pub(super) fn may_start(&self, client: ClientId, urgency: Urgency) -> bool {
        self.lanes.queued(client, urgency) > 0 && self.lanes.may_start(client, urgency)
    }

    /// The next thing to do.
    pub(super) fn start(&mut self) -> Option<(Turn, Work)> {
        let turn = self.lanes.start()?;
        let work = match self.jobs.get_mut(&turn.job) {
            Some(Job::Fetch(fetch)) => {
                fetch.under_way = true;
                // Whoever else waits for it has it queued too.
                for Waiter { client, urgency, .. } in &fetch.waiters {
                    self.lanes.withdraw(*client, *urgency, turn.job);
                }
                let is_demand = |waiter: &Waiter| waiter.urgency == Urgency::Demand;
                Work::Fetch { want: fetch.want, demand: fetch.waiters.iter().any(is_demand) }
            }
            Some(Job::Announce(..)) => match self.jobs.remove(&turn.job) {
                Some(Job::Announce(_, ranges)) => Work::Announce(ranges),
                _ => Work::Announce(Vec::new()),
            },
            Some(Job::Prepare(_)) => {
                self.jobs.remove(&turn.job);
                Work::Prepare
            }
            None => Work::Announce(Vec::new()),
        };
        Some((turn, work))
    }

    /// A fetch has come to its end: whom to tell.
    pub(super) fn end(&mut self, job: JobId) -> Option<Ended> {
        let Some(Job::Fetch(fetch)) = self.jobs.remove(&job) else { return None };
        self.fetches.remove(&fetch.want);
        Some(Ended { want: fetch.want, waiters: fetch.waiters, _kept: fetch.kept })
    }

    /// What was begun with `turn` is done.
    pub(super) fn finish(&mut self, turn: Turn) {
        self.lanes.finish(turn);
    }

    /// Takes everything out that is queued.
    pub(super) fn take_queued(&mut self) -> Vec<Ended> {
        let mut taken = Vec::new();
        while let Some((turn, _)) = self.start() {
            taken.extend(self.end(turn.job));
            self.finish(turn);
        }
        taken
    }

    pub(super) fn queued(&self) -> usize {
        let waits = |job: &&Job| !matches!(job, Job::Fetch(Fetch { under_way: true, .. }));
        self.jobs.values().filter(waits).count()
    }

    fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}
