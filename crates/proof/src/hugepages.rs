//! Huge pages for a test, given back when it is over.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{Flock, FlockArg};

const POOL: &str = "/proc/sys/vm/nr_hugepages";
const FREE: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

const COMPACT: &str = "/proc/sys/vm/compact_memory";

/// How often the kernel is asked for pages.
const TRIES: u32 = 20;

/// A reservation of 2 MiB pages. There is one pool on a host, so only one test at a time has any,
/// whichever process it runs in.
#[derive(Debug)]
pub struct HugePages {
    /// Pages in use by others, who need no more of them.
    others: u64,
    /// The size of the pool to be restored.
    before: u64,
    _alone: Flock<File>,
}

impl HugePages {
    /// Makes the pool hold `count` free pages, not one more: what is free already, such as what a
    /// test that was killed has left behind, counts. Waits for whoever has the pool.
    pub fn reserve(count: u64) -> io::Result<Self> {
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o666)
            .open(std::env::temp_dir().join("uffd-rs-huge-pages.lock"))?;
        let alone = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        let before = Self::size()?;
        let others = before.saturating_sub(Self::free()?);
        let pages = Self { others, before, _alone: alone };
        pages.resize(count)?;
        Ok(pages)
    }

    /// Changes the reservation to `count` pages, used ones included.
    pub fn resize(&self, count: u64) -> io::Result<()> {
        let wanted = self.others + count;
        for _ in 0..TRIES {
            fs::write(POOL, wanted.to_string())?;
            if Self::size()? == wanted {
                return Ok(());
            }
            // Perhaps the host's memory is in pieces.
            fs::write(COMPACT, "1")?;
        }
        let size = Self::size()?;
        let message = format!("the kernel gave {size} huge pages of {wanted}: is memory short?");
        Err(io::Error::other(message))
    }

    fn size() -> io::Result<u64> {
        fs::read_to_string(POOL)?.trim().parse().map_err(io::Error::other)
    }

    fn free() -> io::Result<u64> {
        fs::read_to_string(FREE)?.trim().parse().map_err(io::Error::other)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // Pages still in use leave the pool when they are freed.
        if let Err(error) = fs::write(POOL, self.before.to_string()) {
            let _ = writeln!(io::stderr(), "cannot give huge pages back: {error}");
        }
    }
}
