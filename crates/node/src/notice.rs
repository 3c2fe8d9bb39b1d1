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
    /// The guest's memory cannot be collapsed into huge pages, as `collapse` asks: its process may
    /// not be looked into, or this one may not ask for it (CAP_SYS_NICE, `process_madvise(2)`).
    NotCollapsed,
}

/// Something worth a line in a log, that does not end the guest.
#[napi(object, object_from_js = false)]
#[derive(Debug)]
pub struct Notice {
    /// What it is about.
    pub kind: NoticeKind,
    /// The page, if it is about one.
    pub page: Option<f64>,
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
                let page = Some(page.0 as f64);
                Self { kind: NoticeKind::OutOfMemory, page, message, unseen }
            }
            session::Notice::Poisoned { page, offset, cause } => {
                let message =
                    format!("page {page} (snapshot offset {offset}) was poisoned: {cause}");
                let page = Some(page.0 as f64);
                Self { kind: NoticeKind::Poisoned, page, message, unseen }
            }
            session::Notice::NotCollapsed { why } => {
                let message = format!("its memory stays in small pages: {why}");
                Self { kind: NoticeKind::NotCollapsed, page: None, message, unseen }
            }
        }
    }
}
