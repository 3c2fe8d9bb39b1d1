//! Random attacks: what is said, in which pieces, with which descriptors, and how it is left.

use proptest::prelude::*;
use proptest::sample::select;
use uffd_proof::malice::{Attack, Body, Leaving, Stranger, Value, Visit};

use crate::PAGES;

/// Numbers, and what is none, where a number is due.
const NUMBERS: [&str; 24] = [
    "0",
    "1",
    "4095",
    "4096",
    "4097",
    "8192",
    "1048576",
    "2097152",
    "1073741824",
    "4294967296",
    "1099511627776",
    "140737488355328",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709547520",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "-4096",
    "0.5",
    "1e3",
    "null",
    "\"4096\"",
    "[{}]",
];

const FIELDS: [&str; 6] =
    ["base_host_virt_addr", "size", "offset", "page_size", "page_size_kib", "note"];

/// Pieces of JSON, and of nothing.
const TOKENS: [&str; 22] = [
    "[",
    "]",
    "{",
    "}",
    "\"",
    "\\",
    "\\u",
    "\\ud800",
    ",",
    ":",
    " ",
    "\n",
    "\0",
    "\u{7f}",
    "é",
    "0",
    "-",
    "1e999",
    "null",
    "true",
    "\"size\"",
    "GET / HTTP/1.1\r\n",
];

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => select(&NUMBERS[..]).prop_map(|number| Value::Json(number.to_owned())),
        2 => (0..8_u64).prop_map(|page| Value::Behind(page * 4096)),
        1 => any::<u64>().prop_map(Value::Behind),
    ]
}

fn odd_region() -> impl Strategy<Value = Vec<(String, Value)>> {
    let fields = prop::collection::vec((select(&FIELDS[..]), value()), 0..8);
    fields.prop_map(|fields| fields.into_iter().map(|(name, it)| (name.to_owned(), it)).collect())
}

/// A region as a VMM would describe it, in memory that is registered, or in part.
fn region() -> impl Strategy<Value = Vec<(String, Value)>> {
    let number = |number: u64| Value::Json(number.to_string());
    (0..8_u64, 1..8_u64, 0..PAGES, prop::option::of(select(&[4096_u64, 2 << 20][..]))).prop_map(
        move |(behind, pages, first, page_size)| {
            let mut fields = vec![
                (FIELDS[0].to_owned(), Value::Behind(behind * 4096)),
                (FIELDS[1].to_owned(), number(pages * 4096)),
                (FIELDS[2].to_owned(), number(first * 4096)),
            ];
            fields.extend(page_size.map(|size| (FIELDS[3].to_owned(), number(size))));
            fields
        },
    )
}

/// All of the memory that is registered, and nothing else.
fn honest() -> Body {
    let fields = [
        (FIELDS[0], Value::Behind(0)),
        (FIELDS[1], Value::Json("16384".to_owned())),
        (FIELDS[2], Value::Json("0".to_owned())),
    ];
    Body::Regions(vec![fields.map(|(name, value)| (name.to_owned(), value)).into()])
}

fn body() -> impl Strategy<Value = Body> {
    let text = prop::collection::vec(select(&TOKENS[..]), 0..12);
    let many = select(&[1, 9, 512, 10_000, 100_000][..]);
    prop_oneof![
        5 => Just(honest()),
        4 => prop::collection::vec(region(), 1..4).prop_map(Body::Regions),
        4 => prop::collection::vec(odd_region(), 0..4).prop_map(Body::Regions),
        3 => text.prop_map(|tokens| Body::Text(tokens.concat())),
        2 => many.prop_map(Body::Many),
        1 => (0..3_000_000_usize).prop_map(Body::Spaces),
        1 => (0..100_000_usize).prop_map(Body::Repeated),
        1 => (1..500_000_usize).prop_map(Body::Nested),
        1 => (0..2_000_000_usize).prop_map(Body::Unknown),
    ]
}

fn strangers() -> impl Strategy<Value = Vec<Stranger>> {
    let any = || select(&Stranger::ALL[..]);
    prop_oneof![
        3 => Just(vec![Stranger::Own]),
        6 => prop::collection::vec(any(), 1..4),
        // More than are taken at once.
        1 => (any(), 17..60_usize).prop_map(|(one, count)| vec![one; count]),
    ]
}

fn visit() -> impl Strategy<Value = Visit> {
    let cuts = prop_oneof![
        4 => prop::collection::vec(any::<usize>(), 0..4),
        1 => prop::collection::vec(any::<usize>(), 30..60),
    ];
    let sendings = prop::collection::vec((0..4_usize, strangers()), 0..3);
    let leaving = prop_oneof![
        4 => Just(Leaving::Stay),
        1 => Just(Leaving::Close),
        1 => Just(Leaving::HangUp),
    ];
    let out_of_band = prop::bool::weighted(0.15);
    (body(), cuts, sendings, out_of_band, prop::bool::weighted(0.3), leaving).prop_map(
        |(body, cuts, sendings, out_of_band, slowly, leaving)| Visit {
            body,
            cuts,
            sendings,
            out_of_band,
            slowly,
            leaving,
        },
    )
}

/// Any attack.
pub(crate) fn attack() -> impl Strategy<Value = Attack> {
    prop::collection::vec(visit(), 1..6).prop_map(|visits| Attack { visits })
}
