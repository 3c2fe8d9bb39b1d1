//! Where the message ends. A stream has no borders, so the end of the array is the only sign that
//! all of it is there.

/// Looks for the end of a JSON array in bytes that come in pieces, at each byte once.
#[derive(Debug, Default)]
pub(super) struct Framing {
    state: State,
    depth: usize,
    seen: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Before,
    Between,
    Text,
    Escape,
    Ended(usize),
    NotArray(u8),
}

/// What the bytes so far amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Frame {
    /// The array goes on, or has not begun.
    #[default]
    Open,
    /// The array takes this many bytes from the start, spaces before it included.
    Ends(usize),
    /// Something else begins, with this byte.
    NotArray(u8),
}

impl Framing {
    /// Takes the next bytes of the message.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Frame {
        for &byte in piece {
            self.seen += 1;
            self.state = self.after(byte);
        }
        match self.state {
            State::Ended(at) => Frame::Ends(at),
            State::NotArray(byte) => Frame::NotArray(byte),
            _ => Frame::Open,
        }
    }

    /// Only nesting matters here; whether brackets match is for the parser to say.
    fn after(&mut self, byte: u8) -> State {
        match (self.state, byte) {
            (State::Before, b'[') => {
                self.depth = 1;
                State::Between
            }
            (State::Before, _) if is_space(byte) => State::Before,
            (State::Before, _) => State::NotArray(byte),
            (State::Between, b'[' | b'{') => {
                self.depth += 1;
                State::Between
            }
            (State::Between, b']' | b'}') => {
                self.depth -= 1;
                if self.depth == 0 { State::Ended(self.seen) } else { State::Between }
            }
            (State::Between, b'"') => State::Text,
            (State::Text, b'"') => State::Between,
            (State::Text, b'\\') => State::Escape,
            (State::Escape, _) => State::Text,
            (state, _) => state,
        }
    }
}

/// The four bytes JSON takes for white space.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Frame {
        Framing::default().feed(bytes)
    }

    #[test]
    fn an_array_ends_at_its_own_bracket() {
        assert_eq!(frame(b"[]"), Frame::Ends(2));
        assert_eq!(frame(b" \n[[1],{\"a\":[2]}] "), Frame::Ends(17));
        assert_eq!(frame(b"[]]"), Frame::Ends(2));
    }

    #[test]
    fn brackets_in_text_do_not_count() {
        assert_eq!(frame(br#"["]"]"#), Frame::Ends(5));
        assert_eq!(frame(br#"["\"]"]"#), Frame::Ends(7));
        assert_eq!(frame(br#"["\\"]"#), Frame::Ends(6));
        assert_eq!(frame(br#"["\\"#), Frame::Open);
    }

    #[test]
    fn what_is_no_array_is_known_from_its_first_byte() {
        assert_eq!(frame(b""), Frame::Open);
        assert_eq!(frame(b" \t\r\n"), Frame::Open);
        assert_eq!(frame(b" {"), Frame::NotArray(b'{'));
        assert_eq!(frame(b"]"), Frame::NotArray(b']'));
        assert_eq!(frame(b"\0[]"), Frame::NotArray(0));
    }

    #[test]
    fn pieces_make_no_difference() {
        let whole = br#" [{"a\"]":"[\\","b":[{}]}] x"#;
        for first in 0..=whole.len() {
            let mut framing = Framing::default();
            framing.feed(&whole[..first]);
            assert_eq!(framing.feed(&whole[first..]), Frame::Ends(whole.len() - 2), "{first}");
        }
    }
}
