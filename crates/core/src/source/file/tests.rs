use std::time::Duration;

use super::*;
use nix::unistd::{Uid, setfsuid};

const PAGE: u64 = HOST_PAGE;
const HUGE: u64 = 2 << 20;

/// A file on a device, with other bytes in every page.
struct Snapshot {
    /// Opened by its owner.
    file: File,
    path: tempfile::TempPath,
}

impl Snapshot {
    fn of(pages: u64) -> Self {
        Self::sparse(pages, 0..pages)
    }

    /// Has data in `data` and holes elsewhere.
    fn sparse(pages: u64, data: impl IntoIterator<Item = u64>) -> Self {
        let file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.as_file().set_len(pages * PAGE).unwrap();
        for page in data {
            file.as_file().write_all_at(&contents(page), page * PAGE).unwrap();
        }
        file.as_file().sync_all().unwrap();
        // Anybody may read it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o444);
        file.as_file().set_permissions(mode).unwrap();
        let (file, path) = file.into_parts();
        Self { file, path }
    }

    fn open(&self) -> FileSource {
        FileSource::open(&self.path).unwrap()
    }

    fn evict(&self) {
        posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).unwrap();
    }

    /// Reads pages as anybody might who has it in use.
    fn warm(&self, pages: Range<u64>) {
        let file = File::open(&self.path).unwrap();
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
        for page in pages {
            file.read_exact_at(&mut [0], page * PAGE).unwrap();
        }
    }

    fn resident(&self, pages: Range<u64>) -> u64 {
        let len = to_usize(self.file.metadata().unwrap().len());
        let map = FileMap::new(&self.file, len).unwrap();
        pages.filter(|page| map.resident(to_usize(page * PAGE), 4096) > 0).count() as u64
    }

    fn set_len(&self, len: u64) {
        self.file.set_len(len).unwrap();
    }
}

fn contents(page: u64) -> Vec<u8> {
    vec![u8::try_from(page % 251 + 1).unwrap(); to_usize(PAGE)]
}

/// Runs as a user who may read the snapshot, and is not told what of it is in the page cache.
fn as_another_user(run: impl FnOnce() + Send) {
    assert!(nix::unistd::geteuid().is_root(), "this test changes its user");
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            setfsuid(Uid::from_raw(65534));
            run();
        });
        if let Err(panic) = other.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn small(first: u64, pages: u64) -> Want {
    Want { offset: first * PAGE, len: pages * PAGE, page: PAGE }
}

/// What a look-up says, in pages: 'z'eros, 'm'apped, 'r'ead or 'a'bsent.
fn look(source: &FileSource, want: Want) -> (char, u64) {
    let (found, len, _) = look_at(source, want);
    (found, len)
}

/// As [`look`], with the bytes.
fn look_at(source: &FileSource, want: Want) -> (char, u64, Vec<u8>) {
    let scratch = Scratch::default();
    let chunk = source.lookup(want, &scratch);
    let (found, bytes) = match chunk {
        Chunk::Zeros(_) => ('z', Vec::new()),
        Chunk::Absent(_) => ('a', Vec::new()),
        // Bytes of the mapping are not in the scratch.
        Chunk::Ready(bytes) if scratch.is_unused() => ('m', bytes.to_vec()),
        Chunk::Ready(bytes) => ('r', bytes.to_vec()),
    };
    (found, chunk.len() / PAGE, bytes)
}

/// Waits until something holds, which nobody tells.
fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// Waits until the source has noticed that a page is lost; it looks from time to time.
fn until_absent(source: &FileSource, want: Want) {
    until("a page to be absent", || look(source, want).0 == 'a');
}

#[test]
fn what_is_in_the_page_cache_is_given_and_stays_there() {
    let snapshot = Snapshot::of(64);
    let source = snapshot.open();
    snapshot.evict();
    assert_eq!(look(&source, small(0, 64)), ('a', 64));
    snapshot.warm(0..20);
    assert_eq!(look(&source, small(0, 64)), ('m', 20));
    assert_eq!(look(&source, small(19, 2)), ('m', 1));
    assert_eq!(look(&source, small(20, 1)), ('a', 1));
    // Whatever was given is in our page table: only the kernel itself can evict it.
    snapshot.evict();
    assert_eq!(snapshot.resident(0..20), 20);
    assert_eq!(look(&source, small(0, 16)), ('m', 16));
    snapshot.warm(20..64);
    assert_eq!(look(&source, small(0, 64)), ('m', 64));
    assert_eq!(look(&source, small(63, 1)), ('m', 1));
}

