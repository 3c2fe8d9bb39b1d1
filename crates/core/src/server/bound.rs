//! A server between the moment its socket is bound and the moment it accepts: guests that were left
//! are taken over in between, before anybody else is served.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::{Arriving, Server, ServerObserver, ServerOptions};
use crate::recovery::{Left, NotRecovered, Obstruction, Spares, take_over};
use crate::session::Session;
use crate::source::Fetcher;

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
        let Some(keep) = &self.options.keep else { return Ok(()) };
        let others = take_over(keep, spares, |left| {
            let path = left.path().to_owned();
            if let Err(why) = self.serve(left) {
                self.observer.not_recovered(NotRecovered { path, why });
            }
        })?;
        others.into_iter().for_each(|other| self.observer.not_recovered(other));
        Ok(())
    }

    fn serve(&self, left: Left) -> Result<(), Obstruction> {
        let guests = &self.server.shared.guests;
        let admission =
            guests.readmit(left.process.as_fd(), left.process.pid(), left.uffd.as_fd())?;
        let Arriving { observer, served } = self.observer.recovering();
        let fetcher = Arc::clone(&self.fetcher);
        let session = Session::take_over(left, fetcher, self.options.session, observer, admission)?;
        served(session);
        Ok(())
    }

    /// Starts to accept, those first who came meanwhile.
    pub fn open(self) -> Server {
        self.server.shared.opened.wake();
        self.server
    }
}
