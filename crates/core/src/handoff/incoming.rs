//! What has come of a message so far, bytes and descriptors, one `recvmsg` at a time.

use std::{io::IoSliceMut, mem::MaybeUninit, os::unix::net::UnixStream};

use rustix::{
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg},
};

use super::{
    HandoffError, Missing,
    descriptors::{Descriptors, MAX_AT_ONCE},
    framing::{Frame, Framing},
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
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_AT_ONCE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut body = [IoSliceMut::new(&mut buffer)];
        let received = match recvmsg(stream, &mut body, &mut control, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Piece::Nothing),
            Err(Errno::CONNRESET) => return Ok(Piece::End),
            Err(error) => {
                return Err(HandoffError::Io {
                    doing: "read from the guest's connection",
                    source: error.into(),
                });
            }
        };

        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(HandoffError::Truncated { taken: fds.len() });
        }
        for fd in fds {
            self.descriptors.add(fd)?;
        }

        let piece = &buffer[..received.bytes];
        if piece.is_empty() {
            return Ok(Piece::End);
        }
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
