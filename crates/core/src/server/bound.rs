//! A server between the moment its socket is bound and the moment it accepts: guests that were left
//! are taken over in between, before anybody else is served.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::guests::Expected;
use super::{Arriving, Server, ServerObserver, ServerOptions};
use crate::kernel::stay_behind;
use crate::recovery::{Awaited, Keep, NotRecovered, NotTaken, Prospect, Spares, take_over};
use crate::session::{Served, Standby};
use crate::source::Fetcher;

/// All that a guest waits for is that it is let go of, perhaps by a server of this very process; then
/// somebody takes its session.
type Ready = (Standby, Expected, Served);

/// A server whose socket is bound and that accepts nobody yet. Dropped, it is stopped; guests it has
/// taken over go on being served.
pub struct Bound {
    server: Server,
    fetcher: Arc<Fetcher>,
    options: ServerOptions,
    observer: Arc<dyn ServerObserver>,
}

impl Bound {
    pub(super) fn new(
        server: Server,
        fetcher: Arc<Fetcher>,
        options: ServerOptions,
        observer: Arc<dyn ServerObserver>,
    ) -> Self {
        Self { server, fetcher, options, observer }
    }

    /// Serves on the guests that were left where this server keeps its own, and tells the observer
    /// of each, or why it is not taken over. For whoever has the directory's
    /// [claim](crate::ledger::StateDir::claim). On an error no guest was touched.
    pub fn take_over(&self, spares: &mut Spares) -> io::Result<()> {
        self.take_over_awaited(spares, Awaited::default())
    }

    /// The same for whoever has waited for the directory: who was `awaited` is not looked at again.
    pub fn take_over_awaited(&self, spares: &mut Spares, awaited: Awaited) -> io::Result<()> {
        let Some(keep) = &self.options.keep else { return Ok(()) };
        let _behind = stay_behind();
        let ready = |prospect| self.stand_by(keep, prospect);
        let others = take_over(
            keep,
            spares,
            awaited,
            ready,
            |(standby, expected, served): Ready, within| {
                if !expected.readmit() {
                    return Err(NotTaken::Served((standby, expected, served)));
                }
                standby.take(within, served).map_err(|error| match error {
                    NotTaken::Served((standby, served)) => {
                        NotTaken::Served((standby, expected, served))
                    }
                    NotTaken::Not(error) => NotTaken::Not(error),
                })
            },
        )?;
        others.into_iter().for_each(|other| self.observer.not_recovered(other));
        Ok(())
    }

    fn stand_by(&self, keep: &Keep, prospect: Prospect) -> Result<Ready, NotRecovered> {
        let guests = &self.server.shared.guests;
        let (process, uffd) = (prospect.process(), prospect.uffd().as_fd());
        let expected = guests
            .expect(process.as_fd(), process.pid(), uffd)
            .map_err(|why| NotRecovered { path: prospect.path().to_owned(), why })?;
        let Arriving { observer, served } = self.observer.recovering();
        let (options, keep) = (self.options.session, Some(keep.clone()));
        let held = expected.held();
        let standby = Standby::with(prospect, &self.fetcher, options, observer, keep, held)?;
        Ok((standby, expected, served))
    }

    /// Starts to accept, those first who came meanwhile.
    pub fn open(self) -> Server {
        self.server.shared.opened.wake();
        self.server
    }
}
