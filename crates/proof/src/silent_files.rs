//! A file system that does not answer when a file of it is closed: whoever closes one waits, even
//! at the end of its process, until the file system is gone.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::eventfd::EventFd;
use tempfile::TempDir;

/// Of linux/fuse.h.
mod fuse {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const OPEN: u32 = 14;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const MAJOR: u32 = 7;
    pub(super) const MINOR: u32 = 31;
}

/// A mounted file system of this kind, with one file. Gone when it is dropped.
#[derive(Debug)]
pub struct SilentFiles {
    dir: TempDir,
    stop: Arc<EventFd>,
    server: Option<JoinHandle<()>>,
}

impl SilentFiles {
    /// Mounts it.
    pub fn mount() -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let device = options.open("/dev/fuse")?;
        let with = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let none: MsFlags = MsFlags::empty();
        mount(Some("uffd-proof"), dir.path(), Some("fuse"), none, Some(with.as_str()))?;
        let stop = Arc::new(EventFd::new()?);
        let stopped = Arc::clone(&stop);
        let server = thread::spawn(move || serve(device, &stopped));
        Ok(Self { dir, stop, server: Some(server) })
    }

    /// Lends the file, on a thread with a table of descriptors of its own: nobody else of this
    /// process has to close it, nor a process that is started meanwhile.
    ///
    /// # Panics
    /// If the file cannot be opened.
    pub fn lend(&self, borrow: impl FnOnce(BorrowedFd<'_>) + Send) {
        let borrow = || {
            unshare(CloneFlags::CLONE_FILES).expect("a table of its own");
            let path = self.dir.path().join("file");
            let file = File::options().read(true).write(true).open(path).expect("the file");
            borrow(file.as_fd());
            // Closed at the end of the thread, which is not waited for.
            std::mem::forget(file);
        };
        thread::scope(|scope| scope.spawn(borrow).join().expect("the file is lent"));
    }
}

impl Drop for SilentFiles {
    fn drop(&mut self) {
        let _ = umount2(self.dir.path(), MntFlags::MNT_DETACH);
        let _ = self.stop.write(1);
        // With the device everything that still waits has its answer.
        drop(self.server.take().map(JoinHandle::join));
    }
}

fn serve(mut device: File, stop: &EventFd) {
    let mut request = vec![0; 256 << 10];
    loop {
        let mut fds = [device.as_fd(), stop.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let _ = poll(&mut fds, PollTimeout::NONE);
        if fds[1].any() == Some(true) {
            return;
        }
        let Ok(len) = device.read(&mut request) else { continue };
        if let Some(answer) = answer(&request[..len]) {
            let _ = device.write(&answer);
        }
    }
}

/// What is answered, if anything is.
fn answer(request: &[u8]) -> Option<Vec<u8>> {
    const FOR_LONG: u64 = 1000;
    let word = |at: usize| request[at..at + 4].try_into().map_or(0, u32::from_le_bytes);
    let (opcode, unique) = (word(4), request.get(8..16)?);
    let mut body = Body::default();
    let error = match opcode {
        fuse::INIT => {
            body.u32s(&[fuse::MAJOR, fuse::MINOR, 0, 0, 0, 64 << 10]);
            body.u32s(&[0; 10]);
            0
        }
        fuse::LOOKUP => {
            body.u64s(&[2, 0, FOR_LONG, FOR_LONG, 0]);
            body.attributes(2, libc::S_IFREG | 0o666);
            0
        }
        fuse::GETATTR => {
            body.u64s(&[FOR_LONG, 0]);
            body.attributes(1, libc::S_IFDIR | 0o777);
            0
        }
        fuse::OPEN => {
            body.u64s(&[1, 0]);
            0
        }
        // The first is what makes others wait; the rest have no answer.
        fuse::FLUSH | fuse::INTERRUPT | fuse::FORGET => return None,
        _ => -libc::ENOSYS,
    };
    let mut answer = Body::default();
    answer.u32s(&[u32::try_from(16 + body.0.len()).ok()?, error.cast_unsigned()]);
    answer.0.extend_from_slice(unique);
    answer.0.extend_from_slice(&body.0);
    Some(answer.0)
}

#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn u32s(&mut self, words: &[u32]) {
        words.iter().for_each(|word| self.0.extend_from_slice(&word.to_le_bytes()));
    }

    fn u64s(&mut self, words: &[u64]) {
        words.iter().for_each(|word| self.0.extend_from_slice(&word.to_le_bytes()));
    }

    fn attributes(&mut self, inode: u64, mode: u32) {
        self.u64s(&[inode, 10, 0, 0, 0, 0]);
        self.u32s(&[0, 0, 0, mode, 1, 0, 0, 0, 0, 0]);
    }
}
