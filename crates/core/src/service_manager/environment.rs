//! What a service manager tells a process by its environment.

use std::ffi::OsString;
use std::time::Duration;

use super::trouble::{Trouble, Troubles};

/// The variables, as they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// NOTIFY_SOCKET: where it wants to be told.
    pub notify_socket: Option<OsString>,
    /// LISTEN_PID: for whom the descriptors are.
    pub listen_pid: Option<String>,
    /// LISTEN_FDS: how many there are.
    pub listen_fds: Option<String>,
    /// LISTEN_FDNAMES: what they are called.
    pub listen_fd_names: Option<String>,
    /// FDSTORE: how many it keeps.
    pub fd_store: Option<String>,
    /// WATCHDOG_PID: who is to give signs of life.
    pub watchdog_pid: Option<String>,
    /// WATCHDOG_USEC: how often, in microseconds.
    pub watchdog_usec: Option<String>,
}

impl Environment {
    /// That of this process. It is left as it is.
    pub fn of_process() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    /// What these variables say.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name| variable(name).and_then(|value| value.into_string().ok());
        Self {
            notify_socket: variable("NOTIFY_SOCKET"),
            listen_pid: text("LISTEN_PID"),
            listen_fds: text("LISTEN_FDS"),
            listen_fd_names: text("LISTEN_FDNAMES"),
            fd_store: text("FDSTORE"),
            watchdog_pid: text("WATCHDOG_PID"),
            watchdog_usec: text("WATCHDOG_USEC"),
        }
    }

    /// Whether this process is the one that is meant: variables are passed on to programs that are
    /// not the service.
    pub(super) fn is_for(&self, pid: Option<&str>) -> bool {
        pid.is_some_and(|pid| pid == std::process::id().to_string())
    }

    pub(super) fn watchdog(&self, troubles: &Troubles) -> Option<Duration> {
        let every = self.watchdog_usec.as_deref()?;
        // Without a number it is for whoever has it (sd_watchdog_enabled(3)).
        if self.watchdog_pid.is_some() && !self.is_for(self.watchdog_pid.as_deref()) {
            return None;
        }
        match every.parse() {
            Ok(micros) if micros > 0 => Some(Duration::from_micros(micros)),
            _ => {
                troubles.tell(Trouble::Watchdog { every: every.to_owned() });
                None
            }
        }
    }
}
