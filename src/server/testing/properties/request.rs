//! A request is understood as `serde_json` reads it, and a chat passes through as it should.

use crate::ids::UserId;
use crate::protocol::chat_object::{ChatObject, read_delivered};
use crate::protocol::request::{self, Body};
use serde_json::{Map, Value};

/// Bytes of a complaint: a sentence with a key of 40 characters.
const COMPLAINT_MAX: usize = 320;
/// What the server adds to a chat: id, name and time, with their keys.
const ADDED_MAX: usize = 160;

const FROM: UserId = UserId(i64::MIN);
const NAME: &str = "the true \u{1} name";
const NOW: &str = "2026-01-01 00:00:00";
const SERVERS_OWN: [&str; 7] = ["mid", "again", "seq", "re", "errno", "caps", "token"];

pub(super) fn holds(input: &[u8]) {
    let read: Option<Value> = serde_json::from_slice(input).ok();
    match request::parse(input) {
        Err(fault) => {
            assert!(fault.text.len() <= COMPLAINT_MAX, "{}", fault.text);
            if let Some(seq) = fault.seq {
                is_seq(&seq, input);
            }
        }
        Ok(request) => {
            // `serde_json` gives up a level earlier, and at numbers that no double can hold.
            let fields = read.as_ref().map(|read| read.as_object().expect("only an object is a request"));
            if let Some(fields) = fields {
                assert_eq!(fields.get("msgid").and_then(Value::as_i64), Some(request.msgid().number()));
                assert_eq!(fields.contains_key("seq"), request.seq.is_some());
            }
            if let Some(seq) = request.seq {
                is_seq(seq, input);
            }
            if let Body::Chat { chat, .. } | Body::GroupChat { chat, .. } = &request.body {
                is_delivered(chat, input.len(), fields);
            }
        }
    }
    if let Some(delivered) = read_delivered(input) {
        assert!(delivered.msg.len() + delivered.name.len() <= input.len());
    }
}

fn is_seq(seq: &str, input: &[u8]) {
    assert!(seq.starts_with(|first: char| first == '"' || first == '-' || first.is_ascii_digit()));
    assert!(String::from_utf8_lossy(input).contains(seq), "it is repeated as it was sent");
}

fn is_delivered(chat: &ChatObject<'_>, sent: usize, fields: Option<&Map<String, Value>>) {
    let mut out = Vec::new();
    chat.deliver(FROM, NAME, || NOW.into(), &mut out);
    assert!(out.len() <= sent + ADDED_MAX, "{} bytes of {sent}", out.len());
    assert!(!out.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)), "it is one line");
    if let Some(shown) = read_delivered(&out) {
        assert_eq!((shown.id, &*shown.msg), (FROM, &*chat.text()));
        assert_eq!(shown.name, NAME);
    } else {
        panic!("what is delivered can be read");
    }
    let Some(fields) = fields else { return };
    let mut expected = fields.clone();
    expected.retain(|key, _| !SERVERS_OWN.contains(&key.as_str()));
    expected.insert("id".into(), FROM.0.into());
    expected.insert("name".into(), NAME.into());
    expected.entry("time").or_insert(NOW.into());
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), Value::Object(expected));
}
