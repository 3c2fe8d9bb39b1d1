//! The least handler that keeps a guest going, and ways to make it fail on purpose.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, File, Permissions};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use tempfile::TempDir;
use uffd_guest::handoff::RegionJson;
use uffd_guest::pattern::Pattern;
use userfaultfd::{Error, Event, FaultKind, Uffd};
use userfaultfd_sys as sys;

nix::ioctl_readwrite!(uffdio_poison, sys::UFFDIO, sys::_UFFDIO_POISON, sys::uffdio_poison);

/// What a test sets before or while the handler works, and looks at.
#[derive(Default)]
pub(crate) struct Switches {
    /// Read faults and leave them.
    pub(crate) hold: AtomicBool,
    /// Read faults and forget them.
    pub(crate) lose: AtomicBool,
    /// Faults that were forgotten.
    pub(crate) lost: AtomicU64,
    /// Fill from the snapshot even what was removed: the mistake a soak has to find.
    pub(crate) forget_removes: AtomicBool,
    /// Write-protect what is installed.
    pub(crate) protect: AtomicBool,
    /// Poison these pages.
    pub(crate) poisoned: Mutex<HashSet<u64>>,
    /// Write-protect faults that were answered.
    pub(crate) wp_faults: AtomicU64,
    /// Pages of REMOVE events.
    pub(crate) removed: Mutex<BTreeSet<u64>>,
    /// What was handed off.
    pub(crate) regions: Mutex<Vec<RegionJson>>,
    stop: AtomicBool,
}

pub(crate) struct Handler {
    dir: TempDir,
    pub(crate) switches: Arc<Switches>,
    thread: Option<JoinHandle<()>>,
}

impl Handler {
    pub(crate) fn listen(pattern: Pattern) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("uffd.sock")).unwrap();
        // For guests of other users.
        for path in [dir.path().into(), dir.path().join("uffd.sock")] {
            fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
        }
        let switches = Arc::new(Switches::default());
        let thread = std::thread::spawn({
            let switches = Arc::clone(&switches);
            move || {
                let Some((socket, uffd)) = accept(&listener, &switches) else {
                    return;
                };
                Loop { pattern, uffd, switches, waiting: Vec::new() }.serve();
                drop(socket);
            }
        });
        Self { dir, switches, thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("uffd.sock")
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.switches.stop.store(true, SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("the handler did its work");
        }
    }
}

fn readable(fd: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(10u8)).unwrap() > 0
}

/// Reads the handoff, in one piece or several, with the descriptor in any of them.
fn accept(listener: &UnixListener, switches: &Switches) -> Option<(UnixStream, Uffd)> {
    while !readable(listener) {
        if switches.stop.load(SeqCst) {
            return None;
        }
    }
    let (socket, _) = listener.accept().unwrap();
    let (mut body, mut uffd) = (Vec::new(), None);
    while !switches.stop.load(SeqCst) {
        if !readable(&socket) {
            continue;
        }
        let mut buffer = [0; 4096];
        let mut rights = nix::cmsg_space!([i32; 4]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message =
            recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut rights), flags).unwrap();
        for part in message.cmsgs().unwrap() {
            let ControlMessageOwned::ScmRights(fds) = part else {
                continue;
            };
            for fd in fds {
                // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
                let file = unsafe { File::from_raw_fd(fd) };
                if uffd.is_none() {
                    // SAFETY: the duplicate is new, and owned by what is made of it.
                    uffd = Some(unsafe {
                        Uffd::from_raw_fd(
                            nix::unistd::dup(&file)
                                .map(std::os::fd::IntoRawFd::into_raw_fd)
                                .unwrap(),
                        )
                    });
                }
            }
        }
        let len = message.bytes;
        body.extend_from_slice(&buffer[..len]);
        if let (Ok(regions), true) = (serde_json::from_slice(&body), uffd.is_some()) {
            *switches.regions.lock().unwrap() = regions;
            return uffd.map(|uffd| (socket, uffd));
        }
    }
    None
}

struct Loop {
    pattern: Pattern,
    uffd: Uffd,
    switches: Arc<Switches>,
    waiting: Vec<(u64, FaultKind)>,
}

