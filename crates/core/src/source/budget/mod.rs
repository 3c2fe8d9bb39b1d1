//! How much memory may be in use for fetched bytes, from the request to their install: for each
//! guest, and for the process.
//!
//! A guest has so many bytes of its own of either urgency, whatever others do; what it takes
//! beyond them comes out of one pool, up to its limit. So no guest and no stuck store can keep
//! another guest from fetching. What nobody waits for gets half of a guest's limit and half of the
//! pool at most, so that a fault never waits for it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustc_hash::FxHashMap;

use super::urgency::{ByUrgency, Urgency};

/// Bytes that every guest can have in use, of either urgency; no request is longer.
pub(super) const OWN: u64 = 2 << 20;

/// The most bytes in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For one guest, at least 4 MiB: 32 MiB, which is eight huge pages ahead of a prefault and
    /// eight for faults.
    pub guest: u64,
    /// For all guests together, not counting the first 2 MiB of each guest's faults and the first
    /// 2 MiB of its prefaults: 256 MiB.
    pub process: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { guest: 32 << 20, process: 256 << 20 }
    }
}

/// What all guests together may use.
pub struct Budget {
    limits: Limits,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    guests: FxHashMap<GuestId, Guest>,
    last: GuestId,
    /// Bytes of the pool in use.
    pool: ByUrgency<u64>,
}

type GuestId = u64;

/// Called when there is room again.
pub(super) type Room = Arc<dyn Fn() + Send + Sync>;

struct Guest {
    used: ByUrgency<u64>,
    /// The shortest request that there was no room for, while its guest has not been told.
    refused: ByUrgency<Option<u64>>,
    room: Room,
}

impl Budget {
    /// A budget of its own. Guests of one process share [`of_process`](Self::of_process).
    pub fn new(limits: Limits) -> Arc<Self> {
        let limits = Limits { guest: limits.guest.max(2 * OWN), ..limits };
        Arc::new(Self { limits, accounts: Mutex::default() })
    }

    /// The one that guests of this process share.
    pub fn of_process() -> Arc<Self> {
        static BUDGET: OnceLock<Arc<Budget>> = OnceLock::new();
        Arc::clone(BUDGET.get_or_init(|| Self::new(Limits::default())))
    }

    /// Bytes in use by all guests.
    pub fn used(&self) -> u64 {
        let used = |guest: &Guest| guest.used.demand + guest.used.background;
        self.lock().guests.values().map(used).sum()
    }

    /// A guest's account. `room` is called, on any thread, once there is room for what was refused.
    pub(super) fn open_account(self: &Arc<Self>, room: Room) -> Account {
        let mut accounts = self.lock();
        accounts.last += 1;
        let id = accounts.last;
        let guest = Guest { used: ByUrgency::default(), refused: ByUrgency::default(), room };
        accounts.guests.insert(id, guest);
        Account(Arc::new(Share { budget: Arc::clone(self), id }))
    }

    fn lock(&self) -> MutexGuard<'_, Accounts> {
        // Nothing that can panic runs under this lock.
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    /// What `len` bytes more would take out of the pool, if there is room for them.
    fn room_for(&self, limits: &Limits, guest: &Guest, urgency: Urgency, len: u64) -> Option<u64> {
        let used = guest.used[urgency];
        let pooled = (used + len).saturating_sub(OWN) - used.saturating_sub(OWN);
        let all = guest.used.demand + guest.used.background + len;
        let pool = self.pool.demand + self.pool.background + pooled;
        // Nothing more from the pool is no harm to it, however full it is.
        let fits = all <= limits.guest && (pooled == 0 || pool <= limits.process);
        let (half, half_pool) = (limits.guest / 2, limits.process / 2);
        let fits_half =
            used + len <= half && (pooled == 0 || self.pool[urgency] + pooled <= half_pool);
        (fits && (urgency == Urgency::Demand || fits_half)).then_some(pooled)
    }

    /// Whom to tell that there is room for what was refused.
    fn take_told(&mut self, limits: &Limits) -> Vec<Room> {
        let mut told = Vec::new();
        for urgency in Urgency::ALL {
            let fits = |(id, guest): (&GuestId, &Guest)| {
                let len = guest.refused[urgency]?;
                self.room_for(limits, guest, urgency, len).map(|_| *id)
            };
            let ids: Vec<GuestId> = self.guests.iter().filter_map(fits).collect();
            for id in ids {
                if let Some(guest) = self.guests.get_mut(&id) {
                    guest.refused[urgency] = None;
                    told.push(Arc::clone(&guest.room));
                }
            }
        }
        told
    }
}

/// A guest's account, open for as long as the guest is served.
pub(super) struct Account(Arc<Share>);

/// A guest's entry in the accounts, kept until its last permit is dropped.
struct Share {
    budget: Arc<Budget>,
    id: GuestId,
}

impl Account {
    /// Permission for `len` bytes, at most [`OWN`]. Where there is no room `None`, and the guest is
    /// told once when there is.
    pub(super) fn take(&self, len: u64, urgency: Urgency) -> Option<Permit> {
        debug_assert!(len <= OWN, "{len} bytes");
        let Share { budget, id } = &*self.0;
        let mut accounts = budget.lock();
        let room = accounts.room_for(&budget.limits, accounts.guests.get(id)?, urgency, len);
        let guest = accounts.guests.get_mut(id)?;
        let Some(pooled) = room else {
            let refused = &mut guest.refused[urgency];
            *refused = Some(refused.map_or(len, |before| before.min(len)));
            return None;
        };
        guest.used[urgency] += len;
        accounts.pool[urgency] += pooled;
        Some(Permit { share: Arc::clone(&self.0), len, urgency })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        // Nobody is there to be told any more.
        if let Some(guest) = self.0.budget.lock().guests.get_mut(&self.0.id) {
            guest.refused = ByUrgency::default();
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let guest = self.budget.lock().guests.remove(&self.id);
        // What it holds is dropped here, without the lock.
        drop(guest);
    }
}

/// Bytes in use. Dropping it gives them back.
pub(super) struct Permit {
    share: Arc<Share>,
    len: u64,
    urgency: Urgency,
}

impl Permit {
    /// Gives back all but `len` bytes.
    pub(super) fn shrink(&mut self, len: u64) {
        let back = self.len.saturating_sub(len);
        self.len -= back;
        self.give_back(back);
    }

    fn give_back(&self, len: u64) {
        let Share { budget, id } = &*self.share;
        let mut accounts = budget.lock();
        let Some(guest) = accounts.guests.get_mut(id) else { return };
        let used = guest.used[self.urgency];
        guest.used[self.urgency] = used - len;
        accounts.pool[self.urgency] -= used.saturating_sub(OWN) - (used - len).saturating_sub(OWN);
        let told = accounts.take_told(&budget.limits);
        drop(accounts);
        told.iter().for_each(|room| room());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(self.len);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {:?}", self.len, self.urgency)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("limits", &self.limits).field("used", &self.used()).finish()
    }
}

#[cfg(test)]
mod tests;
