//! The figures of a server: of the guests it serves now and, as far as they last, of those that
//! have ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::figures::{Figures, Reading};
use super::{Holdings, ServerCounters};
use crate::source::Budget;

/// Where the guests of a server are counted. Whoever reads it holds up no guest: fault loops write
/// their figures without a lock, and come here only at their ends.
#[derive(Debug, Default)]
pub struct Totals(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    members: Vec<Arc<Figures>>,
    ended: Reading,
    server: ServerCounters,
}

/// The figures of a server as they were read.
#[derive(Clone, Debug)]
pub struct ServerReading {
    /// Of all its guests together.
    pub guests: Reading,
    /// What it did besides.
    pub server: ServerCounters,
    /// What it has now.
    pub holdings: Holdings,
}

impl Totals {
    /// Counts a guest in, for as long as the answer lives.
    pub fn join(self: &Arc<Self>, figures: Arc<Figures>, recovered: bool) -> Member {
        let mut state = self.state();
        let arrivals =
            if recovered { &mut state.server.recovered } else { &mut state.server.handed_off };
        *arrivals += 1;
        state.members.push(Arc::clone(&figures));
        drop(state);
        Member { totals: Arc::clone(self), figures, end: Ending::Stopped }
    }

    /// A guest was refused.
    pub fn refused(&self) {
        self.state().server.refused += 1;
    }

    /// A guest that was left is not taken over.
    pub fn not_recovered(&self) {
        self.state().server.not_recovered += 1;
    }

    /// How things stand. Whoever has a guardian adds what it knows of that.
    pub fn read(&self) -> ServerReading {
        let state = self.state();
        let mut guests = state.ended.clone();
        state.members.iter().for_each(|figures| guests.add(&figures.read()));
        let holdings = Holdings {
            guests: state.members.len() as u64,
            guarded_guests: 0,
            fetch_bytes: Budget::of_process().used(),
        };
        ServerReading { guests, server: state.server.clone(), holdings }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a guest ended, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are those of `End`")]
pub enum Ending {
    GuestExited,
    Stopped,
    HandedOver,
    Released,
    Failed,
}

/// A guest that is counted as served. When it is dropped the guest has ended; unless it was told
/// why, it was stopped before it began.
#[derive(Debug)]
pub struct Member {
    totals: Arc<Totals>,
    figures: Arc<Figures>,
    end: Ending,
}

impl Member {
    /// Its figures.
    pub const fn figures(&self) -> &Arc<Figures> {
        &self.figures
    }

    /// The guest has ended; its figures change no more.
    pub fn ended(mut self, end: Ending) {
        self.end = end;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.totals.state();
        state.members.retain(|figures| !Arc::ptr_eq(figures, &self.figures));
        state.ended.add_lasting(&self.figures.read());
        let ServerCounters { exited, stopped, handed_over, released, failed, .. } =
            &mut state.server;
        *match self.end {
            Ending::GuestExited => exited,
            Ending::Stopped => stopped,
            Ending::HandedOver => handed_over,
            Ending::Released => released,
            Ending::Failed => failed,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ahead, Counters, StateCounts};
    use super::*;

    fn guest(faults: u64) -> Arc<Figures> {
        let figures = Arc::new(Figures::default());
        let counters = Counters { read_faults: faults, ..Counters::default() };
        let pages = StateCounts { clean: faults, ..StateCounts::default() };
        figures.show(&counters, &pages, &Ahead::default());
        figures
    }

    #[test]
    fn what_a_guest_did_stays_and_how_it_stood_goes_with_it() {
        let totals = Arc::<Totals>::default();
        let one = totals.join(guest(3), false);
        let other = totals.join(guest(4), true);
        let sums = || {
            let read = totals.read();
            let Reading { counters, pages, .. } = read.guests;
            (counters.read_faults, pages.clean, read.holdings.guests)
        };
        assert_eq!(sums(), (7, 7, 2));
        one.ended(Ending::GuestExited);
        assert_eq!(sums(), (7, 4, 1));
        drop(other);
        assert_eq!(sums(), (7, 0, 0));
        totals.refused();
        totals.not_recovered();
        let wanted = ServerCounters {
            handed_off: 1,
            recovered: 1,
            exited: 1,
            stopped: 1,
            refused: 1,
            not_recovered: 1,
            ..ServerCounters::default()
        };
        assert_eq!(totals.read().server, wanted);
    }

    #[test]
    fn no_count_goes_down_while_guests_come_and_go() {
        let totals = Arc::<Totals>::default();
        let most = 200;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..most {
                    let member = totals.join(guest(1), false);
                    member.ended(Ending::Released);
                }
            });
            let mut last = 0;
            while last < most {
                let now = totals.read().guests.counters.read_faults;
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
    }
}
