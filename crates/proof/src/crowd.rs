//! A crowd of peers, each of which sends a socket that lingers, and has closed its own copy.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};
use uffd_guest::strangers::Lingering;

use crate::Peer;

/// Peers, until it is dropped: then their connections end, and nothing lingers any more.
///
/// They have a table of descriptors of their own, so that no copy of what lingers is closed by
/// somebody else of this process, or by a process that is started meanwhile.
#[derive(Debug)]
pub struct Crowd {
    over: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// So many connect to the socket at `path`, and each does `send`. Returns when all have.
    ///
    /// # Panics
    /// If they cannot.
    pub fn new(
        count: usize,
        path: &Path,
        send: impl Fn(&Peer, BorrowedFd<'_>) + Send + 'static,
    ) -> Self {
        let (over, is_over) = channel::<()>();
        let (sent, is_sent) = channel();
        let path = path.to_owned();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_FILES).expect("a table of its own");
            let connect = |_| {
                let peer = Peer::connect(&path).expect("a connection");
                (peer, Lingering::new(3600).expect("a socket that lingers"))
            };
            let crowd: Vec<_> = (0..count).map(connect).collect();
            let keeper = Keeper::start();
            let send = |(peer, Lingering { socket, reader }): (Peer, Lingering)| {
                send(&peer, socket.as_fd());
                (peer, reader)
            };
            let crowd: Vec<_> = crowd.into_iter().map(send).collect();
            drop(keeper);
            let _ = sent.send(());
            // Nothing is sent: it ends with the crowd.
            let _ = is_over.recv();
            drop(crowd);
        });
        is_sent.recv().expect("the crowd has sent");
        Self { over: Some(over), thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.over.take());
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Has a copy of all that is open now, and closes it at the end of a thread, where nobody lingers:
/// until then no other copy is the last.
struct Keeper(Option<(Sender<()>, JoinHandle<()>)>);

impl Keeper {
    fn start() -> Self {
        let (over, is_over) = channel::<()>();
        let (ready, is_ready) = channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_FILES).expect("a table of its own");
            let _ = ready.send(());
            let _ = is_over.recv();
        });
        is_ready.recv().expect("the keeper has its table");
        Self(Some((over, thread)))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some((over, thread)) = self.0.take() {
            drop(over);
            let _ = thread.join();
        }
    }
}
