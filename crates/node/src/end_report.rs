use napi_derive::napi;
use uffd_core::session::End;

use crate::error::ErrorInfo;
use crate::stats::Stats;

/// Why a guest is served no longer.
#[napi(string_enum = "kebab-case")]
#[derive(Clone, Debug)]
pub enum EndReason {
    /// Its process exited.
    GuestExited,
    /// It was asked for.
    Stopped,
    /// It was left to a successor.
    HandedOver,
    /// It has all it needs, and needs no handler.
    Released,
    /// It cannot be served any longer.
    Failed,
}

/// The end of a guest.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct EndReport {
    /// Why.
    pub reason: EndReason,
    /// What failed, for that reason.
    pub error: Option<ErrorInfo>,
    /// The final figures.
    pub stats: Stats,
}

impl EndReport {
    pub(crate) fn new(end: &End, stats: &uffd_core::stats::Stats) -> Self {
        let (reason, error) = match end {
            End::GuestExited => (EndReason::GuestExited, None),
            End::Stopped => (EndReason::Stopped, None),
            End::HandedOver => (EndReason::HandedOver, None),
            End::Released => (EndReason::Released, None),
            End::Failed(error) => (EndReason::Failed, Some(ErrorInfo::from(error))),
        };
        Self { reason, error, stats: stats.into() }
    }
}
