//! A guest that this process serves, and what its session tells.

use std::ops::Deref;

use crossbeam_channel::{Receiver, Sender};
use nix::sys::resource::{UsageWho, getrusage};
use uffd_core::session::{End, Notice, Observer, Reply, Session};
use uffd_core::stats::Stats;
use uffd_core::units::PageRange;
use uffd_guest::driver::Guest;

use crate::facts::{Ending, Exported, Figures, Prefaulted};
use crate::observe::DEADLINE;
use crate::serving::{Asked, Serving};

/// What an observer was told.
#[derive(Debug)]
pub(crate) enum Told {
    Notice(Notice),
    Ended(End, Box<Stats>),
}

/// Tells all of it.
pub(crate) struct Teller(pub(crate) Sender<Told>);

impl Observer for Teller {
    fn notice(&mut self, notice: Notice) {
        let _ = self.0.send(Told::Notice(notice));
    }
    fn ended(&mut self, end: &End, stats: Stats) {
        let _ = self.0.send(Told::Ended(end.clone(), Box::new(stats)));
    }
}

/// A guest, and the session that serves it.
#[derive(Debug)]
pub struct Served {
    /// The guest process.
    pub guest: Guest,
    /// Its session.
    pub session: Session,
    pub(crate) told: Receiver<Told>,
}

impl Served {
    /// Holds the fault loop until the guard is dropped: what happens meanwhile queues up.
    pub fn hold(&self) -> Held {
        let (entered, inside) = crossbeam_channel::bounded(0);
        let (release, released) = crossbeam_channel::bounded::<()>(0);
        // The answer to a command is given on the loop's own thread.
        self.session.stats_with(Reply::new(move |_| {
            let _ = entered.send(());
            let _ = released.recv();
        }));
        inside.recv_timeout(DEADLINE).expect("the fault loop takes commands");
        Held { _release: release }
    }

    /// Waits for the session's end, as the observer was told: exactly once, with the statistics.
    pub fn end(&self) -> (End, Stats) {
        loop {
            match self.told.recv_timeout(DEADLINE).expect("the session ends") {
                Told::Notice(_) => {}
                Told::Ended(end, stats) => {
                    // The observer is gone with the loop, so that nothing can follow.
                    let more = self.told.recv_timeout(DEADLINE);
                    assert!(more.is_err_and(|error| error.is_disconnected()), "told twice");
                    assert_eq!(self.session.wait(), end);
                    return (end, *stats);
                }
            }
        }
    }

    /// Drops the session; how it ended, and the guest, which lives on.
    pub fn drop_session(self) -> ((End, Stats), Guest) {
        let Self { guest, session, told } = self;
        drop(session);
        let end = loop {
            match told.recv_timeout(DEADLINE).expect("the session ends") {
                Told::Notice(_) => {}
                Told::Ended(end, stats) => break (end, *stats),
            }
        };
        (end, guest)
    }

    /// Waits for the next notice.
    pub fn notice(&self) -> Notice {
        match self.told.recv_timeout(DEADLINE).expect("a notice") {
            Told::Notice(notice) => notice,
            Told::Ended(end, _) => panic!("expected a notice, got {end:?}"),
        }
    }

    /// How often the fault loop itself has waited for a page to be read from a device.
    pub fn major_faults(&self) -> i64 {
        let (sender, count) = crossbeam_channel::bounded(1);
        // The answer to a command is given on the loop's own thread.
        self.session.stats_with(Reply::new(move |_| {
            let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("what this thread has used");
            let _ = sender.send(usage.major_page_faults());
        }));
        count.recv_timeout(DEADLINE).expect("the fault loop takes commands")
    }

    /// Counters now.
    pub fn stats(&self) -> Stats {
        self.session.stats().expect("the session is running")
    }
}

/// A reply that goes to whoever asked.
fn reply<T: Send + 'static, A: Send + 'static>(
    what: &'static str,
    of: impl FnOnce(T) -> A + Send + 'static,
) -> (Asked<A>, Reply<T>) {
    let (asked, answer) = Asked::new(what);
    let reply = Reply::new(move |result: Result<T, _>| {
        if let Ok(result) = result {
            let _ = answer.send(of(result));
        }
    });
    (asked, reply)
}

impl Serving for Served {
    fn guest(&self) -> &Guest {
        &self.guest
    }
    fn guest_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }
    fn export(&self) -> Asked<Exported> {
        let (asked, reply) = reply("export", Exported::from);
        self.session.export_with(reply);
        asked
    }
    fn figures(&self) -> Asked<Figures> {
        let (asked, reply) = reply("stats", Figures::from);
        self.session.stats_with(reply);
        asked
    }
    fn settle(&self) -> Asked<()> {
        let (asked, reply) = reply("settle", |()| ());
        self.session.settle_with(reply);
        asked
    }
    fn prefault(&self, ranges: Vec<PageRange>) -> Asked<Prefaulted> {
        let (asked, reply) = reply("prefault", Prefaulted::from);
        self.session.prefault_with(ranges, reply).expect("pages of the guest");
        asked
    }
    fn begin_stop(&self) {
        self.session.begin_stop();
    }
    fn end(&self) -> (Ending, Figures) {
        let (end, stats) = Self::end(self);
        (Ending::from(&end), stats.into())
    }
}

impl Deref for Served {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

/// A fault loop that is held.
#[derive(Debug)]
pub struct Held {
    _release: Sender<()>,
}
