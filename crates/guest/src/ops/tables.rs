//! What the kernel's page tables say.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::Duration;

use super::access::existing;
use crate::guest::Guest;
use crate::memory::bytes;
use crate::protocol::{PageState, Refusal, Rss};
use crate::raw::{PageBits, scan};
use crate::runs::Runs;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const WRITE_PROTECTED: u64 = 1 << 57;
/// Of what is swapped out, where; the last one is none, but a marker such as that of a poisoned page.
const SWAP_TYPE: u64 = 0x1f;
const MARKER: u64 = SWAP_TYPE;
/// How often entries are read at the most: what is swapped out for good is told as that.
const TRIES: u32 = 1000;
/// The page size in which the pagemap file counts.
const SMALL: u64 = 4096;

pub(super) fn pagemap(guest: &Guest, page: u64, count: u64) -> Result<Runs<PageState>, Refusal> {
    existing(guest, page, count)?;
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut states = Vec::new();
    for (page, count) in guest.memory.spans(page, count)? {
        let address = guest.memory.address(page)?;
        let span = states_of(&pagemap, address, count, guest.memory.page_size)?;
        states.extend((page..).zip(span));
    }
    Ok(Runs::of(states))
}

fn states_of(
    pagemap: &File,
    address: u64,
    count: u64,
    page_size: u64,
) -> Result<Vec<PageState>, Refusal> {
    let stride = page_size / SMALL;
    let entries = settled(pagemap, bytes(count * stride * 8), address / SMALL * 8)?;
    let (entries, _) = entries.as_chunks::<8>();
    let mut states: Vec<_> = entries
        .iter()
        .step_by(bytes(stride))
        .map(|entry| {
            let entry = u64::from_ne_bytes(*entry);
            PageState {
                present: entry & PRESENT != 0,
                swapped: entry & SWAPPED != 0,
                wp: entry & WRITE_PROTECTED != 0,
                ..PageState::default()
            }
        })
        .collect();
    scan(pagemap, address, address + count * page_size, |start, end, bits| {
        let pages =
            bytes((start - address) / page_size)..bytes((end - address).div_ceil(page_size));
        for state in states.get_mut(pages).into_iter().flatten() {
            state.zero |= bits.has(PageBits::ZERO);
            state.huge |= bits.has(PageBits::HUGE);
        }
    })?;
    Ok(states)
}

/// Reads entries until none is of a page that the kernel is moving: for that moment it looks as if it
/// were swapped out, which nobody means who asks whether it is there.
fn settled(pagemap: &File, len: usize, at: u64) -> Result<Vec<u8>, Refusal> {
    let mut entries = vec![0; len];
    for _ in 0..TRIES {
        pagemap.read_exact_at(&mut entries, at)?;
        let mut all = entries.as_chunks::<8>().0.iter().map(|entry| u64::from_ne_bytes(*entry));
        if !all.any(is_moving) {
            break;
        }
        sleep(Duration::from_millis(1));
    }
    Ok(entries)
}

const fn is_moving(entry: u64) -> bool {
    entry & (PRESENT | SWAPPED) == SWAPPED && entry & SWAP_TYPE != MARKER
}

pub(super) fn rss(guest: &Guest) -> Result<Rss, Refusal> {
    let pages = pagemap(guest, 0, guest.memory.pages())?;
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    Ok(Rss {
        guest: pages.count(|page| page.present && !page.zero) * guest.memory.page_size,
        process: field(&rollup, "Rss:"),
        hugetlb: field(&rollup, "Private_Hugetlb:") + field(&rollup, "Shared_Hugetlb:"),
    })
}

/// A line such as `Rss:    12 kB`, in bytes.
fn field(rollup: &str, name: &str) -> u64 {
    let value = rollup.lines().find_map(|line| line.strip_prefix(name));
    let kib = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}