/// It is taken from the page cache, and costs nobody the time to map what lies around it.
#[test]
fn the_first_page_of_a_chunk_is_read_and_the_second_maps() {
    let snapshot = Snapshot::of(64);
    let source = snapshot.open();
    for page in [3, 20] {
        let (found, pages, bytes) = look_at(&source, small(page, 1));
        assert_eq!((found, pages), ('r', 1));
        assert!(bytes == contents(page), "stale or wrong bytes");
    }
    until("all to be evicted", || {
        snapshot.evict();
        snapshot.resident(0..64) == 0
    });
    // What was read once is not taken to be there still.
    assert_eq!(look(&source, small(3, 1)), ('a', 1));
    snapshot.warm(0..64);
    assert_eq!(look(&source, small(4, 1)), ('m', 1));
    assert_eq!(look(&source, small(40, 2)), ('m', 2));
}

/// Neither its bytes nor those behind it are given.
#[test]
fn a_first_page_that_is_not_in_the_page_cache_is_absent_and_not_begun_to_be_read() {
    let snapshot = Snapshot::of(64);
    let source = snapshot.open();
    snapshot.evict();
    for page in [3, 20, 40] {
        assert_eq!(look(&source, small(page, 1)), ('a', 1));
    }
    assert_eq!(snapshot.resident(0..64), 0);
    snapshot.warm(3..4);
    assert_eq!(look(&source, small(3, 1)), ('r', 1));
}

/// What the kernel maps around a page is learned of the page table, and nothing else is taken for
/// mapped.
#[test]
fn a_single_page_brings_what_the_page_cache_has_around_it_and_no_more_is_believed() {
    let snapshot = Snapshot::of(64);
    let source = snapshot.open();
    snapshot.evict();
    snapshot.warm(0..8);
    snapshot.warm(9..64);
    assert_eq!(look(&source, small(5, 1)), ('r', 1));
    assert_eq!(look(&source, small(3, 1)), ('m', 1));
    assert!(!source.residency.was_there(16 * PAGE), "more than a chunk was mapped");
    snapshot.evict();
    // Pages around it that were mapped with it stay, and all others have to be read again.
    for page in (0..8).chain(9..16) {
        let (found, resident) =
            (look(&source, small(page, 1)).0, snapshot.resident(page..page + 1));
        assert_eq!((found == 'm', resident), (resident == 1, resident), "page {page}");
    }
    assert_eq!(look(&source, small(3, 1)), ('m', 1));
    assert_eq!(look(&source, small(8, 1)), ('a', 1));
    assert_eq!(look(&source, small(20, 1)), ('a', 1));
}

/// A page that is in no page table is evicted behind the back of whoever has asked for others.
#[test]
fn a_page_that_was_not_mapped_is_not_taken_to_be_there() {
    let snapshot = Snapshot::of(16);
    let source = snapshot.open();
    snapshot.evict();
    snapshot.warm(2..3);
    assert_eq!(look(&source, small(2, 1)), ('r', 1));
    assert_eq!(look(&source, small(2, 1)), ('m', 1));
    snapshot.warm(5..6);
    snapshot.evict();
    assert_eq!(look(&source, small(5, 1)), ('a', 1));
    snapshot.warm(5..9);
    assert_eq!(look(&source, small(5, 4)), ('m', 4));
    assert_eq!(look(&source, small(2, 7)), ('m', 1));
    snapshot.evict();
    assert_eq!(snapshot.resident(0..16), 5);
}

#[test]
fn a_huge_page_is_given_as_a_whole_or_not_at_all() {
    let snapshot = Snapshot::of(1024);
    let source = snapshot.open();
    let (first, both) =
        (Want { offset: 0, len: HUGE, page: HUGE }, Want { offset: 0, len: 2 * HUGE, page: HUGE });
    snapshot.evict();
    snapshot.warm(0..511);
    assert_eq!(look(&source, both), ('a', 1024));
    snapshot.warm(511..1000);
    assert_eq!(look(&source, both), ('m', 512));
    snapshot.evict();
    assert_eq!(snapshot.resident(0..512), 512);
    assert_eq!(look(&source, first), ('m', 512));
    snapshot.warm(0..1024);
    assert_eq!(look(&source, both), ('m', 1024));
}

#[test]
fn what_is_prepared_is_mapped_and_nothing_is_read_for_it() {
    let snapshot = Snapshot::sparse(1024, (0..300).chain(400..1024));
    let source = snapshot.open();
    snapshot.evict();
    source.prepare(0, 2 * HUGE);
    assert_eq!(snapshot.resident(0..1024), 0);
    snapshot.warm(0..300);
    snapshot.warm(400..512);
    source.prepare(0, 2 * HUGE);
    snapshot.evict();
    let resident = [0..300, 300..400, 400..512, 512..1024].map(|pages| snapshot.resident(pages));
    assert_eq!(resident, [300, 0, 112, 0]);
    assert_eq!(look(&source, small(0, 300)), ('m', 300));
}

