//! Nothing to do: wait for the kernel, for messages, for the guest's end, or for a time.

use std::os::unix::net::UnixStream;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::commands::Commands;
use super::company::{Company, Place};
use super::guest::Guest;
use super::intake::Intake;
use super::next::Next;
use super::{Halt, Turn};
use crate::contract::SessionError;
use crate::identity::Owner;
use crate::kernel::Watch;

/// What is waited for, as numbers of the watch.
const EVENTS: u32 = 0;
const MAIL: u32 = 1;
const EXIT: u32 = 2;
const SOCKET: u32 = 3;

/// A guest whose process cannot be watched, or was another one, is asked for this often.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// One whose process is watched is asked for so often: a process that becomes another program
/// (`execve(2)`) has none of the guest's memory any more, and has not exited. The end of the handoff's
/// connection tells that at once, as long as there is one.
const PROBE_WATCHED_EVERY: Duration = Duration::from_secs(5);

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

/// How many cores this process has. Finding out reads several files, which a guest that waits to be
/// taken over would feel.
static CORES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));

/// The fault loops of this process.
static COMPANY: Company = Company::new();

impl Patience {
    pub(super) fn new(enabled: bool) -> Self {
        // On one core the guest only gets on while the handler sleeps.
        let most = if enabled && *CORES > 1 { MOST_TRIES } else { 0 };
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

/// What the loop waits by.
pub(super) struct Idle {
    watch: Watch,
    patience: Patience,
    place: Place,
    socket: Option<UnixStream>,
    /// The process that connected is watched until it exits.
    watches_peer: bool,
    probed: Instant,
}

impl Idle {
    /// Waits for messages alone.
    pub(super) fn new(commands: &Commands, short_waits: bool) -> nix::Result<Self> {
        let watch = Watch::new()?;
        watch.add(commands.inbox.waker(), MAIL)?;
        Ok(Self {
            watch,
            patience: Patience::new(short_waits),
            place: Place::default(),
            socket: None,
            watches_peer: false,
            probed: Instant::now(),
        })
    }

    /// Registers everything there is to wait for of a guest, once it is ours: whoever watches a
    /// userfaultfd is told of each event.
    pub(super) fn watch(&mut self, guest: &Guest, socket: Option<UnixStream>) -> nix::Result<()> {
        // Of news alone: the intake says where it has not read all there was.
        self.watch.add_news(guest.memory.uffd(), EVENTS)?;
        if let Some(peer) = guest.memory.identity().peer() {
            self.watch.add(peer, EXIT)?;
            self.watches_peer = true;
        }
        if let Some(socket) = &socket {
            self.watch.add_end(socket, SOCKET)?;
        }
        self.socket = socket;
        self.probed = Instant::now();
        Ok(())
    }

    /// When the guest's memory is asked for next: no descriptor tells of the end of a process that
    /// is not proved to be the guest's.
    pub(super) fn next(&self, guest: &Guest) -> Next {
        self.probes_every(guest).map(|time| self.probed + time).into()
    }

    fn probes_every(&self, guest: &Guest) -> Option<Duration> {
        match guest.memory.identity().owner() {
            Owner::Peer if self.watches_peer && self.socket.is_some() => None,
            Owner::Peer if self.watches_peer => Some(PROBE_WATCHED_EVERY),
            _ => Some(PROBE_EVERY),
        }
    }

    /// Waits until something happens or it is time.
    pub(super) fn wait(
        &mut self,
        until: Next,
        guest: &mut Guest,
        intake: &mut Intake,
        commands: &Commands,
    ) -> Turn {
        let others = self.place.take(&COMPANY, guest.journal.clock.recent());
        // Each guest needs a core, and so does whoever tries for it.
        let has_room = 2 * (others + 1) <= *CORES;
        if has_room && guest.hand.is_empty() && self.patience.tries() > 0 {
            guest.journal.clock.pass();
            for _ in 0..self.patience.tries() {
                if intake.peek(guest)? {
                    self.patience.paid();
                    return Ok(());
                }
                if commands.inbox.has_mail() {
                    return Ok(());
                }
            }
            self.patience.in_vain();
        }
        self.sleep(until, guest, intake, commands)
    }

    fn sleep(
        &mut self,
        until: Next,
        guest: &mut Guest,
        intake: &mut Intake,
        commands: &Commands,
    ) -> Turn {
        let clock = &mut guest.journal.clock;
        let timeout = match until {
            Next::Now => Some(Duration::ZERO),
            Next::At(time) => Some(time.saturating_duration_since(clock.look())),
            Next::Never => None,
        };
        // Where an install was the last thing done, its end.
        let start = clock.recent();
        clock.pass();
        let ready = self
            .watch
            .wait(timeout)
            .map_err(|errno| Halt::Failed(SessionError::Events { cause: errno.to_string() }))?;
        if ready.has(EVENTS) {
            let woken = guest.journal.clock.look();
            self.patience.slept(woken.saturating_duration_since(start));
            intake.peek(guest)?;
            if ready.has_error() {
                // Its owner has cleared O_NONBLOCK: then the descriptor says that something is
                // wrong with it, and nothing else.
                let _ = guest.memory.uffd().refuse_to_wait();
            }
        }
        if ready.has(MAIL) {
            // Whoever posts it says so once more afterwards, and may be waiting for this core.
            commands.inbox.announced();
        }
        if ready.has(SOCKET) {
            self.socket_ended();
        }
        let probe_due = self.probes_every(guest).is_some_and(|time| self.probed.elapsed() >= time);
        if ready.has(EXIT) || ready.has(SOCKET) || probe_due {
            return self.probe(guest);
        }
        Ok(())
    }

    /// Before 1.12 Firecracker closes it at once, so its end is not the guest's.
    fn socket_ended(&mut self) {
        if let Some(socket) = self.socket.take() {
            let _ = self.watch.remove(&socket);
        }
    }

    /// Asks the kernel whether the guest's memory is still there.
    fn probe(&mut self, guest: &Guest) -> Turn {
        self.probed = Instant::now();
        if guest.memory.uffd().is_gone() {
            return Err(Halt::GuestExited);
        }
        let identity = guest.memory.identity();
        if let Some(peer) = identity.peer().filter(|peer| self.watches_peer && peer.has_exited()) {
            // Whoever connected only passed the guest on: from now on its memory is asked for.
            identity.outlived();
            let _ = self.watch.remove(peer);
            self.watches_peer = false;
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
