//! Waits for several descriptors at once. They are registered once, not with every wait: that is
//! what makes it cheaper than `poll`.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// What is ready, of what was added: a set of the numbers given to [`Watch::add`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadySet(u64);

impl ReadySet {
    /// Whether the descriptor with this number is ready.
    pub const fn has(self, number: u32) -> bool {
        self.0 >> number & 1 != 0
    }

    /// Whether one of them is so because something is wrong with it.
    pub const fn has_error(self) -> bool {
        self.0 & ERROR != 0
    }

    /// Whether none is: the time was up, or a signal came.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Stands for an error, beside the numbers.
const ERROR: u64 = 1 << 63;

/// An epoll descriptor.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// Watches nothing yet.
    pub fn new() -> nix::Result<Self> {
        epoll::create(CreateFlags::CLOEXEC).map(Self).map_err(errno)
    }

    /// Watches `fd` for reading, its end and errors, under a number less than 63.
    pub fn add(&self, fd: impl AsFd, number: u32) -> nix::Result<()> {
        let data = EventData::new_u64(1 << number);
        epoll::add(&self.0, fd, data, EventFlags::IN).map_err(errno)
    }

    /// Watches `fd` for reading and errors, and tells of what is new: whoever is told reads until
    /// nothing is left. Costs less, since what was read already is not asked about again.
    pub fn add_news(&self, fd: impl AsFd, number: u32) -> nix::Result<()> {
        let data = EventData::new_u64(1 << number);
        epoll::add(&self.0, fd, data, EventFlags::IN | EventFlags::ET).map_err(errno)
    }

    /// Watches `fd` for its end and errors alone, whatever there is to read.
    pub fn add_end(&self, fd: impl AsFd, number: u32) -> nix::Result<()> {
        let data = EventData::new_u64(1 << number);
        epoll::add(&self.0, fd, data, EventFlags::empty()).map_err(errno)
    }

    /// Watches `fd` no longer.
    pub fn remove(&self, fd: impl AsFd) -> nix::Result<()> {
        epoll::delete(&self.0, fd).map_err(errno)
    }

    /// Waits until something is ready, or for so long.
    pub fn wait(&self, timeout: Option<Duration>) -> nix::Result<ReadySet> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        let mut events = [none; 4];
        match epoll::wait(&self.0, &mut events, timeout.as_ref()) {
            Ok(count) => {
                let ready = events[..count].iter().map(|event| {
                    let Event { flags, data } = *event;
                    data.u64() | if flags.contains(EventFlags::ERR) { ERROR } else { 0 }
                });
                Ok(ReadySet(ready.fold(0, |set, bit| set | bit)))
            }
            Err(rustix::io::Errno::INTR) => Ok(ReadySet::default()),
            Err(error) => Err(errno(error)),
        }
    }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn news_are_told_once_each_time() {
        let (reader, writer) = std::io::pipe().unwrap();
        rustix::io::write(&writer, &[1]).unwrap();
        let watch = Watch::new().unwrap();
        watch.add_news(&reader, 3).unwrap();
        for _ in 0..2 {
            // What was there before it was watched is news, too.
            assert!(watch.wait(AT_ONCE).unwrap().has(3));
            assert!(watch.wait(AT_ONCE).unwrap().is_empty());
            rustix::io::write(&writer, &[1]).unwrap();
        }
    }

    #[test]
    fn an_error_is_told_apart() {
        let (reader, writer) = std::io::pipe().unwrap();
        let watch = Watch::new().unwrap();
        watch.add(&reader, 0).unwrap();
        rustix::io::write(&writer, &[1]).unwrap();
        let ready = watch.wait(AT_ONCE).unwrap();
        assert!(ready.has(0) && !ready.has_error());
        watch.add(&writer, 1).unwrap();
        drop((watch.remove(&reader), reader));
        let ready = watch.wait(AT_ONCE).unwrap();
        assert!(ready.has(1) && ready.has_error());
    }
}
