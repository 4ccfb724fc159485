//! The JSON protocol from outside: whatever bytes come in, in whatever pieces.

use std::collections::BTreeMap;

use linger_server::ids::{GroupId, Mid, UserId};
use linger_server::protocol::chat_object::{Delivered, To, chat_object, read_delivered};
use linger_server::protocol::json::framing::{Framed, Framer};
use linger_server::protocol::login_answer::{LoginAnswer, logged_in};
use linger_server::protocol::msgid::Msgid;
use linger_server::protocol::request::{Body, Caps, ChatObject, Fault, Request, Who, parse, password_fault};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

const MAX_FRAME: usize = 1 << 16;
const FORBIDDEN: [&str; 7] = ["mid", "again", "seq", "re", "errno", "caps", "token"];

/// How a stream ended up: its requests with what was seen behind each, and the error that ended it, if any.
type Seen = (Vec<(Vec<u8>, bool)>, Option<Framed>);

/// Feeds a stream in pieces, the way a channel does: what is not done with is presented again.
fn feed(pieces: &[&[u8]], max_frame: usize) -> Seen {
    let mut framer = Framer::default();
    let mut unread: Vec<u8> = Vec::new();
    let mut requests: Vec<(Vec<u8>, bool)> = Vec::new();
    for piece in pieces {
        unread.extend_from_slice(piece);
        loop {
            // The byte behind a request may come with a later piece; alone, so that the framer can be asked.
            let first = unread.len().min(1);
            if let Some(latest) = requests.last_mut()
                && let Framed::More { skip } = framer.next(&unread[..first], max_frame.max(2))
            {
                latest.1 = framer.nul_terminated();
                unread.drain(..skip);
            }
            match framer.next(&unread, max_frame) {
                Framed::More { skip } => {
                    unread.drain(..skip);
                    assert!(unread.len() < max_frame);
                    break;
                }
                Framed::Request { start, end } => {
                    requests.push((unread[start..end].to_vec(), framer.nul_terminated()));
                    unread.drain(..end);
                }
                error => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fn split<'a>(stream: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for cut in cuts {
        pieces.push(&stream[from..cut]);
        from = cut;
    }
    pieces.push(&stream[from..]);
    pieces
}

/// Any JSON value, with texts full of what framing must not be misled by.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(any_text(), inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![r#"[{}\[\]"\\,:a\n\x00é😀]{0,40}"#, any::<String>()]
}

fn any_separators() -> impl Strategy<Value = Vec<u8>> {
    vec(prop::sample::select(b"\0\n\r \t".to_vec()), 0..4)
}

/// A text as a JSON string, quotes included.
fn json_string(text: &str) -> String {
    Value::from(text).to_string()
}

/// A key, plain or with its first character spelled as an escape.
fn spell(key: &str, escaped: bool) -> String {
    match key.chars().next() {
        Some(first) if escaped && first.is_ascii() => {
            format!(r#""\u{:04x}{}"#, first as u32, &json_string(&key[1..])[1..])
        }
        _ => json_string(key),
    }
}

fn chat_of(frame: &str) -> ChatObject<'_> {
    match request(frame).body {
        Body::Chat { chat, .. } | Body::GroupChat { chat, .. } => chat,
        other => panic!("not a chat: {other:?}"),
    }
}

fn delivered(frame: &str) -> String {
    let mut out = b"before ".to_vec();
    let now = || "2026-01-02 03:04:05".to_owned();
    chat_of(frame).deliver(UserId(13), "zhang san", now, &mut out);
    assert!(out.starts_with(b"before "), "it only appends");
    String::from_utf8_lossy(&out[7..]).into_owned()
}

fn request(frame: &str) -> Request<'_> {
    parse(frame.as_bytes()).unwrap_or_else(|fault| panic!("{frame}: {fault}"))
}

fn fault(frame: &str) -> Fault {
    match parse(frame.as_bytes()) {
        Err(fault) => fault,
        Ok(request) => panic!("{frame}: {request:?}"),
    }
}

