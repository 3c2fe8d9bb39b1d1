//! A server in a process of its own: one that sees less than this one, whose memory can be
//! measured, and that can be ended however its sessions are frozen.

mod client;
mod words;

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use uffd_core::units::PageRange;
use uffd_guest::driver::Guest;
use uffd_guest::options::Options;

pub use client::Refused;
pub use words::Sight;
pub(crate) use words::{Ask, Line, Request, Role};

use crate::cast::Cast;
use crate::facts::{Ending, Exported, Figures, Prefaulted};
use crate::frozen::Frozen;
use crate::observe::threads_of;
use crate::scenery::{Guests, Scenery};
use crate::serving::{Asked, Serving, Staged};

use client::{Handler, Told};

/// How the process that serves differs from this one.
#[derive(Clone, Debug, Default)]
pub struct Apart {
    /// What it sees.
    pub sight: Sight,
    /// The control group it is in.
    pub cgroup: Option<PathBuf>,
    /// Whether its source has nothing at hand, ever.
    pub cold: bool,
    /// Its source has nothing at hand, and brings nothing before this file is there.
    pub held_by: Option<PathBuf>,
}

/// A snapshot that another process serves.
#[derive(Debug)]
pub struct ApartStage {
    handler: Arc<Handler>,
    guests: Guests,
    scenery: Scenery,
}

impl ApartStage {
    pub(crate) fn open(cast: &Cast, role: Role, guests: Guests, scenery: Scenery) -> Self {
        // Another user has to be able to bind the socket here.
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(scenery.dir(), open).expect("a directory for everybody");
        Self { handler: Handler::start(cast, &role), guests, scenery }
    }

    /// A guest as stock Firecracker makes it.
    pub fn guest(&self) -> ServedApart {
        self.guest_with(|_| {})
    }

    /// A guest with other options. One at a time: guests are told apart by their order.
    ///
    /// # Panics
    /// If the guest is refused, or nothing is heard of it in time.
    pub fn guest_with(&self, change: impl FnOnce(&mut Options)) -> ServedApart {
        let guest = self.guests.spawn(change);
        let arrived = self.handler.next_guest().unwrap_or_else(|refused| panic!("{refused:?}"));
        let (number, pid, told) = arrived;
        ServedApart { guest, number, seen_as: pid, handler: Arc::clone(&self.handler), told }
    }

    /// The snapshot file.
    pub fn snapshot(&self) -> PathBuf {
        self.scenery.snapshot()
    }

    /// Stops the process that serves, until what this gives is dropped.
    pub fn freeze(&self) -> Frozen {
        Frozen::new(self.handler.pid().cast_signed())
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        self.handler.pid()
    }

    /// Its threads of that name.
    pub fn threads_named(&self, name: &str) -> Vec<i32> {
        threads_of(&self.handler.pid().to_string(), name)
    }

    /// Bytes of memory that the process has had at most.
    pub fn peak_memory(&self) -> u64 {
        self.handler.peak_memory()
    }
}

impl Staged for ApartStage {
    fn guest_with(&self, change: &dyn Fn(&mut Options)) -> Box<dyn Serving> {
        Box::new(Self::guest_with(self, change))
    }
}

/// A guest that another process serves.
#[derive(Debug)]
pub struct ServedApart {
    /// The guest process.
    pub guest: Guest,
    number: u64,
    seen_as: Option<i32>,
    handler: Arc<Handler>,
    told: crossbeam_channel::Receiver<Told>,
}

impl ServedApart {
    /// The guest's process as the one that serves it knows it.
    pub const fn seen_as(&self) -> Option<i32> {
        self.seen_as
    }

    /// Has the guest killed; whether there was a process to kill.
    pub fn kill(&self) -> Asked<bool> {
        self.ask("kill", Ask::Kill)
    }

    /// Waits for the next notice.
    pub fn notice(&self) -> String {
        match self.handler.heard(&self.told, "a notice") {
            Told::Notice(notice) => notice,
            Told::Ended(ending, _) => panic!("expected a notice, got {ending:?}"),
        }
    }

    fn ask<T: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        what: &'static str,
        ask: Ask,
    ) -> Asked<T> {
        self.handler.ask(what, self.number, ask)
    }
}

impl Serving for ServedApart {
    fn guest(&self) -> &Guest {
        &self.guest
    }
    fn guest_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }
    fn export(&self) -> Asked<Exported> {
        self.ask("export", Ask::Export)
    }
    fn figures(&self) -> Asked<Figures> {
        self.ask("stats", Ask::Figures)
    }
    fn settle(&self) -> Asked<()> {
        self.ask("settle", Ask::Settle)
    }
    fn prefault(&self, ranges: Vec<PageRange>) -> Asked<Prefaulted> {
        let ranges = ranges.into_iter().map(|range| (range.start.0, range.end.0)).collect();
        self.ask("prefault", Ask::Prefault { ranges })
    }
    fn begin_stop(&self) {
        let asked: Asked<()> = self.ask("stop", Ask::Stop);
        drop(asked);
    }
    fn end(&self) -> (Ending, Figures) {
        loop {
            if let Told::Ended(ending, figures) = self.handler.heard(&self.told, "the end") {
                return (ending, figures);
            }
        }
    }
}

impl Deref for ServedApart {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}
