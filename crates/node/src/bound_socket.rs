use std::os::fd::IntoRawFd;
use std::path::PathBuf;

use napi::bindgen_prelude::AsyncTask;
use napi::{Either, Env, Task};
use napi_derive::napi;
use uffd_core::handoff::{SocketAccess, SocketFile, listen_on};

use crate::error::ErrorInfo;

/// A Unix socket that listens, for this user alone. Its descriptor is for whoever asked for it.
#[napi]
pub struct NativeBoundSocket {
    descriptor: i32,
    file: Option<SocketFile>,
}

/// Listens at a path, over a socket that nobody listens on any more; anything else there stays.
#[napi(catch_unwind, ts_return_type = "Promise<NativeBoundSocket | ErrorInfo>")]
pub fn bind_socket(path: String) -> AsyncTask<BindSocket> {
    AsyncTask::new(BindSocket { path: path.into() })
}

/// Waits for the directory's lock if it has to, on a thread of the pool of Node.js.
pub struct BindSocket {
    path: PathBuf,
}

impl Task for BindSocket {
    type Output = Either<NativeBoundSocket, ErrorInfo>;
    type JsValue = Self::Output;

    fn compute(&mut self) -> napi::Result<Self::Output> {
        let access = SocketAccess { mode: Some(0o600), ..SocketAccess::default() };
        Ok(match listen_on(&self.path, access) {
            Ok((listener, file)) => {
                let descriptor = listener.into_raw_fd();
                Either::A(NativeBoundSocket { descriptor, file: Some(file) })
            }
            Err(error) => Either::B((&error).into()),
        })
    }

    fn resolve(&mut self, _env: Env, output: Self::Output) -> napi::Result<Self::JsValue> {
        Ok(output)
    }
}

#[napi]
impl NativeBoundSocket {
    /// The number of its descriptor.
    #[napi(getter, catch_unwind)]
    pub fn descriptor(&self) -> i32 {
        self.descriptor
    }

    /// Removes its file, if that is still its own. May be called again.
    #[napi(catch_unwind)]
    pub fn remove(&mut self) {
        self.file = None;
    }
}
