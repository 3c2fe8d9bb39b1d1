//! The manager's store of descriptors: guests' userfaultfds, by names that tell the state directory and
//! the guest.

use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use super::inherited::Copies;
use super::names::prefix_of;
use super::notifier::Message;
use super::post::Post;
use super::trouble::{Trouble, Troubles};
use super::{Words, lock};
use crate::kernel::Uffd;
use crate::ledger::{Spares, StateDir};

#[derive(Debug)]
pub(crate) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    post: Option<Arc<Post>>,
    limit: Option<usize>,
    /// Those that this process was started with, until their guests are served or forgotten.
    copies: Mutex<Copies>,
    /// The names of all that the manager has, as far as it took them in.
    kept: Words,
    troubles: Arc<Troubles>,
}

impl Store {
    pub(super) fn new(
        post: Option<Arc<Post>>,
        limit: Option<usize>,
        copies: Copies,
        troubles: Arc<Troubles>,
    ) -> Self {
        let kept = Mutex::new(copies.keys().cloned().collect());
        Self(Arc::new(Inner { post, limit, copies: Mutex::new(copies), kept, troubles }))
    }

    pub(super) fn limit(&self) -> Option<usize> {
        self.0.limit
    }

    /// Copies of the userfaultfds of guests that were left in `dir`, by their ids.
    pub(crate) fn copies(&self, dir: &StateDir) -> Spares {
        let prefix = prefix_of(dir);
        let mut copies = lock(&self.0.copies);
        let strays: Vec<_> = copies
            .iter()
            .filter(|(name, copy)| name.starts_with(&prefix) && copy.is_err())
            .map(|(name, _)| name.clone())
            .collect();
        for name in strays {
            if let Some(Err(found)) = copies.remove(&name) {
                self.0.forget(&name);
                self.0.troubles.tell(Trouble::NotUserfaultfd { name, found });
            }
        }
        let mut spares = Spares::new();
        for (name, copy) in &*copies {
            let (Some(id), Ok(copy)) = (name.strip_prefix(&prefix), copy) else { continue };
            match copy.try_clone() {
                Ok(copy) => drop(spares.insert(id.to_owned(), copy)),
                Err(cause) => {
                    self.0.troubles.tell(Trouble::Shortage { id: id.to_owned(), cause });
                }
            }
        }
        spares
    }

    /// Guests of `dir` were taken over: what is kept of those without a ledger is of no use. Most have
    /// ended, while nobody served them or a guardian did.
    pub(crate) fn settle(&self, dir: &StateDir) {
        let prefix = prefix_of(dir);
        let mut copies = lock(&self.0.copies);
        let names: Vec<_> = copies.keys().cloned().collect();
        for name in names {
            let Some(id) = name.strip_prefix(&prefix) else { continue };
            if dir.finished(id).exists() {
                continue;
            }
            self.0.forget(&name);
            let Some(Ok(copy)) = copies.remove(&name) else { continue };
            if Uffd::new(copy).is_ok_and(|uffd| !uffd.is_gone()) {
                let (id, dir) = (id.to_owned(), dir.path().display().to_string());
                self.0.troubles.tell(Trouble::NoLedger { id, dir });
            }
        }
    }

    /// Has the manager keep a guest's userfaultfd, unless it has it.
    fn keep(&self, dir: &StateDir, id: &str, uffd: BorrowedFd<'_>) -> Option<Stored> {
        let name = format!("{}{id}", prefix_of(dir));
        // Whoever serves the guest has a descriptor of its own.
        drop(lock(&self.0.copies).remove(&name));
        let post = self.0.post.as_ref()?;
        let mut kept = lock(&self.0.kept);
        if !kept.contains(&name) {
            let id = id.to_owned();
            if let Some(limit) = self.0.limit
                && kept.len() >= limit
            {
                self.0.troubles.tell(Trouble::Full { id, limit });
                return None;
            }
            match uffd.try_clone_to_owned() {
                Ok(copy) => post.send(Message::keep(&name), Some(copy)),
                Err(cause) => {
                    self.0.troubles.tell(Trouble::Shortage { id, cause });
                    return None;
                }
            }
            kept.insert(name.clone());
        }
        Some(Stored { store: Arc::clone(&self.0), name })
    }
}

impl Inner {
    fn forget(&self, name: &str) {
        lock(&self.kept).remove(name);
        if let Some(post) = &self.post {
            post.send(Message::forget(name), None);
        }
    }
}

/// A guest whose userfaultfd is kept by the service manager.
#[derive(Debug)]
pub(crate) struct Stored {
    store: Arc<Inner>,
    name: String,
}

impl Stored {
    /// None without a manager, or where it keeps nothing more: a successor needs another way then.
    pub(crate) fn of(
        manager: Option<&Arc<super::ServiceManager>>,
        dir: &StateDir,
        id: &str,
        uffd: BorrowedFd<'_>,
    ) -> Option<Self> {
        manager?.store().keep(dir, id, uffd)
    }

    /// The guest has ended, or needs no handler any more.
    pub(crate) fn forget(self) {
        self.store.forget(&self.name);
    }
}
