//! Nothing to do: wait for the kernel, for messages, for the guest's end, or for a time.

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

/// A guest whose process cannot be watched, or was another one, is asked for this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// Short waits: between faults that follow one another closely, trying to read again is quicker
/// than sleeping. How often to try is learned. Where it does not pay, as when the guest needs the
/// very core that the tries keep busy, they are given up for longer and longer.
#[derive(Debug)]
pub(super) struct Patience {
    tries: u32,
    most: u32,
    /// Sleeps before the next tries.
    doubt: u32,
    /// How often in a row tries were in vain.
    vain: u32,
}

/// The most tries in a row; one takes well under a microsecond.
const MOST_TRIES: u32 = 256;

/// The fewest worth the trouble.
const FEWEST_TRIES: u32 = 32;

/// The base-2 logarithm of the most sleeps in a row without a try.
const MOST_DOUBT: u32 = 8;

/// A sleep shorter than this could have been a short wait.
const SHORT: Duration = Duration::from_micros(60);

impl Patience {
    pub(super) fn new(enabled: bool) -> Self {
        // On one core the guest only gets on while the handler sleeps.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let most = if enabled && cores > 1 { MOST_TRIES } else { 0 };
        Self { tries: 0, most, doubt: 0, vain: 0 }
    }

    /// How often to try before the next sleep.
    const fn tries(&self) -> u32 {
        if self.doubt > 0 { 0 } else { self.tries }
    }

    fn paid(&mut self) {
        self.vain = 0;
        self.tries = (self.tries * 2).min(self.most);
    }

    fn in_vain(&mut self) {
        self.tries /= 2;
        self.vain = (self.vain + 1).min(MOST_DOUBT);
        self.doubt = (1 << self.vain) - 1;
    }

    fn slept(&mut self, time: Duration) {
        if time >= SHORT {
            return;
        }
        self.doubt = self.doubt.saturating_sub(1);
        if self.doubt == 0 {
            self.tries = (self.tries * 2).max(FEWEST_TRIES).min(self.most);
        }
    }
}

impl FaultLoop {
    /// Registers everything there is to wait for.
    pub(super) fn watch_all(&self) -> nix::Result<()> {
        self.watch.add(self.memory.uffd(), EVENTS)?;
        self.watch.add(self.inbox.waker(), MAIL)?;
        if let Some(process) = &self.process {
            self.watch.add(process.as_ref(), EXIT)?;
        }
        if let Some(socket) = &self.socket {
            self.watch.add_end(socket, SOCKET)?;
        }
        Ok(())
    }

    pub(super) fn wait(&mut self) -> Turn {
        if self.hand.is_empty() && self.patience.tries() > 0 {
            for _ in 0..self.patience.tries() {
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

    /// Sleeps until the next deferred fault is to be tried again, but no longer than `until`.
    pub(super) fn pause_until_due(&mut self, until: Instant) {
        if let Some(due) = self.hand.next_due() {
            std::thread::sleep(due.min(until).saturating_duration_since(Instant::now()));
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
            return self.probe_guest();
        }
        if ready.has(SOCKET) {
            return self.socket_ended();
        }
        if ready.is_empty() && self.process.is_none() {
            return self.probe_guest();
        }
        Ok(())
    }

    /// Before 1.12 Firecracker closes it at once, so its end is not the guest's.
    fn socket_ended(&mut self) -> Turn {
        if let Some(socket) = self.socket.take() {
            let _ = self.watch.remove(&socket);
        }
        self.probe_guest()
    }

    /// Asks the kernel whether the guest's memory is still there.
    fn probe_guest(&mut self) -> Turn {
        if self.memory.uffd().is_gone() {
            return Err(Halt::GuestExited);
        }
        // Whoever connected only passed the guest on: from now on its memory is asked for.
        if let Some(process) = self.process.take_if(|process| process.has_exited()) {
            let _ = self.watch.remove(process.as_ref());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANT: Duration = Duration::from_micros(5);

    fn patience() -> Patience {
        Patience { tries: 0, most: MOST_TRIES, doubt: 0, vain: 0 }
    }

    #[test]
    fn an_idle_loop_does_not_try() {
        let mut patience = patience();
        assert_eq!(patience.tries(), 0);
        patience.slept(SHORT);
        assert_eq!(patience.tries(), 0);
    }

    #[test]
    fn tries_that_pay_grow_up_to_a_limit() {
        let mut patience = patience();
        patience.slept(INSTANT);
        assert_eq!(patience.tries(), FEWEST_TRIES);
        (0..20).for_each(|_| patience.paid());
        assert_eq!(patience.tries(), MOST_TRIES);
    }

    #[test]
    fn tries_that_never_pay_are_hardly_ever_made() {
        let mut patience = patience();
        let mut made = 0;
        for _ in 0..10_000 {
            if patience.tries() > 0 {
                made += patience.tries();
                patience.in_vain();
            }
            patience.slept(INSTANT);
        }
        assert!(made < 3_000, "{made} tries in 10,000 waits");
        // And they are made again as soon as they pay.
        while patience.tries() == 0 {
            patience.slept(INSTANT);
        }
        patience.paid();
        assert!(patience.tries() > FEWEST_TRIES);
    }

    #[test]
    fn without_leave_none_is_made() {
        let mut patience = Patience::new(false);
        patience.slept(INSTANT);
        patience.paid();
        assert_eq!(patience.tries(), 0);
    }
}
