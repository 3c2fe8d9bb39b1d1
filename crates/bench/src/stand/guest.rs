//! Guest processes.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use uffd_core::handoff::{Handoff, Limits, Listener};
use uffd_core::kernel::Waker;
use uffd_guest::driver::{Guest, GuestBuilder};
use uffd_guest::options::Options;

use crate::plan::Snapshot;
use crate::{AS_GUEST, Result};

/// How long a guest may take for all of its touches.
pub(super) const DEADLINE: Duration = Duration::from_secs(120);

/// A guest that has handed off, and its handoff.
pub(crate) fn handed_off(dir: &Path, snapshot: Snapshot) -> Result<(Guest, Handoff)> {
    let (guest, listener) = at_the_door(dir, snapshot)?;
    Ok((guest, let_in(&listener, snapshot)?))
}

/// A guest whose handoff nobody has received yet.
pub(crate) fn at_the_door(dir: &Path, snapshot: Snapshot) -> Result<(Guest, Listener)> {
    let listener = Listener::bind(&dir.join("uffd.sock"))?;
    Ok((spawn(dir, snapshot, None)?, listener))
}

/// Its handoff.
pub(crate) fn let_in(listener: &Listener, snapshot: Snapshot) -> Result<Handoff> {
    let connection = listener.accept()?.ok_or("the guest has not connected")?;
    let never = Waker::new()?;
    Ok(connection.receive(&Limits::new(snapshot.bytes()), never.as_fd())?)
}

/// A guest whose memory is a private mapping of this file, which hands nothing off.
pub(super) fn mapping(file: &Path, dir: &Path, snapshot: Snapshot) -> Result<Guest> {
    spawn(dir, snapshot, Some(file))
}

/// A guest process: this program once more.
fn spawn(dir: &Path, snapshot: Snapshot, file: Option<&Path>) -> Result<Guest> {
    let mut options = Options::new(dir.join("uffd.sock"), [snapshot.pages], snapshot.pattern());
    options.map_file = file.map(Path::to_owned);
    let program = std::env::current_exe()?;
    let builder = GuestBuilder::new(program, options).leading_arg(AS_GUEST).deadline(DEADLINE);
    Ok(builder.spawn()?)
}
