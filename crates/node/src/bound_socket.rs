use std::mem;
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Task};
use napi_derive::napi;
use uffd_core::handoff::{SocketAccess, SocketFile, listen_on};

use crate::error::ErrorInfo;

/// A Unix socket that listens, for this user alone. It is closed and its file removed with this object,
/// also where the thread of JavaScript is terminated while it is being bound.
#[napi]
#[derive(Default)]
pub struct NativeBoundSocket {
    place: Arc<Mutex<Place>>,
}

/// What there is of it.
#[derive(Default)]
struct Place {
    _file: Option<SocketFile>,
    /// Until somebody has taken its descriptor.
    listener: Option<UnixListener>,
}

#[napi]
impl NativeBoundSocket {
    #[napi(constructor, catch_unwind)]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens at a path, over a socket that nobody listens on any more; anything else there stays.
    #[napi(catch_unwind, ts_return_type = "Promise<ErrorInfo | null>")]
    pub fn bind(&self, path: String) -> AsyncTask<BindSocket> {
        AsyncTask::new(BindSocket { path: path.into(), place: Arc::clone(&self.place) })
    }

    /// The number of its descriptor, which is the caller's from now on. Once.
    #[napi(catch_unwind)]
    pub fn take(&self) -> Option<i32> {
        lock(&self.place).listener.take().map(IntoRawFd::into_raw_fd)
    }

    /// Removes its file, if that is still its own. May be called again.
    #[napi(catch_unwind)]
    pub fn remove(&self) {
        drop(mem::take(&mut *lock(&self.place)));
    }
}

/// Waits for the directory's lock if it has to, on a thread of the pool of Node.js.
pub struct BindSocket {
    path: PathBuf,
    place: Arc<Mutex<Place>>,
}

impl Task for BindSocket {
    /// Nothing that would have to be closed: nobody takes it from a thread that is terminated.
    type Output = Option<ErrorInfo>;
    type JsValue = Self::Output;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        let access = SocketAccess { mode: Some(0o600), ..SocketAccess::default() };
        Ok(match listen_on(&self.path, access) {
            Ok((listener, file)) => {
                let place = Place { _file: Some(file), listener: Some(listener) };
                *lock(&self.place) = place;
                None
            }
            Err(error) => Some((&error).into()),
        })
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(output)
    }
}

fn lock(place: &Mutex<Place>) -> MutexGuard<'_, Place> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}
