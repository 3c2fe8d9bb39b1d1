//! Which snapshot a trace belongs to: told from a few megabytes of a file of any size.
//!
//! An identity is a length, a page size and a fingerprint of sampled contents. It does not depend
//! on the file's name, times, inode or holes, so a copy has the identity of its original. Two
//! files of one length that differ only outside the samples are not told apart: replaying the
//! trace of one on the other installs pages that are of less use, and never a wrong byte.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use thiserror::Error;
use twox_hash::XxHash3_128;

use super::file::TraceError;
use crate::source::FileSource;
use crate::units::PageSize;

/// Bytes of one sample.
const SAMPLE: u64 = 4096;

/// Samples of a file; a file with no more blocks than this is read whole.
const SAMPLES: u64 = 1024;

/// The XXH3-128 of a snapshot's samples; 32 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("a fingerprint has 32 hexadecimal digits, and {0:?} is not that")]
pub struct NotAFingerprint(String);

impl FromStr for Fingerprint {
    type Err = NotAFingerprint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(number) if is_hex => Ok(Self(number.to_be_bytes())),
            _ => Err(NotAFingerprint(text.chars().take(40).collect())),
        }
    }
}

/// Which snapshot, seen in pages of which size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotId {
    /// The length of the memory file in bytes.
    pub length: u64,
    /// The page size of its guests: page numbers of another size mean other bytes.
    pub page_size: PageSize,
    /// What the samples hold.
    pub fingerprint: Fingerprint,
}

impl SnapshotId {
    /// The identity of the memory file at `path`. Reads at most 4 MiB, whatever its size.
    pub fn of_path(path: &Path, page_size: PageSize) -> Result<Self, TraceError> {
        let failed = |cause| TraceError::Snapshot { path: path.to_owned(), cause };
        let file = super::file::open_regular(path).map_err(failed)?;
        Self::of_file(&file, page_size).map_err(failed)
    }

    /// The identity of an open memory file. Reads at most 4 MiB, with `pread`; neither the file's
    /// position nor a mapping of it is touched.
    pub fn of_file(file: &File, page_size: PageSize) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { length, page_size, fingerprint: fingerprint(file, length)? })
    }

    /// The identity of the very file that is being served, whatever is at its path by now.
    pub fn of_source(source: &FileSource, page_size: PageSize) -> io::Result<Self> {
        Self::of_file(source.file(), page_size)
    }

    /// The same snapshot for guests with pages of another size.
    pub const fn with_page_size(self, page_size: PageSize) -> Self {
        Self { page_size, ..self }
    }

    /// How many pages the snapshot has. The last may be a part of one.
    pub const fn page_count(&self) -> u64 {
        self.length.div_ceil(self.page_size.bytes())
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { length, page_size, fingerprint } = self;
        write!(f, "{length} bytes in pages of {page_size}, fingerprint {fingerprint}")
    }
}

/// A trace was recorded on another snapshot than the one it is to be used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{}", self.explained())]
pub struct WrongSnapshot {
    /// The snapshot the trace was recorded on.
    pub recorded: SnapshotId,
    /// The snapshot it was to be used with.
    pub given: SnapshotId,
}

impl WrongSnapshot {
    /// A code that stays the same whatever the message says.
    pub const fn code(&self) -> &'static str {
        "ERR_UFFD_TRACE_WRONG_SNAPSHOT"
    }

    /// Follows "the trace was".
    fn explained(&self) -> String {
        const WAY_OUT: &str = "record a trace of this one, or use the snapshot it belongs to";
        let Self { recorded, given } = self;
        if recorded.length != given.length {
            let (there, here) = (recorded.length, given.length);
            format!("recorded on a snapshot of {there} bytes, not of {here}: {WAY_OUT}")
        } else if recorded.page_size != given.page_size {
            let (there, here) = (recorded.page_size, given.page_size);
            format!(
                "recorded with pages of {there}, and pages are of {here} here, so its page numbers \
                 mean other memory: record a trace of a guest with such pages"
            )
        } else {
            let (there, here) = (recorded.fingerprint, given.fingerprint);
            format!(
                "recorded on a snapshot with other contents (fingerprint {there}, not {here}): \
                 {WAY_OUT}"
            )
        }
    }
}

