use napi::bindgen_prelude::{Buffer, Float64Array, Uint8Array};
use napi_derive::napi;
use roaring::RoaringBitmap;

use crate::error::{Thrown, invalid_option};
use crate::stats::PageCounts;

/// The state of all pages at one moment.
#[napi(object, object_from_js = false)]
pub struct PageExport {
    /// For each region, in the order of snapshot offsets, a state for each of its pages:
    /// 0 unfaulted, 1 faulted, 2 removed, 3 poisoned.
    pub states: Vec<Uint8Array>,
    /// How many pages there are in each state.
    pub counts: PageCounts,
    /// Pages that differ from the snapshot and are not empty, as a portable Roaring bitmap.
    pub dirty: Buffer,
    /// How many of them there are.
    pub dirty_count: f64,
    /// Pages that read as zeros, as a portable Roaring bitmap.
    pub empty: Buffer,
    /// How many of them there are.
    pub empty_count: f64,
    /// Whether `dirty` holds only pages that were written.
    pub exact: bool,
}

impl From<uffd_core::session::Export> for PageExport {
    fn from(export: uffd_core::session::Export) -> Self {
        let states = |region: uffd_core::session::RegionStates| -> Vec<u8> {
            region.states.into_iter().map(|state| state as u8).collect()
        };
        Self {
            states: export.regions.into_iter().map(|region| states(region).into()).collect(),
            counts: export.counts.into(),
            dirty_count: export.dirty.len() as f64,
            dirty: portable(&export.dirty),
            empty_count: export.empty.len() as f64,
            empty: portable(&export.empty),
            exact: export.exact,
        }
    }
}

fn portable(bitmap: &RoaringBitmap) -> Buffer {
    let mut bytes = Vec::with_capacity(bitmap.serialized_size());
    // Writing to memory cannot fail.
    let _ = bitmap.serialize_into(&mut bytes);
    bytes.into()
}

/// The ranges of a portable Roaring bitmap, in rising order: pairs of a first page and the page
/// after the last.
#[napi(catch_unwind)]
pub fn page_ranges(roaring: Uint8Array) -> Result<Float64Array, Thrown> {
    let bitmap = RoaringBitmap::deserialize_from(&*roaring)
        .map_err(|error| invalid_option(format!("this is no portable Roaring bitmap: {error}")))?;
    let mut pairs: Vec<f64> = Vec::new();
    for page in bitmap {
        let page = f64::from(page);
        match pairs.last_mut() {
            Some(end) if *end == page => *end += 1.0,
            _ => pairs.extend([page, page + 1.0]),
        }
    }
    Ok(pairs.into())
}
