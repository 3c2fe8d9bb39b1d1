//! Whose request is begun next: every guest has a lane for each urgency, and they take turns.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::source::urgency::{ByUrgency, Urgency};

/// Requests under way at once, for one source. A guest that has none under way may begin one
/// beyond them: so no other guest, whatever its requests hang on, keeps it from being served.
pub(super) const MOST: ByUrgency<usize> = ByUrgency { demand: 8, background: 6 };

/// Names a guest.
pub(super) type ClientId = u64;

/// Names a request.
pub(super) type JobId = u64;

/// What is queued and under way, by guest.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: FxHashMap<ClientId, Lane>,
    /// Guests with something queued, in the order of their turns.
    turns: ByUrgency<VecDeque<ClientId>>,
    /// What is under way, that of guests that are gone too.
    running: ByUrgency<usize>,
}

#[derive(Debug, Default)]
struct Lane {
    queued: ByUrgency<VecDeque<JobId>>,
    running: ByUrgency<usize>,
}

/// A request that is begun, and on whose account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) job: JobId,
    client: ClientId,
    pub(super) urgency: Urgency,
}

impl Lanes {
    pub(super) fn add(&mut self, client: ClientId) {
        self.lanes.insert(client, Lane::default());
    }

    /// Forgets a guest, with everything that it has queued.
    pub(super) fn remove(&mut self, client: ClientId) {
        self.lanes.remove(&client);
        for urgency in Urgency::ALL {
            self.turns[urgency].retain(|waiting| *waiting != client);
        }
    }

    /// Queues a request; of a guest that is gone, nothing.
    pub(super) fn push(&mut self, client: ClientId, urgency: Urgency, job: JobId) {
        let Some(lane) = self.lanes.get_mut(&client) else { return };
        if lane.queued[urgency].is_empty() {
            self.turns[urgency].push_back(client);
        }
        lane.queued[urgency].push_back(job);
    }

    /// Takes a request out of a lane, if it is queued there.
    pub(super) fn withdraw(&mut self, client: ClientId, urgency: Urgency, job: JobId) {
        let Some(lane) = self.lanes.get_mut(&client) else { return };
        let queued = &mut lane.queued[urgency];
        let Some(at) = queued.iter().position(|queued| *queued == job) else { return };
        queued.remove(at);
        if queued.is_empty() {
            self.turns[urgency].retain(|waiting| *waiting != client);
        }
    }

    /// How many requests of this urgency a guest has queued.
    pub(super) fn queued(&self, client: ClientId, urgency: Urgency) -> usize {
        self.lanes.get(&client).map_or(0, |lane| lane.queued[urgency].len())
    }

    /// Whether a request of this guest could be begun now.
    pub(super) fn may_start(&self, client: ClientId, urgency: Urgency) -> bool {
        let (running, most) = (self.running[urgency], MOST[urgency]);
        // Guests that are gone may have left requests behind that hang: they count, so that there
        // is an end to them.
        let first = || self.lanes.get(&client).is_some_and(|lane| lane.running[urgency] == 0);
        running < most || (running < most + self.lanes.len() && first())
    }

    /// The next request to begin, those that a fault waits for first.
    pub(super) fn start(&mut self) -> Option<Turn> {
        Urgency::ALL.into_iter().find_map(|urgency| self.start_one(urgency))
    }

    fn start_one(&mut self, urgency: Urgency) -> Option<Turn> {
        let may_start = |client: &ClientId| self.may_start(*client, urgency);
        let at = self.turns[urgency].iter().position(may_start)?;
        let client = self.turns[urgency].remove(at)?;
        let lane = self.lanes.get_mut(&client)?;
        let job = lane.queued[urgency].pop_front()?;
        if !lane.queued[urgency].is_empty() {
            self.turns[urgency].push_back(client);
        }
        lane.running[urgency] += 1;
        self.running[urgency] += 1;
        Some(Turn { job, client, urgency })
    }

