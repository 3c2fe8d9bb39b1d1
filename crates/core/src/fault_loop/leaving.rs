//! A hand-over to a guardian: it is told before the loop stops, and gets ready while the guest is
//! still served here. Two threads in a row have to be woken there.

use std::time::{Duration, Instant};

use super::next::Next;
use super::{Halt, Turn};
use crate::guardian::Ward;

/// How long the guest is served on meanwhile. A guardian that takes longer has it later.
const GETS_READY_WITHIN: Duration = Duration::from_millis(1);

/// When the guest is to be let go of, if it is.
#[derive(Debug, Default)]
pub(super) struct Leaving(Option<Instant>);

impl Leaving {
    /// The guest is to be left: at once, unless there is somebody to get ready.
    pub(super) fn begin(&mut self, ward: Option<&Ward>) -> Turn {
        if self.0.is_some() {
            return Ok(());
        }
        if !ward.is_some_and(Ward::announce) {
            return Err(Halt::HandedOver);
        }
        self.0 = Some(Instant::now() + GETS_READY_WITHIN);
        Ok(())
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn next(&self) -> Next {
        self.0.into()
    }

    pub(super) fn step(&self) -> Turn {
        match self.0 {
            Some(until) if Instant::now() >= until => Err(Halt::HandedOver),
            _ => Ok(()),
        }
    }
}
