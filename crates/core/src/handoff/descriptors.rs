//! The descriptors of a handoff: which of them is the userfaultfd.

use std::os::fd::OwnedFd;

use super::{HandoffError, leaving::Helper, taking::Taken};

/// What has come so far. Everything but the userfaultfd is with processes that close it.
#[derive(Debug, Default)]
pub(super) struct Descriptors {
    uffd: Option<OwnedFd>,
    stranger: Option<String>,
    helpers: Vec<Helper>,
}

impl Descriptors {
    /// Takes what came with one more piece.
    pub(super) fn add(&mut self, taken: Taken) -> Result<(), HandoffError> {
        let Taken { userfaultfds, uffd, stranger, helper, .. } = taken;
        self.helpers.push(helper);
        if userfaultfds + usize::from(self.uffd.is_some()) > 1 {
            return Err(HandoffError::SeveralUserfaultfds);
        }
        self.uffd = self.uffd.take().or(uffd);
        self.stranger = self.stranger.take().or(stranger);
        Ok(())
    }

    /// Whether any came at all.
    pub(super) fn any(&self) -> bool {
        self.uffd.is_some() || self.stranger.is_some()
    }

    /// Whether a userfaultfd would be the first.
    pub(super) fn lacks_uffd(&self) -> bool {
        self.uffd.is_none()
    }

    /// The userfaultfd, wherever among the others it stood, and who closes those.
    pub(super) fn take_uffd(&mut self) -> Result<(OwnedFd, Vec<Helper>), HandoffError> {
        let found = self.stranger.take().unwrap_or_default();
        let uffd = self.uffd.take().ok_or(HandoffError::NotUserfaultfd { found })?;
        Ok((uffd, std::mem::take(&mut self.helpers)))
    }
}
