//! The wire to a peer. What lies unread in it may hold descriptors that take for ever to close, so
//! it is closed without waiting for them unless there is nothing in it any more.

use std::io;
use std::net::Shutdown;
use std::ops::Deref;
use std::os::unix::net::UnixStream;

use super::{
    incoming::{Next, peek},
    leaving,
};

/// A stream that a peer writes to.
#[derive(Debug)]
pub(super) struct Wire(Option<UnixStream>);

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(Some(stream))
    }

    /// From here on the peer cannot write: what is there now is all there ever will be.
    pub(super) fn hang_up(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Read)
    }

    /// The stream, once it has been hung up and read to its end: now it can be closed like any
    /// other. The wire is of no use any more.
    pub(super) fn take_emptied(&mut self) -> UnixStream {
        self.0.take().expect(TAKEN_ONCE)
    }
}

const TAKEN_ONCE: &str = "the stream is taken out once, at the end";

/// Whether there is nothing in it. Stays true once it has been hung up.
fn is_empty(stream: &UnixStream) -> bool {
    matches!(peek(stream, &mut [0]), Ok(Next::End))
}

impl Deref for Wire {
    type Target = UnixStream;

    fn deref(&self) -> &UnixStream {
        self.0.as_ref().expect(TAKEN_ONCE)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Some(stream) = self.0.take() else { return };
        if stream.shutdown(Shutdown::Read).is_err() || !is_empty(&stream) {
            leaving::close(stream);
        }
    }
}
