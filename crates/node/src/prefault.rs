use std::sync::Arc;

use napi_derive::napi;
use uffd_core::session::{PrefaultId, Session};

/// A prefault that is being carried out.
#[napi]
pub struct NativePrefault {
    session: Arc<Session>,
    id: PrefaultId,
    request: u32,
}

impl NativePrefault {
    pub(crate) const fn new(session: Arc<Session>, id: PrefaultId, request: u32) -> Self {
        Self { session, id, request }
    }
}

#[napi]
impl NativePrefault {
    /// Comes back with the report.
    #[napi(getter, catch_unwind)]
    pub fn request(&self) -> u32 {
        self.request
    }

    /// Gives the rest up; the report comes all the same.
    #[napi(catch_unwind)]
    pub fn cancel(&self) {
        self.session.cancel_prefault(self.id);
    }
}
