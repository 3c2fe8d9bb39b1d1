//! Which guests a server lets in: not more than it may have, not more of one process than that may
//! hand off, and none twice.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::resource::{Resource, getrlimit};

use super::claims::{Claim, ClaimError, Claimable};
use super::{AdmissionError, Refusal};
use crate::handoff::Handoff;
use crate::kernel::{LOWEST_OF_GUESTS, ProcessId};
use crate::recovery::Obstruction;
use crate::session::SessionError;

/// More guests than this are not expected of one snapshot on one host.
const MOST: usize = 4096;

/// A guest holds up to so many descriptors.
const DESCRIPTORS: u64 = 8;

/// How many guests a server may have unless it is told: half of what this process may open is
/// theirs, so that it has descriptors left for everything else it does.
pub(super) fn usual_limit() -> usize {
    let (open_files, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    usize::try_from(open_files / 2 / DESCRIPTORS).unwrap_or(MOST).clamp(1, MOST)
}

/// The guests of a server, from their handoff to the end of their threads.
#[derive(Debug)]
pub(super) struct Guests {
    limit: usize,
    limit_per_process: usize,
    /// The process that handed off each, where it is known.
    admitted: Mutex<Vec<Option<Arc<ProcessId>>>>,
}

/// A guest that was let in, for as long as it lives.
#[derive(Debug)]
pub(super) struct Admission {
    guests: Arc<Guests>,
    process: Option<Arc<ProcessId>>,
    _claim: Claim,
}

impl Guests {
    pub(super) fn new(limit: usize, limit_per_process: usize) -> Arc<Self> {
        Arc::new(Self { limit, limit_per_process, admitted: Mutex::default() })
    }

    /// Lets a guest in. Waits for nothing.
    pub(super) fn admit(self: &Arc<Self>, handoff: &Handoff) -> Result<Admission, Refusal> {
        let bases = handoff.layout.regions().iter().map(|region| region.base);
        if let Some(base) = bases.min().filter(|base| *base < LOWEST_OF_GUESTS) {
            return Err(AdmissionError::TooLow { base }.into());
        }
        let process = ProcessId::of_peer(&handoff.socket)
            .map_err(|errno| lacks("a descriptor of its process", errno))?
            .map(Arc::new);
        let mut admitted = self.lock();
        if admitted.len() >= self.limit {
            return Err(AdmissionError::TooManyGuests { limit: self.limit }.into());
        }
        if let Some(process) = &process {
            let is_this = |other: &&Arc<ProcessId>| process.is(other);
            if admitted.iter().flatten().filter(is_this).count() >= self.limit_per_process {
                return Err(AdmissionError::TooManyGuestsOfProcess {
                    pid: handoff.peer.pid.map(|pid| pid.as_raw()),
                    limit: self.limit_per_process,
                }
                .into());
            }
        }
        let claim = Claim::new(handoff.uffd.as_fd()).map_err(|error| match error {
            ClaimError::Refused(error) => Refusal::from(error),
            ClaimError::Shortage(error) => lacks("a copy of its userfaultfd", error),
        })?;
        admitted.push(process.clone());
        drop(admitted);
        Ok(Admission { guests: Arc::clone(self), process, _claim: claim })
    }

    /// Has all it takes to count a guest that is left by a server which had let it in.
    pub(super) fn expect(
        self: &Arc<Self>,
        pidfd: BorrowedFd<'_>,
        pid: i32,
        uffd: BorrowedFd<'_>,
    ) -> Result<Expected, Obstruction> {
        let process = ProcessId::of(pidfd, pid)
            .map_err(|error| shortage("a descriptor of its process", error))?;
        let uffd =
            Claimable::of(uffd).map_err(|error| shortage("a copy of its userfaultfd", error))?;
        let admission = Arc::default();
        Ok(Expected { guests: Arc::clone(self), process: Arc::new(process), uffd, admission })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Arc<ProcessId>>>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A guest that a server of this process may still have, before it is left.
#[derive(Debug)]
pub(super) struct Expected {
    guests: Arc<Guests>,
    process: Arc<ProcessId>,
    uffd: Claimable,
    admission: Arc<Mutex<Option<Admission>>>,
}

/// The admission of a guest that is expected, once it has one.
#[derive(Debug)]
pub(super) struct Readmitted(Arc<Mutex<Option<Admission>>>);

impl Expected {
    /// What whoever serves it holds for as long as it lives.
    pub(super) fn held(&self) -> Readmitted {
        Readmitted(Arc::clone(&self.admission))
    }

    /// Counts the guest from now on; whether nobody has it any more.
    pub(super) fn readmit(&self) -> bool {
        let mut admission = self.admission.lock().unwrap_or_else(PoisonError::into_inner);
        if admission.is_none()
            && let Ok(claim) = self.uffd.claim()
        {
            let process = Some(Arc::clone(&self.process));
            self.guests.lock().push(process.clone());
            let guests = Arc::clone(&self.guests);
            *admission = Some(Admission { guests, process, _claim: claim });
        }
        admission.is_some()
    }
}

impl Drop for Readmitted {
    fn drop(&mut self) {
        let admission = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(admission);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut admitted = self.guests.lock();
        let is_this = |other: &Option<Arc<ProcessId>>| match (other, &self.process) {
            (Some(other), Some(process)) => Arc::ptr_eq(other, process),
            (None, None) => true,
            _ => false,
        };
        if let Some(at) = admitted.iter().position(is_this) {
            admitted.swap_remove(at);
        }
    }
}

fn lacks(what: &'static str, cause: impl ToString) -> Refusal {
    shortage(what, cause).into()
}

fn shortage(what: &'static str, cause: impl ToString) -> SessionError {
    SessionError::Resources { what, cause: cause.to_string() }
}
