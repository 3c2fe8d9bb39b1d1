//! Steps 1 and 2: events out of the kernel, REMOVEs into the page states, faults into the hand.

use std::time::Instant;

use super::hand::Kind;
use super::{FaultLoop, Halt, Turn};
use crate::kernel::{Event, EventReader, ReadError};
use crate::session::SessionError;
use crate::units::GuestAddr;

/// Reads before faults are served even though events keep coming: one thread that gives memory
/// back without end must not starve the others. Should a REMOVE then be unread, the kernel
/// answers EAGAIN until it is read.
const MOST_READS: usize = 64;

impl FaultLoop {
    /// Reads until the descriptor is empty. The kernel hands out faults before other events, so
    /// the REMOVEs that count for a fault may come after it: none is served in between.
    pub(super) fn drain(&mut self) -> Turn {
        if std::mem::take(&mut self.drained) {
            return Ok(());
        }
        for _ in 0..MOST_READS {
            if self.read()? < EventReader::CAPACITY {
                break;
            }
        }
        Ok(())
    }

    /// One read; how many events there were.
    pub(super) fn read(&mut self) -> Turn<usize> {
        let Self { reader, memory, hand, removes, .. } = self;
        let mut at = None;
        let mut duplicates = 0;
        let mut strange = None;
        let count = reader.read(memory.uffd(), |event| {
            let mut fault = |addr: GuestAddr, kind: Kind| match memory.layout().page_at(addr) {
                Some(page) => {
                    // One look at the clock for a batch.
                    let at = *at.get_or_insert_with(Instant::now);
                    if !hand.take(page, kind, at) {
                        duplicates += 1;
                    }
                }
                None => strange = Some(SessionError::Stray { addr }),
            };
            match event {
                Event::Missing { addr, write } => fault(addr, Kind::Missing { write }),
                Event::WriteProtect { addr } => fault(addr, Kind::Protect),
                Event::Remove { start, end } => removes.push((start, end)),
                Event::Unexpected(name) => strange = Some(SessionError::UnexpectedEvent(name)),
            }
        });
        memory.counters.duplicate_faults += duplicates;
        if !removes.is_empty() {
            memory.expect_gap(Instant::now());
        }
        for (start, end) in removes.drain(..) {
            memory.remove(start, end);
        }
        match (count, strange) {
            (Ok(count), None) => Ok(count),
            (Ok(_), Some(error)) => Err(Halt::Failed(error)),
            (Err(ReadError::Closed), _) => Err(failed("end of file".to_owned())),
            (Err(ReadError::Failed(errno)), _) => {
                Err(failed(std::io::Error::from_raw_os_error(errno).to_string()))
            }
        }
    }
}

fn failed(cause: String) -> Halt {
    Halt::Failed(SessionError::Events { cause })
}
