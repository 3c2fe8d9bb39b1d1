//! The server's side: which guests it has entrusted, and having back those that the guardian serves.
//! No guest and nobody who stops a server ever waits for the guardian, which may be frozen.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::error::GuardianError;
use super::launch::Launch;
use super::link::{Entrusted, Link, State};
use super::message::Request;
use super::news::{News, Observer};
use crate::kernel::{Waker, stay_behind};
use crate::ledger::{Spares, StateDir};

/// The pauses between looks at what becomes of guests that were let go of. To look makes others wait
/// who want a lock.
const FIRST_LOOK: Duration = Duration::from_millis(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A server's connection with the guardian of its state directory. For whoever has the directory's
/// [claim](StateDir::claim): others are not heard.
#[derive(Debug)]
pub struct Client(Arc<Link>);

impl Client {
    /// Looks for the directory's guardian, and starts one by `launch` if there is none. Without
    /// `launch` guests are had back from one that is there, and entrusted to none.
    ///
    /// An error if there is none and none can be started. One that does not answer is waited for no
    /// longer than two seconds.
    pub fn start(
        dir: Arc<StateDir>,
        launch: Option<Launch>,
        observer: Box<dyn Observer>,
    ) -> Result<Arc<Self>, GuardianError> {
        let waker = Waker::new().map_err(|errno| GuardianError::Resources(errno.into()))?;
        let (state, changed) = (Mutex::<State>::default(), Condvar::new());
        let link = Arc::new(Link { dir, launch, observer, waker, state, changed });
        let client = Arc::new(Self(Arc::clone(&link)));
        thread::Builder::new()
            .name("uffd-guardian".to_owned())
            .stack_size(256 << 10)
            .spawn(move || {
                let _behind = stay_behind();
                link.keep_in_touch();
            })
            .map_err(GuardianError::Resources)?;
        let mut state = client.0.lock();
        loop {
            match state.met.take() {
                // Frozen, it may still thaw: it is told of all guests, and may have some.
                Some(Ok(())) => break,
                Some(Err(error)) if error.is_silence() => break,
                Some(Err(error)) => return Err(error),
                None => state = client.0.wait(state),
            }
        }
        drop(state);
        Ok(client)
    }

    /// Whether guests are entrusted to the guardian.
    pub fn guards(&self) -> bool {
        self.0.launch.is_some()
    }

    /// How many guests the guardian would serve at once, as far as it has answered.
    pub fn guarded(&self) -> u64 {
        self.0.lock().guarded() as u64
    }

    /// Entrusts a guest that this process serves: the guardian gets a copy of its userfaultfd. None
    /// where no guests are entrusted, or no descriptor is left for a copy, which is told.
    pub fn entrust(self: &Arc<Self>, id: &str, uffd: BorrowedFd<'_>) -> Option<Ward> {
        if !self.guards() {
            return None;
        }
        let copies = (uffd.try_clone_to_owned(), uffd.try_clone_to_owned());
        let (Ok(ours), Ok(theirs)) = copies else {
            let why = "no descriptor is left for a copy of its userfaultfd".to_owned();
            self.0.observer.heard(News::Unguarded { id: id.to_owned(), why });
            return None;
        };
        let mut state = self.0.lock();
        state.wards.insert(id.to_owned(), Entrusted::new(ours));
        self.0.say(&mut state, &Request::Entrust { id: id.to_owned() }, Some(theirs));
        Some(Ward { client: Arc::clone(self), id: id.to_owned() })
    }

    /// Copies of the userfaultfds that the guardian has, as far as they come in time.
    pub fn copies(&self) -> Spares {
        let mut state = self.0.lock();
        state.copies.clear();
        state.has_all_copies = false;
        if !self.0.say(&mut state, &Request::Copies, None) {
            return Spares::new();
        }
        let mut state = self.0.wait_while(state, |state| !state.has_all_copies);
        std::mem::take(&mut state.copies)
    }

    /// Entrusts a guest that another process had before; where no guests are entrusted, it has no
    /// guardian any more.
    pub(crate) fn entrust_again(self: &Arc<Self>, id: &str, uffd: BorrowedFd<'_>) -> Option<Ward> {
        if self.guards() {
            return self.entrust(id, uffd);
        }
        self.forget(id);
        None
    }

    /// Has the guardian let go of a guest, if it serves it: the lock on the ledger tells when it has.
    pub fn want(&self, id: &str) {
        let mut state = self.0.lock();
        if self.0.say(&mut state, &Request::Give { id: id.to_owned() }, None) {
            state.wanted.insert(id.to_owned());
        }
    }

    /// Nobody waits for the guest any more: if it is let go of all the same, the guardian is to serve
    /// it.
    pub fn want_no_more(&self, id: &str) {
        self.0.lock().wanted.remove(id);
    }

    /// The guest has no guardian from now on, whatever was before.
    pub(crate) fn forget(&self, id: &str) {
        let mut state = self.0.lock();
        state.wards.remove(id);
        state.left.remove(id);
        self.0.say(&mut state, &Request::Forget { id: id.to_owned() }, None);
    }

    /// The guest is about to be let go of: the guardian is to stand ready, and learns by the lock
    /// when that is. Whether there was a guardian to tell.
    pub(crate) fn announce(&self, id: &str) -> bool {
        let mut state = self.0.lock();
        self.0.say(&mut state, &Request::Left { id: id.to_owned(), soon: true }, None)
    }

    /// The guest is to be served by the guardian, and by the next if that one is lost before it could.
    pub(crate) fn leave(&self, id: &str) {
        let mut state = self.0.lock();
        self.0.say(&mut state, &Request::Left { id: id.to_owned(), soon: false }, None);
        match state.wards.get_mut(id) {
            Some(ward) => ward.left = true,
            // It never was this server's: without it no other guardian would look for it.
            None => drop(state.left.insert(id.to_owned())),
        }
    }

    /// Finds out whether there is a guardian that gets on and knows of all guests that are entrusted
    /// to it, before they are left to it. One that was lost is replaced first, within so long. Where
    /// no guests are entrusted, there is nothing to find out.
    pub fn is_ready(&self, within: Duration) -> Result<(), GuardianError> {
        if !self.guards() {
            return Ok(());
        }
        let begun = Instant::now();
        // The connection that was asked, and how many signs of life there were before.
        let mut asked: Option<(u64, u64)> = None;
        let mut hurried = false;
        let mut state = self.0.lock();
        loop {
            let connections = state.connections;
            let before = asked.filter(|(of, _)| *of == connections).map(|(_, before)| before);
            if before.is_some_and(|before| state.is_met() && state.signs_of_life > before) {
                return Ok(());
            }
            if before.is_none() && state.process().is_some() {
                asked = Some((connections, state.signs_of_life));
                self.0.say(&mut state, &Request::Give { id: String::new() }, None);
            }
            let Some(left) = within.checked_sub(begun.elapsed()) else { break };
            if state.process().is_none() && !std::mem::replace(&mut hurried, true) {
                self.0.hurry(&mut state);
            }
            state = self.0.wait_for(state, left.min(LOOK_EVERY));
        }
        let waited = begun.elapsed();
        let trouble = state.last_trouble.take();
        match (state.process(), trouble) {
            (Some(process), _) => Err(GuardianError::Silent { pid: process.pid(), waited }),
            (None, Some(why)) => Err(GuardianError::NoOther { why }),
            (None, None) => Err(GuardianError::Nobody),
        }
    }

    /// Waits until somebody has each guest that was let go of, and has another guardian started where
    /// the one that was told is gone, or stopped. Those that nobody has in the end.
    pub fn see_to_those_left(&self, within: Duration) -> Vec<String> {
        let begun = Instant::now();
        let (mut pause, mut hurried) = (FIRST_LOOK, false);
        loop {
            let mut state = self.0.lock();
            if state.left().is_empty() {
                return Vec::new();
            }
            drop(self.0.wait_for(state, pause));
            pause = (pause * 2).min(LOOK_EVERY);
            state = self.0.lock();
            self.0.forget_the_taken(&mut state);
            let left = state.left();
            if left.is_empty() || begun.elapsed() >= within {
                return left;
            }
            match state.process() {
                None if hurried => {}
                None => {
                    hurried = true;
                    self.0.hurry(&mut state);
                }
                // They wait for it, and it stands still: it cannot be asked to make room.
                Some(process) if process.is_stopped() => drop(process.kill()),
                Some(_) => {}
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.lock().closing = true;
        self.0.waker.wake();
    }
}

/// A guest that is entrusted to the guardian, by whoever owns its ledger. Dropped, it is left to the
/// guardian: the ledger has to be let go of before.
#[derive(Debug)]
pub struct Ward {
    client: Arc<Client>,
    id: String,
}

impl Ward {
    /// The guest is about to be let go of; whether there was a guardian to tell.
    pub(crate) fn announce(&self) -> bool {
        self.client.announce(&self.id)
    }

    /// The guest has ended, or needs no handler any more.
    pub(crate) fn forget(mut self) {
        self.client.forget(&std::mem::take(&mut self.id));
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        if !self.id.is_empty() {
            self.client.leave(&self.id);
        }
    }
}