    /// A request is not under way any more.
    pub(super) fn finish(&mut self, Turn { client, urgency, .. }: Turn) {
        self.running[urgency] -= 1;
        if let Some(lane) = self.lanes.get_mut(&client) {
            lane.running[urgency] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    use Urgency::{Background, Demand};

    /// Guests `1..=count`.
    fn lanes(count: u64) -> Lanes {
        let mut lanes = Lanes::default();
        (1..=count).for_each(|client| lanes.add(client));
        lanes
    }

    fn start_all(lanes: &mut Lanes) -> Vec<Turn> {
        std::iter::from_fn(|| lanes.start()).collect()
    }

    fn jobs(turns: &[Turn]) -> Vec<JobId> {
        turns.iter().map(|turn| turn.job).collect()
    }

    #[test]
    fn guests_take_turns_however_much_one_has_queued() {
        let mut lanes = lanes(3);
        (0..1000).for_each(|job| lanes.push(1, Demand, 1000 + job));
        (0..3).for_each(|job| lanes.push(2, Demand, 2000 + job));
        lanes.push(3, Demand, 3000);
        let begun = start_all(&mut lanes);
        let expected = [1000, 2000, 3000, 1001, 2001, 1002, 2002, 1003];
        assert_eq!(jobs(&begun), expected);
    }

    #[test]
    fn a_fault_comes_before_what_nobody_waits_for() {
        let mut lanes = lanes(2);
        lanes.push(1, Background, 10);
        lanes.push(2, Demand, 20);
        assert_eq!(jobs(&start_all(&mut lanes)), [20, 10]);
    }

    #[test]
    fn a_guest_with_nothing_under_way_begins_one_however_much_hangs() {
        for urgency in Urgency::ALL {
            let mut lanes = lanes(3);
            (0..100).for_each(|job| lanes.push(1, urgency, job));
            let hanging = start_all(&mut lanes);
            assert_eq!(hanging.len(), MOST[urgency]);
            lanes.push(2, urgency, 200);
            lanes.push(2, urgency, 201);
            lanes.push(3, urgency, 300);
            assert_eq!(jobs(&start_all(&mut lanes)), [200, 300]);
            // What nobody waits for keeps no fault waiting, and the other way round.
            let other = if urgency == Demand { Background } else { Demand };
            (0..100).for_each(|job| lanes.push(1, other, job));
            assert_eq!(start_all(&mut lanes).len(), MOST[other]);
        }
    }

    /// Guests come and go, and whatever they ask for hangs.
    #[test]
    fn there_is_an_end_to_what_guests_that_are_gone_leave_behind() {
        let mut lanes = Lanes::default();
        let mut hanging = 0;
        for client in 1..100 {
            lanes.add(client);
            (0..20).for_each(|job| lanes.push(client, Demand, job));
            hanging += start_all(&mut lanes).len();
            lanes.remove(client);
        }
        assert_eq!(hanging, MOST.demand + 1);
    }

    #[test]
    fn what_is_withdrawn_is_not_begun() {
        let mut lanes = lanes(2);
        lanes.push(1, Demand, 10);
        lanes.push(1, Demand, 11);
        lanes.push(2, Demand, 20);
        lanes.withdraw(1, Demand, 10);
        lanes.withdraw(1, Demand, 10);
        lanes.withdraw(2, Demand, 20);
        assert_eq!((jobs(&start_all(&mut lanes)), lanes.queued(1, Demand)), (vec![11], 0));
        assert!(lanes.turns.demand.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Op {
        Push(u64, Urgency),
        Withdraw(usize),
        Start,
        Finish(usize),
        Remove(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let urgency = prop_oneof![Just(Demand), Just(Background)];
        prop_oneof![
            6 => (1..5_u64, urgency).prop_map(|(client, urgency)| Op::Push(client, urgency)),
            1 => any::<usize>().prop_map(Op::Withdraw),
            5 => Just(Op::Start),
            3 => any::<usize>().prop_map(Op::Finish),
            1 => (1..5_u64).prop_map(Op::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        /// Against a plain list of what is queued and what is under way.
        #[test]
        fn every_request_is_begun_once_or_withdrawn(ops in prop::collection::vec(op(), 1..200)) {
            let mut lanes = lanes(4);
            let mut queued: Vec<(u64, Urgency, JobId)> = Vec::new();
            let mut running: Vec<Turn> = Vec::new();
            let mut gone = Vec::new();
            for (job, op) in (0..).zip(ops) {
                match op {
                    Op::Push(client, urgency) => {
                        lanes.push(client, urgency, job);
                        if !gone.contains(&client) {
                            queued.push((client, urgency, job));
                        }
                    }
                    Op::Withdraw(at) if !queued.is_empty() => {
                        let (client, urgency, job) = queued.remove(at % queued.len());
                        lanes.withdraw(client, urgency, job);
                    }
                    Op::Start => {
                        let may = |(client, urgency, _): &&(u64, Urgency, JobId)| lanes.may_start(*client, *urgency);
                        let startable = queued.iter().filter(may).count();
                        let faults = queued.iter().filter(may).any(|(_, urgency, _)| *urgency == Demand);
                        let begun = lanes.start();
                        prop_assert_eq!(begun.is_some(), startable > 0);
                        if let Some(turn) = begun {
                            prop_assert_eq!(turn.urgency == Demand, faults);
                            let of_lane = |(client, urgency, _): &&(u64, Urgency, JobId)| {
                                (*client, *urgency) == (turn.client, turn.urgency)
                            };
                            // First come, first served, within a lane.
                            let first = queued.iter().find(of_lane).map(|(_, _, job)| *job);
                            prop_assert_eq!(first, Some(turn.job));
                            queued.retain(|(_, _, job)| *job != turn.job);
                            running.push(turn);
                        }
                    }
                    Op::Finish(at) if !running.is_empty() => {
                        lanes.finish(running.remove(at % running.len()));
                    }
                    Op::Remove(client) => {
                        lanes.remove(client);
                        gone.push(client);
                        queued.retain(|(owner, _, _)| *owner != client);
                    }
                    _ => {}
                }
                for urgency in Urgency::ALL {
                    let under_way = running.iter().filter(|turn| turn.urgency == urgency).count();
                    prop_assert_eq!(lanes.running[urgency], under_way);
                    prop_assert!(under_way <= MOST[urgency] + 4);
                }
            }
            // Whatever is left comes to its turn as soon as others finish.
            let mut left = queued.len();
            while left > 0 {
                match lanes.start() {
                    Some(turn) => {
                        running.push(turn);
                        left -= 1;
                    }
                    None => lanes.finish(running.pop().expect("nothing hangs and nothing begins")),
                }
            }
            running.into_iter().for_each(|turn| lanes.finish(turn));
            prop_assert_eq!(lanes.start(), None);
            prop_assert_eq!(lanes.running, ByUrgency::default());
        }
    }
}
