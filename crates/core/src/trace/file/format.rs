//! Version 1 of the binary format, as docs/trace-format.md specifies it.

use std::time::Duration;

use super::super::{FilledWith, Fingerprint, SnapshotId, TraceEntry};
use super::varint::{self, unzigzag, zigzag};
use super::{FormatError, MOST_MICROS, Trace, micros, no_page_twice, page_of};
use crate::units::PageSize;

/// A larger file is no trace: room for the entries of some 300 GiB of touched memory.
pub const MAX_FILE_BYTES: u64 = 256 << 20;

/// Not text, and not the same after a transfer as text.
pub(super) const MAGIC: [u8; 8] = *b"\x89UFFDT\r\n";
const VERSION: u32 = 1;

/// Magic, version, length of the file.
pub(super) const HEADER: usize = 8 + 4 + 8;
const CHECKSUM: usize = 4;

/// The name of a section. A lower-case first letter marks one that a reader may skip.
type Tag = [u8; 4];
const SNAPSHOT: Tag = *b"SNAP";
const ENTRIES: Tag = *b"PAGE";
const CREATED_BY: Tag = *b"made";

/// An entry takes at least a byte for its page and one for its time.
const SMALLEST_ENTRY: usize = 2;

impl Trace {
    /// The trace in the binary format.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + 4 * self.entries.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 8]);
        put_section(&mut bytes, SNAPSHOT, |bytes| put_snapshot(bytes, &self.snapshot));
        put_section(&mut bytes, CREATED_BY, |bytes| bytes.extend(self.created_by.as_bytes()));
        put_section(&mut bytes, ENTRIES, |bytes| put_entries(bytes, &self.entries));
        let len = (bytes.len() + CHECKSUM) as u64;
        bytes[12..HEADER].copy_from_slice(&len.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads the binary format. Takes at most ten times the memory of `bytes`, whatever they
    /// say.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let says = check_start(bytes)?;
        let has = bytes.len() as u64;
        let Some((body, checksum)) = bytes.split_last_chunk().filter(|_| says == has) else {
            return Err(FormatError::Length { says, has });
        };
        let (says, has) = (u32::from_le_bytes(*checksum), crc32fast::hash(body));
        if says != has {
            return Err(FormatError::Checksum { at: body.len(), says, has });
        }
        Sections::of(body)?.read()
    }
}

/// The length that the header of a file gives it.
pub(super) fn check_start(bytes: &[u8]) -> Result<u64, FormatError> {
    let start = &bytes[..bytes.len().min(MAGIC.len())];
    if start.is_empty() || !MAGIC.starts_with(start) {
        return Err(match start.iter().find(|byte| !byte.is_ascii_whitespace()) {
            Some(b'{') => FormatError::Text,
            _ => FormatError::NotATrace { start: start.to_vec() },
        });
    }
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Err(FormatError::Length { says: HEADER as u64, has: bytes.len() as u64 });
    };
    let mut header = Reader { bytes: header, at: MAGIC.len() };
    match header.u32("version")? {
        VERSION => header.u64("length"),
        found => Err(FormatError::Version { found }),
    }
}

/// Writes a section: name, length, content.
fn put_section(bytes: &mut Vec<u8>, tag: Tag, content: impl FnOnce(&mut Vec<u8>)) {
    bytes.extend(tag);
    let at = bytes.len();
    bytes.extend([0; 8]);
    content(bytes);
    let len = (bytes.len() - at - 8) as u64;
    bytes[at..at + 8].copy_from_slice(&len.to_le_bytes());
}

fn put_snapshot(bytes: &mut Vec<u8>, snapshot: &SnapshotId) {
    bytes.extend(snapshot.length.to_le_bytes());
    bytes.extend(snapshot.page_size.bytes().to_le_bytes());
    bytes.extend(snapshot.fingerprint.0);
}

fn put_entries(bytes: &mut Vec<u8>, entries: &[TraceEntry]) {
    bytes.extend((entries.len() as u64).to_le_bytes());
    let (mut next, mut time) = (0, 0);
    for entry in entries {
        // Pages have 32 bits, times 54: neither difference leaves 64, nor do the flags.
        let (page, now) = (entry.page().0.cast_signed(), micros(*entry).cast_signed());
        let flags = (entry.filled_with() as u64) << 1 | u64::from(entry.is_write());
        varint::put(bytes, zigzag(page - next) << 3 | flags);
        varint::put(bytes, zigzag(now - time));
        (next, time) = (page + 1, now);
    }
}

/// The contents of the sections, each there at most once.
#[derive(Default)]
struct Sections<'a> {
    snapshot: Option<Reader<'a>>,
    created_by: Option<Reader<'a>>,
    entries: Option<Reader<'a>>,
    end: usize,
}

impl<'a> Sections<'a> {
    /// Finds the sections of a file without its checksum.
    fn of(body: &'a [u8]) -> Result<Self, FormatError> {
        let mut sections = Self { end: body.len(), ..Self::default() };
        let mut reader = Reader { bytes: body, at: HEADER };
        while !reader.is_done() {
            let at = reader.at;
            let tag: Tag = reader.take("section name")?;
            let len = reader.u64("section length")?;
            let content = reader.part(len)?;
            let place = match tag {
                SNAPSHOT => &mut sections.snapshot,
                CREATED_BY => &mut sections.created_by,
                ENTRIES => &mut sections.entries,
                _ if !tag.iter().all(u8::is_ascii_alphabetic) => {
                    let found = format!("{tag:02x?}");
                    return Err(invalid(at, "section name", found, "four letters"));
                }
                _ if tag[0].is_ascii_lowercase() => continue,
                _ => return Err(FormatError::UnknownSection { at, tag: name(tag) }),
            };
            if place.replace(content).is_some() {
                return Err(invalid(at, "section", format!("another {}", name(tag)), "there once"));
            }
        }
        Ok(sections)
    }

