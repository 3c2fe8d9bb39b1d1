//! Test equipment: the guest of tests and demonstration, which plays Firecracker.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use napi_derive::napi;
use uffd_guest::pattern::Pattern;
use uffd_guest::snapshot::{self, ZeroPages};

use crate::error::{Thrown, invalid_option};

/// Is the guest program until its end, on this thread; returns its exit status. Its threads may
/// still be waiting for pages then: exit the process.
#[napi(catch_unwind)]
pub fn run_guest(args: Vec<String>) -> u8 {
    let code = uffd_guest::program::main(args.into_iter().map(OsString::from));
    // An ExitCode tells its number to nobody.
    (0..=u8::MAX).find(|status| ExitCode::from(*status) == code).unwrap_or(1)
}

/// A snapshot whose every byte the guest program can check.
#[napi(object, object_to_js = false)]
pub struct GuestSnapshot {
    /// The file to write.
    pub path: String,
    /// How many pages.
    pub pages: u32,
    /// Bytes in a page: 4096 (the default) or 2097152.
    pub page_size: Option<u32>,
    /// Two seeds have no word in common. Default 0.
    pub seed: Option<u32>,
    /// How many of 1000 runs of 64 KiB are zero. Default 0.
    pub zero_per_mille: Option<u32>,
    /// How many of 1000 pages are zero, each on its own. Default 0.
    pub lone_zero_per_mille: Option<u32>,
    /// Write zero pages as data, not as holes of a sparse file. Default false.
    pub zeros_as_data: Option<bool>,
}

/// Writes such a snapshot.
#[napi(catch_unwind)]
pub fn write_guest_snapshot(options: GuestSnapshot) -> Result<(), Thrown> {
    let number = |value: Option<u32>, default: u64| value.map_or(default, u64::from);
    let page_size = number(options.page_size, 4096);
    if page_size == 0 || page_size % 8 != 0 {
        return Err(invalid_option(format!("pageSize is {page_size}, not a page size")));
    }
    let pattern = Pattern::new(number(options.seed, 0), page_size)
        .with_zero_runs(number(options.zero_per_mille, 0))
        .with_lone_zeros(number(options.lone_zero_per_mille, 0));
    let zeros =
        if options.zeros_as_data == Some(true) { ZeroPages::Data } else { ZeroPages::Holes };
    let path = PathBuf::from(options.path);
    snapshot::create(&path, &pattern, u64::from(options.pages), zeros).map_err(|error| {
        let message = format!("cannot write the snapshot {}: {error}", path.display());
        Thrown::new("ERR_UFFD_SNAPSHOT_IO", message)
    })
}
