//! The JSON of one region: fields known by name, in whatever order, among others that are not.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::{Claim, MessageError};
use crate::units::PageSize;

/// The fields a region may have; all others are left to later versions.
pub(super) const BASE: &str = "base_host_virt_addr";
pub(super) const SIZE: &str = "size";
pub(super) const OFFSET: &str = "offset";
pub(super) const PAGE_SIZE: &str = "page_size";
pub(super) const PAGE_SIZE_KIB: &str = "page_size_kib";

/// The known fields of one object, as they came.
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn claim(&self, region: usize) -> Result<Claim, MessageError> {
        let needed =
            |field| self.number(region, field)?.ok_or(MessageError::MissingField { region, field });
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
                return Err(MessageError::PageSizesDiffer { region, page_size, page_size_kib });
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
        let mut values = self.0.iter().filter(|(name, _)| *name == field).map(|(_, value)| value);
        let value = values.next().unwrap_or(&Value::Null);
        if values.next().is_some() {
            return Err(MessageError::RepeatedField { region, field });
        }
        match (value, value.as_u64()) {
            (Value::Null, _) => Ok(None),
            (_, Some(number)) => Ok(Some(number)),
            _ => Err(MessageError::NotAWholeNumber { region, field, value: shown(value) }),
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
pub(super) struct Claims(pub(super) Result<Vec<Claim>, MessageError>);

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