    fn read(self) -> Result<Trace, FormatError> {
        let missing = |tag| {
            move || {
                invalid(self.end, "end of the sections", "here", format!("after a {}", name(tag)))
            }
        };
        let snapshot = snapshot(self.snapshot.ok_or_else(missing(SNAPSHOT))?)?;
        let entries = entries(self.entries.ok_or_else(missing(ENTRIES))?, &snapshot)?;
        let created_by = self.created_by.map(created_by).transpose()?.unwrap_or_default();
        Ok(Trace { snapshot, created_by, entries })
    }
}

fn snapshot(mut content: Reader<'_>) -> Result<SnapshotId, FormatError> {
    let length = content.u64("snapshot length")?;
    let at = content.at;
    let page_size = content.u64("page size")?;
    let page_size = PageSize::from_bytes(page_size)
        .ok_or_else(|| invalid(at, "page size", page_size, "4096 or 2097152"))?;
    let fingerprint = Fingerprint(content.take("fingerprint")?);
    content.end("snapshot section")?;
    Ok(SnapshotId { length, page_size, fingerprint })
}

fn created_by(content: Reader<'_>) -> Result<String, FormatError> {
    let text = &content.bytes[content.at..];
    let text = std::str::from_utf8(text);
    text.map(str::to_owned).map_err(|error| {
        invalid(content.at + error.valid_up_to(), "name of the program", "no text", "UTF-8")
    })
}

fn entries(mut content: Reader<'_>, snapshot: &SnapshotId) -> Result<Vec<TraceEntry>, FormatError> {
    let at = content.at;
    let says = content.u64("number of entries")?;
    // Room is made for no more entries than there are bytes for.
    let most = content.left() / SMALLEST_ENTRY;
    let count = usize::try_from(says).ok().filter(|count| *count <= most);
    let count = count.ok_or_else(|| {
        invalid(at, "number of entries", says, format!("at most the {most} there is room for"))
    })?;
    let mut entries = Vec::with_capacity(count);
    let (mut next, mut time) = (0_i64, 0_i64);
    for number in 0..count {
        let at = content.at;
        let word = content.varint("page of an entry")?;
        // 61 bits of difference and 33 of page stay inside 64.
        let page = next + unzigzag(word >> 3);
        let page =
            u64::try_from(page).map_err(|_| invalid(at, "page of an entry", page, "0 or more"))?;
        let page = page_of(snapshot, number, page)?;

        let at = content.at;
        let step = unzigzag(content.varint("time of an entry")?);
        let now = time.checked_add(step).and_then(|now| u64::try_from(now).ok());
        let now = now.filter(|now| *now <= MOST_MICROS).ok_or_else(|| {
            let expected = format!("a time of 0 to {MOST_MICROS} µs");
            invalid(at, "time of an entry", format!("{time} µs {step:+} µs"), expected)
        })?;
        let filled = FilledWith::from_bits(word >> 1);
        let micros = Duration::from_micros(now);
        entries.push(TraceEntry::new(page, word & 1 != 0, filled, micros));
        (next, time) = (page.next().0.cast_signed(), now.cast_signed());
    }
    content.end("entries")?;
    no_page_twice(&entries)?;
    Ok(entries)
}

/// Takes fields from a start of the file and remembers how far it has come.
#[derive(Clone, Copy)]
struct Reader<'a> {
    /// From the start of the file to the end of what may be read.
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn is_done(&self) -> bool {
        self.left() == 0
    }

    fn take<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FormatError> {
        let bytes = self.bytes[self.at..].first_chunk().copied().ok_or_else(|| {
            let found = format!("cut off after {} bytes", self.left());
            invalid(self.at, field, found, format!("{N} bytes"))
        })?;
        self.at += N;
        Ok(bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, FormatError> {
        self.take(field).map(u32::from_le_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, FormatError> {
        self.take(field).map(u64::from_le_bytes)
    }

    fn varint(&mut self, field: &'static str) -> Result<u64, FormatError> {
        let (number, len) = varint::get(&self.bytes[self.at..])
            .ok_or_else(|| invalid(self.at, field, "no such number", "a 64-bit LEB128 number"))?;
        self.at += len;
        Ok(number)
    }

    /// The content of a section, which is passed over.
    fn part(&mut self, len: u64) -> Result<Self, FormatError> {
        let most = self.left();
        let len = usize::try_from(len).ok().filter(|len| *len <= most).ok_or_else(|| {
            let expected = format!("at most the {most} bytes that are left");
            invalid(self.at - 8, "section length", len, expected)
        })?;
        let start = self.at;
        self.at += len;
        Ok(Self { bytes: &self.bytes[..self.at], at: start })
    }

    fn end(&self, field: &'static str) -> Result<(), FormatError> {
        if self.is_done() {
            return Ok(());
        }
        Err(invalid(self.at, field, format!("{} bytes too long", self.left()), "at its end here"))
    }
}

fn name(tag: Tag) -> String {
    String::from_utf8_lossy(&tag).into_owned()
}

fn invalid(
    at: usize,
    field: &'static str,
    found: impl ToString,
    expected: impl Into<String>,
) -> FormatError {
    FormatError::Field { at, field, found: found.to_string(), expected: expected.into() }
}
