//! PAGEMAP_SCAN: what the kernel says about the pages of a range, without touching them.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The categories of `linux/fs.h` which the pagemap file itself does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageBits(pub(crate) u64);

impl PageBits {
    pub(crate) const ZERO: u64 = 1 << 5;
    pub(crate) const HUGE: u64 = 1 << 6;

    pub(crate) const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
#[derive(Default)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

const _: () = assert!(size_of::<ScanArg>() == 96 && size_of::<PageRegion>() == 24);

nix::ioctl_readwrite!(pagemap_scan, b'f', 16, ScanArg);

/// Ranges told in one call.
const REGIONS: usize = 512;

/// Calls `found` for each range of `start..end` that has one of the bits.
pub(crate) fn scan(
    pagemap: &File,
    start: u64,
    end: u64,
    mut found: impl FnMut(u64, u64, PageBits),
) -> io::Result<()> {
    let mut regions = [PageRegion::default(); REGIONS];
    let mut from = start;
    while from < end {
        let mut arg = ScanArg {
            size: size_of::<ScanArg>() as u64,
            start: from,
            end,
            vec: regions.as_mut_ptr() as u64,
            vec_len: REGIONS as u64,
            category_anyof_mask: PageBits::ZERO | PageBits::HUGE,
            return_mask: PageBits::ZERO | PageBits::HUGE,
            ..ScanArg::default()
        };
        // SAFETY: the argument is the struct of this ioctl, and `vec` with `vec_len` describes
        // an array which outlives the call and is used by nobody else meanwhile.
        let count = unsafe { pagemap_scan(pagemap.as_raw_fd(), &raw mut arg)? };
        for region in regions.iter().take(usize::try_from(count).unwrap_or(0)) {
            found(region.start, region.end, PageBits(region.categories));
        }
        if arg.walk_end <= from {
            break;
        }
        from = arg.walk_end;
    }
    Ok(())
}