impl Loop {
    fn serve(&mut self) {
        while !self.switches.stop.load(SeqCst) {
            readable(&self.uffd);
            while let Some(event) = self.uffd.read_event().unwrap() {
                match event {
                    Event::Pagefault { .. } if self.switches.lose.load(SeqCst) => {
                        self.switches.lost.fetch_add(1, SeqCst);
                    }
                    Event::Pagefault { addr, kind, .. } => self.waiting.push((addr as u64, kind)),
                    Event::Remove { start, end } => self.remove(start as u64, end as u64),
                    other => panic!("{other:?} was never asked for"),
                }
            }
            if !self.switches.hold.load(SeqCst) {
                let waiting = std::mem::take(&mut self.waiting);
                self.waiting = waiting.into_iter().filter(|fault| !self.answer(*fault)).collect();
            }
        }
    }

    fn remove(&self, start: u64, end: u64) {
        let page_size = self.pattern.page_size as usize;
        let pages = (start..end).step_by(page_size).map(|address| self.page(address));
        self.switches.removed.lock().unwrap().extend(pages);
    }

    /// Answers a fault; false if it has to be tried again.
    fn answer(&self, (address, kind): (u64, FaultKind)) -> bool {
        let page_size = self.pattern.page_size;
        let start = (address & !(page_size - 1)) as *mut _;
        let page = self.page(address);
        if kind == FaultKind::WriteProtected {
            // Before the guest goes on, who may ask for the count.
            self.switches.wp_faults.fetch_add(1, SeqCst);
            let done = self.uffd.remove_write_protection(start, page_size as usize, true);
            if done.is_err() {
                self.switches.wp_faults.fetch_sub(1, SeqCst);
            }
            return done.is_ok();
        }
        if self.switches.poisoned.lock().unwrap().contains(&page) {
            let range = sys::uffdio_range { start: start as u64, len: page_size };
            let mut poison = sys::uffdio_poison { range, ..Default::default() };
            // SAFETY: the argument is the struct of this ioctl.
            return unsafe { uffdio_poison(self.uffd.as_raw_fd(), &raw mut poison).is_ok() };
        }
        if page_size == 4096 && self.pattern.is_zero(page) && !self.switches.protect.load(SeqCst) {
            // SAFETY: the range is guest memory.
            let zeroed = unsafe { self.uffd.zeropage(start, page_size as usize, false) };
            return match zeroed {
                Err(Error::ZeropageFailed(errno))
                    if errno as i32 == nix::errno::Errno::EAGAIN as i32 =>
                {
                    false
                }
                _ => self.uffd.wake(start, page_size as usize).is_ok(),
            };
        }
        let mut bytes = vec![0; page_size as usize];
        let removed = self.switches.removed.lock().unwrap().contains(&page);
        if !removed || self.switches.forget_removes.load(SeqCst) {
            self.pattern.fill(page * page_size, &mut bytes);
        }
        // SAFETY: source and length are those of `bytes`; the destination is guest memory.
        match unsafe { self.uffd.copy(bytes.as_ptr().cast(), start, bytes.len(), false) } {
            Err(Error::PartiallyCopied(_)) => return false,
            Err(Error::CopyFailed(errno)) if errno as i32 == nix::errno::Errno::EAGAIN as i32 => {
                return false;
            }
            Err(Error::CopyFailed(errno)) if errno as i32 == nix::errno::Errno::EEXIST as i32 => {}
            // The guest is gone.
            Err(_) => return true,
            Ok(_) if self.switches.protect.load(SeqCst) => {
                while self.uffd.write_protect(start, bytes.len()).is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            Ok(_) => {}
        }
        self.uffd.wake(start, bytes.len()).is_ok()
    }

    fn page(&self, address: u64) -> u64 {
        let regions = self.switches.regions.lock().unwrap();
        let region = regions.iter().find(|region| {
            (region.base_host_virt_addr..region.base_host_virt_addr + region.size)
                .contains(&address)
        });
        let region = region.expect("the address lies in a region");
        (address - region.base_host_virt_addr + region.offset) / self.pattern.page_size
    }
}
