//! The features the descriptor's owner negotiated, as `/proc/self/fdinfo` shows them.

use std::fmt;
use std::os::fd::AsRawFd;

use thiserror::Error;
use userfaultfd_sys as sys;

use super::descriptor::Uffd;
use super::is_shortage;

/// Set by the kernel once the owner has called UFFDIO_API.
const INITIALIZED: u64 = 1 << 31;

/// The negotiated feature bits of a userfaultfd (UFFD_FEATURE_… of linux/userfaultfd.h).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Features(pub u64);

/// Why a descriptor's features do not allow it to be served.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FeaturesError {
    /// `/proc/self/fdinfo` could not be read, or lacks the line with the features.
    #[error(
        "cannot read the userfaultfd's features from /proc/self/fdinfo: {0}; is /proc mounted?"
    )]
    Unreadable(String),
    /// There is no descriptor or memory left to read `/proc/self/fdinfo` with.
    #[error("cannot read the userfaultfd's features from /proc/self/fdinfo: {0}")]
    Shortage(String),
    /// The owner never called UFFDIO_API.
    #[error(
        "the userfaultfd was never initialised: its owner has to call UFFDIO_API before it hands it off"
    )]
    NotInitialised,
    /// The owner asked for a feature whose events cannot be served.
    #[error("the userfaultfd was created with {0}, which cannot be served; leave that feature out")]
    Unservable(&'static str),
}

impl Features {
    /// Reads the features and refuses those that cannot be served.
    pub fn of(uffd: &Uffd) -> Result<Self, FeaturesError> {
        use std::os::fd::AsFd;
        let path = format!("/proc/self/fdinfo/{}", uffd.as_fd().as_raw_fd());
        let text = std::fs::read_to_string(path).map_err(|error| match is_shortage(&error) {
            true => FeaturesError::Shortage(error.to_string()),
            false => FeaturesError::Unreadable(error.to_string()),
        })?;
        Self::parse(&text)
    }

    fn parse(fdinfo: &str) -> Result<Self, FeaturesError> {
        // "API:\taa:80000008:1ffff": version, negotiated, offered; hexadecimal.
        let bits = fdinfo
            .lines()
            .find_map(|line| line.strip_prefix("API:"))
            .and_then(|fields| fields.trim().split(':').nth(1))
            .and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .ok_or_else(|| FeaturesError::Unreadable("it has no valid API line".to_owned()))?;
        if bits & INITIALIZED == 0 {
            return Err(FeaturesError::NotInitialised);
        }
        let refused = [
            (sys::UFFD_FEATURE_EVENT_FORK, "UFFD_FEATURE_EVENT_FORK"),
            (sys::UFFD_FEATURE_EVENT_REMAP, "UFFD_FEATURE_EVENT_REMAP"),
            (sys::UFFD_FEATURE_SIGBUS, "UFFD_FEATURE_SIGBUS"),
        ];
        match refused.iter().find(|(bit, _)| bits & bit != 0) {
            Some((_, name)) => Err(FeaturesError::Unservable(name)),
            None => Ok(Self(bits & !INITIALIZED)),
        }
    }

    /// Whether the kernel itself clears write protection, so that no write-protect fault arrives.
    pub const fn wp_async(self) -> bool {
        self.0 & sys::UFFD_FEATURE_WP_ASYNC != 0
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fdinfo(bits: &str) -> String {
        format!("pos:\t0\nflags:\t02004002\npending:\t0\ntotal:\t0\nAPI:\taa:{bits}:1ffff\n")
    }

    #[test]
    fn stock_firecracker_asks_for_remove_events() {
        let features = Features::parse(&fdinfo("80000008")).unwrap();
        assert_eq!(features, Features(sys::UFFD_FEATURE_EVENT_REMOVE));
    }

    #[test]
    fn what_cannot_be_served_is_refused_by_name() {
        let refuse = |bits| Features::parse(&fdinfo(bits)).unwrap_err();
        assert_eq!(refuse("8"), FeaturesError::NotInitialised);
        assert_eq!(refuse("80000002"), FeaturesError::Unservable("UFFD_FEATURE_EVENT_FORK"));
        assert_eq!(refuse("80000004"), FeaturesError::Unservable("UFFD_FEATURE_EVENT_REMAP"));
        assert_eq!(refuse("80000080"), FeaturesError::Unservable("UFFD_FEATURE_SIGBUS"));
    }

    #[test]
    fn a_garbled_fdinfo_is_an_error() {
        for text in ["", "API:", "API:\taa", "API:\taa:zz:1"] {
            assert!(matches!(Features::parse(text), Err(FeaturesError::Unreadable(_))), "{text}");
        }
    }
}
