//! The snapshot file: a guest's memory, as Firecracker would have written it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::pattern::Pattern;

/// How the zero pages of a pattern are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroPages {
    /// As holes of a sparse file.
    #[default]
    Holes,
    /// As zeros on disk, which a reader can only find by looking.
    Data,
}

/// Writes `pages` pages of `pattern` to `path`, replacing what is there.
pub fn create(path: &Path, pattern: &Pattern, pages: u64, zeros: ZeroPages) -> io::Result<()> {
    let file = File::create(path)?;
    file.set_len(pages * pattern.page_size)?;

    let chunk = (CHUNK / pattern.page_size).max(1);
    let mut bytes = Vec::new();
    let mut page = 0;
    while page < pages {
        let hole = zeros == ZeroPages::Holes && pattern.is_zero(page);
        let end = pages.min(page + chunk);
        let run = (page..end)
            .take_while(|&page| (zeros == ZeroPages::Holes && pattern.is_zero(page)) == hole)
            .count() as u64;
        if !hole {
            let len = usize::try_from(run * pattern.page_size).map_err(io::Error::other)?;
            bytes.resize(len, 0);
            pattern.fill(page * pattern.page_size, &mut bytes);
            file.write_all_at(&bytes, page * pattern.page_size)?;
        }
        page += run;
    }
    Ok(())
}

/// Bytes written at once.
const CHUNK: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn written(zeros: ZeroPages) -> (Pattern, Vec<u8>, u64) {
        let pattern = Pattern::new(1, 4096).with_zero_runs(500);
        let file = tempfile::NamedTempFile::new().unwrap();
        create(file.path(), &pattern, 1000, zeros).unwrap();
        let blocks = file.as_file().metadata().unwrap().blocks();
        (pattern, std::fs::read(file.path()).unwrap(), blocks * 512)
    }

    #[test]
    fn the_file_has_the_bytes_of_the_pattern() {
        for zeros in [ZeroPages::Holes, ZeroPages::Data] {
            let (pattern, bytes, _) = written(zeros);
            let mut expected = vec![1; 1000 * 4096];
            pattern.fill(0, &mut expected);
            assert!(bytes == expected);
        }
    }

    #[test]
    fn holes_take_no_room() {
        let (pattern, _, allocated) = written(ZeroPages::Holes);
        let data = (0..1000).filter(|&page| !pattern.is_zero(page)).count() as u64 * 4096;
        assert!(data < 1000 * 4096 && allocated <= data + 65536, "{allocated} of {data}");
        let (_, _, allocated) = written(ZeroPages::Data);
        assert!(allocated >= 1000 * 4096);
    }
}
