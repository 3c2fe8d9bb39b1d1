//! What is on its way to a service manager. Nobody waits for one that takes nothing in: what it does
//! not take at once is sent in order by a thread that lives as long as there is something to send.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;

use super::lock;
use super::notifier::{Message, Notifier};
use super::trouble::{Trouble, Troubles};

/// Between tries where the kernel refuses without waiting.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) struct Post {
    notifier: Notifier,
    address: String,
    queue: Mutex<Queue>,
    troubles: Arc<Troubles>,
    /// That it cannot be told anything was said.
    is_silent: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<(Message, Option<OwnedFd>)>,
    /// A thread sees to it.
    is_tended: bool,
}

impl Post {
    pub(super) fn to(address: &OsStr, troubles: &Arc<Troubles>) -> Result<Arc<Self>, Trouble> {
        let shown = address.to_string_lossy().into_owned();
        let notifier = Notifier::to(address)
            .map_err(|cause| Trouble::Silent { address: shown.clone(), cause })?;
        Ok(Arc::new(Self {
            notifier,
            address: shown,
            queue: Mutex::default(),
            troubles: Arc::clone(troubles),
            is_silent: AtomicBool::new(false),
        }))
    }

    /// Sends it, at once or soon.
    pub(super) fn send(self: &Arc<Self>, message: Message, fd: Option<OwnedFd>) {
        let mut queue = lock(&self.queue);
        if queue.waiting.is_empty() && !queue.is_tended {
            let sent = self.notifier.send(&message, fd.as_ref().map(AsFd::as_fd), false);
            if !sent.as_ref().is_err_and(is_busy) {
                drop(queue);
                return self.account(sent);
            }
        }
        queue.waiting.retain(|(other, _)| !message.replaces(other));
        // Descriptors of guests that have ended are not to pile up here.
        match queue.waiting.iter().position(|(other, _)| message.undoes(other)) {
            Some(kept) => drop(queue.waiting.remove(kept)),
            None => queue.waiting.push_back((message, fd)),
        }
        if !queue.is_tended {
            let post = Arc::clone(self);
            let builder = thread::Builder::new().name("uffd-notify".to_owned());
            // Without a thread the next message tries again.
            queue.is_tended = builder.stack_size(256 << 10).spawn(move || post.tend()).is_ok();
        }
    }

    /// Sends what waits, for as long as there is something.
    fn tend(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let Some((message, fd)) = queue.waiting.pop_front() else {
                queue.is_tended = false;
                return;
            };
            // Whoever comes meanwhile waits behind it.
            drop(queue);
            let sent = loop {
                let sent = self.notifier.send(&message, fd.as_ref().map(AsFd::as_fd), true);
                if !sent.as_ref().is_err_and(is_busy) {
                    break sent;
                }
                thread::sleep(PAUSE);
            };
            self.account(sent);
        }
    }

    fn account(&self, sent: io::Result<()>) {
        match sent {
            Ok(()) => self.is_silent.store(false, Ordering::Relaxed),
            Err(cause) => {
                if !self.is_silent.swap(true, Ordering::Relaxed) {
                    self.troubles.tell(Trouble::Silent { address: self.address.clone(), cause });
                }
            }
        }
    }
}

/// Whether it takes nothing in for now.
fn is_busy(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS | Errno::ENOMEM | Errno::ETOOMANYREFS)
    )
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn while_a_manager_is_frozen_no_descriptors_of_guests_that_have_ended_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let post = Post::to(path.as_os_str(), &Arc::default()).unwrap();
        let null = || Some(OwnedFd::from(File::open("/dev/null").unwrap()));
        let waiting = || lock(&post.queue).waiting.len();
        // Until it takes nothing in, and one message is at its door.
        while waiting() == 0 {
            post.send(Message::forget("other"), None);
        }
        post.send(Message::keep("lives"), null());
        let before = waiting();
        for guest in 0..100 {
            post.send(Message::keep(&guest.to_string()), null());
            post.send(Message::forget(&guest.to_string()), None);
        }
        assert!(waiting() <= before, "{} wait, and {before} before", waiting());
        // What is not taken back arrives.
        let mut said = [0; 256];
        loop {
            let len = manager.recv(&mut said).unwrap();
            if said[..len].ends_with(b"FDNAME=lives") {
                break;
            }
        }
    }
}
