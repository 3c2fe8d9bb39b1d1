//! Becoming another user, who may not look into processes of others.

use nix::sys::prctl;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// Gives up all that root may do, for good. The process can still look into itself.
pub fn become_user(id: u32) -> nix::Result<()> {
    setgroups(&[])?;
    setgid(Gid::from_raw(id))?;
    setuid(Uid::from_raw(id))?;
    // A process that changed its user is closed to that user as well, its own /proc included.
    prctl::set_dumpable(true)
}
