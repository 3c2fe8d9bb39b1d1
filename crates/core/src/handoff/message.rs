//! The body of the handoff: the JSON of every Firecracker version, turned into a [`Layout`].

mod error;
mod fields;
#[cfg(test)]
mod tests;

pub use error::MessageError;
use fields::Claims;

use super::framing::{Frame, Framing, is_space};
use crate::{
    layout::{Layout, Region},
    units::{GuestAddr, PageRange, PageSize},
};

/// Reads the regions of a guest whose snapshot has `snapshot_len` bytes.
pub fn parse(message: &[u8], snapshot_len: u64) -> Result<Layout, MessageError> {
    let end = match Framing::default().feed(message) {
        Frame::Ends(end) => end,
        Frame::Open => return Err(MessageError::CutShort { len: message.len() }),
        Frame::NotArray(byte) => {
            return Err(MessageError::NotArray { found: char::from(byte) });
        }
    };
    only_spaces(&message[end..])?;

    let Claims(claims) = serde_json::from_slice(&message[..end]).map_err(MessageError::Json)?;
    layout(&claims?, snapshot_len)
}

/// Refuses what comes after the array unless it says nothing.
pub(super) fn only_spaces(rest: &[u8]) -> Result<(), MessageError> {
    match rest.iter().position(|&byte| !is_space(byte)) {
        Some(at) => Err(MessageError::TrailingBytes { count: rest.len() - at }),
        None => Ok(()),
    }
}

/// What one region says of itself, in bytes.
struct Claim {
    base: u64,
    size: u64,
    offset: u64,
    page_size: PageSize,
}

fn layout(claims: &[Claim], snapshot_len: u64) -> Result<Layout, MessageError> {
    let page_size = claims.first().map_or(PageSize::Small, |claim| claim.page_size);
    let numbered = claims.iter().enumerate();
    let regions: Result<_, _> =
        numbered.map(|(n, claim)| claim.region(n, page_size, snapshot_len)).collect();
    Ok(Layout::new(page_size, regions?)?)
}

impl Claim {
    fn region(
        &self,
        region: usize,
        page_size: PageSize,
        snapshot_len: u64,
    ) -> Result<Region, MessageError> {
        let Self { base, size, offset, .. } = *self;
        if self.page_size != page_size {
            return Err(MessageError::MixedPageSizes {
                region,
                page_size: self.page_size,
                first: page_size,
            });
        }
        for (field, value) in [("size", size), ("offset", offset)] {
            if !page_size.is_aligned(value) {
                return Err(MessageError::Unaligned { region, field, value, page_size });
            }
        }
        if offset.checked_add(size).is_none_or(|end| end > snapshot_len) {
            return Err(MessageError::PastSnapshot { region, offset, size, snapshot_len });
        }
        let start = offset >> page_size.shift();
        let pages = PageRange::new(start, start + (size >> page_size.shift()));
        Ok(Region { base: GuestAddr(base), pages })
    }
}
