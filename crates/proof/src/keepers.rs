//! A stage whose guests are served by one keeper after the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uffd_core::units::PageRange;
use uffd_guest::driver::Guest;
use uffd_guest::options::Options;

use crate::facts::{Ending, Exported, Figures, Prefaulted};
use crate::keeping::{Keeper, Keeping};
use crate::serving::{Asked, Serving, Staged};

/// How a keeper leaves its guest to the next.
#[derive(Clone, Copy, Debug)]
pub enum Leaving {
    /// It is killed after so many microseconds, and so is the next if that is not ready by then.
    Killed(u64),
    /// It hands over.
    HandsOver,
}

/// A state directory, and whoever keeps its guest.
#[derive(Debug)]
pub struct KeptStage(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    keeping: Keeping,
    /// The keeper of the guest, if there is one.
    keeper: Mutex<Option<Keeper>>,
}

impl KeptStage {
    /// Nobody keeps anything yet.
    pub fn new(keeping: Keeping) -> Self {
        Self(Arc::new(Kept { keeping, keeper: Mutex::new(None) }))
    }

    /// The guest is left by one keeper after the other; the last one stays.
    ///
    /// # Panics
    /// If the guest is not taken over.
    pub fn leave(&self, ways: &[Leaving]) {
        let mut keeper = self.0.lock();
        for (number, way) in ways.iter().enumerate() {
            let before = keeper.as_mut().expect("a keeper of a guest");
            match *way {
                Leaving::Killed(micros) => {
                    // The moment of the kill is what this is about; nothing is waited for by it.
                    std::thread::sleep(Duration::from_micros(micros));
                    before.kill();
                }
                Leaving::HandsOver => {
                    if before.is_ready() {
                        assert_eq!(before.ask("hand over"), "end HandedOver");
                    }
                    before.kill();
                }
            }
            let is_last = number + 1 == ways.len();
            let keeping = &self.0.keeping;
            let next = if is_last { keeping.keeper() } else { keeping.begin_keeper(|_| {}) };
            assert!(!is_last || next.recovered() == 1, "{:?}", next.left());
            *keeper = Some(next);
        }
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Option<Keeper>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, ask: impl FnOnce(&mut Keeper) -> T) -> T {
        ask(self.lock().as_mut().expect("a keeper of a guest"))
    }
}

impl Staged for KeptStage {
    fn guest_with(&self, change: &dyn Fn(&mut Options)) -> Box<dyn Serving> {
        let keeper = self.0.keeping.keeper();
        let guest = self.0.keeping.guest(&keeper, change);
        *self.0.lock() = Some(keeper);
        Box::new(KeptGuest { guest, kept: Arc::clone(&self.0) })
    }
}

/// A guest that outlives its keepers.
#[derive(Debug)]
struct KeptGuest {
    guest: Guest,
    kept: Arc<Kept>,
}

impl Serving for KeptGuest {
    fn guest(&self) -> &Guest {
        &self.guest
    }
    fn guest_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }
    fn export(&self) -> Asked<Exported> {
        Asked::answered("export", self.kept.with(Keeper::export))
    }
    fn figures(&self) -> Asked<Figures> {
        Asked::answered("stats", self.kept.with(Keeper::figures))
    }
    fn settle(&self) -> Asked<()> {
        self.kept.with(|keeper| assert_eq!(keeper.ask("settle"), "Ok(())"));
        Asked::answered("settle", ())
    }
    fn prefault(&self, ranges: Vec<PageRange>) -> Asked<Prefaulted> {
        Asked::answered("prefault", self.kept.with(|keeper| keeper.prefault(&ranges)))
    }
    fn begin_stop(&self) {
        self.kept.with(|keeper| keeper.tell("stop"));
    }
    fn end(&self) -> (Ending, Figures) {
        unreachable!("a keeper says how a session ended, and not what it counted")
    }
}
