//! Chats that are nearly as most are, for the `framing` property: its shortest way to a request must notice all that
//! is not.

use super::check;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Streams; each is cut in several ways.
const CASES: u32 = 512;

const KEYS: [&str; 13] =
    ["msgid", "id", "name", "toid", "to", "msg", "time", "seq", "mid", "groupid", "colour", "m\\u0073g", ""];

const VALUES: [&str; 20] = [
    "6",
    "10",
    "0",
    "-0",
    "-7",
    "01",
    "-",
    "7.0",
    "1e3",
    "99999999999999999999",
    "\"text\"",
    "\"\"",
    "\"\u{e9}\u{4f60}\"",
    "\"a \\\"b\\\" \\u00e4\"",
    "\"\t\"",
    "true",
    "null",
    "[1,{\"a\":\"}\"}]",
    "{}",
    "\"2026-11-21 02:41:29\"",
];

/// What may stand between tokens, and what must not.
const BLANKS: [&str; 9] = ["", "", "", "", "", " ", "\t", "\n", "\u{a0}"];

const SEPARATORS: [&str; 6] = ["\0", "\n", "", " \t", "\r\n\0", ";"];

const BYTES: &[u8] = b"\"\\{}[]:,; \n\0\x1f\x7f\x80\xff0-6ae";

fn field() -> impl Strategy<Value = (String, String)> {
    (select(&KEYS[..]), select(&VALUES[..])).prop_map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// A chat with some further fields among its own, and blanks.
fn chat() -> impl Strategy<Value = String> {
    let own = ("[ -~]{0,40}", 0..3_i64).prop_map(|(text, to)| {
        [("msgid", "6".to_owned()), ("toid", to.to_string()), ("msg", format!("\"{text}\""))]
            .map(|(key, value)| (key.to_owned(), value))
            .to_vec()
    });
    let fields = (own, prop_oneof![2 => Just(Vec::new()), 3 => vec(field(), 1..5)])
        .prop_map(|(own, more)| [own, more].concat())
        .prop_shuffle();
    (fields, select(&BLANKS[..]), select(&SEPARATORS[..])).prop_map(|(fields, blank, separator)| {
        let fields: Vec<String> =
            fields.iter().map(|(key, value)| format!("\"{key}\"{blank}:{value}{blank}")).collect();
        format!("{{{blank}{}}}{separator}", fields.join(&format!(",{blank}")))
    })
}

/// Some chats, and a few bytes of them changed.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<Index>(), select(BYTES), 0..3_u8);
    (vec(chat(), 1..4), vec(change, 0..3)).prop_map(|(chats, changes)| {
        let mut bytes = chats.concat().into_bytes();
        for (place, byte, how) in changes {
            let at = place.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_chat_is_taken_off_a_stream_as_it_is_read_on_its_own(input in stream()) {
        check("framing", &input);
    }
}
