//! Reading what the page cache has of a file, and nothing else.

use std::fs::File;
use std::io::IoSliceMut;

use rustix::io::{Errno, ReadWriteFlags, preadv2};

/// Fills a start of `buffer` with what the page cache has of `file` from `offset` on, without
/// waiting for a device (`preadv2(2)`, RWF_NOWAIT), and says how many bytes that are: none where
/// the first is not in the page cache, cannot be read or lies behind the file's end. `None` where
/// the file system cannot do it.
///
/// What is given was in the file at that moment: no byte behind its end is ever made up. If the
/// first page is not in the page cache the kernel begins to read what was asked for; that waits
/// only where the device takes no more requests, or where it is not known yet where on the device
/// the page lies.
pub fn read_cached(file: &File, offset: u64, buffer: &mut [u8]) -> Option<usize> {
    match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT) {
        Ok(count) => Some(count),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => None,
        Err(_) => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    const PAGE: usize = 4096;

    #[test]
    fn only_what_is_in_the_page_cache_is_read_and_nothing_behind_the_end() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&[7; 8 * PAGE]).unwrap();
        file.sync_all().unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        let mut buffer = [1; 4 * PAGE];
        assert_eq!(read_cached(&file, 0, &mut buffer), Some(0));
        assert_eq!(buffer, [1; 4 * PAGE]);

        file.read_exact_at(&mut [0; 2 * PAGE], 4 * PAGE as u64).unwrap();
        assert_eq!(read_cached(&file, 4 * PAGE as u64, &mut buffer), Some(2 * PAGE));
        assert_eq!(
            (&buffer[..2 * PAGE], &buffer[2 * PAGE..]),
            (&[7; 2 * PAGE][..], &[1; 2 * PAGE][..])
        );

        file.set_len(5 * PAGE as u64 + 100).unwrap();
        assert_eq!(read_cached(&file, 4 * PAGE as u64, &mut buffer), Some(PAGE + 100));
        assert_eq!(read_cached(&file, 6 * PAGE as u64, &mut buffer), Some(0));
    }
}
