//! Memory that look-ups may put their bytes into.

use std::time::Instant;

use bumpalo::Bump;

/// Buffers of a fault loop's own, for the look-ups of one plan after another. It takes up no memory
/// until a source needs it, and then as much as the longest plan.
#[derive(Debug, Default)]
pub struct Scratch {
    memory: Bump,
    /// When the plan was begun.
    at: Option<Instant>,
}

impl Scratch {
    /// `len` zero bytes, which stay until the next plan [begins](Self::begin).
    pub fn bytes(&self, len: usize) -> &mut [u8] {
        self.memory.alloc_slice_fill_copy(len, 0)
    }

    /// Whether nothing was ever put into it.
    #[cfg(test)]
    pub(crate) fn is_unused(&self) -> bool {
        self.memory.allocated_bytes() == 0
    }

    /// Another plan begins at this time: nobody needs what is in it any more.
    pub fn begin(&mut self, at: Instant) {
        self.memory.reset();
        self.at = Some(at);
    }

    /// When the look-ups of this plan began: they ask no clock of their own.
    pub fn now(&self) -> Instant {
        self.at.unwrap_or_else(Instant::now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_apart_and_their_memory_is_used_again() {
        let mut scratch = Scratch::default();
        for _ in 0..3 {
            let (one, other) = (scratch.bytes(10), scratch.bytes(20));
            one.fill(7);
            other.fill(8);
            assert_eq!((&*one, &*other), (&[7; 10][..], &[8; 20][..]));
            scratch.begin(Instant::now());
        }
        let taken = scratch.memory.allocated_bytes();
        scratch.bytes(100).fill(9);
        assert_eq!(scratch.memory.allocated_bytes(), taken);
    }
}
