//! Files written when version 1 was new. If one of these fails, existing traces became
//! unreadable or new ones unreadable elsewhere: the format needs another version instead.

use super::*;

const BYTES: &[u8] = include_bytes!("v1.trace");
const JSON: &str = include_str!("v1.json");

fn trace() -> Trace {
    let entries = vec![
        touch(16_384, false, FilledWith::Source, 120),
        touch(16_385, false, FilledWith::Source, 131),
        touch(16_386, true, FilledWith::Source, 143),
        touch(3, true, FilledWith::SourceZeros, 150),
        touch(65_535, false, FilledWith::Zeros, 2_000_000),
        touch(65_534, true, FilledWith::Present, 1_999_999),
    ];
    Trace::new(snapshot(65_536), entries).unwrap().with_created_by("uffd-rs 0.1.0")
}

#[test]
fn version_1_is_read_as_it_was() {
    assert_eq!(Trace::from_bytes(BYTES).unwrap(), trace());
    assert_eq!(Trace::from_json(JSON).unwrap(), trace());
}

#[test]
fn version_1_is_written_as_it_was() {
    assert_eq!(trace().to_bytes(), BYTES);
    assert_eq!(trace().to_json(), JSON);
}
