//! Files that were cut, damaged, written by somebody else or never traces at all.

use super::super::FormatError;
use super::*;

fn trace() -> Trace {
    reads([5, 6, 7, 300, 2, 1 << 19])
}

/// The sections of a file, under a header and a checksum that are right.
fn sealed(sections: &[u8]) -> Vec<u8> {
    let mut bytes = trace().to_bytes()[..12].to_vec();
    bytes.extend((24 + sections.len() as u64).to_le_bytes());
    bytes.extend(sections);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn section(tag: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&tag[..], &(content.len() as u64).to_le_bytes(), content].concat()
}

fn snapshot_section(length: u64, page_size: u64) -> Vec<u8> {
    section(b"SNAP", &[&length.to_le_bytes()[..], &page_size.to_le_bytes(), &[1; 16]].concat())
}

fn entries_section(count: u64, coded: &[u8]) -> Vec<u8> {
    section(b"PAGE", &[&count.to_le_bytes(), coded].concat())
}

/// What is said of a file whose entries are these, after a snapshot of 16 pages.
fn refused_entries(count: u64, coded: &[u8]) -> String {
    refused(&[snapshot_section(16 << 12, 4096), entries_section(count, coded)].concat())
}

fn refused(sections: &[u8]) -> String {
    Trace::from_bytes(&sealed(sections)).unwrap_err().to_string()
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let bytes = trace().to_bytes();
    for len in 0..bytes.len() {
        let error = Trace::from_bytes(&bytes[..len]).unwrap_err();
        match len {
            0 => assert!(matches!(error, FormatError::NotATrace { .. })),
            _ => assert!(matches!(error, FormatError::Length { .. }), "{len}: {error}"),
        }
    }
    let longer = [&bytes[..], &[0]].concat();
    assert!(matches!(Trace::from_bytes(&longer), Err(FormatError::Length { .. })));
}

#[test]
fn a_file_with_any_byte_changed_in_any_way_is_refused() {
    let mut bytes = trace().to_bytes();
    for at in 0..bytes.len() {
        for change in 1..=255 {
            bytes[at] ^= change;
            assert!(Trace::from_bytes(&bytes).is_err(), "byte {at}, changed by {change:#x}");
            bytes[at] ^= change;
        }
    }
    assert!(Trace::from_bytes(&bytes).is_ok());
}

proptest! {
    #[test]
    fn no_bytes_at_all_are_trouble(bytes: Vec<u8>) {
        prop_assert!(Trace::from_bytes(&bytes).is_err());
        prop_assert!(Trace::from_bytes(&sealed(&bytes)).is_err());
    }

    #[test]
    fn what_any_entries_are_read_as_is_written_the_same(
        count in 0..20_u64,
        coded in vec(prop_oneof![0..32_u8, any::<u8>()], 0..60)
    ) {
        let sections = [snapshot_section(1 << 20, 4096), entries_section(count, &coded)].concat();
        let bytes = sealed(&sections);
        if let Ok(trace) = Trace::from_bytes(&bytes) {
            prop_assert_eq!(trace.entries().len() as u64, count);
            let again = Trace::from_bytes(&trace.to_bytes());
            prop_assert_eq!(&again, &Ok(trace.clone()));
            let written = trace.to_bytes();
            let coded = [&count.to_le_bytes()[..], &coded].concat();
            prop_assert!(written.windows(coded.len()).any(|part| part == coded));
        }
    }

    #[test]
    fn no_text_is_trouble(text: String, at in 0..400_usize, new: char) {
        prop_assert!(Trace::from_json(&text).is_err());
        let mut text: Vec<char> = trace().to_json().chars().collect();
        let at = at % text.len();
        text[at] = new;
        let _ = Trace::from_json(&text.into_iter().collect::<String>());
    }
}

#[test]
fn what_is_no_trace_is_called_so() {
    let error = Trace::from_bytes(b"\x7fELF\x02\x01\x01 and more").unwrap_err();
    assert_eq!(error.code(), "ERR_UFFD_TRACE_NOT_A_TRACE");
    let text = error.to_string();
    for bytes in ["89 55 46 46 44 54 0d 0a", "7f 45 4c 46 02 01 01 20"] {
        assert!(text.contains(bytes), "{text} lacks {bytes}");
    }
    assert!(Trace::from_bytes(b"").unwrap_err().to_string().contains("empty"));
    let error = Trace::from_bytes(trace().to_json().as_bytes()).unwrap_err();
    assert_eq!(error, FormatError::Text);
    // Transferred as text: line ends changed.
    let bytes: Vec<u8> = trace().to_bytes().into_iter().filter(|byte| *byte != b'\r').collect();
    assert!(matches!(Trace::from_bytes(&bytes), Err(FormatError::NotATrace { .. })));
}

#[test]
fn a_later_version_is_refused_and_named() {
    let mut bytes = trace().to_bytes();
    bytes[8] = 2;
    let error = Trace::from_bytes(&bytes).unwrap_err();
    assert_eq!(error, FormatError::Version { found: 2 });
    assert_eq!(error.code(), "ERR_UFFD_TRACE_VERSION");
}

#[test]
fn a_section_that_may_be_skipped_is_skipped_and_no_other() {
    let known = trace().to_bytes();
    let known = &known[20..known.len() - 4];
    for more in
        [[&section(b"more", b"?"), known].concat(), [known, &section(b"more", b"")].concat()]
    {
        assert_eq!(Trace::from_bytes(&sealed(&more)), Ok(trace()));
    }
    let error = Trace::from_bytes(&sealed(&[known, &section(b"More", b"?")].concat())).unwrap_err();
    let tag = "More".to_owned();
    assert_eq!(error, FormatError::UnknownSection { at: 20 + known.len(), tag });
    assert_eq!(error.code(), "ERR_UFFD_TRACE_VERSION");
}

