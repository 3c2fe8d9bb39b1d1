//! The body of the handoff: the JSON of every Firecracker version, turned into a [`Layout`].

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use thiserror::Error;

use super::framing::{Frame, Framing, is_space};
use crate::{
    layout::{Layout, LayoutError, Region},
    units::{GuestAddr, PageRange, PageSize},
};

#[cfg(test)]
mod tests;

/// Reads the regions of a guest whose snapshot has `snapshot_len` bytes.
pub fn parse(message: &[u8], snapshot_len: u64) -> Result<Layout, MessageError> {
    let end = match Framing::default().feed(message) {
        Frame::Ends(end) => end,
        Frame::Open => return Err(MessageError::CutShort { len: message.len() }),
        Frame::NotArray(byte) => {
            return Err(MessageError::NotArray {
                found: char::from(byte),
            });
        }
    };
    only_spaces(&message[end..])?;

    let Claims(claims) = serde_json::from_slice(&message[..end]).map_err(MessageError::Json)?;
    layout(&claims?, snapshot_len)
}

/// Refuses what comes after the array unless it says nothing.
pub(super) fn only_spaces(rest: &[u8]) -> Result<(), MessageError> {
    match rest.iter().position(|&byte| !is_space(byte)) {
        Some(at) => Err(MessageError::TrailingBytes {
            count: rest.len() - at,
        }),
        None => Ok(()),
    }
}

/// Why a message does not describe a guest. Regions are numbered from 0, in the order sent.
#[derive(Debug, Error)]
pub enum MessageError {
    /// The message is something other than an array.
    #[error(
        "the message starts with {found:?}, not with `[`: the VMM has to send an array of regions"
    )]
    NotArray {
        /// The first byte that is not a space.
        found: char,
    },
    /// The message ends before the array does.
    #[error("the message is cut short: after {len} bytes the array of regions is not closed")]
    CutShort {
        /// The length of the message in bytes.
        len: usize,
    },
    /// Something follows the array.
    #[error(
        "{count} bytes follow the array of regions: a guest sends one array and nothing after it"
    )]
    TrailingBytes {
        /// How many bytes follow, from the first that is not a space.
        count: usize,
    },
    /// The message is not JSON, or not an array of objects.
    #[error("the message is not a JSON array of regions: {0}")]
    Json(#[source] serde_json::Error),
    /// A region lacks a field that every version sends.
    #[error("region {region}: {field} is missing: every region needs it, in bytes")]
    MissingField {
        /// The region's number.
        region: usize,
        /// The field's name.
        field: &'static str,
    },
    /// A region has a field twice, and nothing says which one is meant.
    #[error("region {region}: {field} is given twice: give it once")]
    RepeatedField {
        /// The region's number.
        region: usize,
        /// The field's name.
        field: &'static str,
    },
    /// A field is negative, has a fraction, is too big or is no number at all.
    #[error("region {region}: {field} is {value}: expected a whole number from 0 to 2^64 - 1")]
    NotAWholeNumber {
        /// The region's number.
        region: usize,
        /// The field's name.
        field: &'static str,
        /// What it is, as JSON, cut to a readable length.
        value: String,
    },
    /// The two names of the page size disagree.
    #[error(
        "region {region}: page_size is {page_size} and page_size_kib is {page_size_kib}: both are \
         in bytes and have to be equal where both are given"
    )]
    PageSizesDiffer {
        /// The region's number.
        region: usize,
        /// The value of `page_size`.
        page_size: u64,
        /// The value of `page_size_kib`, in bytes despite its name.
        page_size_kib: u64,
    },
    /// No guest can be served with pages of this size.
    #[error(
        "region {region}: {field} is {value}: only pages of 4096 and of 2097152 bytes can be \
         served; restore the guest without huge pages, or with those of 2 MiB"
    )]
    UnsupportedPageSize {
        /// The region's number.
        region: usize,
        /// The field's name.
        field: &'static str,
        /// Its value in bytes.
        value: u64,
    },
    /// Regions differ in page size.
    #[error(
        "region {region}: the page size is {page_size}, that of region 0 is {first}: all regions \
         of a guest need the same"
    )]
    MixedPageSizes {
        /// The region's number.
        region: usize,
        /// Its page size.
        page_size: PageSize,
        /// The page size of region 0.
        first: PageSize,
    },
    /// A size or an offset lies in the middle of a page.
    #[error(
        "region {region}: {field} {value} is no multiple of the page size, {page_size}: the VMM \
         has to send whole pages"
    )]
    Unaligned {
        /// The region's number.
        region: usize,
        /// The field's name.
        field: &'static str,
        /// Its value in bytes.
        value: u64,
        /// The guest's page size.
        page_size: PageSize,
    },
    /// A region has no bytes in the snapshot, or not all.
    #[error(
        "region {region}: offset {offset} + size {size} lies past the end of the snapshot, which \
         has {snapshot_len} bytes: this is not the memory file of that guest, or it is cut short"
    )]
    PastSnapshot {
        /// The region's number.
        region: usize,
        /// Where it would start in the snapshot, in bytes.
        offset: u64,
        /// Its size in bytes.
        size: u64,
        /// The length of the snapshot in bytes.
        snapshot_len: u64,
    },
    /// The regions cannot lie together as they do.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

