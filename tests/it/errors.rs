//! Every row of section 2.1: what is wrong is answered, and nobody else is touched by it.
//!
//! What has no end of a request, or is too long for one, is in `framing`. Errno 17 waits for bans and rates. Errno 18 is not here: a full auth queue needs thousands of channels.

use std::time::Duration;

use crate::common::{Client, PASSWORD, Server, eventually, eventually_within, expect_error, unpack};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

/// SQLite's busy timeout in the server; a longer lock by somebody else makes a commit fail.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a message box is by default.
const BOX_MESSAGES: u64 = 1000;

fn refused(answer: &Value, errno: i64, re: i64) {
    expect_error(answer, errno, Some(re));
}

#[test]
fn an_unknown_or_odd_msgid_is_errno_10() {
    let server = Server::start(&[]);
    let (mut client, _) = server.user("client");
    for unknown in [0, 2, 5, 11, 20, 99, -1, i64::MAX, i64::MIN] {
        let answer = client.ask(&json!({"msgid": unknown, "seq": "s"}));
        refused(&answer, 10, unknown);
        assert_eq!(answer["seq"], "s");
    }
    for odd in [
        r#""6""#,
        "null",
        "true",
        "[6]",
        "6.0",
        "6e0",
        "6E0",
        "60e-1",
        "9223372036854775808",
        "-9223372036854775809",
        "1e400",
    ] {
        client.say_bytes(format!(r#"{{"msgid":{odd},"toid":1,"msg":"m"}}"#).as_bytes());
        client.say_bytes(b"\n");
        let answer = client.hear();
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(0), &json!(10)), "{odd}: {answer}");
    }
    client.quiet();
}

#[test]
fn a_missing_or_mistyped_field_is_errno_10_with_re_and_seq() {
    let server = Server::start(&[]);
    let (mut client, id) = server.user("client");
    let cases = [
        json!({"msgid": 1, "password": PASSWORD}),
        json!({"msgid": 1, "id": id}),
        json!({"msgid": 1, "id": id.to_string(), "password": PASSWORD}),
        json!({"msgid": 1, "id": id, "password": 5}),
        json!({"msgid": 1, "name": 5, "password": PASSWORD}),
        json!({"msgid": 1, "id": null, "password": PASSWORD}),
        json!({"msgid": 3, "id": "me"}),
        json!({"msgid": 4, "name": "x"}),
        json!({"msgid": 4, "password": PASSWORD}),
        json!({"msgid": 4, "name": ["x"], "password": PASSWORD}),
        json!({"msgid": 4, "name": "x", "password": {}}),
        json!({"msgid": 6, "msg": "no receiver"}),
        json!({"msgid": 6, "toid": id}),
        json!({"msgid": 6, "toid": id.to_string(), "msg": "m"}),
        json!({"msgid": 6, "toid": id, "msg": 5}),
        json!({"msgid": 6, "toid": id, "msg": null}),
        json!({"msgid": 6, "toid": id, "msg": "m", "id": "me"}),
        json!({"msgid": 6, "toid": id, "msg": "m", "time": 5}),
        json!({"msgid": 6, "toid": id, "msg": "m", "name": 5}),
        json!({"msgid": 7}),
        json!({"msgid": 7, "friendid": "you"}),
        json!({"msgid": 8, "groupname": "g"}),
        json!({"msgid": 8, "groupdesc": "d"}),
        json!({"msgid": 8, "groupname": 1, "groupdesc": "d"}),
        json!({"msgid": 9}),
        json!({"msgid": 9, "groupid": true}),
        json!({"msgid": 10, "groupid": 1}),
        json!({"msgid": 10, "msg": "m"}),
        json!({"msgid": 10, "groupid": 1, "msg": []}),
    ];
    for (n, case) in cases.into_iter().enumerate() {
        let mut request = case.clone();
        request["seq"] = json!(n);
        let answer = client.ask(&request);
        refused(&answer, 10, case["msgid"].as_i64().unwrap());
        assert_eq!(answer["seq"], n, "{case}: {answer}");
        client.quiet();
    }
}

