//! Reading, writing and giving back pages.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::guest::Guest;
use crate::memory::{OutOfRange, bytes};
use crate::pattern::Content;
use crate::protocol::{Expect, Refusal, Touched, Verified, Wrong};
use crate::raw::Poisoned;
use crate::runs::Runs;

/// How many wrong pages are told in full.
pub(super) const EXAMPLES: usize = 8;

pub(super) fn read(guest: &Guest, page: u64, count: u64) -> Result<Runs<Content>, Refusal> {
    let pages = existing(guest, page, count)?.map(|page| Ok((page, content(guest, page)?)));
    Ok(Runs::of(pages.collect::<Result<Vec<_>, Refusal>>()?))
}

/// What a page holds.
fn content(guest: &Guest, page: u64) -> Result<Content, OutOfRange> {
    guest.about_to_touch(page);
    if guest.memory.load(page, 0)?.is_err() {
        return Ok(Content::Poisoned);
    }
    Ok(guest.pattern.classify(page, guest.memory.values(page)?))
}

pub(super) fn touch(guest: &Guest, page: u64, count: u64) -> Result<Touched, Refusal> {
    let mut touched = Touched::default();
    for page in existing(guest, page, count)? {
        guest.about_to_touch(page);
        touched.pages += 1;
        touched.poisoned += u64::from(guest.memory.load(page, 0)?.is_err());
    }
    Ok(touched)
}

pub(super) fn kernel_read(guest: &Guest, page: u64, count: u64) -> Result<Runs<Content>, Refusal> {
    let mut file = File::from(memfd_create("uffd-guest", MFdFlags::MFD_CLOEXEC)?);
    let len = bytes(guest.memory.page_size);
    let mut found = Vec::new();
    for page in existing(guest, page, count)? {
        guest.about_to_touch(page);
        let (mapping, offset) = guest.memory.mapped(page)?;
        let written = mapping.write_to(file.as_fd(), offset, len)?;
        let mut copy = vec![0; written];
        file.rewind()?;
        file.read_exact(&mut copy)?;
        let (words, _) = copy.as_chunks::<8>();
        let words = words.iter().map(|word| u64::from_ne_bytes(*word));
        found.push((page, guest.pattern.classify(page, words)));
    }
    Ok(Runs::of(found))
}

pub(super) fn write(
    guest: &Guest,
    page: u64,
    count: u64,
    stamp: u32,
    at: Option<u64>,
) -> Result<Touched, Refusal> {
    if stamp == 0 {
        return Err(Refusal::new("stamp 0 is the snapshot itself"));
    }
    let mut touched = Touched::default();
    for page in existing(guest, page, count)? {
        guest.about_to_touch(page);
        touched.pages += 1;
        let word = (at.unwrap_or(0) % guest.memory.page_size) & !7;
        if store(guest, page, word, stamp)?.is_err() {
            touched.poisoned += 1;
        } else if at.is_none() {
            guest.memory.fill(page, &guest.pattern, stamp)?;
        }
    }
    Ok(touched)
}

/// Writes one word of a page.
pub(super) fn store(
    guest: &Guest,
    page: u64,
    at: u64,
    stamp: u32,
) -> Result<Result<(), Poisoned>, OutOfRange> {
    let word = guest.pattern.word(page * guest.memory.page_size + at, stamp);
    guest.memory.store(page, at, word)
}

pub(super) fn verify(
    guest: &Guest,
    page: u64,
    count: u64,
    expect: &[Expect],
) -> Result<Verified, Refusal> {
    let mut verified = Verified::default();
    for page in existing(guest, page, count)? {
        verified.pages += 1;
        let found = content(guest, page)?;
        let legal = expect.iter().any(|expect| match expect {
            Expect::Source => found == guest.pattern.source(page),
            Expect::Zeros => found == Content::Zeros,
            Expect::Stamp(stamp) => found == Content::Stamp(*stamp),
            Expect::Poisoned => found == Content::Poisoned,
        });
        if !legal {
            verified.wrong += 1;
            if verified.examples.len() < EXAMPLES {
                verified.examples.push(Wrong { page, found });
            }
        }
    }
    Ok(verified)
}

pub(super) fn madvise(guest: &Guest, page: u64, count: u64) -> Result<(), Refusal> {
    for (page, count) in guest.memory.spans(page, count)? {
        let (mapping, offset) = guest.memory.mapped(page)?;
        mapping.dont_need(offset, bytes(count * guest.memory.page_size))?;
    }
    Ok(())
}

pub(super) fn madvise_bytes(guest: &Guest, page: u64, at: u64, len: u64) -> Result<(), Refusal> {
    let last = page + (at + len).saturating_sub(1) / guest.memory.page_size;
    existing(guest, page, last - page + 1)?;
    let (mapping, offset) = guest.memory.mapped(page)?;
    Ok(mapping.dont_need(offset + bytes(at), bytes(len))?)
}

pub(super) fn free(guest: &Guest, page: u64, count: u64) -> Result<(), Refusal> {
    for (page, count) in guest.memory.spans(page, count)? {
        let (mapping, offset) = guest.memory.mapped(page)?;
        mapping.free(offset, bytes(count * guest.memory.page_size))?;
    }
    Ok(())
}

pub(super) fn unmap(guest: &Guest, page: u64, count: u64) -> Result<(), Refusal> {
    for (page, count) in guest.memory.spans(page, count)? {
        let (mapping, offset) = guest.memory.mapped(page)?;
        mapping.unmap_part(offset, bytes(count * guest.memory.page_size))?;
    }
    Ok(())
}

pub(super) fn cover(guest: &Guest, page: u64, count: u64) -> Result<(), Refusal> {
    let program = File::open("/proc/self/exe")?;
    for (page, count) in guest.memory.spans(page, count)? {
        let (mapping, offset) = guest.memory.mapped(page)?;
        mapping.cover_part(offset, bytes(count * guest.memory.page_size), &program)?;
    }
    Ok(())
}

pub(super) fn protect(guest: &Guest, page: u64, count: u64) -> Result<(), Refusal> {
    for (page, count) in guest.memory.spans(page, count)? {
        let (address, len) = (guest.memory.address(page)?, bytes(count * guest.memory.page_size));
        guest
            .uffd
            .write_protect(address as *mut _, len)
            .map_err(|error| Refusal::new(format!("{error:?}")))?;
    }
    Ok(())
}

/// The pages, if the guest has them all: nothing is done to half of a range.
pub(super) fn existing(
    guest: &Guest,
    page: u64,
    count: u64,
) -> Result<std::ops::Range<u64>, OutOfRange> {
    let end = page.checked_add(count).filter(|&end| end <= guest.memory.pages());
    end.map(|end| page..end).ok_or(OutOfRange)
}
