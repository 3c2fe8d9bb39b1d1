//! The first step: events out of the kernel, REMOVEs into the page states, faults into the hand.

use super::guest::Guest;
use super::hand::Kind;
use super::next::Next;
use super::{Halt, Turn};
use crate::contract::SessionError;
use crate::kernel::{Event, EventReader, ReadError};
use crate::units::GuestAddr;

/// Reads before faults are served even though events keep coming: one thread that gives memory
/// back without end must not starve the others. Should a REMOVE then be unread, the kernel
/// answers EAGAIN until it is read.
const MOST_READS: usize = 64;

pub(super) struct Intake {
    reader: EventReader,
    /// The descriptor was empty at the last read, and that was just now.
    drained: bool,
    /// The last read may have left something, and nobody tells of that again.
    unread: bool,
}

impl Intake {
    pub(super) const fn new(reader: EventReader) -> Self {
        Self { reader, drained: false, unread: false }
    }

    /// Reads until the descriptor is empty. The kernel hands out faults before other events, so
    /// the REMOVEs that count for a fault may come after it: none is served in between.
    pub(super) fn drain(&mut self, guest: &mut Guest) -> Turn {
        if std::mem::take(&mut self.drained) {
            return Ok(());
        }
        for _ in 0..MOST_READS {
            guest.journal.clock.pass();
            if self.read(guest)? < EventReader::CAPACITY {
                break;
            }
        }
        Ok(())
    }

    /// Whether there may be something to read that is no news.
    pub(super) const fn next(&self) -> Next {
        if self.unread { Next::Now } else { Next::Never }
    }

    /// One read by whoever has nothing else to do; whether there was anything. The drain that
    /// follows need not read again what was just found empty.
    pub(super) fn peek(&mut self, guest: &mut Guest) -> Turn<bool> {
        let count = self.read(guest)?;
        self.drained = (1..EventReader::CAPACITY).contains(&count);
        Ok(count > 0)
    }

    /// One read; how many events there were.
    fn read(&mut self, guest: &mut Guest) -> Turn<usize> {
        let count = match self.reader.read(guest.memory.uffd()) {
            Ok(count) => count,
            Err(ReadError::Closed) => return Err(failed("end of file".to_owned())),
            Err(ReadError::Failed(errno)) => {
                return Err(failed(std::io::Error::from_raw_os_error(errno).to_string()));
            }
        };
        self.unread = count >= EventReader::CAPACITY;
        if count > 0 {
            crate::kill_point!("read");
        }
        self.apply(guest, count)?;
        Ok(count)
    }

    /// Applies the REMOVEs that a predecessor had read and not marked as done. Its faults come
    /// again by themselves, once their threads are woken.
    pub(super) fn finish_what_was_left(&mut self, guest: &mut Guest) -> Result<(), SessionError> {
        for index in 0..EventReader::CAPACITY {
            match self.reader.get(index) {
                Some(Event::Remove { start, end }) => {
                    guest.memory.remove(start, end);
                    crate::kill_point!("removed again");
                }
                Some(Event::Unexpected(name)) => return Err(SessionError::UnexpectedEvent(name)),
                Some(Event::Missing { .. } | Event::WriteProtect { .. }) | None => {}
            }
            self.reader.done(index);
        }
        Ok(())
    }

    /// Deals with the first `count` events of the buffer. Nothing is installed in between: should
    /// this process be killed, a successor applies again what is not marked as done.
    fn apply(&mut self, guest: &mut Guest, count: usize) -> Turn {
        let mut at = None;
        let mut strange = None;
        let mut removed = false;
        for index in 0..count {
            let Some(event) = self.reader.get(index) else { continue };
            let Guest { memory, hand, journal, .. } = &mut *guest;
            let mut fault = |addr: GuestAddr, kind: Kind| match memory.layout().page_at(addr) {
                Some(page) => {
                    // One look at the clock for a batch, or that of whoever was just woken.
                    let at = *at.get_or_insert_with(|| journal.clock.recent());
                    if !hand.take(page, kind, at) {
                        memory.counters.duplicate_faults += 1;
                    }
                }
                None => strange = Some(SessionError::Stray { addr }),
            };
            match event {
                Event::Missing { addr, write } => fault(addr, Kind::Missing { write }),
                Event::WriteProtect { addr } => fault(addr, Kind::Protect),
                Event::Remove { start, end } => {
                    memory.remove(start, end);
                    removed = true;
                    crate::kill_point!("removed");
                }
                Event::Unexpected(name) => strange = Some(SessionError::UnexpectedEvent(name)),
            }
            self.reader.done(index);
            crate::kill_point!("event done");
        }
        if removed {
            guest.memory.expect_gap();
        }
        strange.map_or(Ok(()), |error| Err(Halt::Failed(error)))
    }
}

pub(super) fn failed(cause: String) -> Halt {
    Halt::Failed(SessionError::Events { cause })
}