proptest! {
    #[test]
    fn the_same_bytes_in_any_split_give_the_same_requests(
        objects in vec((any_separators(), vec(any_json(), 0..3)), 0..6),
        tail in any_separators(),
        cuts in vec(any::<usize>(), 0..40),
    ) {
        let mut stream = Vec::new();
        let mut sent = Vec::new();
        for (separators, values) in objects {
            stream.extend(separators);
            let object = Value::from(values).to_string().into_bytes();
            stream.extend(&object);
            sent.push((object, stream.len()));
        }
        stream.extend(tail);
        let sent: Vec<_> = sent.into_iter().map(|(object, end)| (object, stream.get(end) == Some(&0))).collect();
        let (requests, error) = feed(&split(&stream, &cuts), MAX_FRAME);
        prop_assert_eq!(error, None);
        prop_assert_eq!(&requests, &sent);
    }

    #[test]
    fn no_split_changes_what_is_made_of_any_bytes(
        stream in vec(prop_oneof![prop::sample::select(b"\0\n {}[]\"\\a".to_vec()), any::<u8>()], 0..200),
        cuts in vec(any::<usize>(), 0..40),
        max_frame in 1_usize..60,
    ) {
        let whole = feed(&[&stream], max_frame);
        prop_assert_eq!(&feed(&split(&stream, &cuts), max_frame), &whole);
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&feed(&bytes, max_frame), &whole);
        prop_assert!(whole.0.iter().all(|(request, _)| request.len() <= max_frame));
        let accepted: usize = whole.0.iter().map(|(request, _)| request.len()).sum();
        prop_assert!(accepted <= stream.len());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
        let _ = read_delivered(&bytes);
    }

    #[test]
    fn no_damage_to_a_request_makes_it_panic(
        msgid in -1..30_i64,
        fields in btree_map("(id|name|toid|msg|seq|caps|token|groupid|mid|pwd)", any_json(), 0..8),
        at in any::<usize>(),
        byte in any::<u8>(),
    ) {
        let mut object = json!({ "msgid": msgid });
        for (key, value) in fields {
            object[key] = value;
        }
        let mut bytes = object.to_string().into_bytes();
        let _ = parse(&bytes);
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = parse(&bytes);
    }

    #[test]
    fn what_is_delivered_is_true_whatever_the_sender_wrote(
        fields in btree_map(prop_oneof![any_text(), prop::sample::select(FORBIDDEN.map(str::to_owned).to_vec())],
            (any_json(), any::<bool>(), any::<bool>()), 0..8),
        id in prop::option::of(prop_oneof![Just(13), any::<i64>()]),
        name in prop::option::of(any_text()),
        time in prop::option::of(any_text()),
        msg in any_text(),
        group in any::<bool>(),
        my_name in any_text(),
        space in prop::sample::select(vec!["", " ", "\n", "\r\n\t"]),
    ) {
        let mut parts = vec![
            ("msgid".to_owned(), if group { "10" } else { "6" }.to_owned()),
            (if group { "groupid" } else { "toid" }.to_owned(), "7".to_owned()),
            ("msg".to_owned(), json_string(&msg)),
        ];
        parts.extend(id.map(|id| ("id".to_owned(), id.to_string())));
        parts.extend(name.map(|name| ("name".to_owned(), json_string(&name))));
        parts.extend(time.as_ref().map(|time| ("time".to_owned(), json_string(time))));
        let known: Vec<String> = parts.iter().map(|(key, _)| key.clone()).collect();
        let reserved = ["id", "name", "time", "msgid", "toid", "to", "groupid", "msg"];
        let others: BTreeMap<_, _> =
            fields.into_iter().filter(|(key, _)| !known.contains(key) && !reserved.contains(&&**key)).collect();
        let mut written: Vec<String> =
            parts.iter().map(|(key, raw)| format!("{}{space}:{space}{raw}", json_string(key))).collect();
        for (key, (value, escaped, first)) in &others {
            let value = if key == "seq" { &Value::from(1) } else { value };
            let field = format!("{}:{space}{value}", spell(key, *escaped));
            written.insert(if *first { 0 } else { written.len() }, field);
        }
        let frame = format!("{{{space}{}{space}}}", written.join(&format!("{space},{space}")));

        let mut out = Vec::new();
        let chat = chat_of(&frame);
        prop_assert_eq!(&*chat.text(), &*msg);
        chat.deliver(UserId(13), &my_name, || "now".to_owned(), &mut out);
        prop_assert!(!out.contains(&b'\n') && !out.contains(&b'\r'), "one line");

        let object: Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(&object["id"], 13);
        prop_assert_eq!(&object["name"], &my_name);
        prop_assert_eq!(&object["time"], time.as_deref().unwrap_or("now"));
        prop_assert_eq!(&object["msg"], &msg);
        prop_assert_eq!(&object[if group { "groupid" } else { "toid" }], 7);
        prop_assert!(FORBIDDEN.iter().all(|key| object.get(key).is_none()));
        for (key, (value, ..)) in others.iter().filter(|(key, _)| !FORBIDDEN.contains(&&***key)) {
            prop_assert_eq!(&object[key], value, "{}", key);
        }
        // Neither lost, nor added, nor there twice: the count of top-level fields.
        let passed = others.keys().filter(|key| !FORBIDDEN.contains(&&***key)).count();
        prop_assert_eq!(object.as_object().unwrap().len(), 6 + passed);
        prop_assert!(parse(&out).is_ok(), "no key twice");
        let read = read_delivered(&out).unwrap();
        let groupid = group.then_some(GroupId(7));
        prop_assert_eq!(read, Delivered { id: UserId(13), name: my_name.into(), msg: msg.into(), groupid });
    }

    #[test]
    fn answers_are_json_whatever_texts_they_carry(name in any_text(), body in vec(any::<u8>(), 0..40)) {
        let mut out = Vec::new();
        let answer = LoginAnswer {
            id: UserId(1),
            name: &name,
            offline: [|out: &mut Vec<u8>| out.extend_from_slice(&body)],
            friends: &[],
            groups: &[],
            more: false,
            seq: None,
            token: None,
        };
        logged_in(&mut out, answer);
        let value: Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(&value["name"], &name);
        prop_assert_eq!(&value["offlinemsg"][0], &*String::from_utf8_lossy(&body));
    }
}

