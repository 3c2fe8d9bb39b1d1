//! Nothing to do: wait for the kernel, for messages, for the guest's end, or for a time.

use std::io::Read;
use std::time::{Duration, Instant};

use super::hand::Phase;
use super::{FaultLoop, Halt, Turn};
use crate::kernel::EventReader;
use crate::session::SessionError;

/// What is waited for, as numbers of the watch.
const EVENTS: u32 = 0;
const MAIL: u32 = 1;
const EXIT: u32 = 2;
const SOCKET: u32 = 3;

/// A guest whose process cannot be watched is asked for this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Short waits: between faults that follow one another closely, trying to read again is quicker
/// than sleeping. How often to try is learned, and never again once it has stopped to pay.
pub(super) struct Patience {
    tries: u32,
    most: u32,
}

/// The most tries in a row; one takes well under a microsecond.
const MOST_TRIES: u32 = 256;

/// A sleep shorter than this would have been a short wait.
const SHORT: Duration = Duration::from_micros(60);

impl Patience {
    pub(super) fn new(enabled: bool) -> Self {
        // On one core the guest only gets on while the handler sleeps.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { tries: 0, most: if enabled && cores > 1 { MOST_TRIES } else { 0 } }
    }

    const fn paid(&mut self) {
        self.tries = if self.tries * 2 > self.most { self.most } else { self.tries * 2 };
    }

    const fn in_vain(&mut self) {
        self.tries /= 2;
    }

    fn slept(&mut self, time: Duration) {
        if time < SHORT {
            self.tries = (self.tries * 2).max(32).min(self.most);
        }
    }
}

impl FaultLoop {
    /// Registers everything there is to wait for.
    pub(super) fn watch_all(&self) -> nix::Result<()> {
        self.watch.add(self.memory.uffd(), EVENTS)?;
        self.watch.add(self.inbox.waker(), MAIL)?;
        if let Some(process) = &self.process {
            self.watch.add(process, EXIT)?;
        }
        if let Some(socket) = &self.socket {
            self.watch.add(socket, SOCKET)?;
        }
        Ok(())
    }

    pub(super) fn wait(&mut self) -> Turn {
        if self.hand.is_empty() && self.patience.tries > 0 {
            for _ in 0..self.patience.tries {
                let count = self.read()?;
                if count > 0 {
                    self.patience.paid();
                    self.drained = count < EventReader::CAPACITY;
                    return Ok(());
                }
                if self.inbox.has_mail() {
                    return Ok(());
                }
            }
            self.patience.in_vain();
        }
        self.sleep(self.next_due())
    }

    /// Sleeps until the next deferred fault is to be tried again.
    pub(super) fn pause_until_due(&mut self) {
        if let Some(due) = self.hand.next_due() {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    /// The earliest time at which there is something to do, whatever arrives.
    fn next_due(&self) -> Option<Instant> {
        let parked = self.hand.iter().filter(|fault| fault.phase == Phase::Parked);
        let given_up =
            parked.filter_map(|fault| fault.read_at.checked_add(self.options.fault_deadline)).min();
        let probe = self.process.is_none().then(|| Instant::now() + PROBE_EVERY);
        [
            self.hand.next_due(),
            given_up,
            self.fetches.next_due(),
            self.prefaults.next_due(),
            self.reporting.next_due(),
            probe,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn sleep(&mut self, until: Option<Instant>) -> Turn {
        let start = Instant::now();
        let timeout = until.map(|time| time.saturating_duration_since(start));
        let ready = self
            .watch
            .wait(timeout)
            .map_err(|errno| Halt::Failed(SessionError::Events { cause: errno.to_string() }))?;
        if ready.has(EVENTS) {
            self.patience.slept(start.elapsed());
        }
        if ready.has(EXIT) {
            return Err(Halt::GuestExited);
        }
        if ready.has(SOCKET) {
            return self.socket_spoke();
        }
        if ready.is_empty() && self.process.is_none() {
            return self.probe_guest();
        }
        Ok(())
    }

    /// After the handoff nothing is said on the socket, until its end.
    fn socket_spoke(&mut self) -> Turn {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        let mut ignored = [0; 256];
        match socket.read(&mut ignored) {
            Ok(count) if count > 0 => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
            // Before 1.12 Firecracker closes it at once, so its end is not the guest's.
            Ok(_) | Err(_) => {
                let _ = self.watch.remove(&*socket);
                self.socket = None;
                self.probe_guest()
            }
        }
    }

    /// Asks the kernel whether the guest's memory is still there.
    fn probe_guest(&self) -> Turn {
        if let Some(process) = &self.process {
            return if process.has_exited() { Err(Halt::GuestExited) } else { Ok(()) };
        }
        if self.memory.uffd().is_gone() { Err(Halt::GuestExited) } else { Ok(()) }
    }
}