#[test]
fn holes_are_zeros_and_take_up_no_page_cache() {
    let snapshot = Snapshot::sparse(64, (8..16).chain(40..64));
    let source = snapshot.open();
    assert_eq!(source.data_bytes(), 32 * PAGE);
    assert_eq!(look(&source, small(0, 64)), ('z', 8));
    assert_eq!(look(&source, small(8, 56)), ('m', 8));
    assert_eq!(look(&source, small(16, 48)), ('z', 24));
    source.will_need(0, 64 * PAGE);
    source.will_need_around(20 * PAGE, PAGE);
    assert_eq!((snapshot.resident(0..8), snapshot.resident(16..40)), (0, 0));
    let piece = source.fetch(small(0, 8)).unwrap();
    assert_eq!((piece.len(), piece.kept()), (8 * PAGE, 0));
    let piece = source.fetch(small(4, 8)).unwrap();
    assert!(matches!(piece.chunk(0, u64::MAX, PAGE), Chunk::Zeros(len) if len == 4 * PAGE));
    assert!(
        matches!(piece.chunk(4 * PAGE, u64::MAX, PAGE), Chunk::Ready(bytes) if bytes.len() == 4 * PAGE)
    );
}

/// Its holes would become pages in the page cache if they were copied from the mapping.
#[test]
fn a_huge_page_with_holes_is_put_together() {
    let data = || (3..5).chain(100..200).chain(512..1024);
    let snapshot = Snapshot::sparse(1536, data());
    let source = snapshot.open();
    let huge = |page| Want { offset: page * HUGE, len: HUGE, page: HUGE };
    snapshot.evict();
    assert_eq!(look(&source, huge(0)), ('a', 512));
    snapshot.warm(3..5);
    snapshot.warm(100..199);
    assert_eq!(look(&source, huge(0)), ('a', 512));
    snapshot.warm(199..200);
    let (found, pages, bytes) = look_at(&source, huge(0));
    assert_eq!((found, pages), ('r', 512));
    let fetched = source.fetch(huge(0)).unwrap();
    let mut expected = vec![0; to_usize(HUGE)];
    for page in data().filter(|page| *page < 512) {
        expected[to_usize(page * PAGE)..][..to_usize(PAGE)].copy_from_slice(&contents(page));
    }
    assert!(bytes == expected, "stale or wrong bytes");
    assert!(matches!(fetched.chunk(0, HUGE, HUGE), Chunk::Ready(bytes) if bytes.len() == HUGE));
    let holes = [0..3, 5..100, 200..512].map(|pages| snapshot.resident(pages));
    assert_eq!(holes, [0; 3]);
    // The next page is all data, and the last a hole.
    snapshot.warm(512..1024);
    assert_eq!(look(&source, huge(1)), ('m', 512));
    assert_eq!(look(&source, huge(2)), ('z', 512));
}

/// `mincore` claims that all is resident; a copy would read from the device.
#[test]
fn whoever_is_not_told_takes_only_what_can_be_read_without_waiting() {
    let snapshot = Snapshot::of(256);
    as_another_user(|| {
        let source = snapshot.open();
        snapshot.evict();
        assert_eq!(look(&source, small(0, 16)), ('a', 16));
        // A fetch thread reads two pages.
        source.fetch(small(0, 2)).unwrap();
        let (found, pages, bytes) = look_at(&source, small(0, 16));
        assert_eq!((found, pages), ('r', 2));
        assert!(bytes == [contents(0), contents(1)].concat());
        // What was there once may be gone: that is found out, and not tried again and again.
        snapshot.evict();
        assert_eq!(look(&source, small(0, 1)), ('a', 1));
        snapshot.warm(0..16);
        assert_eq!(look(&source, small(0, 1)), ('a', 1));
        source.will_need_around(0, PAGE);
        assert_eq!(look(&source, small(0, 16)), ('r', 16));
        source.prepare(0, 256 * PAGE);
    });
    // Nothing was mapped meanwhile: all that is not being read at this moment can be evicted.
    until("all to be evicted", || {
        snapshot.evict();
        snapshot.resident(0..256) == 0
    });
}

