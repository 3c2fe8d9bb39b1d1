//! Where a file has data, and where holes.

use std::fs::File;
use std::ops::Range;

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use super::HOST_PAGE;

/// The data of a file as ascending ranges of bytes that do not touch, in whole pages of the host
/// (but for the end of the file). Between them are holes, which read as zeros.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extents(Vec<Range<u64>>);

impl Extents {
    /// Asks the file system (`lseek(2)`, SEEK_DATA). One that cannot tell has only data.
    pub(super) fn of(file: &File, len: u64) -> Self {
        let seek = |offset: u64, whence| -> nix::Result<u64> {
            let at = lseek(file, i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?, whence)?;
            u64::try_from(at).map_err(|_| Errno::EOVERFLOW)
        };
        let mut extents = Self::default();
        let mut at = 0;
        while at < len {
            let start = match seek(at, Whence::SeekData) {
                Ok(start) => start.min(len),
                Err(Errno::ENXIO) => {
                    // No data follows, or no file: what was cut off meanwhile is no hole.
                    if !file.metadata().is_ok_and(|meta| meta.len() >= len) {
                        extents.push(at..len, len);
                    }
                    break;
                }
                Err(_) => at,
            };
            let end = seek(start, Whence::SeekHole).map_or(len, |end| end.min(len));
            if end > start {
                extents.push(start..end, len);
            }
            at = end.max(start + 1);
        }
        extents
    }

    /// Adds data that begins behind all there is.
    fn push(&mut self, data: Range<u64>, len: u64) {
        let start = data.start - data.start % HOST_PAGE;
        let end = data.end.next_multiple_of(HOST_PAGE).min(len);
        match self.0.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => self.0.push(start..end),
        }
    }

    /// How many bytes are data.
    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|data| data.end - data.start).sum()
    }

    /// The data that ends after `offset`, if there is any.
    pub(super) fn after(&self, offset: u64) -> Option<Range<u64>> {
        self.0.get(self.first_after(offset)).cloned()
    }

    /// The parts of `range` that are data.
    pub(super) fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let Range { start, end } = range;
        self.0[self.first_after(start)..]
            .iter()
            .take_while(move |data| data.start < end)
            .map(move |data| data.start.max(start)..data.end.min(end))
    }

    fn first_after(&self, offset: u64) -> usize {
        self.0.partition_point(|data| data.end <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    const LEN: u64 = 64 * HOST_PAGE;

    fn extents(data: &[Range<u64>]) -> Extents {
        let mut extents = Extents::default();
        data.iter().for_each(|data| extents.push(data.clone(), LEN + 100));
        extents
    }

    #[test]
    fn data_is_counted_in_whole_pages_and_what_touches_is_one() {
        let found = extents(&[100..200, 4096..5000, 8192 + 1024..8192 + 2048, 20480..LEN + 100]);
        assert_eq!(found.0, [0..3 * HOST_PAGE, 20480..LEN + 100]);
        assert_eq!(found.bytes(), 3 * HOST_PAGE + LEN + 100 - 20480);
    }

    #[test]
    fn parts_are_clipped_to_what_is_asked_for() {
        let found = extents(&[4096..8192, 16384..32768]);
        let within = |range| found.within(range).collect::<Vec<_>>();
        assert_eq!(within(0..4096), []);
        assert_eq!(within(0..LEN), [4096..8192, 16384..32768]);
        assert_eq!(within(4096..20480), [4096..8192, 16384..20480]);
        assert_eq!(within(6144..20480), [6144..8192, 16384..20480]);
        assert_eq!(within(32768..LEN), []);
        assert_eq!((found.after(8191), found.after(8192)), (Some(4096..8192), Some(16384..32768)));
        assert_eq!(found.after(32768), None);
    }

    #[test]
    fn the_file_system_knows_the_holes() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.set_len(LEN).unwrap();
        assert_eq!(Extents::of(&file, LEN), Extents::default());
        file.write_all_at(&[7; 4096], 8 * HOST_PAGE).unwrap();
        file.write_all_at(&[7; 8192], 32 * HOST_PAGE).unwrap();
        let expected = [8 * HOST_PAGE..9 * HOST_PAGE, 32 * HOST_PAGE..34 * HOST_PAGE];
        assert_eq!(Extents::of(&file, LEN).0, expected);
    }

    #[test]
    fn what_a_file_no_longer_has_is_no_hole() {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.set_len(LEN / 2).unwrap();
        assert_eq!(Extents::of(&file, LEN), extents(&[0..LEN, LEN..LEN]));
        file.write_all_at(&[7; 4096], 8 * HOST_PAGE).unwrap();
        assert_eq!(
            Extents::of(&file, LEN),
            extents(&[8 * HOST_PAGE..9 * HOST_PAGE, 9 * HOST_PAGE..LEN])
        );
    }
}
