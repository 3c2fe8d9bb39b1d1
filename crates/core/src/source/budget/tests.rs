use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { guest: 8 << 20, process: 12 << 20 };
const HALF: u64 = OWN / 2;

use Urgency::{Background, Demand};

/// A guest, and how often it was told that there is room.
struct TestGuest {
    account: Account,
    told: Arc<AtomicUsize>,
}

impl TestGuest {
    fn of(budget: &Arc<Budget>) -> Self {
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let room = Arc::new(move || _ = count.fetch_add(1, Ordering::Relaxed));
        Self { account: budget.open_account(room), told }
    }

    fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }

    /// As much as there is room for.
    fn take_all(&self, urgency: Urgency) -> Vec<Permit> {
        std::iter::from_fn(|| self.account.take(OWN, urgency)).collect()
    }
}

#[test]
fn what_nobody_waits_for_takes_half_and_a_fault_the_rest() {
    let budget = Budget::new(LIMITS);
    let guest = TestGuest::of(&budget);
    let background = guest.take_all(Background);
    assert_eq!(background.len() as u64 * OWN, LIMITS.guest / 2);
    let demand = guest.take_all(Demand);
    assert_eq!((background.len() + demand.len()) as u64 * OWN, LIMITS.guest);
    assert_eq!(budget.used(), LIMITS.guest);
    drop((background, demand));
    assert_eq!(guest.take_all(Demand).len() as u64 * OWN, LIMITS.guest);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_guest_that_was_refused_is_told_once_when_there_is_room() {
    let guest = TestGuest::of(&Budget::new(LIMITS));
    let mut permits = guest.take_all(Demand);
    assert!(guest.account.take(HALF, Demand).is_none());
    // Too little for what was asked for.
    permits[0].shrink(OWN - HALF / 2);
    assert_eq!(guest.told(), 0);
    permits[0].shrink(OWN - HALF);
    permits.clear();
    assert_eq!(guest.told(), 1);
}

#[test]
fn a_pool_that_others_have_used_up_leaves_every_guest_its_own() {
    let budget = Budget::new(LIMITS);
    let greedy: Vec<_> = (0..4).map(|_| TestGuest::of(&budget)).collect();
    let taken: Vec<_> = greedy.iter().map(|guest| guest.take_all(Demand)).collect();
    assert_eq!(budget.used(), LIMITS.process + 4 * OWN);
    let late = TestGuest::of(&budget);
    let own =
        (late.account.take(OWN, Demand).unwrap(), late.account.take(OWN, Background).unwrap());
    assert!(late.account.take(HALF, Demand).is_none());
    // Its own do not help it to more; those of others in the pool do.
    drop(taken);
    assert_eq!(late.told(), 1);
    assert!(late.account.take(HALF, Demand).is_some());
    drop(own);
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_guest_that_is_gone_is_not_told_and_what_it_left_counts_until_it_is_dropped() {
    let budget = Budget::new(LIMITS);
    let TestGuest { account, told } = TestGuest::of(&budget);
    let permits: Vec<_> = std::iter::from_fn(|| account.take(OWN, Demand)).collect();
    drop(account);
    assert_eq!(budget.used(), LIMITS.guest);
    drop(permits);
    assert_eq!((budget.used(), told.load(Ordering::Relaxed)), (0, 0));
    assert!(budget.lock().guests.is_empty());
}

/// A guest may ask for more as soon as it is told, on the very thread that gave it back.
#[test]
fn room_may_be_used_from_where_it_is_told() {
    let budget = Budget::new(LIMITS);
    let slot = Arc::new(OnceLock::<Account>::new());
    let (again, got) = (Arc::clone(&slot), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&got);
    let account = budget.open_account(Arc::new(move || {
        let permit = again.get().and_then(|account| account.take(OWN, Demand));
        count.fetch_add(usize::from(permit.is_some()), Ordering::Relaxed);
    }));
    let mut permits: Vec<_> = std::iter::from_fn(|| account.take(OWN, Demand)).collect();
    assert!(slot.set(account).is_ok());
    permits.pop();
    assert_eq!(got.load(Ordering::Relaxed), 1);
}

#[derive(Clone, Debug)]
enum Op {
    Open,
    /// The guest at this place, if there is one.
    Close(usize),
    Take(usize, u64, Urgency),
    Shrink(usize, u64),
    GiveBack(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let urgency = prop_oneof![Just(Demand), Just(Background)];
    prop_oneof![
        1 => Just(Op::Open),
        1 => any::<usize>().prop_map(Op::Close),
        8 => (any::<usize>(), 1..=OWN, urgency).prop_map(|(guest, len, urgency)| Op::Take(guest, len, urgency)),
        2 => (any::<usize>(), 0..=OWN).prop_map(|(permit, len)| Op::Shrink(permit, len)),
        4 => any::<usize>().prop_map(Op::GiveBack),
    ]
}

/// What is in use, counted anew from the permits that there are.
#[derive(Default)]
struct Model {
    guests: BTreeMap<usize, TestGuest>,
    /// Of a guest, by number.
    permits: Vec<(usize, Permit)>,
    /// Requests refused of which the guest was not told yet: its number, and how often it was told.
    refused: Vec<(usize, u64, Urgency, usize)>,
    opened: usize,
}

impl Model {
    fn used(&self, guest: usize, urgency: Urgency) -> u64 {
        let of = |(owner, permit): &&(usize, Permit)| *owner == guest && permit.urgency == urgency;
        self.permits.iter().filter(of).map(|(_, permit)| permit.len).sum()
    }

    fn pool(&self, urgency: Urgency) -> u64 {
        let beyond = |guest| self.used(guest, urgency).saturating_sub(OWN);
        (0..self.opened).map(beyond).sum()
    }

    fn fits(&self, guest: usize, len: u64, urgency: Urgency) -> bool {
        let used = self.used(guest, urgency);
        let all = self.used(guest, Demand) + self.used(guest, Background) + len;
        if used + len <= OWN {
            return all <= LIMITS.guest;
        }
        let more = (used + len).saturating_sub(OWN) - used.saturating_sub(OWN);
        let pool = self.pool(Demand) + self.pool(Background) + more;
        let half = urgency == Demand
            || (used + len <= LIMITS.guest / 2
                && self.pool(Background) + more <= LIMITS.process / 2);
        all <= LIMITS.guest && pool <= LIMITS.process && half
    }

    fn check(&mut self) {
        for guest in 0..self.opened {
            let (demand, background) = (self.used(guest, Demand), self.used(guest, Background));
            assert!(demand + background <= LIMITS.guest && background <= LIMITS.guest / 2);
        }
        assert!(self.pool(Demand) + self.pool(Background) <= LIMITS.process);
        assert!(self.pool(Background) <= LIMITS.process / 2);
        // Whoever was refused and has not been told would be refused again.
        let Self { guests, refused, .. } = self;
        refused
            .retain(|(guest, _, _, told)| guests.get(guest).is_some_and(|it| it.told() == *told));
        for (guest, len, urgency, _) in &self.refused {
            assert!(!self.fits(*guest, *len, *urgency), "guest {guest} waits in vain");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn nothing_is_exceeded_or_leaked_and_nobody_waits_in_vain(ops in prop::collection::vec(op(), 1..120)) {
        let budget = Budget::new(LIMITS);
        let mut model = Model::default();
        for op in ops {
            let guests: Vec<usize> = model.guests.keys().copied().collect();
            match op {
                Op::Open => {
                    model.guests.insert(model.opened, TestGuest::of(&budget));
                    model.opened += 1;
                }
                Op::Close(at) if !guests.is_empty() => {
                    model.guests.remove(&guests[at % guests.len()]);
                }
                Op::Take(at, len, urgency) if !guests.is_empty() => {
                    let guest = guests[at % guests.len()];
                    let fits = model.fits(guest, len, urgency);
                    let told = model.guests[&guest].told();
                    let permit = model.guests[&guest].account.take(len, urgency);
                    prop_assert_eq!(permit.is_some(), fits);
                    match permit {
                        Some(permit) => model.permits.push((guest, permit)),
                        None => model.refused.push((guest, len, urgency, told)),
                    }
                }
                Op::Shrink(at, len) if !model.permits.is_empty() => {
                    let at = at % model.permits.len();
                    model.permits[at].1.shrink(len);
                }
                Op::GiveBack(at) if !model.permits.is_empty() => {
                    let at = at % model.permits.len();
                    drop(model.permits.swap_remove(at));
                }
                _ => {}
            }
            model.check();
            let used = model.permits.iter().map(|(_, permit)| permit.len).sum::<u64>();
            prop_assert_eq!(budget.used(), used);
        }
        drop(model);
        prop_assert_eq!(budget.used(), 0);
        prop_assert!(budget.lock().guests.is_empty());
        prop_assert_eq!(budget.lock().pool, ByUrgency::default());
    }
}
