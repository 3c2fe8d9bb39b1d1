//! The wire to a peer. What lies unread in it may hold descriptors that take for ever to close, so
//! it is emptied before it is closed, or else closed without waiting.

use std::io;
use std::net::Shutdown;
use std::ops::Deref;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;

use super::{
    leaving,
    peek::{Next, consume, peek},
    taking::take_out,
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

impl Deref for Wire {
    type Target = UnixStream;

    fn deref(&self) -> &UnixStream {
        self.0.as_ref().expect(TAKEN_ONCE)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take()
            && !(stream.shutdown(Shutdown::Read).is_ok() && empty(&stream))
        {
            leaving::close(stream);
        }
    }
}

/// Reads a stream that was hung up to its end. Then whoever has a copy of it, such as a process that
/// is just being started, closes nothing with it. Says whether the end was reached.
fn empty(stream: &UnixStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        let goes_on = match peek(stream, &mut buffer) {
            Ok(Next::End) => return true,
            Ok(Next::Bytes(bytes)) => consume(stream, &mut buffer[..bytes]).is_ok(),
            Ok(Next::WithDescriptors) => take_out(stream),
            // Said once: the peer has left without reading what was said to it.
            Err(Errno::INTR | Errno::CONNRESET) => true,
            Err(_) => false,
        };
        if !goes_on {
            return false;
        }
    }
}