impl MessageError {
    /// A code that stays the same whatever the message says.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotArray { .. }
            | Self::CutShort { .. }
            | Self::TrailingBytes { .. }
            | Self::Json(_) => "ERR_UFFD_HANDOFF_JSON",
            Self::MissingField { .. }
            | Self::RepeatedField { .. }
            | Self::NotAWholeNumber { .. } => "ERR_UFFD_HANDOFF_FIELD",
            Self::PageSizesDiffer { .. }
            | Self::UnsupportedPageSize { .. }
            | Self::MixedPageSizes { .. } => "ERR_UFFD_HANDOFF_PAGE_SIZE",
            Self::PastSnapshot { .. } => "ERR_UFFD_HANDOFF_SNAPSHOT",
            Self::Unaligned { .. } | Self::Layout(_) => "ERR_UFFD_HANDOFF_REGION",
        }
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
    let page_size = claims
        .first()
        .map_or(PageSize::Small, |claim| claim.page_size);
    let numbered = claims.iter().enumerate();
    let regions: Result<_, _> = numbered
        .map(|(n, claim)| claim.region(n, page_size, snapshot_len))
        .collect();
    Ok(Layout::new(page_size, regions?)?)
}

impl Claim {
    fn region(
        &self,
        region: usize,
        page_size: PageSize,
        snapshot_len: u64,
    ) -> Result<Region, MessageError> {
        let Self {
            base, size, offset, ..
        } = *self;
        if self.page_size != page_size {
            return Err(MessageError::MixedPageSizes {
                region,
                page_size: self.page_size,
                first: page_size,
            });
        }
        for (field, value) in [("size", size), ("offset", offset)] {
            if !page_size.is_aligned(value) {
                return Err(MessageError::Unaligned {
                    region,
                    field,
                    value,
                    page_size,
                });
            }
        }
        if offset
            .checked_add(size)
            .is_none_or(|end| end > snapshot_len)
        {
            return Err(MessageError::PastSnapshot {
                region,
                offset,
                size,
                snapshot_len,
            });
        }
        let start = offset >> page_size.shift();
        let pages = PageRange::new(start, start + (size >> page_size.shift()));
        Ok(Region {
            base: GuestAddr(base),
            pages,
        })
    }
}

/// The fields a region may have; all others are left to later versions.
const BASE: &str = "base_host_virt_addr";
const SIZE: &str = "size";
const OFFSET: &str = "offset";
const PAGE_SIZE: &str = "page_size";
const PAGE_SIZE_KIB: &str = "page_size_kib";

/// The known fields of one object, as they came.
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn claim(&self, region: usize) -> Result<Claim, MessageError> {
        let needed = |field| {
            self.number(region, field)?
                .ok_or(MessageError::MissingField { region, field })
        };
        Ok(Claim {
            base: needed(BASE)?,
            size: needed(SIZE)?,
            offset: needed(OFFSET)?,
            page_size: self.page_size(region)?,
        })
    }

    /// Both names of the page size mean bytes; before there was either, every page had 4096.
    fn page_size(&self, region: usize) -> Result<PageSize, MessageError> {
        let page_size = self.number(region, PAGE_SIZE)?;
        let page_size_kib = self.number(region, PAGE_SIZE_KIB)?;
        let (field, value) = match (page_size, page_size_kib) {
            (Some(page_size), Some(page_size_kib)) if page_size != page_size_kib => {
                return Err(MessageError::PageSizesDiffer {
                    region,
                    page_size,
                    page_size_kib,
                });
            }
            (Some(value), _) => (PAGE_SIZE, value),
            (None, Some(value)) => (PAGE_SIZE_KIB, value),
            (None, None) => return Ok(PageSize::Small),
        };
        PageSize::from_bytes(value).ok_or(MessageError::UnsupportedPageSize {
            region,
            field,
            value,
        })
    }

    /// A field that is `null` says as much as one that is missing.
    fn number(&self, region: usize, field: &'static str) -> Result<Option<u64>, MessageError> {
        let mut values = self
            .0
            .iter()
            .filter(|(name, _)| *name == field)
            .map(|(_, value)| value);
        let value = values.next().unwrap_or(&Value::Null);
        if values.next().is_some() {
            return Err(MessageError::RepeatedField { region, field });
        }
        match (value, value.as_u64()) {
            (Value::Null, _) => Ok(None),
            (_, Some(number)) => Ok(Some(number)),
            _ => Err(MessageError::NotAWholeNumber {
                region,
                field,
                value: shown(value),
            }),
        }
    }
}

/// A value as JSON, short enough for a line of a log.
fn shown(value: &Value) -> String {
    const CHARS: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with base_host_virt_addr, size and offset")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let known = [BASE, SIZE, OFFSET, PAGE_SIZE, PAGE_SIZE_KIB];
                    match known.into_iter().find(|known| *known == name) {
                        Some(field) => fields.push((field, map.next_value()?)),
                        None => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The claims of all regions, or what the first wrong one is wrong about.
struct Claims(Result<Vec<Claim>, MessageError>);

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;

        impl<'de> Visitor<'de> for Array {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of regions")
            }

            // One region at a time: a long message of tiny objects would take much memory as a
            // whole.
            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Claims, A::Error> {
                let mut claims = Vec::new();
                loop {
                    let region = claims.len();
                    let named = |error| A::Error::custom(format_args!("region {region}: {error}"));
                    let Some(fields) = array.next_element::<Fields>().map_err(named)? else {
                        return Ok(Claims(Ok(claims)));
                    };
                    match fields.claim(region) {
                        Ok(claim) => claims.push(claim),
                        Err(error) => {
                            while array.next_element::<IgnoredAny>()?.is_some() {}
                            return Ok(Claims(Err(error)));
                        }
                    }
                }
            }
        }

        deserializer.deserialize_seq(Array)
    }
}
