//! Places at which a build for tests can be killed, so that every step of a turn is known to leave
//! enough behind. Other builds have none of this.

/// Kills this process if it was asked to end at `name`.
#[macro_export]
#[doc(hidden)]
macro_rules! kill_point {
    ($name:literal) => {
        #[cfg(feature = "kill-points")]
        $crate::kill_point::reached($name);
    };
}

/// Environment variable: `NAME:COUNT` ends the process when it comes to NAME for the COUNTth time.
pub const VARIABLE: &str = "UFFD_KILL_AT";

/// Called at each of them.
#[cfg(feature = "kill-points")]
pub fn reached(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ASKED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), AtomicU64::new(count.parse().ok()?)))
    });
    if let Some((asked, left)) = asked
        && asked == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
