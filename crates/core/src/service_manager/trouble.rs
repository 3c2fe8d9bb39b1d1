//! What is wrong with a service manager, and whom to tell. It is never a reason not to serve.

use std::fmt;
use std::io;
use std::sync::Mutex;

use thiserror::Error;

use super::lock;

/// What is wrong with a service manager, or with what it has told.
#[derive(Debug, Error)]
pub enum Trouble {
    /// It cannot be told anything. Said once, until it can.
    #[error(
        "the service manager cannot be told anything (NOTIFY_SOCKET={address}): {cause}; it may take \
         this service for one that hangs, and keeps no userfaultfds: start it with Type=notify and \
         NotifyAccess=main"
    )]
    Silent {
        /// NOTIFY_SOCKET.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The descriptors that it passed cannot be taken; none was.
    #[error(
        "the descriptors of the service manager are not taken (LISTEN_FDS={count}): {cause}; a guest \
         whose userfaultfd only the manager has is not taken over"
    )]
    Inherited {
        /// LISTEN_FDS.
        count: String,
        /// What is wrong with them.
        cause: String,
    },
    /// Something is kept under a guest's name that no guest can have. The manager was told to forget
    /// it.
    #[error(
        "the service manager keeps {found} as {name}, which should be a guest's userfaultfd: it is not \
         used, and was removed from the store"
    )]
    NotUserfaultfd {
        /// The name it is kept by.
        name: String,
        /// What it is.
        found: String,
    },
    /// A guest's userfaultfd is kept, its memory is there, and its ledger is gone. The manager was told to forget it.
    #[error(
        "the service manager keeps the userfaultfd of the guest {id}, and there is no ledger of it in \
         {dir}: it is not taken over, and was removed from the store; unless it was released its VMM \
         waits for ever, so end it, and keep the directory with RuntimeDirectoryPreserve=yes"
    )]
    NoLedger {
        /// The guest.
        id: String,
        /// The state directory.
        dir: String,
    },
    /// It keeps no more.
    #[error(
        "the service manager keeps {limit} descriptors and no more, so that it does not keep the \
         userfaultfd of the guest {id}: raise FileDescriptorStoreMax="
    )]
    Full {
        /// The guest.
        id: String,
        /// FDSTORE.
        limit: usize,
    },
    /// How often it wants a sign of life cannot be understood.
    #[error("WATCHDOG_USEC={every} is no number of microseconds: no signs of life are given")]
    Watchdog {
        /// WATCHDOG_USEC.
        every: String,
    },
    /// No descriptor is left for a copy.
    #[error(
        "the service manager does not keep the userfaultfd of the guest {id}: {cause}; raise \
         LimitNOFILE="
    )]
    Shortage {
        /// The guest.
        id: String,
        /// What the system said.
        cause: io::Error,
    },
}

impl Trouble {
    /// A code that stays the same from version to version.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Silent { .. } => "ERR_UFFD_SERVICE_MANAGER",
            Self::Inherited { .. } | Self::Watchdog { .. } => {
                "ERR_UFFD_SERVICE_MANAGER_ENVIRONMENT"
            }
            Self::NotUserfaultfd { .. } | Self::NoLedger { .. } => "ERR_UFFD_SERVICE_MANAGER_STRAY",
            Self::Full { .. } | Self::Shortage { .. } => "ERR_UFFD_SERVICE_MANAGER_STORE",
        }
    }
}

/// Is told of a trouble; gives it back if nobody is there any more who could hear. Must return at
/// once.
pub type OnTrouble = Box<dyn FnMut(Trouble) -> Result<(), Trouble> + Send>;

/// Troubles, and who is told of them: the first who listens, since all are of the whole process.
#[derive(Default)]
pub(super) struct Troubles(Mutex<State>);

#[derive(Default)]
struct State {
    listeners: Vec<OnTrouble>,
    untold: Vec<Trouble>,
}

/// More are not kept for a listener that never comes.
const MOST_UNTOLD: usize = 64;

impl Troubles {
    pub(super) fn tell(&self, trouble: Trouble) {
        let mut state = lock(&self.0);
        if let Some(trouble) = state.tell(trouble)
            && state.untold.len() < MOST_UNTOLD
        {
            state.untold.push(trouble);
        }
    }

    pub(super) fn on_trouble(&self, hear: OnTrouble) {
        let mut state = lock(&self.0);
        state.listeners.push(hear);
        let untold = std::mem::take(&mut state.untold);
        state.untold = untold.into_iter().filter_map(|trouble| state.tell(trouble)).collect();
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).untold.is_empty()
    }
}

impl State {
    /// Gives it back if nobody is there. Who has gone is asked no more.
    fn tell(&mut self, mut trouble: Trouble) -> Option<Trouble> {
        while let Some(first) = self.listeners.first_mut() {
            match first(trouble) {
                Ok(()) => return None,
                Err(returned) => trouble = returned,
            }
            drop(self.listeners.remove(0));
        }
        Some(trouble)
    }
}

impl fmt::Debug for Troubles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Troubles").finish_non_exhaustive()
    }
}
