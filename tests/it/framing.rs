//! Where a request begins and ends, as section 2 has it: any pieces, any separators, and bytes that are none.

use crate::common::{
    Client, EARLY_FRAME_BYTES, FRAME_BYTES, PASSWORD, Server, eventually, expect_error, numbers,
};
use serde_json::{Value, json};

/// A chat to oneself whose object is exactly `bytes` long.
fn chat_of(bytes: usize, to: i64) -> Vec<u8> {
    let empty = json!({"msgid": 6, "toid": to, "msg": ""}).to_string();
    let padding = "x".repeat(bytes - empty.len());
    let object = json!({"msgid": 6, "toid": to, "msg": padding}).to_string().into_bytes();
    assert_eq!(object.len(), bytes);
    object
}

#[test]
fn the_server_ends_its_objects_as_the_client_does() {
    let server = Server::start(&[]);
    let mut old = Client::connect(&server);
    old.speak_nul();
    let old_id = old.register("old");
    assert_eq!(old.last_terminator(), 0, "NUL to the one who speaks NUL");
    old.login(old_id);
    assert_eq!(old.last_terminator(), 0);
    let (mut new, new_id) = server.user("new");
    assert_eq!(new.last_terminator(), b'\n', "LF to the one who speaks LF");
    new.chat(old_id, "to the old one");
    assert_eq!(old.hear()["msg"], "to the old one");
    assert_eq!(old.last_terminator(), 0, "also what others said");
    old.chat(new_id, "to the new one");
    new.hear();
    assert_eq!(new.last_terminator(), b'\n');
    for (bytes, expected) in [
        (&b"{\"msgid\":99}"[..], b'\n'),
        (b"{\"msgid\":99}\0", 0),
        (b"{\"msgid\":99}\r\n", b'\n'),
        (b"\0{\"msgid\":99}\r", b'\n'),
        (b"\0\0 \t{\"msgid\":99}\0\0\0", 0),
        (b"{\"msgid\":99}\n\0", b'\n'),
    ] {
        new.say_bytes(bytes);
        expect_error(&new.hear(), 10, Some(99));
        assert_eq!(new.last_terminator(), expected, "after {:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn an_object_may_arrive_byte_by_byte() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    let slowly = |client: &mut Client, request: Value| {
        for byte in request.to_string().bytes().chain([b'\n']) {
            client.say_bytes(&[byte]);
        }
        client.hear()
    };
    let answer = slowly(&mut client, json!({"msgid": 4, "name": "慢", "password": PASSWORD}));
    assert_eq!(answer["errno"], 0, "{answer}");
    let id = answer["id"].clone();
    let answer = slowly(&mut client, json!({"msgid": 1, "id": id, "password": PASSWORD}));
    assert_eq!(answer["errno"], 0, "{answer}");
    let text = "{]\"}\\ 慢\u{0}";
    assert_eq!(slowly(&mut client, json!({"msgid": 6, "toid": id, "msg": text}))["msg"], text);
}

#[test]
fn an_object_may_be_split_at_every_byte() {
    let server = Server::start(&[]);
    let (mut client, id) = server.user("alice");
    let text = "{]\"}\\\\\" 慢 \u{1F600}";
    let request = json!({"msgid": 6, "toid": id, "msg": text}).to_string().into_bytes();
    let bytes_in = |client: &Client| server.channel_with(client).unwrap()["bytes_in"].as_u64().unwrap();
    let mut sent = bytes_in(&client);
    for at in 1..request.len() {
        client.say_bytes(&request[..at]);
        eventually("the first part was read by itself", || bytes_in(&client) == sent + at as u64);
        client.say_bytes(&request[at..]);
        sent += request.len() as u64;
        assert_eq!(client.hear()["msg"], text, "split at {at}");
    }
    client.quiet();
}

#[test]
fn many_objects_may_arrive_in_one_segment_with_any_separators_or_none() {
    let server = Server::start(&[]);
    let (mut client, id) = server.user("alice");
    let separators: [&[u8]; 7] = [b"", b"\0", b"\n", b"\r\n", b" ", b"\t", b"\n\0 \r\t\n\0\0"];
    for separator in separators {
        let mut bytes = separator.to_vec();
        for n in 0..50 {
            bytes.extend(json!({"msgid": 6, "toid": id, "msg": "}{\"][", "n": n}).to_string().bytes());
            bytes.extend(separator);
        }
        client.say_bytes(&bytes);
        let heard: Vec<_> = (0..50).map(|_| client.hear()).collect();
        assert_eq!(numbers(&heard), (0..50).collect::<Vec<_>>(), "separated by {separator:?}");
        client.quiet();
    }
}

#[test]
fn bytes_that_balance_but_are_no_request_are_errno_10_and_the_channel_stays() {
    let server = Server::start(&[]);
    let (mut witness, _) = server.user("witness");
    let (mut client, _) = server.user("client");
    let cases: &[&[u8]] = &[
        b"{}",
        b"[]",
        b"[1,2,3]",
        br#"[{"msgid":6}]"#,
        b"{msgid:6}",
        br#"{"msgid"}"#,
        br#"{"msgid":}"#,
        br#"{"msgid":6,}"#,
        br#"{"a":1,"b":2}"#,
        br#"{"msg":"no msgid"}"#,
        b"{\"a\":\"raw\ncontrol\"}",
        b"{\"a\":\"raw\0nul\"}",
        b"{\"a\":\"\xff\xfe\"}",
        b"{\"a\":\"\xc3\x28\"}",
        b"{\"a\":\"\xed\xa0\x80\"}",
        br#"{"a":"bad escape \x"}"#,
        br#"{"a":truth}"#,
        br#"{"a":01}"#,
        br#"{"a":'single'}"#,
        br"{/* comment */}",
        b"{,}",
        b"[,]",
        b"{[]}",
        br#"{"a":1 "b":2}"#,
    ];
    for case in cases {
        client.say_bytes(case);
        client.say_bytes(b"\n");
        let answer = client.hear();
        assert_eq!(answer["errno"], 10, "{:?}: {answer}", String::from_utf8_lossy(case));
        expect_error(&answer, 10, None);
        client.quiet();
    }
    witness.quiet();
}

#[test]
fn bytes_without_an_end_of_a_request_end_the_channel_with_malformed_frame() {
    let server = Server::start(&["--grace", "1h"]);
    let (mut witness, _) = server.user("witness");
    let cases: &[&[u8]] = &[
        b"hello",
        b"}",
        b"]",
        b"\"",
        b"1",
        b"\xff",
        b"\xef\xbb\xbf{\"msgid\":99}",
        b"\x01",
        b",",
        br#"{"a":[1}"#,
        b"[1}",
        b"{]",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    for case in cases {
        let mut client = Client::connect(&server);
        client.say_bytes(case);
        let answer = client.hear();
        assert_eq!(answer["errno"], 10, "{:?}: {answer}", String::from_utf8_lossy(case));
        expect_error(&answer, 10, None);
        assert_eq!(client.expect_goodbye("malformed_frame")["advice"], "stop");
        client.expect_end();
    }
    witness.quiet();
}

#[test]
fn a_malformed_frame_ends_a_session_too_and_what_was_asked_before_it_is_done() {
    let server = Server::start(&[]);
    let (mut bob, bob_id) = server.user("bob");
    let (mut alice, alice_id) = server.user("alice");
    let chat = json!({"msgid": 6, "toid": bob_id, "msg": "before"});
    alice.say_bytes(format!("{chat}{chat}?{chat}").as_bytes());
    expect_error(&alice.hear(), 10, None);
    alice.expect_goodbye("malformed_frame");
    alice.expect_end();
    assert_eq!(bob.hear()["msg"], "before");
    assert_eq!(bob.hear()["msg"], "before");
    bob.quiet();
    eventually("alice is offline", || server.home.state(alice_id) == "offline");
    let left = server.home.departures(alice_id);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].reason.as_str(), left[0].initiator.as_str()), ("malformed_frame", "client"));
}

