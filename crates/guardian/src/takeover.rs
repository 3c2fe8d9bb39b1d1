//! Taking guests over, each on whichever core is free: all of them wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use uffd_core::recovery::{NotRecovered, NotTaken, Prospect};
use uffd_core::session::{Session, SessionOptions};
use uffd_core::source::Fetcher;

use super::guest::Watch;

/// All it takes to take a guest over.
pub(crate) struct Takeover {
    pub(crate) prospect: Prospect,
    pub(crate) fetcher: Arc<Fetcher>,
    /// Also where its ledger was removed.
    pub(crate) unnamed: bool,
    pub(crate) watch: Watch,
}

/// What came of it.
pub(crate) enum Taken {
    /// It is served here.
    Served(Session),
    /// Somebody else serves it.
    By(Box<Prospect>),
    /// It cannot be served here.
    Not(NotRecovered),
}

impl Takeover {
    pub(crate) fn carry_out(self) -> Taken {
        let Self { prospect, fetcher, unnamed, watch } = self;
        let taken = if unnamed { prospect.take_even_unnamed() } else { prospect.take() };
        let left = match taken {
            Ok(left) => left,
            Err(NotTaken::Served(prospect)) => return Taken::By(prospect),
            Err(NotTaken::Not(error)) => return Taken::Not(error),
        };
        let path = left.path().to_owned();
        // What is touched meanwhile is in nobody's trace.
        let options = SessionOptions { trace: false, ..left.options() };
        match Session::recover(left, fetcher, options, Box::new(watch)) {
            Ok(session) => Taken::Served(session),
            Err(error) => Taken::Not(NotRecovered { path, why: error.into() }),
        }
    }
}

/// Carries all of them out, on so many cores; what came of each is told by its guest's id.
pub(crate) fn carry_out_all(
    takeovers: Vec<(String, Takeover)>,
    cores: usize,
) -> Vec<(String, Taken)> {
    let helpers = cores.min(takeovers.len()).saturating_sub(1);
    let waiting = Mutex::new(takeovers.into_iter());
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let next = lock(&waiting).next();
            let Some((id, takeover)) = next else { break };
            let taken = takeover.carry_out();
            lock(&done).push((id, taken));
        }
    };
    thread::scope(|scope| {
        for _ in 0..helpers {
            // Without a helper the others do it all.
            let _ =
                thread::Builder::new().name("uffd-takeover".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    done.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
