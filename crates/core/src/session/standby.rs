//! Everything it takes to serve a guest that another process has, but the right to: that is one lock.
//! What can be had before is had before, its thread too, since the guest waits for the rest.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::{STACK, Session};
use crate::contract::{Observer, SessionError, SessionOptions};
use crate::fault_loop::Setup;
use crate::kernel::run_for_a_moment_at_a_time;
use crate::recovery::{IfUnnamed, Keep, Left, NotRecovered, NotTaken, Prospect};
use crate::source::Fetcher;

/// The pause between two tries to have the lock. To give way instead would cost the thread its claim to
/// a core, just before it needs one for the guest.
const PAUSE: Duration = Duration::from_micros(20);

/// A thread that is ready to serve a guest, and takes it over when it is told to. Dropped, it ends,
/// unless it serves the guest by then.
#[derive(Debug)]
pub struct Standby {
    orders: Sender<Order>,
    path: PathBuf,
}

/// What came of an order to take a guest over.
#[derive(Debug)]
pub enum Taken {
    /// It is served here.
    Served(Session),
    /// Somebody else has it; it can be tried again.
    ByOther,
    /// It cannot be served here. There is no thread for it any more.
    Not(NotRecovered),
}

/// Takes the session of a guest on the guest's thread, before it serves; must return at once.
pub type Served = Box<dyn FnOnce(Session) + Send>;

#[derive(Debug)]
struct Order {
    unnamed: IfUnnamed,
    /// How long whoever has it may take to let go of it.
    within: Duration,
    answer: Answer,
}

impl Standby {
    /// Gets ready to serve the guest of `prospect`.
    pub fn new(
        prospect: Prospect,
        fetcher: &Fetcher,
        options: SessionOptions,
        observer: Box<dyn Observer>,
    ) -> Result<Self, NotRecovered> {
        Self::with(prospect, fetcher, options, observer, None, ())
    }

    /// The same with whom the guest is entrusted to once it is served, and with something that is
    /// held until it has ended, or is not taken over.
    pub(crate) fn with(
        prospect: Prospect,
        fetcher: &Fetcher,
        options: SessionOptions,
        observer: Box<dyn Observer>,
        keep: Option<Keep>,
        held: impl Send + 'static,
    ) -> Result<Self, NotRecovered> {
        let path = prospect.path().to_owned();
        let not = |why: SessionError| NotRecovered { path: path.clone(), why: why.into() };
        let setup = Setup::new(fetcher, options, observer).map_err(not)?;
        let (orders, received) = unbounded();
        thread::Builder::new()
            .name("uffd-guest".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                wake_on_time();
                let _ = run_for_a_moment_at_a_time();
                wait(prospect, setup, keep.as_ref(), &received, held);
            })
            .map_err(|error| {
                let what = "a thread for its faults";
                not(SessionError::Resources { what, cause: error.to_string() })
            })?;
        Ok(Self { orders, path })
    }

    /// Has the guest taken over once whoever has it lets go of it, within so long. Returns at once;
    /// `told` is called once, on the guest's thread before it serves, and must return at once.
    pub fn begin(
        &self,
        unnamed: IfUnnamed,
        within: Duration,
        told: impl FnOnce(Taken) + Send + 'static,
    ) {
        self.order(unnamed, within, Box::new(told));
    }

    /// Takes the guest over once whoever has it lets go of it, within so long. `served` has its
    /// session then, before anything is told of it; while somebody else has it, it is given back.
    pub fn take(self, within: Duration, served: Served) -> Result<(), NotTaken<(Self, Served)>> {
        let (sender, answer) = crossbeam_channel::bounded(1);
        let told = move |taken| {
            let answer = match taken {
                Taken::Served(session) => {
                    served(session);
                    Ok(())
                }
                Taken::ByOther => Err(NotTaken::Served(served)),
                Taken::Not(error) => Err(NotTaken::Not(error)),
            };
            drop(sender.send(answer));
        };
        self.order(IfUnnamed::HasEnded, within, Box::new(told));
        let answer = answer.recv().unwrap_or_else(|_| Err(NotTaken::Not(ended(self.path.clone()))));
        answer.map_err(|error| match error {
            NotTaken::Served(served) => NotTaken::Served((self, served)),
            NotTaken::Not(error) => NotTaken::Not(error),
        })
    }

    fn order(&self, unnamed: IfUnnamed, within: Duration, told: Told) {
        let answer = Answer { told: Some(told), path: self.path.clone() };
        // If the thread has ended, the order is dropped, and that answers it.
        let _ = self.orders.send(Order { unnamed, within, answer });
    }
}

/// Waits for orders, and serves the guest once it is taken over.
fn wait(
    mut prospect: Prospect,
    setup: Setup,
    keep: Option<&Keep>,
    orders: &Receiver<Order>,
    held: impl Send,
) {
    for Order { unnamed, within, answer } in orders {
        let left = match take(prospect, unnamed, within) {
            Ok(left) => left,
            Err(NotTaken::Served(back)) => {
                prospect = *back;
                answer.tell(Taken::ByOther);
                continue;
            }
            Err(NotTaken::Not(error)) => {
                drop(held);
                return answer.tell(Taken::Not(error));
            }
        };
        let path = left.path().to_owned();
        match Session::take_over(left, setup, keep) {
            Ok((session, runner)) => {
                runner.on_this_thread();
                answer.tell(Taken::Served(session));
                runner.run(held);
            }
            // It is left again.
            Err(error) => {
                drop(held);
                answer.tell(Taken::Not(NotRecovered { path, why: error.into() }));
            }
        }
        return;
    }
}

/// A pause of microseconds is to take no more: by default the kernel adds up to 50.
fn wake_on_time() {
    let _ = nix::sys::prctl::set_timerslack(1_000);
}

fn take(mut prospect: Prospect, unnamed: IfUnnamed, within: Duration) -> Result<Left, NotTaken> {
    let begun = Instant::now();
    loop {
        match prospect.take_if(unnamed) {
            Err(NotTaken::Served(back)) if begun.elapsed() < within => prospect = *back,
            taken => return taken,
        }
        thread::sleep(PAUSE);
    }
}

type Told = Box<dyn FnOnce(Taken) + Send>;

/// Answers once, whatever becomes of the thread.
struct Answer {
    told: Option<Told>,
    path: PathBuf,
}

impl Answer {
    fn tell(mut self, taken: Taken) {
        if let Some(told) = self.told.take() {
            told(taken);
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(told) = self.told.take() {
            told(Taken::Not(ended(std::mem::take(&mut self.path))));
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("path", &self.path).finish_non_exhaustive()
    }
}

fn ended(path: PathBuf) -> NotRecovered {
    let why = SessionError::Panicked("the thread that was to serve it has ended".to_owned());
    NotRecovered { path, why: why.into() }
}
