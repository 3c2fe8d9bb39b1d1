//! Messages of every version, wrong ones by hand, and then a great many by chance.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::Value;

use super::{
    fields::{BASE, OFFSET, PAGE_SIZE, PAGE_SIZE_KIB, SIZE},
    *,
};
use crate::{layout::LayoutError, units::PageIndex};

const KIB4: u64 = 4096;
const MIB2: u64 = 2 << 20;

fn regions(layout: &Layout) -> Vec<(u64, u64, u64)> {
    let page_size = layout.page_size();
    let claim = |r: &Region| (r.base.0, r.size(page_size), r.offset(page_size));
    layout.regions().iter().map(claim).collect()
}

#[test]
fn the_message_of_every_version_is_read() {
    let before_1_7 = r#"[{"base_host_virt_addr":140070761791488,"size":134217728,"offset":0}]"#;
    let from_1_7 = r#"[{"base_host_virt_addr":140070761791488,"size":134217728,"offset":0,
        "page_size_kib":4096}]"#;
    let from_1_12 = r#"[{"base_host_virt_addr":140070761791488,"size":134217728,"offset":0,
        "page_size":4096,"page_size_kib":4096}]"#;
    let without_the_old_name = r#"[{"base_host_virt_addr":140070761791488,"size":134217728,
        "offset":0,"page_size":4096}]"#;
    let of_tomorrow = r#" [{"numa":{"node":[0]},"base_host_virt_addr":140070761791488,
        "size":134217728,"offset":0,"page_size":4096,"page_size_kib":null,"":"]"}] "#;
    for message in [before_1_7, from_1_7, from_1_12, without_the_old_name, of_tomorrow] {
        let layout = parse(message.as_bytes(), 134_217_728).unwrap();
        assert_eq!(layout.page_size(), PageSize::Small);
        assert_eq!(regions(&layout), [(140_070_761_791_488, 134_217_728, 0)]);
    }
}

#[test]
fn huge_pages_are_told_by_either_name() {
    for name in ["page_size", "page_size_kib"] {
        let message = format!(
            r#"[{{"base_host_virt_addr":{},"size":{MIB2},"offset":0,"{name}":{MIB2}}}]"#,
            8 * MIB2
        );
        assert_eq!(parse(message.as_bytes(), MIB2).unwrap().page_size(), PageSize::Huge);
    }
}

#[test]
fn a_guest_of_4_gib_has_its_second_region_below_the_first() {
    const GIB: u64 = 1 << 30;
    let message = format!(
        r#"[{{"base_host_virt_addr":{},"size":{},"offset":0}},
            {{"base_host_virt_addr":{},"size":{GIB},"offset":{}}}]"#,
        100 * GIB,
        3 * GIB,
        99 * GIB,
        3 * GIB
    );
    let layout = parse(message.as_bytes(), 4 * GIB).unwrap();
    assert_eq!(layout.page_at(GuestAddr(99 * GIB)), Some(PageIndex(3 * GIB / KIB4)));
    assert_eq!(layout.page_at(GuestAddr(100 * GIB)), Some(PageIndex(0)));
}

