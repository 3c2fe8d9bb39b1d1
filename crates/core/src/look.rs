//! What is found out of a guest in advance.

use crate::contract::SessionError;
use crate::kernel::{Features, FeaturesError, Pagemap, Process, Uffd, is_shortage};

/// What is found out of a guest before its loop is made; also long before, by whoever may have to
/// take it over.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) features: Features,
    /// Where it may be read.
    pub(crate) page_map: Option<Pagemap>,
}

impl Look {
    /// At the guest whose userfaultfd this is, and the process that connected.
    pub(crate) fn at(uffd: &Uffd, peer: Option<&Process>) -> Result<Self, SessionError> {
        let features = match Features::of(uffd) {
            Err(FeaturesError::Shortage(cause)) => {
                return Err(resources("the features of the userfaultfd", cause));
            }
            features => features?,
        };
        let page_map = match peer.map(Pagemap::open) {
            Some(Err(error)) if is_shortage(&error) => {
                return Err(resources("its page map", error));
            }
            opened => opened.and_then(Result::ok),
        };
        Ok(Self { features, page_map })
    }
}

fn resources(what: &'static str, cause: impl ToString) -> SessionError {
    SessionError::Resources { what, cause: cause.to_string() }
}
