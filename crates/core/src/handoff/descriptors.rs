//! The descriptors of a handoff: which of them is the userfaultfd, and none of the others kept.

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
};

use super::HandoffError;

/// How many descriptors may come at once. A VMM sends one or two; the kernel would allow 253.
pub(super) const MAX_AT_ONCE: usize = 16;

/// What has come so far. Everything but the userfaultfd is closed as soon as it is known.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    uffd: Option<OwnedFd>,
    stranger: Option<String>,
}

impl Descriptors {
    /// Takes one more.
    pub(super) fn add(&mut self, fd: OwnedFd) -> Result<(), HandoffError> {
        let what =
            fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(|source| {
                HandoffError::Io {
                    doing: "see what a received descriptor is, in /proc/self/fd",
                    source,
                }
            })?;
        if what.as_os_str() != "anon_inode:[userfaultfd]" {
            self.stranger.get_or_insert_with(|| what.to_string_lossy().into_owned());
        } else if self.uffd.replace(fd).is_some() {
            return Err(HandoffError::SeveralUserfaultfds);
        }
        Ok(())
    }

    /// Whether any came at all.
    pub(super) fn any(&self) -> bool {
        self.uffd.is_some() || self.stranger.is_some()
    }

    /// The userfaultfd, wherever among the others it stood.
    pub(super) fn into_uffd(self) -> Result<OwnedFd, HandoffError> {
        let found = self.stranger.unwrap_or_default();
        self.uffd.ok_or(HandoffError::NotUserfaultfd { found })
    }
}
