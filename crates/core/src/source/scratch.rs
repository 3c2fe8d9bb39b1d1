//! Memory that a look-up may put its bytes into.

/// A buffer of a fault loop's own, used again by one look-up after another. It takes up no memory
/// until a source needs it, and then as much as the longest answer.
#[derive(Debug, Default)]
pub struct Scratch(Vec<u8>);

impl Scratch {
    /// `len` bytes with anything in them. Allocates only if there were never so many before.
    pub fn bytes(&mut self, len: usize) -> &mut [u8] {
        if self.0.len() < len {
            // Nothing of the old contents is worth copying.
            self.0 = vec![0; len];
        }
        &mut self.0[..len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_once_and_is_used_again() {
        let mut scratch = Scratch::default();
        scratch.bytes(10).fill(7);
        let first = scratch.bytes(10).as_ptr();
        assert_eq!(scratch.bytes(3), [7; 3]);
        assert_eq!(scratch.bytes(10).as_ptr(), first);
        assert_eq!(scratch.bytes(20).len(), 20);
    }
}