/// A region after a first one that is fine, in a snapshot of four pages.
fn second(fields: &str) -> MessageError {
    let message =
        format!(r#"[{{"base_host_virt_addr":65536,"size":8192,"offset":0}},{{{fields}}}]"#);
    parse(message.as_bytes(), 4 * KIB4).unwrap_err()
}

#[test]
fn what_is_wrong_is_named_with_region_field_value_and_way_out() {
    let rows = [
        (r#""size":4096,"offset":8192"#, "FIELD", "base_host_virt_addr is missing"),
        (r#""base_host_virt_addr":4096,"size":null,"offset":0"#, "FIELD", "size is missing"),
        (r#""base_host_virt_addr":4096,"size":-1,"offset":0"#, "FIELD", "size is -1: expected a"),
        (r#""base_host_virt_addr":4096,"size":4096.0,"offset":0"#, "FIELD", "size is 4096.0"),
        (r#""base_host_virt_addr":1e30,"size":4096,"offset":0"#, "FIELD", "addr is 1e+30"),
        (r#""base_host_virt_addr":4096,"size":"x","offset":0"#, "FIELD", r#"size is "x""#),
        (r#""base_host_virt_addr":0,"size":4096,"size":4096"#, "FIELD", "size is given twice"),
        (r#""base_host_virt_addr":18446744073709551616,"size":1,"offset":0"#, "FIELD", "whole"),
        (r#""base_host_virt_addr":4096,"size":0,"offset":8192"#, "REGION", "size is 0"),
        (r#""base_host_virt_addr":4096,"size":5000,"offset":0"#, "REGION", "size 5000 is no mult"),
        (r#""base_host_virt_addr":4096,"size":4096,"offset":1"#, "REGION", "offset 1 is no mult"),
        (r#""base_host_virt_addr":4097,"size":4096,"offset":8192"#, "REGION", "addr 0x1001 is no"),
        (
            r#""base_host_virt_addr":18446744073709547520,"size":4096,"offset":8192"#,
            "REGION",
            "base_host_virt_addr 0xfffffffffffff000 + size 4096 runs past",
        ),
        (
            r#""base_host_virt_addr":69632,"size":4096,"offset":8192"#,
            "REGION",
            "base_host_virt_addr 0x11000 lies inside region 0",
        ),
        (
            r#""base_host_virt_addr":4096,"size":4096,"offset":4096"#,
            "REGION",
            "offset 4096 lies inside region 0",
        ),
        (
            r#""base_host_virt_addr":4096,"size":12288,"offset":8192"#,
            "SNAPSHOT",
            "offset 8192 + size 12288 lies past the end of the snapshot, which has 16384 bytes",
        ),
        (
            r#""base_host_virt_addr":4096,"size":18446744073709547520,"offset":8192"#,
            "SNAPSHOT",
            "offset 8192 + size 18446744073709547520",
        ),
        (
            r#""base_host_virt_addr":4096,"size":4096,"offset":8192,"page_size":16384"#,
            "PAGE_SIZE",
            "page_size is 16384",
        ),
        (
            r#""base_host_virt_addr":4096,"size":4096,"offset":8192,"page_size_kib":4"#,
            "PAGE_SIZE",
            "page_size_kib is 4: only pages of 4096 and of 2097152",
        ),
        (
            r#""base_host_virt_addr":0,"size":0,"offset":0,"page_size":4096,"page_size_kib":4"#,
            "PAGE_SIZE",
            "page_size is 4096 and page_size_kib is 4:",
        ),
        (
            r#""base_host_virt_addr":0,"size":0,"offset":0,"page_size":2097152"#,
            "PAGE_SIZE",
            "the page size is 2 MiB, that of region 0 is 4 KiB",
        ),
    ];
    for (fields, code, text) in rows {
        let error = second(fields);
        let shown = error.to_string();
        assert_eq!(error.code(), format!("ERR_UFFD_HANDOFF_{code}"), "{shown}");
        assert!(shown.starts_with("region 1: "), "{shown}");
        assert!(shown.contains(text), "{shown}");
        let (_, way_out) = shown["region 1: ".len()..].split_once(": ").unwrap();
        assert!(way_out.len() > 10, "{shown}");
    }
}

#[test]
fn what_is_no_array_of_objects_is_named() {
    let rows = [
        ("", "cut short: after 0 bytes"),
        (" \n", "cut short: after 2 bytes"),
        ("[{", "cut short: after 2 bytes"),
        ("{}", "starts with '{'"),
        ("null", "starts with 'n'"),
        ("\u{0}[]", "starts with '\\0'"),
        ("[]x", "1 bytes follow"),
        ("[] \n[]", "2 bytes follow"),
        ("[1]", "region 0: invalid type: integer `1`, expected an object with"),
        ("[[1,2,3]]", "region 0: invalid type: sequence, expected an object with"),
        ("[{]]", "column 3"),
        ("[{},]", "trailing comma"),
    ];
    for (message, text) in rows {
        let error = parse(message.as_bytes(), 0).unwrap_err();
        assert!(error.to_string().contains(text), "{message}: {error}");
    }
    let error = parse(b"[]", 0).unwrap_err();
    assert!(matches!(error, MessageError::Layout(LayoutError::NoRegions)));
}

#[test]
fn a_long_value_is_shown_in_part() {
    let error = second(&format!(r#""base_host_virt_addr":"{}""#, "é".repeat(5000)));
    assert!(error.to_string().len() < 300, "{error}");
}

#[test]
fn deep_nesting_is_an_error_and_no_overflow() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let known = parse(format!(r#"[{{"size":{deep}}}]"#).as_bytes(), 0).unwrap_err();
    assert!(matches!(known, MessageError::Json(_)), "{known}");
    let unknown = parse(format!(r#"[{{"later":{deep}}}]"#).as_bytes(), 0).unwrap_err();
    assert!(matches!(unknown, MessageError::MissingField { .. }), "{unknown}");
}

/// One region as JSON: names and values as they will be written.
type Object = Vec<(String, String)>;

fn written(objects: &[Object]) -> Vec<u8> {
    let object = |object: &Object| {
        let fields: Vec<_> = object.iter().map(|(k, v)| format!(r#""{k}":{v}"#)).collect();
        format!("{{{}}}", fields.join(","))
    };
    format!("[{}]", objects.iter().map(object).collect::<Vec<_>>().join(",")).into_bytes()
}

/// A guest as some version of the VMM would describe it, with the length of its snapshot.
fn valid() -> impl Strategy<Value = (Vec<Object>, u64)> {
    let sizes = prop::collection::vec((1..4_u64, 0..3_u64), 1..6);
    (sizes, 0..5_usize, any::<bool>()).prop_map(|(sizes, version, falling)| {
        let names: &[&str] = match version {
            0 => &[],
            1 | 2 => &["page_size_kib"],
            3 => &["page_size"],
            _ => &["page_size", "page_size_kib"],
        };
        let page_size = if version % 2 == 0 { KIB4 } else { MIB2 };
        let (mut offset, mut base) = (0, 64 * page_size);
        let mut objects = Vec::new();
        for (pages, gap) in sizes {
            let size = pages * page_size;
            if falling {
                base -= size + gap * page_size;
            }
            let mut object = vec![
                ("base_host_virt_addr".to_owned(), base.to_string()),
                ("size".to_owned(), size.to_string()),
                ("offset".to_owned(), offset.to_string()),
            ];
            object.extend(names.iter().map(|name| ((*name).to_owned(), page_size.to_string())));
            objects.push(object);
            offset += size;
            if !falling {
                base += size + gap * page_size;
            }
        }
        (objects, offset)
    })
}

#[derive(Clone, Debug)]
enum Change {
    DropField(usize, usize),
    RepeatField(usize, usize),
    SetField(usize, usize, String),
    RenameField(usize, usize, String),
    DropRegion(usize),
    RepeatRegion(usize),
    SwapRegions(usize, usize),
}

fn any_value() -> impl Strategy<Value = String> {
    let border = prop::sample::select(vec![
        "0",
        "1",
        "-1",
        "-0",
        "4095",
        "4096",
        "4097",
        "8192",
        "2097152",
        "4294967296",
        "9007199254740992",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "18446744073709547520",
        "18446744073709551615",
        "18446744073709551616",
        "1e30",
        "1e400",
        "4096.0",
        "0.5",
        "null",
        "true",
        "[]",
        "{}",
        "[4096]",
        r#""4096""#,
        r#""""#,
        r#""]""#,
        r#""\""#,
        "NaN",
        "0x1000",
        "00",
        "",
    ]);
    prop_oneof![
        4 => border.prop_map(str::to_owned),
        4 => (0..20_u64).prop_map(|pages| (pages * KIB4).to_string()),
        2 => (0..20_u64).prop_map(|pages| (pages * MIB2).to_string()),
        1 => any::<u64>().prop_map(|number| number.to_string()),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let name = prop::sample::select(vec![BASE, SIZE, OFFSET, PAGE_SIZE, PAGE_SIZE_KIB, "x", ""]);
    let at = || 0..8_usize;
    prop_oneof![
        1 => (at(), at()).prop_map(|(r, f)| Change::DropField(r, f)),
        1 => (at(), at()).prop_map(|(r, f)| Change::RepeatField(r, f)),
        6 => (at(), at(), any_value()).prop_map(|(r, f, v)| Change::SetField(r, f, v)),
        1 => (at(), at(), name).prop_map(|(r, f, n)| Change::RenameField(r, f, n.to_owned())),
        1 => at().prop_map(Change::DropRegion),
        1 => at().prop_map(Change::RepeatRegion),
        1 => (at(), at()).prop_map(|(a, b)| Change::SwapRegions(a, b)),
    ]
}

fn apply(objects: &mut Vec<Object>, change: Change) {
    let regions = objects.len();
    if regions == 0 {
        return;
    }
    match change {
        Change::DropRegion(r) => drop(objects.remove(r % regions)),
        Change::RepeatRegion(r) => objects.push(objects[r % regions].clone()),
        Change::SwapRegions(a, b) => objects.swap(a % regions, b % regions),
        Change::DropField(r, f)
        | Change::RepeatField(r, f)
        | Change::SetField(r, f, _)
        | Change::RenameField(r, f, _) => {
            let object = &mut objects[r % regions];
            if object.is_empty() {
                return;
            }
            let f = f % object.len();
            match change {
                Change::DropField(..) => drop(object.remove(f)),
                Change::SetField(_, _, value) => object[f].1 = value,
                Change::RenameField(_, _, name) => object[f].0 = name,
                _ => object.push(object[f].clone()),
            }
        }
    }
}

/// Whatever is accepted says what the message says, and is a guest that can be served.
fn check(message: &[u8], snapshot_len: u64) -> Result<bool, TestCaseError> {
    let Ok(layout) = parse(message, snapshot_len) else {
        return Ok(false);
    };

    // In a field that nobody knows it is as good as any number; this test's own parser minds.
    let text = String::from_utf8_lossy(message).replace("1e400", "0");
    let said: Vec<Value> = serde_json::from_str(&text).unwrap();
    let number = |object: &Value, field: &str| object[field].as_u64().unwrap();
    let mut claims: Vec<_> =
        said.iter().map(|o| (number(o, BASE), number(o, SIZE), number(o, OFFSET))).collect();
    claims.sort_by_key(|(_, _, offset)| *offset);
    prop_assert_eq!(regions(&layout), claims.clone());

    let page_size = layout.page_size().bytes();
    for object in &said {
        for name in [PAGE_SIZE, PAGE_SIZE_KIB] {
            prop_assert!(object[name].is_null() || object[name] == page_size);
        }
        let named = [PAGE_SIZE, PAGE_SIZE_KIB].iter().any(|name| !object[*name].is_null());
        prop_assert!(named || page_size == KIB4);
    }

    prop_assert!(!claims.is_empty());
    for (n, &(base, size, offset)) in claims.iter().enumerate() {
        prop_assert!(size > 0);
        prop_assert!([base, size, offset].iter().all(|value| value % page_size == 0));
        prop_assert!(u128::from(base) + u128::from(size) < 1 << 64);
        prop_assert!(u128::from(offset) + u128::from(size) <= u128::from(snapshot_len));
        for &(base2, size2, offset2) in &claims[n + 1..] {
            prop_assert!(base + size <= base2 || base2 + size2 <= base);
            prop_assert!(offset + size <= offset2 || offset2 + size2 <= offset);
        }
    }
    let ends: BTreeSet<u64> = claims.iter().map(|(_, size, offset)| offset + size).collect();
    prop_assert_eq!(layout.page_end().0 * page_size, *ends.last().unwrap());
    Ok(true)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_valid_message_is_accepted((objects, snapshot_len) in valid()) {
        let message = written(&objects);
        prop_assert!(check(&message, snapshot_len)?);
        prop_assert!(!check(&message, snapshot_len - 1)?);
    }

    #[test]
    fn a_valid_message_cut_at_any_byte_is_cut_short((objects, snapshot_len) in valid()) {
        let message = written(&objects);
        for len in 0..message.len() {
            let error = parse(&message[..len], snapshot_len).unwrap_err();
            prop_assert!(matches!(error, MessageError::CutShort { len: l } if l == len), "{}", error);
        }
    }

    #[test]
    fn an_altered_message_is_refused_or_right(
        (mut objects, snapshot_len) in valid(),
        changes in prop::collection::vec(any_change(), 1..4),
        other_len in prop::option::of(any::<u64>()),
    ) {
        for change in changes {
            apply(&mut objects, change);
        }
        check(&written(&objects), other_len.unwrap_or(snapshot_len))?;
    }

    #[test]
    fn a_message_with_bytes_altered_is_refused_or_right(
        (objects, snapshot_len) in valid(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
    ) {
        let mut message = written(&objects);
        for (at, byte, how) in edits {
            let at = at.index(message.len());
            match how {
                0 => message[at] = byte,
                1 => message.insert(at, byte),
                _ if message.len() > 1 => drop(message.remove(at)),
                _ => {}
            }
        }
        check(&message, snapshot_len)?;
    }

    #[test]
    fn random_bytes_are_refused_or_right(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        json in r#"\[[\[\]{}",:0-9a-z_ \\-]{0,80}\]?"#,
        snapshot_len in any::<u64>(),
    ) {
        check(&bytes, snapshot_len)?;
        check(json.as_bytes(), snapshot_len)?;
    }
}
