//! Where a manager is told, and what it keeps.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;

use super::orders::Options;
use super::voice::say;

/// A descriptor, by its name.
type Named = (String, OwnedFd);

#[derive(Debug)]
pub(crate) struct Store {
    socket: UnixDatagram,
    limit: usize,
    sockets: Vec<Named>,
    kept: Mutex<Vec<Named>>,
    ears: Mutex<Ears>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Ears {
    are_closed: bool,
    /// Nothing is read until they are opened.
    is_deaf: bool,
    /// Marks that were sent to itself, and the last of them that was heard.
    marks: u64,
    heard: u64,
}

/// What a mark says before its number.
const MARK: &str = "X_UFFD_MARK=";

impl Store {
    pub(crate) fn new(options: &Options) -> io::Result<Self> {
        let socket = match options.notify.strip_prefix('@') {
            Some(name) => UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?,
            None => UnixDatagram::bind(&options.notify)?,
        };
        let listen = |path: &String| {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            Ok((name, OwnedFd::from(UnixListener::bind(path)?)))
        };
        let sockets = options.listen.iter().map(listen).collect::<io::Result<_>>()?;
        let (kept, ears, changed) = (Mutex::default(), Mutex::default(), Condvar::new());
        Ok(Self { socket, limit: options.store, sockets, kept, ears, changed })
    }

    /// Hears what it is told, until the end of the process.
    pub(crate) fn listen(&self) {
        while let Ok((text, fd)) = self.hear() {
            if let Some(number) = text.strip_prefix(MARK).and_then(|number| number.parse().ok()) {
                lock(&self.ears).heard = number;
                self.changed.notify_all();
                continue;
            }
            let is_with_fd = fd.is_some();
            let fields: BTreeMap<_, _> =
                text.lines().filter_map(|line| line.split_once('=')).collect();
            let name = fields.get("FDNAME").copied().unwrap_or("stored");
            let mut kept = lock(&self.kept);
            if fields.get("FDSTOREREMOVE") == Some(&"1") {
                kept.retain(|(other, _)| other != name);
            } else if fields.get("FDSTORE") == Some(&"1")
                && let Some(fd) = fd
                && kept.len() < self.limit
            {
                kept.push((name.to_owned(), fd));
            }
            drop(kept);
            // Whoever hears of it may ask what is kept.
            say(&json!({ "said": text, "fd": is_with_fd }));
        }
    }

    fn hear(&self) -> io::Result<(String, Option<OwnedFd>)> {
        let mut ears = lock(&self.ears);
        while ears.are_closed {
            ears.is_deaf = true;
            self.changed.notify_all();
            ears = self.changed.wait(ears).unwrap_or_else(PoisonError::into_inner);
        }
        ears.is_deaf = false;
        drop(ears);
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let len = recvmsg(&self.socket, &mut pieces, &mut control, flags)?.bytes;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok((String::from_utf8_lossy(&bytes[..len]).into_owned(), fd))
    }

    /// Waits until all that it was told so far has been heard, unless nothing is read.
    pub(crate) fn catch_up(&self) -> io::Result<()> {
        let mut ears = lock(&self.ears);
        if ears.are_closed {
            return Ok(());
        }
        ears.marks += 1;
        let number = ears.marks;
        // In its order: the lock is not needed by whoever makes room for it.
        drop(ears);
        let mark = format!("{MARK}{number}");
        UnixDatagram::unbound()?.send_to_addr(mark.as_bytes(), &self.socket.local_addr()?)?;
        let mut ears = lock(&self.ears);
        while ears.heard < number && !ears.are_closed {
            ears = self.changed.wait(ears).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Reads nothing any more, with no room left for anything; or reads again.
    pub(crate) fn be_deaf(&self, deaf: bool) -> io::Result<()> {
        let mut ears = lock(&self.ears);
        ears.are_closed = deaf;
        self.changed.notify_all();
        if !deaf {
            return Ok(());
        }
        let sender = UnixDatagram::unbound()?;
        sender.set_nonblocking(true)?;
        let address = self.socket.local_addr()?;
        // It is read by whoever is reading now.
        sender.send_to_addr(b"NOISE=1", &address)?;
        while !ears.is_deaf {
            ears = self.changed.wait(ears).unwrap_or_else(PoisonError::into_inner);
        }
        while sender.send_to_addr(b"NOISE=1", &address).is_ok() {}
        Ok(())
    }

    pub(crate) fn keep(&self, name: String, fd: OwnedFd) {
        lock(&self.kept).push((name, fd));
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        for (name, _) in lock(&self.kept).iter_mut().filter(|(name, _)| name == from) {
            to.clone_into(name);
        }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        lock(&self.kept).iter().map(|(name, _)| name.clone()).collect()
    }

    /// Copies of all that the service is started with, sockets first.
    pub(crate) fn inheritance(&self) -> io::Result<Vec<Named>> {
        let kept = lock(&self.kept);
        let all = self.sockets.iter().chain(kept.iter());
        all.map(|(name, fd)| Ok((name.clone(), fd.as_fd().try_clone_to_owned()?))).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
