use napi_derive::napi;
use uffd_core::units::PageSize;

/// A run of guest memory that is contiguous both in the guest process and in the snapshot.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct Region {
    /// Where the region starts in the guest process.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Where it starts in the snapshot, in bytes.
    pub offset: u64,
    /// Its first page: pages are counted in the snapshot, from 0.
    pub first_page: f64,
    /// How many pages it has.
    pub page_count: f64,
}

impl Region {
    pub(crate) fn new(region: &uffd_core::layout::Region, page_size: PageSize) -> Self {
        Self {
            address: region.base.0,
            size: region.size(page_size),
            offset: region.offset(page_size),
            first_page: region.pages.start.0 as f64,
            page_count: region.pages.len() as f64,
        }
    }
}