#[test]
fn integers_are_signed_64_bit_without_fraction_or_exponent() {
    let server = Server::start(&[]);
    let (mut client, id) = server.user("client");
    for bad in [
        format!("{id}.0"),
        format!("{id}e0"),
        format!("{id}E+0"),
        format!("{id}0e-1"),
        "9223372036854775808".into(),
        "18446744073709551616".into(),
        "-9223372036854775809".into(),
        "1e999".into(),
        format!("1{}", "0".repeat(400)),
    ] {
        client.say_bytes(format!(r#"{{"msgid":6,"toid":{bad},"msg":"m","seq":"s"}}"#).as_bytes());
        let answer = client.hear();
        assert_eq!(answer["seq"], "s", "{bad}: {answer}");
        refused(&answer, 10, 6);
    }
    for far in ["9223372036854775807", "-9223372036854775808", "0", "-0", "-1"] {
        client.say_bytes(format!(r#"{{"msgid":6,"toid":{far},"msg":"m"}}"#).as_bytes());
        refused(&client.hear(), 13, 6);
    }
    client.quiet();
}

#[test]
fn a_repeated_top_level_key_is_errno_10_and_a_nested_one_is_not() {
    let server = Server::start(&[]);
    let (mut client, id) = server.user("client");
    for (bad, re) in [
        (format!(r#"{{"msgid":6,"toid":{id},"msg":"a","msg":"b"}}"#), Some(6)),
        (format!(r#"{{"msgid":6,"toid":{id},"msg":"a","m\u0073g":"b"}}"#), Some(6)),
        (format!(r#"{{"msgid":6,"toid":{id},"msg":"a","x":1,"y":2,"x":1}}"#), Some(6)),
        (format!(r#"{{"msgid":6,"toid":{id},"toid":{id},"msg":"a"}}"#), Some(6)),
        (format!(r#"{{"msgid":6,"msgid":6,"toid":{id},"msg":"a"}}"#), None),
    ] {
        client.say_bytes(bad.as_bytes());
        let answer = client.hear();
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(0), &json!(10)), "{bad}: {answer}");
        if let Some(re) = re {
            refused(&answer, 10, re);
        }
        client.quiet();
    }
    client.say_bytes(format!(r#"{{"msgid":6,"toid":{id},"msg":"a","x":{{"k":1,"k":2}}}}"#).as_bytes());
    assert_eq!(client.hear()["msg"], "a");
    client.quiet();
}

#[test]
fn everything_but_registering_and_logging_in_needs_a_login() {
    let server = Server::start(&[]);
    let (mut bob, bob_id) = server.user("bob");
    let mut client = Client::connect(&server);
    for request in [
        json!({"msgid": 3}),
        json!({"msgid": 6, "toid": bob_id, "msg": "m"}),
        json!({"msgid": 6, "toid": bob_id, "id": bob_id, "msg": "m"}),
        json!({"msgid": 7, "friendid": bob_id}),
        json!({"msgid": 8, "groupname": "g", "groupdesc": "d"}),
        json!({"msgid": 9, "groupid": 1}),
        json!({"msgid": 10, "groupid": 1, "msg": "m"}),
    ] {
        let re = request["msgid"].as_i64().unwrap();
        refused(&client.ask(&request), 11, re);
        let mut with_seq = request;
        with_seq["seq"] = json!(re);
        let answer = client.ask(&with_seq);
        refused(&answer, 11, re);
        assert_eq!(answer["seq"], re);
    }
    bob.quiet();
    client.register("somebody");
}

#[test]
fn a_forged_id_is_errno_12_and_does_nothing() {
    let server = Server::start(&[]);
    let (mut victim, victim_id) = server.user("victim");
    let (mut forger, forger_id) = server.user("forger");
    for (n, request) in [
        json!({"msgid": 3, "id": victim_id}),
        json!({"msgid": 6, "id": victim_id, "toid": victim_id, "msg": "m"}),
        json!({"msgid": 6, "id": victim_id, "toid": forger_id, "msg": "m"}),
        json!({"msgid": 6, "id": forger_id + 1000, "toid": victim_id, "msg": "m"}),
        json!({"msgid": 7, "id": victim_id, "friendid": forger_id}),
        json!({"msgid": 8, "id": victim_id, "groupname": "g", "groupdesc": "d"}),
        json!({"msgid": 9, "id": victim_id, "groupid": 1}),
        json!({"msgid": 10, "id": victim_id, "groupid": 1, "msg": "m"}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut request = request;
        request["seq"] = json!(n);
        let answer = forger.ask(&request);
        refused(&answer, 12, request["msgid"].as_i64().unwrap());
        assert_eq!(answer["seq"], n);
    }
    forger.quiet();
    victim.quiet();
    let answer = victim.login(victim_id);
    assert!(answer.get("friends").is_none() && answer.get("groups").is_none(), "{answer}");
}

#[test]
fn unknown_users_and_groups_and_groups_of_others_are_errno_13_14_and_15() {
    let server = Server::start(&[]);
    let (mut owner, _) = server.user("owner");
    let group = owner.ask(&json!({"msgid": 8, "groupname": "g", "groupdesc": "d", "seq": 1}))["id"].clone();
    let (mut client, id) = server.user("client");
    for (errno, request) in [
        (13, json!({"msgid": 6, "toid": id + 1000, "msg": "m"})),
        (13, json!({"msgid": 7, "friendid": id + 1000})),
        (14, json!({"msgid": 9, "groupid": 1000})),
        (14, json!({"msgid": 10, "groupid": 1000, "msg": "m"})),
        (15, json!({"msgid": 10, "groupid": group, "msg": "m"})),
    ] {
        let re = request["msgid"].as_i64().unwrap();
        refused(&client.ask(&request), errno, re);
        let mut with_seq = request;
        with_seq["seq"] = if errno == 14 { json!("x") } else { json!(-1.5) };
        let answer = client.ask(&with_seq);
        refused(&answer, errno, re);
        assert_eq!(answer["seq"], with_seq["seq"], "{answer}");
    }
    client.quiet();
    owner.quiet();
}

#[test]
fn a_seq_that_is_neither_number_nor_string_is_errno_10() {
    let server = Server::start(&[]);
    let (mut client, id) = server.user("client");
    for bad in [json!(null), json!([1]), json!({"a": 1}), json!(true)] {
        let answer = client.ask(&json!({"msgid": 6, "toid": id, "msg": "m", "seq": bad}));
        refused(&answer, 10, 6);
    }
    client.quiet();
}

#[test]
fn answers_to_logins_and_registrations_repeat_seq_too() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    let ask = |client: &mut Client, request: Value| {
        let answer = client.ask(&request);
        assert_eq!(answer["seq"], request["seq"], "{answer}");
        (answer["msgid"].as_i64().unwrap(), answer["errno"].as_i64().unwrap())
    };
    assert_eq!(ask(&mut client, json!({"msgid": 4, "name": "a", "pwd": "p", "seq": 1})), (5, 0));
    assert_eq!(ask(&mut client, json!({"msgid": 4, "name": "a", "pwd": "p", "seq": "two"})), (5, 1));
    assert_eq!(ask(&mut client, json!({"msgid": 1, "name": "a", "pwd": "x", "seq": -3})), (2, 1));
    assert_eq!(ask(&mut client, json!({"msgid": 1, "name": "a", "pwd": "p", "seq": ""})), (2, 0));
}

#[test]
fn ten_refused_logins_on_one_channel_end_it_with_auth_failed() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let mut client = Client::connect(&server);
    for _ in 0..10 {
        let answer = client.ask(&json!({"msgid": 1, "id": id, "password": "guess"}));
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(1)), "{answer}");
    }
    assert_eq!(client.expect_goodbye("auth_failed")["advice"], "stop");
    client.expect_end();
    server.back(id).quiet();
}

#[test]
fn a_hundred_errors_in_a_row_end_the_channel_and_a_good_request_begins_a_new_row() {
    let server = Server::start(&[]);
    let (mut client, id) = server.user("client");
    let bad = [
        json!({"msgid": 9}),
        json!({"msgid": 6, "id": id + 1, "toid": id, "msg": "forged"}),
        json!({"msgid": 6, "toid": id}),
    ];
    for _ in 0..2 {
        for n in 0..99 {
            assert_eq!(client.ask(&bad[n % 3])["msgid"], 0);
        }
        client.quiet();
    }
    for n in 0..100 {
        assert_eq!(client.ask(&bad[n % 3])["msgid"], 0);
    }
    assert_eq!(client.expect_goodbye("protocol_violation")["advice"], "stop");
    client.expect_end();
    eventually("offline", || server.home.reasons(id) == ["protocol_violation"]);
}

#[test]
fn heartbeats_of_a_clients_own_are_answered_each_time_and_end_nobody_who_is_logged_in() {
    let server = Server::start(&[]);
    let (mut client, _) = server.user("client");
    for n in 0..250 {
        // 2 and 20 are the server's own; a heartbeat may have any fields.
        let msgid = [99, 2, 20, -1, i64::MAX][n % 5];
        let answer = client.ask(&json!({"msgid": msgid, "seq": [1]}));
        assert_eq!(
            (&answer["msgid"], &answer["errno"], &answer["re"]),
            (&json!(0), &json!(10), &json!(msgid))
        );
    }
    // Neither are they good requests, which would begin a new row.
    for _ in 0..99 {
        client.ask(&json!({"msgid": "6"}));
    }
    client.ask(&json!({"msgid": 99}));
    client.ask(&json!({"msgid": 6}));
    client.expect_goodbye("protocol_violation");
}

#[test]
fn a_hundred_unknown_msgids_without_a_login_end_the_channel() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    for _ in 0..100 {
        assert_eq!(client.ask(&json!({"msgid": 99}))["errno"], 10);
    }
    client.expect_goodbye("protocol_violation");
    client.expect_end();
}

#[test]
fn a_person_who_types_hello_is_told_what_to_type_before_the_goodbye() {
    let server = Server::start(&[]);
    for (input, hint) in [
        (&b"hello\r\n"[..], "this is not JSON"),
        (b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
    ] {
        let mut client = Client::connect(&server);
        client.say_bytes(input);
        let answer = client.hear();
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(0), &json!(10)));
        let said = answer["errmsg"].as_str().unwrap();
        assert!(said.contains(hint), "{said}");
        let (_, example) = said.split_once("such as ").expect(said);
        client.expect_goodbye("malformed_frame");
        client.expect_end();
        // What it says can be typed as it stands.
        let mut again = Client::connect(&server);
        again.say_bytes(example.as_bytes());
        assert_eq!(again.hear()["msgid"], 5);
    }
    for input in ["{'msgid':1}", "{msgid:1}"] {
        let mut client = Client::connect(&server);
        client.say_bytes(input.as_bytes());
        let said = client.hear();
        assert!(said["errmsg"].as_str().unwrap().contains("double quotes"), "{said}");
        client.register(input);
    }
}

#[test]
fn sql_in_names_and_texts_is_only_text() {
    let server = Server::start(&[]);
    let (mut witness, witness_id) = server.user("witness");
    let nasty = ["'; DROP TABLE user; --", "a' OR '1'='1", "\"; --", "%", "_", "?1", ":name", "NULL", "\\'"];
    for name in nasty {
        let (mut client, id) = server.user(name);
        client.chat(witness_id, name);
        let heard = witness.hear();
        assert_eq!((&heard["name"], &heard["msg"]), (&json!(name), &json!(name)));
        client.say(&json!({"msgid": 8, "groupname": name, "groupdesc": name}));
        let groups = unpack(&client.login_as(name), "groups");
        assert_eq!((&groups[0]["groupname"], &groups[0]["groupdesc"]), (&json!(name), &json!(name)));
        assert_eq!(client.id(), id, "{name:?} is this user and no other");
        let refused = client.ask(&json!({"msgid": 1, "name": name, "password": "' OR 1=1 --"}));
        assert_eq!(refused["errno"], 1, "{refused}");
        drop(client);
        eventually("offline", || server.home.state(id) == "offline");
        let stored = server.home.departures(id).pop().unwrap();
        assert_eq!(stored.name, name);
    }
    witness.quiet();
    let users: i64 = server.home.db().query_row("SELECT count(*) FROM user", [], |row| row.get(0)).unwrap();
    assert_eq!(users, nasty.len() as i64 + 1);
}

#[test]
fn control_characters_in_texts_arrive_as_they_were_sent() {
    let server = Server::start(&[]);
    let (mut alice, id) = server.user("alice");
    let [bob_id] = server.absent(["bob"]);
    let text: String = ('\0'..='\u{9f}').collect();
    alice.chat(id, &text);
    assert_eq!(alice.hear()["msg"], text);
    alice.say(&json!({"msgid": 6, "toid": bob_id, "msg": text, "seq": 1}));
    assert_eq!(alice.hear()["errno"], 0);
    assert_eq!(unpack(&Client::connect(&server).login(bob_id), "offlinemsg")[0]["msg"], text);
}

#[test]
fn while_the_database_cannot_be_written_requests_are_errno_19_and_sessions_go_on() {
    let patience = BUSY_TIMEOUT * 6;
    let server = Server::start(&["--login-timeout", "2m"]);
    let (mut alice, alice_id) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    let (leaver, leaver_id) = server.user("leaver");
    let [absent_id] = server.absent(["absent"]);
    let other_process = server.home.db_to_write();
    other_process.execute_batch("BEGIN IMMEDIATE").unwrap();

    let mut newcomer = Client::connect(&server);
    newcomer.say(&json!({"msgid": 1, "id": absent_id, "password": PASSWORD}));
    let answer = newcomer.hear_within(patience);
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(19)), "{answer}");
    alice.chat(bob_id, "meanwhile");
    assert_eq!(bob.hear_within(patience)["msg"], "meanwhile");
    drop(leaver);
    newcomer.say(&json!({"msgid": 4, "name": "new", "password": PASSWORD}));
    let answer = newcomer.hear_within(patience);
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(5), &json!(19)), "{answer}");
    alice.say(&json!({"msgid": 6, "toid": absent_id, "msg": "not kept", "seq": 1}));
    let answer = alice.hear_within(patience);
    refused(&answer, 19, 6);
    assert_eq!(answer["seq"], 1);
    assert_eq!(server.home.state(leaver_id), "online", "nobody can write it yet");

    other_process.execute_batch("ROLLBACK").unwrap();
    eventually_within(patience, "the leaver's offline state is written in the end", || {
        server.home.state(leaver_id) == "offline"
    });
    assert_eq!(server.home.reasons(leaver_id), ["peer_closed"]);
    newcomer.register("new");
    assert!(newcomer.login(absent_id).get("offlinemsg").is_none(), "what was refused was not kept");
    alice.quiet();
    bob.quiet();
    assert_eq!(server.home.state(alice_id), "online");
}

#[test]
fn at_the_file_size_limit_requests_are_errno_19_and_the_server_recovers_by_itself() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    let [absent_id] = server.absent(["absent"]);
    let pid = Pid::from_raw(server.pid() as i32);
    let unlimited = getrlimit(Resource::Fsize);
    prlimit(pid, Resource::Fsize, Rlimit { current: Some(1), ..unlimited }).unwrap();

    let answer = alice.ask(&json!({"msgid": 6, "toid": absent_id, "msg": "not kept", "seq": 1}));
    refused(&answer, 19, 6);
    alice.chat(bob_id, "meanwhile");
    assert_eq!(bob.hear()["msg"], "meanwhile");

    prlimit(pid, Resource::Fsize, unlimited).unwrap();
    let answer = alice.ask(&json!({"msgid": 6, "toid": absent_id, "msg": "kept", "seq": 2}));
    assert_eq!(answer["errno"], 0, "{answer}");
    let kept = unpack(&Client::connect(&server).login(absent_id), "offlinemsg");
    assert_eq!(kept.iter().map(|chat| &chat["msg"]).collect::<Vec<_>>(), ["kept"]);
}

#[test]
fn a_full_box_is_errno_20_and_opens_again_when_its_owner_comes() {
    let server = Server::start(&[]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    for n in 0..BOX_MESSAGES {
        alice.chat_numbered(bob_id, n, "into the box");
    }
    for _ in 0..BOX_MESSAGES {
        assert_eq!(alice.hear()["errno"], 0);
    }
    alice.chat(bob_id, "one too many");
    refused(&alice.hear(), 20, 6);
    alice.chat_numbered(bob_id, BOX_MESSAGES, "two too many");
    let answer = alice.hear();
    refused(&answer, 20, 6);
    assert_eq!(answer["seq"], BOX_MESSAGES);

    let mut bob = Client::connect(&server);
    let heard = bob.login_and_collect(bob_id, BOX_MESSAGES as usize);
    assert!(heard.iter().enumerate().all(|(n, message)| message["n"] == n), "in order, each once");
    bob.quiet();
    alice.chat(bob_id, "room again");
    assert_eq!(bob.hear()["msg"], "room again");
}

#[test]
fn a_group_chat_skips_full_boxes_and_says_whose() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let group = alice.ask(&json!({"msgid": 8, "groupname": "g", "groupdesc": "", "seq": "g"}))["id"].clone();
    let (mut bob, bob_id) = server.user("bob");
    let (mut carol, _) = server.user("carol");
    for member in [&mut bob, &mut carol] {
        assert_eq!(member.ask(&json!({"msgid": 9, "groupid": group, "seq": 1}))["errno"], 0);
    }
    drop(bob);
    eventually("bob is offline", || server.home.state(bob_id) == "offline");
    for n in 0..BOX_MESSAGES {
        alice.chat_numbered(bob_id, n, "into the box");
    }
    for _ in 0..BOX_MESSAGES {
        assert_eq!(alice.hear()["errno"], 0);
    }
    let answer =
        alice.ask(&json!({"msgid": 10, "groupid": group, "msg": "to those with room", "seq": "all"}));
    assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": "all", "re": 10, "full": [bob_id]}));
    assert_eq!(carol.hear()["msg"], "to those with room");
    carol.quiet();
}

#[test]
fn a_box_holds_sixteen_mib() {
    const TEXT_BYTES: usize = 60_000;
    const BOX_BYTES: usize = 16 * 1024 * 1024;
    let server = Server::start(&[]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let text = "x".repeat(TEXT_BYTES);
    let mut accepted = 0;
    loop {
        alice.chat_numbered(bob_id, accepted, &text);
        let answer = alice.hear();
        if answer["errno"] == 20 {
            break;
        }
        assert_eq!(answer["errno"], 0, "{answer}");
        accepted += 1;
        assert!(accepted as usize * TEXT_BYTES <= BOX_BYTES, "{accepted} messages in the box");
    }
    assert!((accepted as usize + 2) * TEXT_BYTES > BOX_BYTES, "only {accepted} messages in the box");
    let heard = Client::connect(&server).login_and_collect(bob_id, accepted as usize);
    assert!(heard.iter().enumerate().all(|(n, message)| message["n"] == n), "in order, each once");
}

#[test]
fn failed_logins_are_counted_and_logged_whoever_fails_in_whatever_way() {
    let server = Server::start(&["--line", "127.0.0.1:0"]);
    server.absent(["alice"]);
    let failed = |logins: u64| {
        eventually("they are counted", || server.cli_json(&["stats"])["logins_failed"] == logins);
    };
    let long = format!("x\u{1b}[2J\n{}", "y".repeat(1000));
    let mut client = Client::connect(&server);
    for login in [
        json!({"msgid": 1, "name": "alice", "password": "guess"}),
        json!({"msgid": 1, "id": 4711, "password": "guess"}),
        json!({"msgid": 1, "name": long, "password": "guess"}),
        json!({"msgid": 1, "token": "f".repeat(64)}),
    ] {
        assert_eq!(client.ask(&login)["errno"], 1);
    }
    failed(4);
    for first in ["alice guess", "alice"] {
        let mut line = std::net::TcpStream::connect(server.ready_field("line")).unwrap();
        std::io::Write::write_all(&mut line, format!("{first}\n").as_bytes()).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut line, &mut text).unwrap();
        assert_eq!(text, "error: wrong id, name or password\n");
    }
    failed(6);
    // Whoever does not wait for the answer has failed as well.
    let mut gone = Client::connect(&server);
    gone.say(&json!({"msgid": 1, "token": "e".repeat(64)}));
    drop(gone);
    failed(7);
    eventually("each is logged", || server.log().matches("a login failed").count() == 7);
    let log = server.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a login failed")).collect();
    let from = format!("peer={}", client.local_addr());
    assert!(lines[..4].iter().all(|line| line.contains(&from)), "{lines:?}");
    assert!(lines[0].contains(r#"name="alice""#), "{}", lines[0]);
    assert!(lines[1].contains("user=4711"), "{}", lines[1]);
    assert!(lines[2].contains(r#"name="x\u{1b}[2J\u{a}y"#), "{}", lines[2]);
    assert!(
        lines[2].contains("y…") && lines[2].len() < 400,
        "a name is no longer than names are: {}",
        lines[2]
    );
}