fn fingerprint(file: &File, length: u64) -> io::Result<Fingerprint> {
    // All of them are announced before the first is waited for: a cold disk works on many.
    for offset in samples(length) {
        if let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(SAMPLE)) {
            let _ = posix_fadvise(file, offset, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }
    let mut hash = XxHash3_128::new();
    let mut buffer = [0; 4096];
    for offset in samples(length) {
        let len = usize::try_from(SAMPLE.min(length - offset)).map_err(io::Error::other)?;
        file.read_exact_at(&mut buffer[..len], offset)?;
        hash.write(&buffer[..len]);
    }
    Ok(Fingerprint(hash.finish_128().to_be_bytes()))
}

/// Where the samples of a file start: every block of a small file, and one block out of each of
/// 1024 parts of a large one, at a place in its part that repeats no pattern of the contents.
fn samples(length: u64) -> impl Iterator<Item = u64> {
    let blocks = length.div_ceil(SAMPLE);
    let parts = blocks.min(SAMPLES);
    (0..parts).map(move |part| {
        let start = part * blocks / parts;
        let end = (part + 1) * blocks / parts;
        (start + mix(part) % (end - start)) * SAMPLE
    })
}

/// SplitMix64: the same well spread number for the same input, for ever.
const fn mix(number: u64) -> u64 {
    let z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A file of `len` bytes in which every eight are different.
    fn file_of(len: u64) -> File {
        let bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|at| mix(at).to_le_bytes()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes[..usize::try_from(len).unwrap()]).unwrap();
        file
    }

    fn id(file: &File) -> SnapshotId {
        SnapshotId::of_file(file, PageSize::Small).unwrap()
    }

    #[test]
    fn the_fingerprint_of_version_1_stays_what_it_is() {
        let known = [
            (1, "958490fdfb25cf9e56c67cd7bde2aa02"),
            (10_000, "8a6a3f6d9c84ec2b8ce66e2bb17b8fda"),
            (4 << 20, "0da9c5153b5233dfd985bccabd0de2ed"),
            ((9 << 20) + 17, "0575f59456d2968451194f04eae6d61e"),
        ];
        let found = known.map(|(len, _)| (len, id(&file_of(len)).fingerprint.to_string()));
        assert_eq!(found, known.map(|(len, text)| (len, text.to_owned())));
    }

    #[test]
    fn a_small_file_is_read_whole() {
        let file = file_of(40_000);
        let before = id(&file);
        for at in [0, 4095, 4096, 20_000, 39_999] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[!byte[0]], at).unwrap();
            assert_ne!(id(&file), before, "byte {at}");
            file.write_all_at(&byte, at).unwrap();
        }
        assert_eq!(id(&file), before);
    }

    #[test]
    fn samples_are_apart_aligned_and_in_order_at_any_length() {
        for length in [0, 1, 4096, 4097, 4 << 20, (4 << 20) + 1, 1 << 32, (1 << 44) + 5, 1 << 53] {
            let all: Vec<u64> = samples(length).collect();
            assert_eq!(all.len() as u64, length.div_ceil(SAMPLE).min(SAMPLES));
            assert!(all.iter().all(|at| at % SAMPLE == 0 && *at < length), "{length}");
            assert!(all.windows(2).all(|two| two[0] < two[1]), "{length}");
            // No part of the file longer than two of 1024 goes unseen.
            let longest = all.windows(2).map(|two| two[1] - two[0]).max().unwrap_or(0);
            assert!(longest <= 2 * length.div_ceil(SAMPLES).next_multiple_of(SAMPLE), "{length}");
        }
    }

    #[test]
    fn a_copy_with_other_holes_and_another_name_is_the_same_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let (sparse, full) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&sparse).unwrap();
        file.set_len(8 << 20).unwrap();
        file.write_all_at(&[7; 1 << 20], 5 << 20).unwrap();
        std::fs::write(&full, std::fs::read(&sparse).unwrap()).unwrap();
        let of = |path| SnapshotId::of_path(path, PageSize::Small).unwrap();
        assert_eq!(of(&sparse), of(&full));
        file.write_all_at(&[8; 1 << 20], 5 << 20).unwrap();
        assert_ne!(of(&sparse), of(&full));
    }

    #[test]
    fn an_enormous_sparse_file_costs_no_more_than_its_samples() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 42).unwrap();
        assert_eq!(id(&file).page_count(), 1 << 30);
        assert_ne!(id(&file).fingerprint, Fingerprint([0; 16]));
    }

    #[test]
    fn what_is_no_snapshot_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for (path, why) in
            [(dir.path().to_owned(), "directory"), (dir.path().join("no"), "No such")]
        {
            let error = SnapshotId::of_path(&path, PageSize::Small).unwrap_err();
            assert_eq!(error.code(), "ERR_UFFD_TRACE_SNAPSHOT");
            let text = error.to_string();
            assert!(text.contains(path.to_str().unwrap()) && text.contains(why), "{text}");
        }
    }

    #[test]
    fn a_fingerprint_is_read_back_from_its_text() {
        let fingerprint = id(&file_of(100)).fingerprint;
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        for text in ["", "+0000000000000000000000000000000", "é", &"0".repeat(33)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
