use napi_derive::napi;
use uffd_core::session;

/// What a notice is about.
#[napi(string_enum = "kebab-case")]
#[derive(Debug)]
pub enum NoticeKind {
    /// There was no memory for a page; the guest waits for it and goes on when there is. Said
    /// once; `outOfMemory` of the statistics goes on counting.
    OutOfMemory,
    /// A page could not be had and was poisoned: an access raises SIGBUS.
    Poisoned,
}

/// Something worth a line in a log, that does not end the guest.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Notice {
    /// What it is about.
    pub kind: NoticeKind,
    /// The page.
    pub page: f64,
    /// For people.
    pub message: String,
    /// Notices left out before this one because nobody collected them: normally 0.
    pub unseen: u32,
}

impl Notice {
    pub(crate) fn new(notice: &session::Notice, unseen: u32) -> Self {
        match notice {
            session::Notice::OutOfMemory { page, huge } => {
                let lack = if *huge {
                    "the pool of 2 MiB pages is used up"
                } else {
                    "there is no memory left"
                };
                let message = format!("{lack}: the guest waits for page {page} until there is one");
                Self { kind: NoticeKind::OutOfMemory, page: page.0 as f64, message, unseen }
            }
            session::Notice::Poisoned { page, offset, cause } => {
                let message =
                    format!("page {page} (snapshot offset {offset}) was poisoned: {cause}");
                Self { kind: NoticeKind::Poisoned, page: page.0 as f64, message, unseen }
            }
        }
    }
}
