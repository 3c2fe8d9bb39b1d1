//! A handler that is kept from serving, so that faults gather.

use std::sync::MutexGuard;
use std::sync::mpsc::{Sender, channel};

use uffd_core::session::Reply;

use super::{Service, Stand};
use crate::Result;

/// Serves nothing until it is dropped.
pub(crate) enum Held<'a> {
    Plain { _gate: MutexGuard<'a, ()> },
    Session { _release: Sender<()> },
}

impl Stand {
    /// Keeps the handler from serving.
    pub(crate) fn hold(&self) -> Result<Held<'_>> {
        match &self.service {
            Service::Plain(plain) => Ok(Held::Plain { _gate: plain.hold() }),
            Service::Session { session, .. } => {
                let (entered, inside) = channel();
                let (release, released) = channel::<()>();
                // The answer to a command is given on the fault loop's own thread.
                session.stats_with(Reply::new(move |_| {
                    let _ = entered.send(());
                    let _ = released.recv();
                }));
                inside.recv()?;
                Ok(Held::Session { _release: release })
            }
            Service::Nobody | Service::Raw(_) => Err("nobody serves this guest".into()),
        }
    }
}