#[test]
fn before_a_login_eight_kib_are_a_request_and_one_byte_more_ends_the_channel() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    client.say_bytes(&chat_of(EARLY_FRAME_BYTES, 1));
    expect_error(&client.hear(), 11, Some(6));
    client.say_bytes(&chat_of(EARLY_FRAME_BYTES + 1, 1));
    let answer = client.hear();
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(0), &json!(16)), "{answer}");
    client.expect_goodbye("frame_too_large");
    client.expect_end();
}

#[test]
fn after_a_login_the_frame_limit_holds_to_the_byte() {
    let server = Server::start(&[]);
    let (mut client, id) = server.user("client");
    client.say_bytes(&chat_of(FRAME_BYTES, id));
    assert_eq!(client.hear()["msgid"], 6);
    client.quiet();
    client.try_say_bytes(&chat_of(FRAME_BYTES + 1, id));
    let answer = client.hear();
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(0), &json!(16)), "{answer}");
    assert_eq!(client.expect_goodbye("frame_too_large")["advice"], "reconnect");
    client.expect_end();
    eventually("offline", || server.home.reasons(id) == ["frame_too_large"]);
    server.back(id).quiet();
}

#[test]
fn the_frame_limit_is_the_operators() {
    let server = Server::start(&["--max-frame", "20000"]);
    let (mut client, id) = server.user("client");
    client.say_bytes(&chat_of(20_000, id));
    assert_eq!(client.hear()["msgid"], 6);
    client.say_bytes(&chat_of(20_001, id));
    assert_eq!(client.hear()["errno"], 16);
    client.expect_goodbye("frame_too_large");
    client.expect_end();
}

#[test]
fn an_object_that_never_ends_is_too_large_and_its_rest_does_not_eat_the_goodbye() {
    let server = Server::start(&["--grace", "1h"]);
    let (mut witness, _) = server.user("witness");
    for start in [&b"{\"msg\":\""[..], b"[", b"{\"a\":"] {
        let mut client = Client::connect(&server);
        client.say_bytes(start);
        // Far more than is read before the decision: a close with unread input would reset the stream.
        let filler = if start == b"[" { b'[' } else { b' ' };
        for _ in 0..32 {
            client.say_bytes(&vec![filler; 32 * 1024]);
        }
        assert_eq!(client.hear()["errno"], 16);
        client.expect_goodbye("frame_too_large");
        client.expect_end();
    }
    witness.quiet();
}

#[test]
fn huge_nesting_is_answered_and_survived() {
    const DEPTH: usize = 30_000;
    let server = Server::start(&[]);
    let (mut witness, _) = server.user("witness");
    let (mut client, id) = server.user("client");
    let deep = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    client.say_bytes(format!("{deep}\n").as_bytes());
    expect_error(&client.hear(), 10, None);
    client.say_bytes(format!(r#"{{"msgid":6,"toid":{id},"msg":"m","deep":{deep}}}"#).as_bytes());
    // A server may call such an object not acceptable, or pass it on whole; it may not fall silent.
    client.say(&json!({"msgid": 99, "seq": "fence"}));
    let answer = String::from_utf8(client.hear_bytes()).unwrap();
    assert!(answer.contains(r#""errno":10"#) || answer.contains(&deep), "{} bytes", answer.len());
    assert_eq!(client.hear()["seq"], "fence");
    client.quiet();
    witness.quiet();
}
