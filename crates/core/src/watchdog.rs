//! Signs of life for the service manager (`sd_watchdog_enabled(3)`): only when every fault loop has
//! answered.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, unbounded};

use crate::contract::Reply;
use crate::service_manager::ServiceManager;
use crate::session::Session;

/// The sessions that are to be alive.
pub type Sessions = Box<dyn Fn() -> Vec<Arc<Session>> + Send>;

/// Gives signs of life for as long as this process lives and all fault loops of `sessions` do, if the
/// manager wants them; otherwise it restarts the service. To be called once.
///
/// All sessions are asked three times as often as it wants a sign, so that an answer at the very end of
/// its time is one in time still.
pub fn watch(manager: &Arc<ServiceManager>, sessions: Sessions) -> io::Result<()> {
    let Some(every) = manager.watchdog() else { return Ok(()) };
    let (manager, ask_every) = (Arc::clone(manager), ask_every(every));
    let run = move || {
        loop {
            let due = Instant::now() + ask_every;
            match is_alive(&sessions(), due) {
                Ok(()) => manager.is_alive(),
                Err(who) => {
                    manager.status(&format!("The fault loop of the guest {who} does not answer"));
                }
            }
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    };
    let builder = thread::Builder::new().name("uffd-watchdog".to_owned()).stack_size(256 << 10);
    builder.spawn(run).map(drop)
}

/// A manager that wants them within microseconds has none in time, and all the others a core.
const SHORTEST: Duration = Duration::from_millis(1);

fn ask_every(every: Duration) -> Duration {
    (every / 3).max(SHORTEST)
}

/// Whether each fault loop comes to the end of a turn by `due`; otherwise which does not.
///
/// One that the kernel holds up, as a VMM may that has its memory locked, is not to blame: whoever
/// serves the guest next would be held up as well.
fn is_alive(sessions: &[Arc<Session>], due: Instant) -> Result<(), String> {
    let (sender, answers) = unbounded();
    for (number, session) in sessions.iter().enumerate() {
        let sender = sender.clone();
        // One that has ended is not asked for more.
        session.ping_with(Reply::new(move |_| sender.send(number).unwrap_or_default()));
    }
    drop(sender);
    let mut silent: Vec<_> = sessions.iter().map(Some).collect();
    loop {
        match answers.recv_deadline(due) {
            Ok(number) => silent[number] = None,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => break,
        }
    }
    match silent.into_iter().flatten().find(|session| !session.is_held_up_by_the_kernel()) {
        Some(session) => Err(session.id().to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_all_the_time() {
        let micros = |every, asked| {
            assert_eq!(ask_every(Duration::from_micros(every)), Duration::from_micros(asked));
        };
        micros(30_000_000, 10_000_000);
        micros(6_000, 2_000);
        micros(3_000, 1_000);
        micros(2_999, 1_000);
        micros(1, 1_000);
    }
}
