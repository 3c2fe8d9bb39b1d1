//! What the rest of the process says to a fault loop and hears from it: commands, answers, options,
//! reports and ends. Neither side of it is known here.

mod command;
mod copied;
mod error;
mod mailbox;
mod observer;
mod options;
mod reports;

pub(crate) use command::{Command, ExportJob, Fetched, Message, PrefaultMode};
pub use command::{Ended, PrefaultId, Reply};
pub(crate) use copied::Copied;
pub use error::{Cause, End, SessionError};
pub(crate) use mailbox::{Inbox, Mailbox};
pub use observer::{NoObserver, Notice, Observer};
pub use options::{DirtyTracking, FaultAround, SessionOptions, Unservable};
pub use reports::{Export, Lack, NotReleased, PrefaultReport, RegionStates, ReleaseProgress};
