use napi_derive::napi;
use uffd_core::session;

/// How far a release has come.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct ReleaseProgress {
    /// Pages that need no handler any more: they are installed, or read as zeros anyhow.
    pub done: f64,
    /// Those of them that the release has installed.
    pub installed: f64,
    /// Pages of the guest.
    pub pages: f64,
}

impl From<session::ReleaseProgress> for ReleaseProgress {
    fn from(progress: session::ReleaseProgress) -> Self {
        Self {
            done: progress.done as f64,
            installed: progress.installed as f64,
            pages: progress.pages as f64,
        }
    }
}
