//! A guest's way in: its handoff, whether it may come in, its session.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::shared::{Shared, UnderWay};
use super::{AdmissionError, Refusal, ServerObserver, ServerOptions};
use crate::handoff::{Connection, Handoff, HandoffError, Limits, Ticket};
use crate::kernel::is_for_own_memory;
use crate::session::{Observer, Runner, Session, SessionError};
use crate::source::Fetcher;

pub(super) struct Arrival {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) options: ServerOptions,
    pub(super) observer: Arc<dyn ServerObserver>,
    pub(super) shared: Arc<Shared>,
    pub(super) under_way: UnderWay,
}

impl Arrival {
    /// Receives the handoff and serves the guest to its end, on this thread.
    ///
    /// Whoever is refused has its place in the crowd of handoffs given to others first, and is
    /// told of. Then what it has sent is closed: a userfaultfd waits for a lock of its owner's.
    pub(super) fn serve(self, mut connection: Connection) {
        let Self { fetcher, options, observer, shared, under_way } = self;
        let mut limits = Limits::new(fetcher.source().len());
        limits.timeout = options.handoff_timeout;
        let handoff = match connection.try_receive(&limits, shared.stop.as_fd()) {
            Ok(handoff) => handoff,
            Err(error) => {
                if !error.is_nobody() {
                    observer.refused(error.into());
                }
                drop(under_way);
                let _leaving = Ticket::new();
                return drop(connection);
            }
        };
        let admitted = shared.guests.admit(&handoff).and_then(|admission| {
            let preparing = shared.gate.enter().ok_or(HandoffError::Cancelled)?;
            Ok((admission, preparing))
        });
        let (admission, preparing) = match admitted {
            Ok(admitted) => admitted,
            Err(refusal) => {
                observer.refused(refusal);
                drop(under_way);
                let _leaving = Ticket::new();
                return drop(handoff);
            }
        };

        // From here on it counts as a guest, whatever it makes this thread wait for.
        drop(under_way);
        let guest = observer.arriving();
        match prepare(handoff, fetcher, &options, guest.observer) {
            Ok((session, runner)) => {
                runner.on_this_thread();
                if preparing.tell(|| (guest.served)(session)) {
                    runner.run(admission);
                }
            }
            Err(refusal) => {
                // Whoever hears of it may hand off again at once.
                drop(admission);
                preparing.tell(|| observer.refused(refusal));
            }
        }
    }
}

fn prepare(
    handoff: Handoff,
    fetcher: Arc<Fetcher>,
    options: &ServerOptions,
    observer: Box<dyn Observer>,
) -> Result<(Session, Runner), Refusal> {
    let is_own = is_for_own_memory(handoff.uffd.as_fd()).map_err(|errno| {
        let what = "a userfaultfd to tell this process's memory by";
        SessionError::Resources { what, cause: errno.to_string() }
    })?;
    if is_own {
        return Err(AdmissionError::OwnMemory.into());
    }
    let keep = options.keep.as_ref();
    Ok(Session::prepare(handoff, fetcher, options.session, observer, keep)?)
}
