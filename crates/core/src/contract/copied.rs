//! What an export is made of.

use std::sync::Arc;

use crate::identity::SharedIdentity;
use crate::layout::Layout;
use crate::policy::Tracking;
use crate::states::StateCounts;

/// What the fault loop gives for an export.
pub(crate) struct Copied {
    /// A byte a page, as in [`PageStates`](crate::states::PageStates).
    pub(crate) states: Vec<u8>,
    pub(crate) counts: StateCounts,
    pub(crate) tracking: Tracking,
    /// Zero pages were left unprotected: only the page map tells whether they were written.
    pub(crate) unprotected_zeros: bool,
    pub(crate) identity: SharedIdentity,
    pub(crate) layout: Arc<Layout>,
}
