use std::sync::Weak;

use napi_derive::napi;
use uffd_core::session::{PrefaultId, Session};

/// A prefault that is being carried out.
#[napi]
pub struct NativePrefault {
    request: u32,
    /// None if it came too late.
    running: Option<(Weak<Session>, PrefaultId)>,
}

impl NativePrefault {
    pub(crate) const fn new(session: Weak<Session>, id: PrefaultId, request: u32) -> Self {
        Self { request, running: Some((session, id)) }
    }

    pub(crate) const fn too_late(request: u32) -> Self {
        Self { request, running: None }
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
        let Some((session, id)) = &self.running else { return };
        if let Some(session) = session.upgrade() {
            session.cancel_prefault(*id);
        }
    }
}
