//! Who connected, whose memory it is, and whether it may be looked into: three different things.
//!
//! Whoever connects may have got the handoff from somebody else. That its memory is the guest's is
//! proved by effect: a page that was absent from its page map before an install is there after it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use crate::kernel::{Pagemap, Process, Registration, is_shortage};
use crate::layout::Layout;
use crate::units::GuestAddr;

/// Installs that may leave no trace in the page map before the peer is taken for another process:
/// a page can be given back between an install and the look at it.
const TRIES: u32 = 8;

/// Which process the guest's memory belongs to, as far as that could be found out.
///
/// Whoever connects may only pass a handoff on. The process that connected is taken for the owner
/// once a page that was installed here has shown up in its page map, and not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// Not found out yet: nothing has been installed.
    Unproven = 0,
    /// The process that connected: its end is the guest's, and it may be looked into.
    Peer = 1,
    /// Another process than the one that connected.
    Other = 2,
    /// It cannot be found out: the process cannot be seen, or not be looked into, from here.
    Unknowable = 3,
}

/// The process that connected, and what is known of it.
#[derive(Debug)]
pub(crate) struct Identity {
    peer: Option<Process>,
    page_map: Option<Pagemap>,
    owner: AtomicU8,
    tries: AtomicU32,
}

impl Identity {
    /// Nothing is proved yet; without a page map nothing can be.
    pub(crate) fn new(peer: Option<Process>, page_map: Option<Pagemap>) -> Self {
        let owner = if page_map.is_some() { Owner::Unproven } else { Owner::Unknowable };
        let owner = AtomicU8::new(owner as u8);
        Self { peer, page_map, owner, tries: AtomicU32::new(0) }
    }

    /// The process that connected, if it can be seen from here.
    pub(crate) const fn peer(&self) -> Option<&Process> {
        self.peer.as_ref()
    }

    pub(crate) fn owner(&self) -> Owner {
        match self.owner.load(Ordering::Relaxed) {
            0 => Owner::Unproven,
            1 => Owner::Peer,
            2 => Owner::Other,
            _ => Owner::Unknowable,
        }
    }

    /// The guest's own page map, if that is proved.
    pub(crate) fn page_map(&self) -> Option<&Pagemap> {
        self.page_map.as_ref().filter(|_| self.owner() == Owner::Peer)
    }

    /// Begins a proof by the install of an absent page at `addr`.
    pub(crate) fn before_install(&self, addr: GuestAddr) -> Option<Proof<'_>> {
        if self.owner() != Owner::Unproven {
            return None;
        }
        let map = self.page_map.as_ref()?;
        // No page is installed where one is swapped out.
        let absent = map.bits(addr).is_ok_and(|it| !it.is_populated() || it.may_be_a_mark());
        Some(Proof { identity: self, map, addr, absent })
    }

    /// Finds out whether the peer has memory registered with a userfaultfd in all the places of the
    /// guest's, where nothing has been installed yet that could prove it. May take milliseconds.
    pub(crate) fn look_at_maps(&self, layout: &Layout) {
        if self.owner() != Owner::Unproven {
            return;
        }
        match self.shows(layout, Registration::Missing) {
            Ok(Some(is_peers)) => self.seen(is_peers),
            Ok(None) => self.conclude(Owner::Unknowable),
            // Nothing is known yet, and it can be asked again.
            Err(_) => {}
        }
    }

    /// The peer was seen to have, or not to have, memory registered with a userfaultfd in all the
    /// places of the guest's.
    pub(crate) fn seen(&self, is_peers: bool) {
        self.conclude(if is_peers { Owner::Peer } else { Owner::Other });
    }

    /// Whether all of the guest's memory is registered for write protection, if it is the peer's and
    /// its mappings can be looked at. Changes nothing. May take milliseconds. An error if there is
    /// no descriptor or memory to look with.
    pub(crate) fn is_registered_for_writes(&self, layout: &Layout) -> io::Result<Option<bool>> {
        if self.shows(layout, Registration::Missing)? != Some(true) {
            return Ok(None);
        }
        self.conclude(Owner::Peer);
        self.shows(layout, Registration::WriteProtect)
    }

    /// `None` where its mappings cannot be looked at; an error only where that will pass.
    fn shows(&self, layout: &Layout, how: Registration) -> io::Result<Option<bool>> {
        let Some(peer) = &self.peer else { return Ok(None) };
        let size = layout.page_size();
        let regions: Vec<_> =
            layout.regions().iter().map(|region| (region.base, region.end(size))).collect();
        match peer.has_registered(&regions, how) {
            Ok(shown) => Ok(Some(shown)),
            Err(error) if is_shortage(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Sends SIGKILL to the guest's process, if it is known which one that is; whether it did.
    pub(crate) fn kill(&self, layout: &Layout) -> bool {
        self.look_at_maps(layout);
        let owner = self.peer.as_ref().filter(|_| self.owner() == Owner::Peer);
        owner.is_some_and(|peer| !peer.has_exited() && peer.kill().is_ok())
    }

    /// The peer has exited, and the guest's memory is still there.
    pub(crate) fn outlived(&self) {
        self.owner.store(Owner::Other as u8, Ordering::Relaxed);
    }

    fn conclude(&self, owner: Owner) {
        let (from, to) = (Owner::Unproven as u8, owner as u8);
        let _ = self.owner.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A look at the page map before an install.
pub(crate) struct Proof<'a> {
    identity: &'a Identity,
    map: &'a Pagemap,
    addr: GuestAddr,
    absent: bool,
}

impl Proof<'_> {
    /// The page was installed.
    pub(crate) fn installed(self) {
        let there = self.map.bits(self.addr).is_ok_and(|bits| bits.is_populated());
        if self.absent && there {
            self.identity.conclude(Owner::Peer);
        } else if self.identity.tries.fetch_add(1, Ordering::Relaxed) + 1 >= TRIES {
            self.identity.conclude(Owner::Other);
        }
    }
}

/// What the loop and the session share, for as long as the guest is served.
pub(crate) type SharedIdentity = Arc<Identity>;
