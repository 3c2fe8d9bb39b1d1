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

/// Environment variable: the same for a panic there, as by a defect.
pub const PANICS: &str = "UFFD_PANIC_AT";

/// Environment variable: the same for a thread that goes no further.
pub const PARKS: &str = "UFFD_PARK_AT";

/// Called at each of them.
#[cfg(feature = "kill-points")]
pub fn reached(name: &str) {
    use std::sync::OnceLock;

    static KILLED: OnceLock<Option<Asked>> = OnceLock::new();
    static PANICS: OnceLock<Option<Asked>> = OnceLock::new();
    if KILLED.get_or_init(|| Asked::by(VARIABLE)).as_ref().is_some_and(|asked| asked.is_at(name)) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
    static PARKS: OnceLock<Option<Asked>> = OnceLock::new();
    if PARKS.get_or_init(|| Asked::by(self::PARKS)).as_ref().is_some_and(|asked| asked.is_at(name))
    {
        loop {
            std::thread::park();
        }
    }
    let panics = PANICS.get_or_init(|| Asked::by(self::PANICS));
    assert!(!panics.as_ref().is_some_and(|asked| asked.is_at(name)), "asked for at {name}");
}

/// A place, and how often it is passed before.
#[cfg(feature = "kill-points")]
struct Asked {
    name: String,
    left: std::sync::atomic::AtomicU64,
}

#[cfg(feature = "kill-points")]
impl Asked {
    fn by(variable: &str) -> Option<Self> {
        let text = std::env::var(variable).ok()?;
        let (name, count) = text.split_once(':')?;
        Some(Self { name: name.to_owned(), left: count.parse::<u64>().ok()?.into() })
    }

    fn is_at(&self, name: &str) -> bool {
        self.name == name && self.left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1
    }
}
