//! What a source fetched: zeros, or bytes that somebody keeps for as long as they are needed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::Chunk;

/// The contents of some pages. Cloning it copies no bytes: whoever keeps them (a buffer, a block
/// of a cache) can let go of them once the last clone is dropped.
#[derive(Clone)]
pub struct Piece {
    content: Content,
    len: u64,
}

#[derive(Clone)]
enum Content {
    Zeros,
    Bytes { keeper: Arc<dyn AsRef<[u8]> + Send + Sync>, start: usize },
}

impl Piece {
    /// So many zeros, which take up no memory.
    pub const fn zeros(len: u64) -> Self {
        Self { content: Content::Zeros, len }
    }

    /// A part of what `keeper` has. Panics if it has not got so much.
    pub fn part_of(keeper: Arc<dyn AsRef<[u8]> + Send + Sync>, part: Range<usize>) -> Self {
        let kept = (*keeper).as_ref().len();
        assert!(part.start <= part.end && part.end <= kept, "{part:?} of {kept} bytes");
        let len = part.len() as u64;
        Self { content: Content::Bytes { keeper, start: part.start }, len }
    }

    /// How many bytes it is about.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is about nothing, which no source may answer.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes of memory it keeps in use.
    pub const fn kept(&self) -> u64 {
        match self.content {
            Content::Zeros => 0,
            Content::Bytes { .. } => self.len,
        }
    }

    /// Its first `len` bytes, or all where there are fewer.
    #[must_use]
    pub fn first(self, len: u64) -> Self {
        Self { len: self.len.min(len), ..self }
    }

    /// What the pages from byte `from` on hold, of `page` bytes each, as far as they are alike and
    /// at most `len` bytes. Bytes at hand are worth a look: pages of zeros take no memory in the
    /// guest.
    pub fn chunk(&self, from: u64, len: u64, page: u64) -> Chunk<'_> {
        let len = len.min(self.len.saturating_sub(from));
        let (Content::Bytes { keeper, start }, true) = (&self.content, len > 0) else {
            return Chunk::Zeros(len);
        };
        let bytes = &(**keeper).as_ref()[start + to_usize(from)..][..to_usize(len)];
        let mut pages = bytes.chunks(to_usize(page)).map(is_zero);
        let zeros = pages.next() == Some(true);
        let more = pages.take_while(|zero| *zero == zeros).count() as u64;
        let alike = len.min((1 + more) * page);
        if zeros { Chunk::Zeros(alike) } else { Chunk::Ready(bytes[..to_usize(alike)].into()) }
    }
}

impl From<Vec<u8>> for Piece {
    fn from(bytes: Vec<u8>) -> Self {
        let all = 0..bytes.len();
        Self::part_of(Arc::new(bytes), all)
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.kept() == 0 { "zeros" } else { "bytes" };
        write!(f, "{} {what}", self.len)
    }
}

fn is_zero(page: &[u8]) -> bool {
    // The first line decides for nearly every page with data in it; lines are vector code.
    page.chunks(64).all(|line| line.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Lengths of fetched bytes fit in memory.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("fetched bytes fit in memory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Runs of pages, as (zeros, bytes).
    fn runs(piece: &Piece, page: u64) -> Vec<(bool, u64)> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < piece.len() {
            let chunk = piece.chunk(at, u64::MAX, page);
            runs.push((matches!(chunk, Chunk::Zeros(_)), chunk.len()));
            at += chunk.len();
        }
        runs
    }

    #[test]
    fn pages_of_zeros_are_told_from_others() {
        let mut bytes = vec![0; 60];
        // The last byte of its page, and another.
        (bytes[19], bytes[39]) = (1, 1);
        assert_eq!(
            runs(&bytes.into(), 10),
            [(true, 10), (false, 10), (true, 10), (false, 10), (true, 20)]
        );
        assert_eq!(runs(&Piece::zeros(30), 10), [(true, 30)]);
        assert_eq!(runs(&vec![1; 30].into(), 10), [(false, 30)]);
    }

    #[test]
    fn a_chunk_is_no_longer_than_asked_for_and_than_the_piece() {
        let piece = Piece::from(vec![1; 40]);
        let len = |from, len| piece.chunk(from, len, 10).len();
        assert_eq!(
            [len(0, 20), len(20, 100), len(30, 10), len(40, 10), len(99, 10)],
            [20, 20, 10, 0, 0]
        );
        assert_eq!(piece.first(20).chunk(10, 30, 10).len(), 10);
        assert_eq!(Piece::zeros(20).chunk(10, 30, 10).len(), 10);
    }

    struct Block(Vec<u8>, Arc<AtomicBool>);

    impl AsRef<[u8]> for Block {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Block {
        fn drop(&mut self) {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_keeps_the_bytes_is_let_go_with_the_last_clone() {
        let gone = Arc::new(AtomicBool::new(false));
        let block = Arc::new(Block([[0; 10], [1; 10]].concat(), Arc::clone(&gone)));
        let (one, other) = (Piece::part_of(block.clone(), 10..20), Piece::part_of(block, 0..10));
        assert_eq!((runs(&one, 10), runs(&other, 10)), (vec![(false, 10)], vec![(true, 10)]));
        drop(other);
        let clone = one.clone();
        drop(one);
        assert!(!gone.load(Ordering::Relaxed));
        assert_eq!((clone.len(), clone.kept(), Piece::zeros(10).kept()), (10, 10, 0));
        drop(clone);
        assert!(gone.load(Ordering::Relaxed));
    }

    #[test]
    #[should_panic(expected = "5..11 of 10 bytes")]
    fn a_part_that_is_not_there_is_refused() {
        Piece::part_of(Arc::new(vec![0; 10]), 5..11);
    }
}
