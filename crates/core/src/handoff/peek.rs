//! Looking at the next piece of a message before it is taken: what has descriptors with it is taken
//! elsewhere.

use std::io::IoSliceMut;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags, recvmsg};

/// What is to be read next.
pub(super) enum Next {
    /// So many bytes, and no descriptor.
    Bytes(usize),
    WithDescriptors,
    End,
}

/// Looks at the next piece of a message and leaves it where it is.
pub(super) fn peek(stream: impl AsFd, buffer: &mut [u8]) -> Result<Next, Errno> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let mut none = RecvAncillaryBuffer::default();
    let seen = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut none, flags)?;
    Ok(match seen.bytes {
        0 => Next::End,
        // Nothing was asked for but bytes: there would be more.
        _ if seen.flags.contains(ReturnFlags::CTRUNC) => Next::WithDescriptors,
        bytes => Next::Bytes(bytes),
    })
}

/// Reads what was looked at before, and nothing behind it. Descriptors that come with it go.
pub(super) fn consume(stream: impl AsFd, seen: &mut [u8]) -> Result<usize, Errno> {
    let mut none = RecvAncillaryBuffer::default();
    let seen = &mut [IoSliceMut::new(seen)];
    recvmsg(stream, seen, &mut none, RecvFlags::DONTWAIT).map(|read| read.bytes)
}
