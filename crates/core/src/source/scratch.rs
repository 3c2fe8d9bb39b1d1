//! Memory that look-ups may put their bytes into.

use bumpalo::Bump;

/// Buffers of a fault loop's own, for the look-ups of one plan after another. It takes up no memory
/// until a source needs it, and then as much as the longest plan.
#[derive(Debug, Default)]
pub struct Scratch(Bump);

impl Scratch {
    /// `len` zero bytes, which stay until the scratch is [cleared](Self::clear).
    pub fn bytes(&self, len: usize) -> &mut [u8] {
        self.0.alloc_slice_fill_copy(len, 0)
    }

    /// Whether nothing was ever put into it.
    #[cfg(test)]
    pub(crate) fn is_unused(&self) -> bool {
        self.0.allocated_bytes() == 0
    }

    /// Nobody needs what is in it any more.
    pub fn clear(&mut self) {
        self.0.reset();
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
            scratch.clear();
        }
        let taken = scratch.0.allocated_bytes();
        scratch.bytes(100).fill(9);
        assert_eq!(scratch.0.allocated_bytes(), taken);
    }
}