/// A fetch thread may have looked whether we are told just before we were.
#[test]
fn what_was_read_is_not_taken_to_be_mapped() {
    let snapshot = Snapshot::of(16);
    let source = snapshot.open();
    snapshot.evict();
    source.residency.note_read(0..16 * PAGE, source.now());
    assert!(source.residency.was_there(0));
    assert_eq!(look(&source, small(0, 1)), ('a', 1));
}

#[test]
fn a_file_system_that_cannot_read_without_waiting_has_everything_fetched() {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    file.as_file().write_all_at(&[7; 64 << 10], 0).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o444);
    file.as_file().set_permissions(mode).unwrap();
    let told = FileSource::open(file.path()).unwrap();
    // The first look tries to read.
    let (_, pages, bytes) = look_at(&told, small(0, 1));
    assert_eq!((pages, bytes), (1, vec![7; 4096]));
    assert_eq!(look(&told, small(0, 1)), ('m', 1));
    assert_eq!(look(&told, small(0, 16)), ('m', 16));
    as_another_user(|| {
        let source = FileSource::open(file.path()).unwrap();
        for _ in 0..2 {
            source.fetch(small(0, 16)).unwrap();
            assert_eq!(look(&source, small(0, 16)), ('a', 16));
        }
    });
}

/// The right goes with the user, and may come and go while a guest is served.
#[test]
fn a_right_that_is_taken_away_is_not_relied_on() {
    let snapshot = Snapshot::of(16 * 1024);
    let source = snapshot.open();
    assert_eq!(look(&source, small(0, 64)), ('m', 64));
    as_another_user(|| {
        // What is in our page table is, whoever we are; of other pages we are not told.
        let absent = (64..16 * 1024).step_by(16).find(|page| {
            let found = look(&source, small(*page, 1));
            assert!(matches!(found, ('m' | 'r' | 'a', 1)), "{found:?}");
            std::thread::yield_now();
            found.0 == 'a'
        });
        let page = absent.expect("the right was relied on for as long as it takes to map 64 MiB");
        source.fetch(small(page, 1)).unwrap();
        assert_eq!(look(&source, small(page, 1)), ('r', 1));
        assert_eq!(look(&source, small(page - 16, 1)), ('a', 1));
    });
    until("the truth to be told again", || look(&source, small(0, 64)) == ('m', 64));
}

#[test]
fn a_file_that_ends_within_a_page_is_refused() {
    let snapshot = Snapshot::of(2);
    for len in [3, PAGE + 1, 2 * PAGE - 1] {
        snapshot.set_len(len);
        let error = FileSource::open(&snapshot.path).unwrap_err();
        assert!(matches!(error, SnapshotError::Length { len: had, .. } if had == len), "{error}");
    }
}

#[test]
fn a_page_in_which_the_file_was_cut_is_not_given() {
    let check = |snapshot: &Snapshot, source: &FileSource, given: char| {
        source.fetch(small(0, 8)).unwrap();
        assert_eq!(look(source, small(0, 8)), (given, 8));
        let len = 4 * PAGE + 100;
        snapshot.set_len(len);
        until_absent(source, small(4, 1));
        source.fetch(small(0, 4)).unwrap();
        assert_eq!(look(source, small(0, 8)), (given, 4), "what is still there is still given");
        assert_eq!(look(source, small(3, 1)), (given, 1));
        for lost in 4..8 {
            assert_eq!(look(source, small(lost, 1)), ('a', 1));
            let error = source.fetch(small(lost, 1)).unwrap_err();
            assert_eq!(error, SourceError::Truncated { offset: lost * PAGE, len });
        }
        // Zeros that fill the place of what was cut off are not the snapshot.
        snapshot.set_len(8 * PAGE);
        for lost in 4..8 {
            assert!(source.fetch(small(lost, 1)).is_err());
            assert_eq!(look(source, small(lost, 1)), ('a', 1));
        }
    };
    let snapshot = Snapshot::of(8);
    check(&snapshot, &snapshot.open(), 'm');
    let snapshot = Snapshot::of(8);
    as_another_user(|| check(&snapshot, &snapshot.open(), 'r'));
}

#[test]
fn a_huge_page_in_which_the_file_was_cut_is_not_given() {
    for data in [0..1024, 100..900] {
        let snapshot = Snapshot::sparse(1024, data);
        let source = snapshot.open();
        let huge = |page| Want { offset: page * HUGE, len: HUGE, page: HUGE };
        assert_ne!(look(&source, huge(1)).0, 'a');
        snapshot.set_len(HUGE + 5 * PAGE + 100);
        until_absent(&source, huge(1));
        assert!(matches!(source.fetch(huge(1)), Err(SourceError::Truncated { .. })));
        assert_ne!(look(&source, huge(0)).0, 'a');
    }
}
