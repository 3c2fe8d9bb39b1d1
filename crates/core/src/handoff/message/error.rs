//! What can be wrong with a message.

use thiserror::Error;

use crate::{layout::LayoutError, units::PageSize};

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
