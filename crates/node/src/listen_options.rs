use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use napi::Either;
use napi_derive::napi;
use uffd_core::guardian::Launch;
use uffd_core::handoff::SocketAccess;
use uffd_core::server::ServerOptions;
use uffd_core::session::{DirtyTracking, FaultAround, SessionOptions, Unservable};

use crate::error::{Thrown, invalid_option};
use crate::guardian::NativeGuardianOptions;

/// Whether dirty pages are tracked.
#[napi(string_enum = "lowercase")]
#[derive(Debug)]
pub enum DirtyTrackingOption {
    /// If the VMM registered its memory for write protection.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What becomes of a page that cannot be had.
#[napi(string_enum = "lowercase")]
#[derive(Debug)]
pub enum UnservableOption {
    /// It is poisoned.
    Poison,
    /// The guest is killed.
    Kill,
    /// The session fails.
    Fail,
}

/// Whom the socket is given to.
#[napi(object, object_to_js = false)]
pub struct NativeOwner {
    pub uid: u32,
    pub gid: u32,
}

/// What a server is to do. What is left out is as the core has it.
#[napi(object, object_to_js = false)]
pub struct NativeListenOptions {
    pub socket: String,
    pub snapshot: String,
    pub socket_owner: Option<NativeOwner>,
    pub socket_mode: Option<u32>,
    pub dirty_tracking: Option<DirtyTrackingOption>,
    pub fault_around: Option<Either<bool, f64>>,
    pub on_unservable: Option<UnservableOption>,
    pub fault_deadline_ms: Option<f64>,
    pub handoff_timeout_ms: Option<f64>,
    pub max_guests: Option<f64>,
    pub max_guests_per_process: Option<f64>,
    pub kill_on_failure: Option<bool>,
    pub state_dir: Option<String>,
    pub state_dir_wait: Option<bool>,
    /// The server is for one guest: guests that were left in the directory are not its own.
    pub state_dir_alone: Option<bool>,
    /// Serves the guests of the directory while this process cannot.
    pub guardian: Option<NativeGuardianOptions>,
    /// What a service manager has told this process: its variables by their names.
    pub systemd: Option<HashMap<String, String>>,
    pub trace: Option<bool>,
    pub short_waits: Option<bool>,
    pub collapse: Option<bool>,
    /// Guests are expected to have pages of 2 MiB.
    pub expect_huge_pages: Option<bool>,
}

/// Where guests are kept.
pub(crate) struct StateDirOptions {
    pub(crate) path: PathBuf,
    /// For another server to leave it.
    pub(crate) wait: bool,
    /// Refuses a directory in which guests were left.
    pub(crate) alone: bool,
    /// Starts a guardian, if guests are to have one.
    pub(crate) launch: Option<Launch>,
}

impl NativeListenOptions {
    /// Where the socket is to be, and the snapshot.
    pub(crate) fn paths(&self) -> (PathBuf, PathBuf) {
        (PathBuf::from(&self.socket), PathBuf::from(&self.snapshot))
    }

    /// Where guests are kept, if they are to outlive this process.
    pub(crate) fn state_dir(&self) -> Option<StateDirOptions> {
        Some(StateDirOptions {
            path: PathBuf::from(self.state_dir.as_ref()?),
            wait: self.state_dir_wait.unwrap_or(false),
            alone: self.state_dir_alone.unwrap_or(false),
            launch: self.guardian.as_ref().map(NativeGuardianOptions::launch),
        })
    }

    /// How the server is to behave.
    pub(crate) fn server(&self) -> Result<ServerOptions, Thrown> {
        let default = ServerOptions::default();
        Ok(ServerOptions {
            handoff_timeout: duration(
                "handoffTimeoutMs",
                self.handoff_timeout_ms,
                default.handoff_timeout,
            )?,
            max_guests: match self.max_guests {
                None => default.max_guests,
                Some(guests) => Some(count("maxGuests", guests)?),
            },
            max_guests_per_process: match self.max_guests_per_process {
                None => default.max_guests_per_process,
                Some(guests) => count("maxGuestsPerProcess", guests)?,
            },
            access: SocketAccess {
                owner: self.socket_owner.as_ref().map(|owner| (owner.uid, owner.gid)),
                mode: self.socket_mode,
            },
            session: self.session(default.session)?,
            expect_huge_pages: self.expect_huge_pages.unwrap_or(default.expect_huge_pages),
            keep: None,
            manager: None,
        })
    }

    fn session(&self, default: SessionOptions) -> Result<SessionOptions, Thrown> {
        Ok(SessionOptions {
            dirty_tracking: match self.dirty_tracking {
                None => default.dirty_tracking,
                Some(DirtyTrackingOption::Auto) => DirtyTracking::Auto,
                Some(DirtyTrackingOption::On) => DirtyTracking::On,
                Some(DirtyTrackingOption::Off) => DirtyTracking::Off,
            },
            fault_around: match self.fault_around {
                None => default.fault_around,
                Some(Either::A(true)) => FaultAround::Adaptive,
                Some(Either::A(false)) => FaultAround::Off,
                Some(Either::B(pages)) => FaultAround::AtMost(whole("faultAround", pages)?),
            },
            on_unservable: match self.on_unservable {
                None => default.on_unservable,
                Some(UnservableOption::Poison) => Unservable::Poison,
                Some(UnservableOption::Kill) => Unservable::Kill,
                Some(UnservableOption::Fail) => Unservable::Fail,
            },
            fault_deadline: duration(
                "faultDeadlineMs",
                self.fault_deadline_ms,
                default.fault_deadline,
            )?,
            trace: self.trace.unwrap_or(default.trace),
            short_waits: self.short_waits.unwrap_or(default.short_waits),
            collapse: self.collapse.unwrap_or(default.collapse),
            kill_on_failure: self.kill_on_failure.unwrap_or(default.kill_on_failure),
        })
    }
}

fn duration(name: &str, ms: Option<f64>, default: Duration) -> Result<Duration, Thrown> {
    ms.map_or(Ok(default), |ms| Ok(Duration::from_millis(whole(name, ms)?)))
}

fn count(name: &str, value: f64) -> Result<usize, Thrown> {
    Ok(usize::try_from(whole(name, value)?).unwrap_or(usize::MAX))
}

/// A whole number of at least 1 that a thread could wait for or a guest could have.
fn whole(name: &str, value: f64) -> Result<u64, Thrown> {
    if value.fract() != 0.0 || !(1.0..=f64::from(u32::MAX)).contains(&value) {
        return Err(invalid_option(format!("{name} is {value}, not a whole number of at least 1")));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "just checked")]
    Ok(value as u64)
}