#[test]
fn sections_come_in_any_order_and_the_program_need_not_say_its_name() {
    let sections = [entries_section(0, &[]), snapshot_section(4096, 4096)].concat();
    let trace = Trace::from_bytes(&sealed(&sections)).unwrap();
    assert_eq!((trace.created_by(), trace.entries().len()), ("", 0));
}

#[test]
fn a_section_that_is_missing_twice_there_or_of_a_wrong_length_is_refused() {
    let snapshot = snapshot_section(16 << 12, 4096);
    let entries = entries_section(0, &[]);
    assert!(refused(&[]).contains("byte 20: end of the sections"), "{}", refused(&[]));
    assert!(refused(&snapshot).contains("should be after a PAGE"));
    assert!(refused(&[&snapshot[..], &snapshot, &entries].concat()).contains("another SNAP"));
    assert!(refused(b"1234\0\0\0\0\0\0\0\0").contains("section name is [31, 32, 33, 34]"));
    assert!(refused(b"SNA").contains("byte 20: section name is cut off after 3 bytes"));
    let mut endless = snapshot.clone();
    endless[4..12].fill(0xff);
    assert!(refused(&endless).contains(
        "byte 24: section length is 18446744073709551615, and should be at most the 32 bytes"
    ));
    let long = section(b"SNAP", &[&snapshot[12..], &[0]].concat());
    let long = refused(&[&long[..], &entries].concat());
    assert!(long.contains("1 bytes too long"), "{long}");
    assert!(refused(&[&section(b"SNAP", b"")[..], &entries].concat()).contains("snapshot length"));
    let named = refused(&[&section(b"made", b"a\xff")[..], &snapshot, &entries].concat());
    assert!(named.contains("byte 33: name of the program"), "{named}");
}

#[test]
fn a_page_size_of_no_guest_is_refused() {
    let text = refused(&[snapshot_section(1 << 30, 16_384), entries_section(0, &[])].concat());
    assert!(text.contains("byte 40: page size is 16384, and should be 4096 or 2097152"), "{text}");
}

#[test]
fn more_entries_than_there_are_bytes_for_are_not_made_room_for() {
    for count in [3, 1 << 40, u64::MAX] {
        let text = refused_entries(count, &[0; 4]);
        let expected = format!("number of entries is {count}, and should be at most the 2 there");
        assert!(text.contains(&expected), "{text}");
    }
    assert!(refused_entries(1, &[0; 4]).contains("entries is 2 bytes too long"));
}

#[test]
fn entries_that_cannot_be_are_refused_with_their_place() {
    // One before page 0; page 16 of 16; page 0 twice; a number of 65 bits; before time 0.
    assert!(refused_entries(1, &[8, 0]).contains("byte 84: page of an entry is -1"));
    assert!(refused_entries(1, &[0x80, 2, 0]).contains("entry 0: the snapshot has no page 16"));
    assert!(refused_entries(2, &[0, 0, 8, 0]).contains("entry 1: page 0 is in the trace already"));
    assert!(refused_entries(1, &[0x80, 0, 0]).contains("no such number"));
    assert!(refused_entries(1, &[0, 1]).contains("byte 85: time of an entry is 0 µs -1 µs"));
    let mut late = vec![0];
    super::super::varint::put(&mut late, u64::MAX - 1);
    assert!(refused_entries(1, &late).contains("time of an entry is 0 µs +9223372036854775807"));
    let mut far = Vec::new();
    super::super::varint::put(&mut far, u64::MAX - 15);
    far.push(0);
    assert!(refused_entries(1, &far).contains("no page 1152921504606846975"));
}

#[test]
fn a_view_that_is_wrong_is_refused_with_the_place() {
    let refuse = |from: &str, to: &str| {
        let text = trace().to_json();
        assert!(text.contains(from), "{from}");
        Trace::from_json(&text.replacen(from, to, 1)).unwrap_err().to_string()
    };
    for (from, to, says) in [
        ("\"write\"", "\"wirte\"", "unknown field `wirte`, expected one of"),
        ("\"page\":5,", "", "missing field `page` at line 7"),
        ("\"page\":5", "\"page\":-5", "line 7"),
        ("\"page\":6,\"offset\":24576", "\"page\":5", "entry 1: page 5 is in the trace already"),
        ("\"offset\":24576", "\"offset\":4", "entry 1: offset is 4, and that of page 6 is 24576"),
        ("\"page\":300", "\"page\":1048576", "entry 3: the snapshot has no page 1048576"),
        ("\"timeMicros\":10", "\"timeMicros\":18446744073709552", "entry 0: timeMicros is"),
        ("\"pageSize\":4096", "\"pageSize\":8192", "pageSize is 8192"),
        ("6f66", "6g66", "a fingerprint has 32 hexadecimal digits"),
        ("\"version\": 1", "\"version\": 2", "it has version 2 of the format"),
        ("\"version\": 1", "\"version\": \"1\"", "\"version\" a number"),
        ("uffd-rs trace", "something else", "should be \"uffd-rs trace\""),
        ("\"source\"", "\"somewhere\"", "unknown variant `somewhere`"),
    ] {
        let text = refuse(from, to);
        assert!(text.contains(says), "{from} → {to}: {text}");
    }
}

#[test]
fn a_view_written_by_hand_may_be_short() {
    let text = r#"{"format":"uffd-rs trace","version":1,"entries":[{"page":9}],"snapshot":
        {"length":1048576,"pageSize":4096,"fingerprint":"000102030405060708090a0b0c0d0e0f"}}"#;
    assert_eq!(Trace::from_json(text).unwrap().entries(), [read(9, 0)]);
}
