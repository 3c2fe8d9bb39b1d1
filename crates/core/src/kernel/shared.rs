//! Memory that a successor process can map: one file, handed out in parts that do not overlap.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// A mapped file that nobody has taken a part of yet.
#[derive(Debug)]
pub struct SharedMemory {
    map: Arc<MmapRaw>,
    taken: usize,
}

impl SharedMemory {
    /// Maps all of `file`, shared. Its length must not shrink while it is mapped.
    pub fn of(file: &File) -> io::Result<Self> {
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        Ok(Self { map: Arc::new(MmapOptions::new().len(len).map_raw(file)?), taken: 0 })
    }

    /// `len` zero bytes without a name, taking up host memory only where they are written.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let file = File::from(memfd_create("uffd-ledger", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(len as u64)?;
        Self::of(&file)
    }

    /// How many bytes are mapped.
    pub fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// The next `len` bytes, which nobody else gets. Panics where the file ends before.
    pub fn take(&mut self, len: usize) -> Part {
        let start = self.taken;
        let end = start.checked_add(len).filter(|end| *end <= self.map.len());
        let end = end.expect("a part lies inside the shared memory");
        self.taken = end;
        Part { map: Arc::clone(&self.map), range: start..end }
    }
}

/// Part of a mapped file, with one owner in this process.
#[derive(Debug)]
pub struct Part {
    map: Arc<MmapRaw>,
    range: Range<usize>,
}

impl Part {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the range lies inside the mapping, which lives as long as `self`; its bytes are
        // written only through `&mut self`, and by a successor only once this process is gone.
        unsafe {
            std::slice::from_raw_parts(self.map.as_ptr().add(self.range.start), self.range.len())
        }
    }

    /// The bytes, to change.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as for `as_slice`; `&mut self` is the only reference.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.map.as_mut_ptr().add(self.range.start),
                self.range.len(),
            )
        }
    }

    /// Lets others look at the bytes while their owner changes them.
    pub fn onlooker(&self) -> Onlooker {
        Onlooker { map: Arc::clone(&self.map), range: self.range.clone() }
    }

    /// Keeps the bytes in memory, so that the kernel can always write to them at once.
    pub fn lock(&self) -> io::Result<()> {
        // SAFETY: locking changes no contents, and the range is mapped.
        let done = unsafe {
            nix::libc::mlock(self.map.as_ptr().add(self.range.start).cast(), self.range.len())
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        // That made them readable; the first write to each page would be a fault of its own. Before
        // Linux 5.14 it remains one.
        match self.populate(0..self.range.len()) {
            Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(()),
            done => done,
        }
    }

    /// Puts these bytes, and those that share their pages, into memory, to be written to. Where the
    /// file has holes and its file system no room, that is an error, and a write would end the
    /// process. EINVAL before Linux 5.14. Panics past the end of the part.
    pub fn populate(&self, bytes: Range<usize>) -> io::Result<()> {
        assert!(bytes.start <= bytes.end && bytes.end <= self.range.len(), "inside the part");
        let start = (self.range.start + bytes.start) & !4095;
        let end = self.range.start + bytes.end;
        // SAFETY: pages of the mapping become present, and what is in them stays.
        let done = unsafe {
            nix::libc::madvise(
                self.map.as_mut_ptr().add(start).cast(),
                end - start,
                nix::libc::MADV_POPULATE_WRITE,
            )
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Makes every store before it happen before every store after it, as a successor sees them
    /// should this process be killed in between.
    pub fn in_order() {
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    }
}

/// Looks at a part that somebody else owns and changes. The kernel copies the bytes, as it would
/// for another process: no reference to them is made here.
#[derive(Clone, Debug)]
pub struct Onlooker {
    map: Arc<MmapRaw>,
    range: Range<usize>,
}

impl Onlooker {
    /// Copies the bytes from `start` on, each as it is at some moment of the copy. Fails where a
    /// sandbox forbids process_vm_readv(2). Panics past the end of the part.
    pub fn read(&self, start: usize, bytes: &mut [u8]) -> io::Result<()> {
        let end = start.checked_add(bytes.len()).filter(|end| *end <= self.range.len());
        assert!(end.is_some(), "an onlooker stays inside its part");
        let mut done = 0;
        while done < bytes.len() {
            let base = self.map.as_ptr().addr() + self.range.start + start + done;
            let remote = [RemoteIoVec { base, len: bytes.len() - done }];
            let mut local = [IoSliceMut::new(&mut bytes[done..])];
            match process_vm_readv(Pid::this(), &mut local, &remote)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_start_as_zeros_and_are_apart() {
        let mut memory = SharedMemory::anonymous(10_000).unwrap();
        let (mut first, mut second) = (memory.take(4096), memory.take(10_000 - 4096));
        assert!(second.as_slice().iter().all(|byte| *byte == 0));
        first.as_mut_slice().fill(1);
        second.as_mut_slice()[5_903] = 3;
        assert!(first.as_slice().iter().all(|byte| *byte == 1));
        assert_eq!(second.as_slice()[5_903], 3);
    }

    #[test]
    #[should_panic(expected = "inside the shared memory")]
    fn a_part_past_the_end_is_refused() {
        let mut memory = SharedMemory::anonymous(4096).unwrap();
        memory.take(4096);
        memory.take(1);
    }

    #[test]
    fn an_onlooker_sees_its_part_and_no_more() {
        let mut memory = SharedMemory::anonymous(3 * 4096).unwrap();
        let _first = memory.take(100);
        let mut part = memory.take(2 * 4096);
        let onlooker = part.onlooker();
        part.as_mut_slice()[4096] = 7;
        let mut bytes = [9; 4097];
        onlooker.read(4095, &mut bytes).unwrap();
        assert_eq!((bytes[0], bytes[1], bytes[2]), (0, 7, 0));
        drop(part);
        onlooker.read(4096, &mut bytes[..1]).unwrap();
        assert_eq!(bytes[0], 7);
        let past = std::panic::catch_unwind(|| onlooker.read(2 * 4096, &mut [0]));
        assert!(past.is_err());
    }

    /// A fault in the middle of a read would be a moment in which an event is nowhere.
    #[test]
    fn what_is_locked_is_written_to_without_a_fault() {
        use nix::sys::resource::{UsageWho, getrusage};
        const LEN: usize = 64 << 12;
        let file = tempfile::tempfile().unwrap();
        file.set_len(LEN as u64).unwrap();
        let mut part = SharedMemory::of(&file).unwrap().take(LEN);
        part.lock().unwrap();
        let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
        let before = faults();
        part.as_mut_slice().fill(7);
        assert!(faults() - before < 8, "{} faults for 64 pages", faults() - before);
    }

    #[test]
    fn another_mapping_of_the_file_sees_the_bytes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let mut one = SharedMemory::of(&file).unwrap().take(8192);
        let other = SharedMemory::of(&file).unwrap().take(8192);
        one.lock().unwrap();
        one.as_mut_slice()[8191] = 9;
        assert_eq!(other.as_slice()[8191], 9);
    }
}
