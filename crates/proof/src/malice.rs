//! What peers of a server may send that no VMM would: descriptions of it, to be made up at random
//! and sent by the process of an [`Attacker`](crate::Attacker).

use serde::{Deserialize, Serialize};

/// What peers of one process do, all at the same time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attack {
    /// A connection each.
    pub visits: Vec<Visit>,
}

/// What a peer does with its connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Visit {
    /// What it says.
    pub body: Body,
    /// Where what it says is cut in pieces, in bytes, counted round its length.
    pub cuts: Vec<usize>,
    /// Descriptors, and the piece they go with, counted round the number of pieces.
    pub sendings: Vec<(usize, Vec<Stranger>)>,
    /// Whether the last byte comes out of band.
    pub out_of_band: bool,
    /// Whether it waits for a moment before each piece.
    pub slowly: bool,
    /// How the connection is left.
    pub leaving: Leaving,
}

/// What becomes of a connection once everything is sent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Leaving {
    /// It stays until its process ends.
    Stay,
    /// It is closed.
    Close,
    /// It says that it will say nothing more.
    HangUp,
}

/// What a peer says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Body {
    /// This text.
    Text(String),
    /// Spaces, and nothing else.
    Spaces(usize),
    /// Regions with these fields.
    Regions(Vec<Vec<(String, Value)>>),
    /// So many regions of one page, one after the other.
    Many(usize),
    /// One region with a field so many times.
    Repeated(usize),
    /// Arrays in arrays, so deep.
    Nested(usize),
    /// A field of so many bytes that nobody knows.
    Unknown(usize),
}

/// The value of a field.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Value {
    /// As JSON, right or wrong.
    Json(String),
    /// So far behind the start of memory that the peer's process has registered with
    /// [`Stranger::Own`].
    Behind(u64),
}

/// A descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Stranger {
    /// A socket that lingers, of which the peer keeps no copy.
    Lingering,
    /// A socket with a socket that lingers in its queue.
    Carrier,
    /// The connection itself.
    Itself,
    /// The server's own socket, connected once more and silent.
    Another,
    Pipe,
    Directory,
    /// A directory that was opened for its name alone.
    Path,
    Null,
    Epoll,
    IoUring,
    Timer,
    Signals,
    Event,
    Memory,
    Process,
    Listener,
    /// A userfaultfd that was never initialised.
    Raw,
    /// The userfaultfd of the peer's process, which is the same for all of its visits.
    Own,
    /// A userfaultfd of the server's process.
    Servers,
    /// The userfaultfd of a guest that the server serves.
    Guests,
}

impl Stranger {
    /// Every one of them.
    pub const ALL: [Self; 20] = [
        Self::Lingering,
        Self::Carrier,
        Self::Itself,
        Self::Another,
        Self::Pipe,
        Self::Directory,
        Self::Path,
        Self::Null,
        Self::Epoll,
        Self::IoUring,
        Self::Timer,
        Self::Signals,
        Self::Event,
        Self::Memory,
        Self::Process,
        Self::Listener,
        Self::Raw,
        Self::Own,
        Self::Servers,
        Self::Guests,
    ];
}

impl Body {
    /// All of it, where the memory of [`Value::Behind`] begins at `base`.
    pub(crate) fn bytes(&self, base: u64) -> Vec<u8> {
        let region = |page: usize| {
            let (addr, offset) = ((1_u64 << 40) + ((page as u64) << 12), (page as u64) << 12);
            format!(r#"{{"base_host_virt_addr":{addr},"size":4096,"offset":{offset}}}"#)
        };
        match self {
            Self::Text(text) => text.clone(),
            Self::Spaces(count) => " ".repeat(*count),
            Self::Regions(regions) => {
                let regions = regions.iter().map(|fields| {
                    let fields = fields.iter().map(|(name, value)| match value {
                        Value::Json(json) => format!("{name:?}:{json}"),
                        Value::Behind(bytes) => format!("{name:?}:{}", base.wrapping_add(*bytes)),
                    });
                    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
                });
                format!("[{}]", regions.collect::<Vec<_>>().join(","))
            }
            Self::Many(count) => {
                format!("[{}]", (0..*count).map(region).collect::<Vec<_>>().join(","))
            }
            Self::Repeated(count) => format!("[{{{}}}]", vec![r#""size":4096"#; *count].join(",")),
            Self::Nested(depth) => format!("{}{}", "[".repeat(*depth), "]".repeat(*depth)),
            Self::Unknown(len) => format!(r#"[{{"note":"{}"}}]"#, "x".repeat(*len)),
        }
        .into_bytes()
    }
}

impl Visit {
    /// What it says in the pieces it is sent in, none of which is empty.
    pub(crate) fn pieces<'a>(&self, body: &'a [u8]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<_> = self.cuts.iter().map(|cut| cut % body.len().max(1)).collect();
        // What comes out of band is one byte.
        cuts.extend(self.out_of_band.then(|| body.len().saturating_sub(1)));
        cuts.sort_unstable();
        let starts = [0].into_iter().chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([body.len()]);
        let pieces = starts.zip(ends).map(|(start, end)| &body[start..end]);
        pieces.filter(|piece| !piece.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_cut_without_loss() {
        let visit = |cuts, out_of_band| Visit {
            body: Body::Nested(3),
            cuts,
            sendings: Vec::new(),
            out_of_band,
            slowly: false,
            leaving: Leaving::Stay,
        };
        let body = Body::Nested(3).bytes(0);
        for (visit, lengths) in [
            (visit(vec![], false), vec![6]),
            (visit(vec![9, 3, 6, 1], false), vec![1, 2, 3]),
            (visit(vec![2], true), vec![2, 3, 1]),
        ] {
            let pieces = visit.pieces(&body);
            assert_eq!(pieces.concat(), body);
            assert_eq!(pieces.iter().map(|piece| piece.len()).collect::<Vec<_>>(), lengths);
        }
        assert_eq!(visit(vec![7], true).pieces(b""), Vec::<&[u8]>::new());
    }

    #[test]
    fn memory_of_the_peer_is_found_where_it_is() {
        let fields = vec![
            ("size".to_owned(), Value::Json("-1".to_owned())),
            ("offset".to_owned(), Value::Behind(4096)),
        ];
        let body = Body::Regions(vec![fields]).bytes(1 << 20);
        assert_eq!(body, br#"[{"size":-1,"offset":1052672}]"#);
    }
}
