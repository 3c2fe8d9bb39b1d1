//! What has come of a message so far, bytes and descriptors, one piece at a time.

use std::os::unix::net::UnixStream;

use rustix::io::Errno;

use super::{
    HandoffError, Missing,
    descriptors::Descriptors,
    framing::{Frame, Framing},
    peek::{Next, consume, peek},
    taking::take,
};

/// All that has come of a message.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub(super) bytes: Vec<u8>,
    framing: Framing,
    pub(super) frame: Frame,
    pub(super) descriptors: Descriptors,
}

/// What there was to read.
pub(super) enum Piece {
    Some,
    Nothing,
    End,
}

impl Incoming {
    /// Reads one piece, without waiting for it.
    pub(super) fn read(
        &mut self,
        stream: &UnixStream,
        limit: usize,
    ) -> Result<Piece, HandoffError> {
        let mut buffer = [0; 8192];
        let next = match peek(stream, &mut buffer) {
            Ok(next) => next,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Piece::Nothing),
            Err(Errno::CONNRESET) => return Ok(Piece::End),
            Err(errno) => return Err(cannot_read(errno)),
        };
        let bytes = match next {
            Next::End => return Ok(Piece::End),
            Next::Bytes(bytes) => consume(stream, &mut buffer[..bytes]).map_err(cannot_read)?,
            Next::WithDescriptors => {
                let taken = take(stream, &mut buffer, self.descriptors.lacks_uffd())?;
                let bytes = taken.bytes;
                self.descriptors.add(taken)?;
                bytes
            }
        };
        let piece = &buffer[..bytes];
        if self.bytes.len() + piece.len() > limit {
            return Err(HandoffError::TooLarge { limit });
        }
        self.bytes.extend_from_slice(piece);
        self.frame = self.framing.feed(piece);
        Ok(Piece::Some)
    }

    /// How many bytes are there, and what is not.
    pub(super) fn lacks(&self) -> (usize, Missing) {
        let missing = match (self.frame, self.descriptors.any()) {
            (Frame::Open, false) => Missing::Both,
            (Frame::Open, true) => Missing::ArrayEnd,
            _ => Missing::Descriptor,
        };
        (self.bytes.len(), missing)
    }
}

fn cannot_read(errno: Errno) -> HandoffError {
    HandoffError::Io { doing: "read from the guest's connection", source: errno.into() }
}
