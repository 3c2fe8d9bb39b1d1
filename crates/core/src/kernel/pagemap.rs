//! What the kernel knows of the guest's pages: `/proc/PID/pagemap` and PAGEMAP_SCAN.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::ioctl::{self, PageRegion, PmScanArg};
use super::process::{Process, proc_is_ours};
use crate::units::GuestAddr;

/// A pagemap entry (Documentation/admin-guide/mm/pagemap.rst).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageBits(pub u64);

impl PageBits {
    /// In memory or swapped out: there is something for the guest to find.
    pub const fn is_populated(self) -> bool {
        self.0 >> 62 != 0
    }

    /// Whether it looks like the mark that protection leaves in the place of an absent page: swapped
    /// out and protected.
    pub const fn may_be_a_mark(self) -> bool {
        self.0 >> 62 == 1 && self.0 >> 57 & 1 != 0
    }
}

/// What the page table has in the place of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing; or the mark that protection leaves in the place of an absent page, or a protected
    /// page that is swapped out, which look alike.
    Empty,
    /// The shared zero page.
    Zero,
    /// A page whose first write would be reported: nobody has written it.
    Protected,
    /// A page that was written, or could have been.
    Written,
    /// Such a page that is swapped out; or poison, which looks alike.
    Away,
}

/// What the page table has in the places of a range that one transparent huge page could take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Together {
    /// Small pages of the process's own, all there and none protected.
    Pages,
    /// That huge page.
    Huge,
    /// Anything else.
    Not,
}

const PAGE_IS_WRITTEN: u64 = 1 << 1;
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
const PAGE_IS_PFNZERO: u64 = 1 << 5;
const PAGE_IS_HUGE: u64 = 1 << 6;

/// The guest's page map. Reading it takes the right to trace the guest, as `ptrace(2)` asks.
///
/// It stays that of the memory which the process had when it was opened, whatever the process
/// executes later.
#[derive(Clone, Debug)]
pub struct Pagemap(Arc<File>);

impl Pagemap {
    /// Opens the page map of a process that is known to be alive.
    pub fn open(process: &Process) -> io::Result<Self> {
        proc_is_ours()?;
        let file = File::open(format!("/proc/{}/pagemap", process.pid()))?;
        // The number could have been given to another process since; the pidfd knows.
        if process.has_exited() {
            return Err(nix::errno::Errno::ESRCH.into());
        }
        Ok(Self(Arc::new(file)))
    }

    /// The entry of the 4 KiB page at `addr`.
    pub fn bits(&self, addr: GuestAddr) -> io::Result<PageBits> {
        let mut entry = [0; 8];
        self.0.read_exact_at(&mut entry, addr.0 / 4096 * 8)?;
        Ok(PageBits(u64::from_le_bytes(entry)))
    }

    /// What is in the place of the page at `start..end`.
    pub fn place(&self, start: GuestAddr, end: GuestAddr) -> io::Result<Place> {
        const THERE: u64 = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
        let mut found = [PageRegion::default(); 1];
        let wanted = PmScanArg {
            category_anyof_mask: THERE,
            return_mask: THERE | PAGE_IS_WRITTEN | PAGE_IS_PFNZERO,
            ..PmScanArg::default()
        };
        let (count, _) = self.find(start, end, wanted, &mut found)?;
        let is = |category: u64| found[0].categories & category != 0;
        Ok(match (count > 0, is(PAGE_IS_PRESENT), is(PAGE_IS_WRITTEN)) {
            (true, true, _) if is(PAGE_IS_PFNZERO) => Place::Zero,
            (true, true, false) => Place::Protected,
            (true, true, true) => Place::Written,
            (true, false, true) => Place::Away,
            _ => Place::Empty,
        })
    }

    /// Whether `start..end` is full of pages that one huge page could take the place of.
    pub fn together(&self, start: GuestAddr, end: GuestAddr) -> io::Result<Together> {
        let mut found = [PageRegion::default(); 1];
        let wanted = PmScanArg {
            category_inverted: PAGE_IS_PFNZERO | PAGE_IS_FILE,
            category_mask: PAGE_IS_PRESENT | PAGE_IS_WRITTEN | PAGE_IS_PFNZERO | PAGE_IS_FILE,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_HUGE,
            ..PmScanArg::default()
        };
        let (count, _) = self.find(start, end, wanted, &mut found)?;
        Ok(if count == 0 || (found[0].start, found[0].end) != (start.0, end.0) {
            Together::Not
        } else if found[0].categories & PAGE_IS_HUGE == 0 {
            Together::Pages
        } else {
            Together::Huge
        })
    }

    /// Hands out each range of `start..end` that was written since it was installed: it is there
    /// and neither write-protected nor the shared zero page.
    pub fn written(
        &self,
        start: GuestAddr,
        end: GuestAddr,
        take: &mut dyn FnMut(GuestAddr, GuestAddr),
    ) -> io::Result<()> {
        self.scan(start, end, PAGE_IS_WRITTEN, take)
    }

    /// Hands out each range of `start..end` that is there and not the shared zero page. The mark
    /// that protection or poison leaves in the place of an absent page is no page.
    pub fn populated(
        &self,
        start: GuestAddr,
        end: GuestAddr,
        take: &mut dyn FnMut(GuestAddr, GuestAddr),
    ) -> io::Result<()> {
        self.scan(start, end, 0, take)
    }

    /// Hands out each range of `start..end` that is there, be it the shared zero page. Such a mark is
    /// no page here either.
    pub fn there(
        &self,
        start: GuestAddr,
        end: GuestAddr,
        take: &mut dyn FnMut(GuestAddr, GuestAddr),
    ) -> io::Result<()> {
        self.scan_for(start, end, PmScanArg::default(), take)
    }

