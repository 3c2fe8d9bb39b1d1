//! Errors of the core, on their way to JavaScript: their codes and messages as they are.

use std::fmt::Display;
use std::io::ErrorKind;

use napi_derive::napi;
use uffd_core::guardian::GuardianError;
use uffd_core::handoff::{AcceptError, BindError};
use uffd_core::ledger::StateDirError;
use uffd_core::recovery::NotRecovered;
use uffd_core::server::{Refusal, ServerError};
use uffd_core::service_manager::Trouble;
use uffd_core::session::{NoSuchPages, NotReleased, SessionError};
use uffd_core::source::SnapshotError;
use uffd_core::trace::{EntryError, TraceError, WrongSnapshot};

/// An exception with a code of ours.
pub(crate) type Thrown = napi::Error<&'static str>;

/// An error as plain data, for events.
#[napi(object, object_from_js = false)]
#[derive(Clone, Debug)]
pub struct ErrorInfo {
    /// Stable.
    pub code: String,
    /// For people.
    pub message: String,
    /// The page at fault.
    pub page: Option<f64>,
    /// Where that page lies in the snapshot, in bytes.
    pub offset: Option<u64>,
}

impl ErrorInfo {
    fn new(code: &str, message: impl Display) -> Self {
        let message = in_words(&message.to_string());
        Self { code: code.to_owned(), message, page: None, offset: None }
    }

    /// Something this host cannot give.
    pub(crate) fn resources(message: impl Display) -> Self {
        Self::new("ERR_UFFD_RESOURCES", message)
    }

    /// A guest is asked for what only one that is served has.
    pub(crate) fn guest_ended() -> Self {
        Self::new("ERR_UFFD_GUEST_ENDED", "the guest has ended, and no picture was kept of its end")
    }

    /// A guest that its guardian could not serve.
    pub(crate) fn unguarded(why: impl Display) -> Self {
        Self::new("ERR_UFFD_GUARDIAN_UNGUARDED", why)
    }

    /// Guests that were handed over, and that nobody has.
    pub(crate) fn ownerless(ids: &[String]) -> Self {
        let who = match ids {
            [id] => format!("the guest {id} was left, and nobody serves it"),
            _ => format!(
                "{} guests were left, and nobody serves them ({})",
                ids.len(),
                ids.join(", ")
            ),
        };
        let message = format!(
            "{who}: the guardian was lost and no other one can be had; start a server with the same state \
             directory"
        );
        Self::new("ERR_UFFD_HAND_OVER", message)
    }

    /// A page size that TypeScript should have refused already.
    pub(crate) fn no_page_size(bytes: u32) -> Self {
        Self::new("ERR_UFFD_INVALID_OPTION", format!("pageSize is {bytes}, not 4096 or 2097152"))
    }
}

impl From<&SessionError> for ErrorInfo {
    fn from(error: &SessionError) -> Self {
        let info = Self::new(error.code(), error);
        match error {
            SessionError::Refused { page, offset, .. }
            | SessionError::Unservable { page, offset, .. } => {
                Self { page: Some(page.0 as f64), offset: Some(*offset), ..info }
            }
            _ => info,
        }
    }
}

impl From<&Refusal> for ErrorInfo {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Session(error) => error.into(),
            Refusal::Handoff(error) => Self::new(error.code(), error),
            Refusal::Admission(error) => Self::new(error.code(), error),
        }
    }
}

impl From<&AcceptError> for ErrorInfo {
    fn from(error: &AcceptError) -> Self {
        Self::new(error.code(), error)
    }
}

impl From<&BindError> for ErrorInfo {
    fn from(error: &BindError) -> Self {
        Self::new(error.code(), error)
    }
}

impl From<&ServerError> for ErrorInfo {
    fn from(error: &ServerError) -> Self {
        Self::new(error.code(), error)
    }
}

impl From<&StateDirError> for ErrorInfo {
    fn from(error: &StateDirError) -> Self {
        Self::new(error.code(), error)
    }
}

impl From<&GuardianError> for ErrorInfo {
    fn from(error: &GuardianError) -> Self {
        Self::new(error.code(), error)
    }
}

impl From<&Trouble> for ErrorInfo {
    fn from(trouble: &Trouble) -> Self {
        Self::new(trouble.code(), trouble)
    }
}

impl From<&NotRecovered> for ErrorInfo {
    fn from(error: &NotRecovered) -> Self {
        Self::new(error.why.code(), error)
    }
}

impl From<&NotReleased> for ErrorInfo {
    fn from(error: &NotReleased) -> Self {
        Self::new(error.code(), error)
    }
}

impl From<&SnapshotError> for ErrorInfo {
    fn from(error: &SnapshotError) -> Self {
        let code = match error {
            SnapshotError::Open { cause, .. } => match cause.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => "ERR_UFFD_SNAPSHOT_MISSING",
                ErrorKind::PermissionDenied => "ERR_UFFD_SNAPSHOT_DENIED",
                _ => "ERR_UFFD_SNAPSHOT_IO",
            },
            SnapshotError::NotAFile { .. } => "ERR_UFFD_SNAPSHOT_NOT_A_FILE",
            SnapshotError::Empty { .. } => "ERR_UFFD_SNAPSHOT_EMPTY",
            SnapshotError::Length { .. } => "ERR_UFFD_SNAPSHOT_LENGTH",
            SnapshotError::Map { .. } => "ERR_UFFD_SNAPSHOT_IO",
        };
        Self::new(code, error)
    }
}

impl From<TraceError> for ErrorInfo {
    fn from(error: TraceError) -> Self {
        Self::new(error.code(), error)
    }
}

impl From<WrongSnapshot> for ErrorInfo {
    fn from(mismatch: WrongSnapshot) -> Self {
        Self::new(mismatch.code(), format!("The trace was {mismatch}"))
    }
}

impl From<EntryError> for ErrorInfo {
    fn from(error: EntryError) -> Self {
        Self::new(error.code(), error)
    }
}

/// Leaves out the numbers that the system's errors have in Rust: the words before them say the same.
fn in_words(message: &str) -> String {
    const NUMBER: &str = " (os error ";
    let mut words = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(NUMBER) {
        let after = &rest[at + NUMBER.len()..];
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        match after[digits..].strip_prefix(')') {
            Some(end) if digits > 0 => {
                words.push_str(&rest[..at]);
                rest = end;
            }
            _ => {
                words.push_str(&rest[..at + NUMBER.len()]);
                rest = after;
            }
        }
    }
    words + rest
}

/// An option that TypeScript should have refused already.
pub(crate) fn invalid_option(message: impl Display) -> Thrown {
    Thrown::new("ERR_UFFD_INVALID_OPTION", message.to_string())
}

pub(crate) fn no_such_pages(error: &NoSuchPages) -> Thrown {
    Thrown::new("ERR_UFFD_NO_SUCH_PAGES", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn numbers_of_errors_are_left_out_and_nothing_else() {
        let error = std::io::Error::from_raw_os_error(2);
        assert_eq!(
            in_words(&format!("cannot: {error}; try")),
            "cannot: No such file or directory; try"
        );
        for same in ["", "a (os error ", "a (os error x)", "a (os error )", "é (os error 2"] {
            assert_eq!(in_words(same), same);
        }
    }
}
