//! Which userfaultfds have a session in this process, whichever server it came to. Two sessions
//! for one would each take faults and events that the other waits for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::AdmissionError;
use crate::kernel::is_same_file;

/// A copy of each.
static CLAIMED: Mutex<Vec<Arc<OwnedFd>>> = Mutex::new(Vec::new());

/// The right to serve a userfaultfd, for as long as it lives.
#[derive(Debug)]
pub(super) struct Claim(Arc<OwnedFd>);

/// Why a userfaultfd cannot be claimed.
#[derive(Debug)]
pub(super) enum ClaimError {
    Refused(AdmissionError),
    /// There is no descriptor left for a copy.
    Shortage(io::Error),
}

impl Claim {
    /// Claims a userfaultfd that nobody serves.
    pub(super) fn new(uffd: BorrowedFd<'_>) -> Result<Self, ClaimError> {
        let copy = Claimable::of(uffd).map_err(ClaimError::Shortage)?;
        copy.claim().map_err(ClaimError::Refused)
    }
}

/// A copy of a userfaultfd, for whoever may claim it later.
#[derive(Debug)]
pub(super) struct Claimable(Arc<OwnedFd>);

impl Claimable {
    pub(super) fn of(uffd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self(Arc::new(uffd.try_clone_to_owned()?)))
    }

    /// Claims it, unless somebody serves it.
    pub(super) fn claim(&self) -> Result<Claim, AdmissionError> {
        let Self(copy) = self;
        let mut claimed = lock();
        for other in claimed.iter() {
            match is_same_file(copy.as_fd(), other.as_fd()) {
                Ok(false) => {}
                Ok(true) => return Err(AdmissionError::Twice),
                Err(errno) => {
                    return Err(AdmissionError::NotToldApart { cause: errno.to_string() });
                }
            }
        }
        claimed.push(Arc::clone(copy));
        Ok(Claim(Arc::clone(copy)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The copy itself is closed afterwards, when nobody waits for the lock.
        lock().retain(|claimed| !Arc::ptr_eq(claimed, &self.0));
    }
}

fn lock() -> MutexGuard<'static, Vec<Arc<OwnedFd>>> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EventFd;

    use super::*;

    #[test]
    fn a_descriptor_and_its_copies_are_claimed_once_until_it_is_let_go_of() {
        let (one, other) = (EventFd::new().unwrap(), EventFd::new().unwrap());
        let copy = one.as_fd().try_clone_to_owned().unwrap();
        let claim = Claim::new(one.as_fd()).unwrap();
        let _other = Claim::new(other.as_fd()).unwrap();
        for fd in [one.as_fd(), copy.as_fd()] {
            let error = Claim::new(fd).unwrap_err();
            assert!(matches!(error, ClaimError::Refused(AdmissionError::Twice)), "{error:?}");
        }
        drop(claim);
        Claim::new(copy.as_fd()).unwrap();
    }
}