    fn scan(
        &self,
        start: GuestAddr,
        end: GuestAddr,
        mask: u64,
        take: &mut dyn FnMut(GuestAddr, GuestAddr),
    ) -> io::Result<()> {
        let wanted = PmScanArg {
            category_inverted: PAGE_IS_PFNZERO,
            category_mask: mask | PAGE_IS_PFNZERO,
            ..PmScanArg::default()
        };
        self.scan_for(start, end, wanted, take)
    }

    fn scan_for(
        &self,
        start: GuestAddr,
        end: GuestAddr,
        wanted: PmScanArg,
        take: &mut dyn FnMut(GuestAddr, GuestAddr),
    ) -> io::Result<()> {
        let wanted = PmScanArg {
            category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
            return_mask: PAGE_IS_PRESENT | PAGE_IS_WRITTEN,
            ..wanted
        };
        let mut found = [PageRegion::default(); 256];
        let mut from = start;
        while from < end {
            let (count, walked) = self.find(from, end, wanted, &mut found)?;
            for region in &found[..count] {
                // A mark looks like a page that is swapped out and protected.
                if region.categories & (PAGE_IS_PRESENT | PAGE_IS_WRITTEN) != 0 {
                    take(GuestAddr(region.start), GuestAddr(region.end));
                }
            }
            if walked <= from {
                return Err(nix::errno::Errno::EIO.into());
            }
            from = walked;
        }
        Ok(())
    }

    /// The first ranges of `start..end` that are as `wanted`: how many, and how far it has looked.
    fn find(
        &self,
        start: GuestAddr,
        end: GuestAddr,
        wanted: PmScanArg,
        found: &mut [PageRegion],
    ) -> io::Result<(usize, GuestAddr)> {
        let mut arg = PmScanArg {
            size: size_of::<PmScanArg>() as u64,
            start: start.0,
            end: end.0,
            vec: found.as_mut_ptr().expose_provenance() as u64,
            vec_len: found.len() as u64,
            ..wanted
        };
        // SAFETY: `vec` points to `vec_len` writable entries; the scan changes nothing else.
        let count = unsafe { ioctl::pagemap_scan(self.0.as_raw_fd(), &mut arg) }?;
        let count = usize::try_from(count).unwrap_or(0).min(found.len());
        Ok((count, GuestAddr(arg.walk_end)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn own_page_map() -> io::Result<Pagemap> {
        let (socket, _peer) = UnixStream::pair()?;
        Pagemap::open(&Process::peer_of(&socket)?.expect("this very process can be seen"))
    }

    #[test]
    fn a_page_map_is_opened() {
        let word = [7_u64; 512];
        let bits = own_page_map().unwrap().bits(GuestAddr(word.as_ptr().addr() as u64)).unwrap();
        assert!(bits.is_populated());
    }

    /// What this very test does next, in a process of its own.
    const STAGE: &str = "UFFD_TEST_STAGE";

    /// Runs the test `name` once more, as its next stage; what it printed.
    fn run_again(name: &str, stage: &str) -> String {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("kernel::pagemap::tests::{name}")])
            .args(["--test-threads=1", "--nocapture"])
            .env(STAGE, stage)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        text
    }

    fn refused_as_that_of_another_namespace() {
        // Whether or not it could be opened: process 1 of the outer one may be guarded.
        let error = own_page_map().unwrap_err();
        assert!(error.to_string().contains("another pid namespace"), "{error}");
    }

    /// In a pid namespace of its own that still has the /proc of the one above.
    #[test]
    fn a_page_map_is_not_taken_from_another_namespace() {
        const NAME: &str = "a_page_map_is_not_taken_from_another_namespace";
        match std::env::var(STAGE).unwrap_or_default().as_str() {
            "" => drop(run_again(NAME, "enter")),
            "enter" => {
                // What is unshared is the namespace of children.
                unshare(CloneFlags::CLONE_NEWPID).unwrap();
                run_again(NAME, "inside");
            }
            _ => {
                assert_eq!(std::process::id(), 1);
                refused_as_that_of_another_namespace();
            }
        }
    }

    /// A process may have the same number in both.
    #[test]
    fn a_page_map_is_not_taken_from_another_namespace_that_gave_the_same_number() {
        const NAME: &str =
            "a_page_map_is_not_taken_from_another_namespace_that_gave_the_same_number";
        const NEXT: &str = "/proc/sys/kernel/ns_last_pid";
        let outer = || {
            let link = std::fs::read_link("/proc/self").unwrap();
            link.to_str().unwrap().parse::<u32>().unwrap()
        };
        match std::env::var(STAGE).unwrap_or_default().as_str() {
            "" => drop(run_again(NAME, "enter")),
            "enter" => {
                unshare(CloneFlags::CLONE_NEWPID).unwrap();
                run_again(NAME, "first");
            }
            "first" => {
                // Until nobody else on the host starts a process between the two.
                let met = (0..100_000).any(|_| {
                    let output = Command::new("readlink").arg("/proc/self").output().unwrap();
                    let last = String::from_utf8(output.stdout).unwrap();
                    std::fs::write(NEXT, last.trim()).unwrap();
                    run_again(NAME, "twin").contains("the same number")
                });
                assert!(met);
            }
            _ => {
                if outer() == std::process::id() {
                    refused_as_that_of_another_namespace();
                    println!("the same number");
                }
            }
        }
    }
}