#[test]
fn every_kind_of_request_is_understood() {
    let who = |body: &Body<'_>| match body {
        Body::Login { who, password, caps } => (who.clone().into_static(), password.to_string(), *caps),
        other => panic!("{other:?}"),
    };
    let none = Caps::default();
    let login = request(r#"{"msgid":1,"id":13,"password":"p"}"#);
    assert_eq!(who(&login.body), (Ok(13), "p".to_owned(), none));
    assert_eq!(login.claimed, None);
    let login = request(r#"{"msgid":1,"name":"\u0061","pwd":"p","passwd":"q","caps":["ack","new","ping"]}"#);
    assert_eq!(
        who(&login.body),
        (Err("a".to_owned()), "q".to_owned(), Caps { ack: true, ping: true, ..none })
    );
    let login = request(r#"{"msgid":1,"name":"a","id":13,"pwd":"p","token":"t"}"#);
    assert_eq!(who(&login.body).0, Ok(13), "`id` wins");
    let caps = Caps { resume: true, presence: true, ..none };
    assert_eq!(
        request(r#"{"msgid":1,"token":"t","caps":["resume","presence"]}"#).body,
        Body::Resume { token: "t".into(), caps }
    );
    let logout = request(r#"{"msgid":3,"id":13,"seq":"s"}"#);
    assert_eq!((logout.body, logout.claimed, logout.seq), (Body::Logout, Some(UserId(13)), Some("\"s\"")));
    assert_eq!(
        request(r#"{"msgid":4,"name":"","password":""}"#).body,
        Body::Register { name: "".into(), password: "".into() }
    );
    assert_eq!(request(r#"{"msgid":7,"friendid":2}"#).body, Body::AddFriend { friend: UserId(2) });
    assert_eq!(
        request(r#"{"msgid":8,"groupname":"g","groupdesc":""}"#).body,
        Body::CreateGroup { name: "g".into(), desc: "".into() }
    );
    assert_eq!(request(r#"{"msgid":9,"groupid":2}"#).body, Body::JoinGroup { group: GroupId(2) });
    assert_eq!(request(r#"{"msgid":22}"#).body, Body::Ping);
    assert_eq!(request(r#"{"msgid":23}"#).body, Body::Pong);
    assert_eq!(request(r#"{"msgid":24,"mid":9}"#).body, Body::Confirm { upto: Mid(9) });
    for (frame, receiver) in [
        (r#"{"msgid":6,"toid":2,"msg":"m"}"#, 2),
        (r#"{"msgid":6,"to":3,"msg":"m"}"#, 3),
        (r#"{"msgid":6,"to":"bob","toid":2,"msg":"m"}"#, 2),
    ] {
        assert!(matches!(request(frame).body, Body::Chat { to, .. } if to == UserId(receiver)), "{frame}");
    }
    let chat = request(r#"{"msgid":10,"id":5,"groupid":2,"msg":"m"}"#);
    assert_eq!(chat.claimed, Some(UserId(5)));
    assert!(matches!(chat.body, Body::GroupChat { group: GroupId(2), .. }));
}

/// Compares accounts without borrowing: the number, or else the name.
trait IntoStatic {
    fn into_static(self) -> Result<i64, String>;
}

impl IntoStatic for Who<'_> {
    fn into_static(self) -> Result<i64, String> {
        match self {
            Who::Id(id) => Ok(id.0),
            Who::Name(name) => Err(name.into_owned()),
        }
    }
}

#[test]
fn the_msgid_of_a_request_is_the_one_it_came_with() {
    for msgid in [1, 3, 4, 6, 7, 8, 9, 10, 22, 23, 24] {
        let frame = format!(
            r#"{{"msgid":{msgid},"id":1,"name":"n","password":"p","toid":2,"msg":"m","friendid":2,
                "groupname":"g","groupdesc":"d","groupid":2,"mid":1}}"#
        );
        assert_eq!(request(&frame).msgid().number(), msgid);
    }
    assert_eq!(request(r#"{"msgid":1,"token":"t"}"#).msgid(), Msgid::Login);
}

#[test]
fn a_fault_names_the_field_and_the_request() {
    for (frame, field, re) in [
        ("[1]", "object", None),
        ("[]", "object", None),
        ("{}", "`msgid` is missing", None),
        (r#"{"msgid":null}"#, "`msgid`", None),
        (r#"{"msgid":"6"}"#, "`msgid`", None),
        (r#"{"msgid":6.0}"#, "`msgid`", None),
        (r#"{"msgid":6e0}"#, "`msgid`", None),
        (r#"{"msgid":9223372036854775808}"#, "`msgid`", None),
        (r#"{"msgid":99}"#, "`msgid`", Some(99)),
        (r#"{"msgid":2}"#, "`msgid`", Some(2)),
        (r#"{"msgid":0}"#, "`msgid`", Some(0)),
        (r#"{"msgid":6,"toid":2,"msg":"m","msg":"m"}"#, "`msg` is given more", Some(6)),
        (r#"{"x":1,"\u0078":1,"msgid":6,"toid":2,"msg":"m"}"#, "`x` is given more", Some(6)),
        (r#"{"msgid":6,"msgid":7}"#, "`msgid` is given more", Some(6)),
        (r#"{"msgid":6,"toid":2}"#, "`msg` is missing", Some(6)),
        (r#"{"msgid":6,"msg":"m"}"#, "`toid` is missing", Some(6)),
        (r#"{"msgid":6,"toid":"2","msg":"m"}"#, "`toid`", Some(6)),
        (r#"{"msgid":6,"toid":null,"to":2,"msg":"m"}"#, "`toid`", Some(6)),
        (r#"{"msgid":6,"to":2.5,"msg":"m"}"#, "`to`", Some(6)),
        (r#"{"msgid":6,"toid":2,"msg":1}"#, "`msg`", Some(6)),
        (r#"{"msgid":6,"toid":2,"msg":"\ud800"}"#, "`msg`", Some(6)),
        (r#"{"msgid":6,"toid":2,"msg":"m","time":1}"#, "`time`", Some(6)),
        (r#"{"msgid":6,"toid":2,"msg":"m","name":null}"#, "`name`", Some(6)),
        (r#"{"msgid":6,"toid":2,"msg":"m","id":"13"}"#, "`id`", Some(6)),
        (r#"{"msgid":6,"toid":2,"msg":"m","id":null}"#, "`id`", Some(6)),
        (r#"{"msgid":6,"toid":2,"msg":"m","seq":[1]}"#, "`seq`", Some(6)),
        (r#"{"msgid":6,"toid":2,"msg":"m","seq":null}"#, "`seq`", Some(6)),
        (r#"{"msgid":10,"msg":"m"}"#, "`groupid` is missing", Some(10)),
        (r#"{"msgid":1,"password":"p"}"#, "`id` or `name` is missing", Some(1)),
        (r#"{"msgid":1,"id":1}"#, "`password` is missing", Some(1)),
        (r#"{"msgid":1,"id":1,"pwd":1}"#, "`pwd`", Some(1)),
        (r#"{"msgid":1,"id":1,"pwd":"p","name":1}"#, "`name`", Some(1)),
        (r#"{"msgid":1,"id":1,"pwd":"p","caps":"ack"}"#, "`caps`", Some(1)),
        (r#"{"msgid":1,"id":1,"pwd":"p","caps":["ack",1]}"#, "`caps`", Some(1)),
        (r#"{"msgid":1,"token":1}"#, "`token`", Some(1)),
        (r#"{"msgid":3,"id":1.5}"#, "`id`", Some(3)),
        (r#"{"msgid":4,"password":"p"}"#, "`name` is missing", Some(4)),
        (r#"{"msgid":4,"name":"n"}"#, "`password` is missing", Some(4)),
        (r#"{"msgid":7}"#, "`friendid` is missing", Some(7)),
        (r#"{"msgid":8,"groupdesc":""}"#, "`groupname` is missing", Some(8)),
        (r#"{"msgid":8,"groupname":"g"}"#, "`groupdesc` is missing", Some(8)),
        (r#"{"msgid":8,"groupname":"","groupdesc":""}"#, "`groupname`", Some(8)),
        (r#"{"msgid":8,"groupname":"a\u0007","groupdesc":""}"#, "`groupname`", Some(8)),
        (r#"{"msgid":9,"groupid":true}"#, "`groupid`", Some(9)),
        (r#"{"msgid":24}"#, "`mid` is missing", Some(24)),
        (r#"{"msgid":6,}"#, "not valid JSON", None),
        (r#"{"msgid":6,"a":nul}"#, "not valid JSON", None),
        (r#"{"msgid":6,"a":01}"#, "not valid JSON", None),
        (r#"{"msgid":6,"a":"\x"}"#, "not valid JSON", None),
        ("{\"msgid\":6,\"a\":\"\u{1}\"}", "not valid JSON", None),
        (r#"{"msgid":6,"toid":2,"msg":"m"}{}"#, "not valid JSON", None),
        ("", "object", None),
    ] {
        let fault = fault(frame);
        assert!(fault.text.contains(field), "{frame}: {}", fault.text);
        assert_eq!(fault.re, re, "{frame}");
        assert_eq!(fault.seq, None, "{frame}");
    }
}

#[test]
fn a_fault_repeats_the_seq_wherever_it_stands() {
    for (frame, seq) in [
        (r#"{"seq":7,"msgid":6}"#, Some("7")),
        (r#"{"msgid":6,"x":1,"x":2,"seq":"\u0061"}"#, Some(r#""\u0061""#)),
        (r#"{"seq":-1.5e9,"msgid":6,"seq":2}"#, Some("-1.5e9")),
        (r#"{"seq":true,"msgid":6,"toid":1,"msg":""}"#, None),
    ] {
        let fault = fault(frame);
        assert_eq!((fault.re, fault.seq.as_deref()), (Some(6), seq), "{frame}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_a_fault_that_still_names_the_request() {
    let fault = parse(b"{\"msg\":\"\xff\",\"msgid\":6,\"seq\":1,\"toid\":2}").unwrap_err();
    assert_eq!((fault.re, fault.seq.as_deref()), (Some(6), Some("1")));
    assert!(fault.text.contains("UTF-8"));
}

#[test]
fn nesting_is_bounded_and_never_overflows_the_stack() {
    let nested = |levels: usize| {
        format!(r#"{{"msgid":6,"toid":2,"msg":"m","deep":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    request(&nested(127));
    assert_eq!(fault(&nested(128)).text, "`deep` is nested too deeply");
    let fault = fault(&nested(1_000_000));
    assert_eq!(fault.re, Some(6));
    parse("[".repeat(1_000_000).as_bytes()).unwrap_err();
}

#[test]
fn thousands_of_keys_are_no_fault_and_a_repetition_among_them_is_found() {
    let keys: Vec<String> = (0..10_000).map(|n| format!(r#""k{n}":0"#)).collect();
    let keys = keys.join(",");
    request(&format!(r#"{{{keys},"msgid":22}}"#));
    assert!(fault(&format!(r#"{{{keys},"k77":1,"msgid":22}}"#)).text.contains("`k77`"));
}

#[test]
fn names_and_passwords_are_judged_by_the_contract() {
    assert_eq!(password_fault(&"x".repeat(256)), None);
    assert_eq!(password_fault("\0"), None);
    for bad in ["", &"x".repeat(257), &"é".repeat(129)] {
        assert!(password_fault(bad).is_some(), "{bad:?}");
    }
    let group = |chars: usize, desc: usize| {
        json!({"msgid": 8, "groupname": "é".repeat(chars), "groupdesc": "é".repeat(desc)}).to_string()
    };
    request(&group(64, 1_024));
    let composed = request(r#"{"msgid":8,"groupname":"e\u0301","groupdesc":""}"#).body;
    assert!(matches!(composed, Body::CreateGroup { name, .. } if name == "é"));
    assert!(fault(r#"{"msgid":8,"groupname":"\u3164","groupdesc":""}"#).text.contains("seen"));
    assert!(fault(&group(65, 0)).text.contains("`groupname`"));
    assert!(fault(&group(1, 1_025)).text.contains("`groupdesc`"));
}

#[test]
fn a_chat_that_is_true_already_is_delivered_as_it_is() {
    let frame = r#"{"msgid":6, "id":13,"name":"zhang san","toid":2,"msg":"\u0068i","time":"t", "x":[1, 2]}"#;
    assert_eq!(delivered(frame), frame);
    assert_eq!(chat_of(frame).text(), "hi");
    assert_eq!(chat_of(frame).raw_text(), r#""\u0068i""#);
}

#[test]
fn what_is_wrong_is_replaced_in_place_and_what_is_missing_comes_last() {
    assert_eq!(
        delivered(r#"{"name":"me","msgid":6,"to":2,"id":13,"msg":"m"}"#),
        r#"{"name":"zhang san","msgid":6,"to":2,"id":13,"msg":"m","time":"2026-01-02 03:04:05"}"#
    );
    assert_eq!(
        delivered(r#"{"groupid":2,"time":"t","msgid":10,"msg":"m"}"#),
        r#"{"groupid":2,"time":"t","msgid":10,"msg":"m","id":13,"name":"zhang san"}"#
    );
}

#[test]
fn the_servers_own_fields_are_never_delivered_however_they_are_spelled() {
    let true_one = r#""msgid":6,"id":13,"name":"zhang san","toid":2,"msg":"m","time":"t""#;
    for key in FORBIDDEN {
        for escaped in [false, true] {
            let frame = format!("{{{}:1,{true_one}}}", spell(key, escaped));
            assert_eq!(delivered(&frame), format!("{{{true_one}}}"), "{frame}");
        }
    }
}

#[test]
fn a_delivered_chat_is_one_line_even_if_the_request_was_not() {
    let frame = "{\"msgid\":6,\r\n\"id\":13,\"name\":\"zhang san\",\"toid\":2,\"msg\":\"a\\nb\",\"time\":\"t\",\"x\":[1,\n2]}";
    assert_eq!(delivered(frame), frame.replace(['\r', '\n'], ""));
}

#[test]
fn a_chat_made_of_parts_reads_like_one_from_a_client() {
    let one = chat_object(UserId(1), "a\"", To::User(UserId(2)), "hi\n", "t");
    assert_eq!(one, br#"{"msgid":6,"id":1,"name":"a\"","toid":2,"msg":"hi\n","time":"t"}"#);
    let many = chat_object(UserId(1), "a", To::Group(GroupId(2)), "hi", "t");
    assert_eq!(many, br#"{"msgid":10,"id":1,"name":"a","groupid":2,"msg":"hi","time":"t"}"#);
    let read = read_delivered(&many).unwrap();
    assert_eq!((read.id, &*read.name, &*read.msg, read.groupid), (UserId(1), "a", "hi", Some(GroupId(2))));
}

#[test]
fn a_groupid_that_a_sender_put_into_a_one_to_one_chat_is_not_shown_as_a_group() {
    let body = br#"{"msgid":6,"id":1,"name":"a","toid":2,"groupid":3,"msg":"m"}"#;
    assert_eq!(read_delivered(body).unwrap().groupid, None);
}

#[test]
fn what_is_not_a_chat_is_not_shown() {
    for body in [
        "",
        "{}",
        "hello",
        r#"{"msgid":5,"id":1,"name":"a","msg":"m"}"#,
        r#"{"msgid":10,"id":1,"name":"a","msg":"m"}"#,
    ] {
        assert_eq!(read_delivered(body.as_bytes()), None, "{body}");
    }
}
