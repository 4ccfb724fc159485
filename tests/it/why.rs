//! `linger why` and `linger channels --departed`: how somebody left, told afterwards.

use std::thread;

use crate::common::{Client, ECONNRESET, ENDLESS_GRACE, Home, Server, eventually, linger, one_line};
use serde_json::{Value, json};

/// A grace after which `closed_us` is known at once.
const NO_GRACE: [&str; 2] = ["--grace", "0s"];

/// The keys of a row: the columns of section 5, and `since`.
const KEYS: [&str; 14] = [
    "at",
    "channel",
    "user",
    "name",
    "peer",
    "reason",
    "initiator",
    "errno",
    "offline_us",
    "closed_us",
    "delivered",
    "saved",
    "lost",
    "since",
];

fn rows(answer: &Value) -> Vec<Value> {
    answer["departures"].as_array().unwrap_or_else(|| panic!("no departures: {answer}")).clone()
}

/// What `linger why` prints with `--json`.
#[track_caller]
fn why(server: &Server, target: &str) -> Vec<Value> {
    rows(&server.cli_json(&["why", target]))
}

fn reasons(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["reason"].as_str().unwrap()).collect()
}

fn names(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["name"].as_str().unwrap()).collect()
}

/// Waits until a user has left that often, and the message account of each time is settled.
#[track_caller]
fn left(home: &Home, user: i64, times: usize) {
    eventually("the departures are written", || {
        let departures = home.departures(user);
        departures.len() == times && departures.iter().all(|departure| departure.delivered.is_some())
    });
}

/// Three users who left one after another: alice closed, bob was reset, carol was kicked. Their ids.
fn three_leave(server: &Server) -> [i64; 3] {
    let (alice, alice_id) = server.user("alice");
    drop(alice);
    left(&server.home, alice_id, 1);
    let (bob, bob_id) = server.user("bob");
    bob.reset();
    left(&server.home, bob_id, 1);
    let (mut carol, carol_id) = server.user("carol");
    assert!(server.kick("carol"));
    carol.expect_goodbye("kicked");
    left(&server.home, carol_id, 1);
    [alice_id, bob_id, carol_id]
}

#[test]
fn a_kick_is_told_with_every_column_of_its_row() {
    let server = Server::start(&NO_GRACE);
    let (mut alice, id) = server.user("alice");
    let (peer, channel) = (alice.local_addr().to_string(), server.channel_of(id));
    alice.quiet();
    assert_eq!(server.cli(&["kick", "alice", "--wait"]).code, Some(0));
    alice.expect_goodbye("kicked");
    eventually("the fd is closed", || why(&server, "alice")[0]["closed_us"].is_i64());

    let found = why(&server, "alice");
    let [row] = found.as_slice() else { panic!("{found:?}") };
    let mut keys: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut expected = KEYS;
    expected.sort_unstable();
    assert_eq!(keys, expected);

    let home = server.home.departures(id);
    let [stored] = home.as_slice() else { panic!("{home:?}") };
    assert_eq!((&row["user"], &row["name"]), (&json!(id), &json!("alice")));
    assert_eq!((&row["channel"], &row["peer"]), (&json!(channel), &json!(peer)));
    assert_eq!((&row["reason"], &row["initiator"]), (&json!("kicked"), &json!("admin")));
    assert_eq!((&row["at"], &row["errno"]), (&json!(stored.at), &Value::Null));
    assert_eq!(
        (&row["offline_us"], &row["closed_us"]),
        (&json!(stored.offline_us), &json!(stored.closed_us))
    );
    assert_eq!((&row["delivered"], &row["saved"], &row["lost"]), (&json!(1), &json!(0), &json!(0)));
    let (since, at) = (row["since"].as_i64().unwrap(), row["at"].as_i64().unwrap());
    assert!(since <= at && at - since < 60_000, "{row}");
}

#[test]
fn a_kick_that_has_waited_is_in_the_answer_at_once() {
    let server = Server::start(&ENDLESS_GRACE);
    let (_alice, id) = server.user("alice");
    assert_eq!(server.cli(&["kick", "alice", "--wait"]).code, Some(0));
    let found = why(&server, &id.to_string());
    assert_eq!(reasons(&found), ["kicked"]);
    assert_eq!(found[0]["closed_us"], Value::Null, "its grace is not over");
}

#[test]
fn every_departure_is_found_by_name_number_channel_and_address() {
    let server = Server::start(&ENDLESS_GRACE);
    let [alice, bob, carol] = three_leave(&server);
    for (name, id, reason, errno) in [
        ("alice", alice, "peer_closed", Value::Null),
        ("bob", bob, "peer_reset", json!(ECONNRESET)),
        ("carol", carol, "kicked", Value::Null),
    ] {
        let by_id = why(&server, &id.to_string());
        assert_eq!((names(&by_id), reasons(&by_id)), (vec![name], vec![reason]));
        assert_eq!(by_id[0]["errno"], errno);
        assert_eq!(why(&server, name), by_id);
        assert_eq!(why(&server, &format!("@{name}")), by_id);
        assert_eq!(why(&server, &format!("#{}", by_id[0]["channel"].as_str().unwrap())), by_id);
    }
    for everybody in ["ip:127.0.0.1", "ip:127.0.0.0/8", "all"] {
        assert_eq!(names(&why(&server, everybody)), ["carol", "bob", "alice"], "newest first: {everybody}");
    }
    for nobody in ["ip:10.0.0.0/8", "ip:127.0.0.2", "ip:::1", "#9999.1", "dave"] {
        one_line(&server.cli(&["why", nobody]), 3);
    }
    let departed = rows(&server.cli_json(&["channels", "--departed"]));
    assert_eq!(departed, why(&server, "all"));
}

#[test]
fn the_newest_come_first_and_no_more_than_the_limit() {
    let server = Server::start(&ENDLESS_GRACE);
    let (mut alice, id) = server.user("alice");
    // A logout ends the session, and its channel stays.
    alice.say(&json!({"msgid": 3}));
    left(&server.home, id, 1);
    server.back(id).reset();
    left(&server.home, id, 2);
    for times in 3..=12 {
        drop(server.back(id));
        left(&server.home, id, times);
    }
    let all = rows(&server.cli_json(&["why", "alice", "--limit", "100"]));
    assert_eq!(all.len(), 12);
    assert!(all.is_sorted_by_key(|row| std::cmp::Reverse(row["at"].as_i64())), "{all:?}");
    assert_eq!(reasons(&all)[9..], ["peer_closed", "peer_reset", "client_quit"]);
    assert_eq!(why(&server, "alice"), all[..10], "10 are shown by default");
    for command in [&["why", "alice"][..], &["why", "all"], &["channels", "--departed"]] {
        let limited = rows(&server.cli_json(&[command, &["--limit", "2"]].concat()));
        assert_eq!(limited, all[..2], "{command:?}");
    }
}

/// Chats to somebody who does not read, and is kicked.
const CHATS: i64 = 100;

/// A server on which alice is kicked before she has read them; and her window.
fn kicked_while_not_reading(flags: &[&str]) -> (Server, Client) {
    let server = Server::start(flags);
    let [alice_id] = server.absent(["alice"]);
    let mut alice = Client::with_small_window(&server);
    alice.login(alice_id);
    let (mut bob, _) = server.user("bob");
    for _ in 0..CHATS {
        bob.chat(alice_id, &"x".repeat(8 * 1024));
    }
    eventually("all is read", || server.has_read_all_of(&bob));
    eventually("alice's kernel takes no more", || server.has_output_for(alice_id));
    assert!(server.kick("alice"));
    left(&server.home, alice_id, 1);
    (server, alice)
}

/// What became of alice's messages: delivered, saved, lost.
fn account(server: &Server) -> [i64; 3] {
    let row = &why(server, "alice")[0];
    ["delivered", "saved", "lost"].map(|key| row[key].as_i64().unwrap())
}

#[test]
fn what_the_client_did_not_read_is_counted_as_saved() {
    let (server, _alice) = kicked_while_not_reading(&ENDLESS_GRACE);
    let [delivered, saved, lost] = account(&server);
    assert!(delivered > 0 && saved > 0, "{delivered} and {saved}");
    assert_eq!((delivered + saved, lost), (CHATS, 0));
}

#[test]
fn when_the_grace_is_over_delivered_is_what_can_be_read_whole() {
    let (server, mut alice) = kicked_while_not_reading(&NO_GRACE);
    eventually("the fd is closed", || why(&server, "alice")[0]["closed_us"].is_i64());
    let [delivered, saved, lost] = account(&server);
    // Where the kernel stopped may be between two messages.
    assert!(lost <= 1, "{lost}");
    assert_eq!(delivered + saved + lost, CHATS);
    for _ in 0..delivered {
        assert_eq!(alice.hear()["msgid"], 6);
    }
}

#[test]
fn history_outlives_a_stop_and_a_crash() {
    let server = Server::start(&[]);
    let (alice, id) = server.user("alice");
    alice.reset();
    left(&server.home, id, 1);
    let _alice = server.back(id);
    let home = server.stop();
    let server = Server::start_at(&home, &[]);
    assert_eq!(reasons(&why(&server, "alice")), ["server_shutdown", "peer_reset"]);
    let _alice = server.back(id);
    let home = server.crash();

    let server = Server::start_at(&home, &[]);
    let found = why(&server, "alice");
    assert_eq!(reasons(&found), ["server_crash", "server_shutdown", "peer_reset"]);
    let crash = &found[0];
    assert_eq!((&crash["user"], &crash["initiator"]), (&json!(id), &json!("server")));
    for unknown in ["channel", "peer", "errno", "offline_us", "closed_us", "delivered", "since"] {
        assert_eq!(crash[unknown], Value::Null, "{unknown}: {crash}");
    }
    let from_here = why(&server, "ip:127.0.0.1");
    assert_eq!(from_here, found[1..], "a crash has no address");
    let told = server.cli(&["why", "alice", "--limit", "1"]);
    assert!(told.stdout.contains("server_crash (server)"), "{told:?}");
}

#[test]
fn what_matches_nothing_is_an_empty_list_and_3() {
    let server = Server::start(&ENDLESS_GRACE);
    let (alice, id) = server.user("alice");
    let online = id.to_string();
    // Never-used names of every form, and a user who is still here.
    for target in ["nobody", "@nobody", "99", "#7.3", "ip:10.0.0.0/8", "all", "alice", online.as_str()] {
        let answer = server.control(&json!({"cmd": "why", "target": target}));
        assert_eq!(answer, json!({"ok": true, "departures": []}), "{target}");
        one_line(&server.cli(&["why", target]), 3);
        let done = server.cli(&["why", target, "--json"]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(3), "{\"departures\":[]}\n"), "{done:?}");
    }
    assert_eq!(server.cli_json(&["channels", "--departed"]), json!({"departures": []}));
    drop(alice);
    left(&server.home, id, 1);
    assert_eq!(reasons(&why(&server, "alice")), ["peer_closed"]);
}

#[test]
fn a_crowd_of_questions_is_answered_while_somebody_leaves() {
    let server = Server::start(&ENDLESS_GRACE);
    let (alice, id) = server.user("alice");
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                eventually("the departure is told", || {
                    let answer = server.control(&json!({"cmd": "why", "target": "alice"}));
                    assert_eq!(answer["ok"], true, "{answer}");
                    reasons(&rows(&answer)) == ["peer_closed"]
                });
            });
        }
        drop(alice);
    });
    left(&server.home, id, 1);
}

#[test]
fn what_is_no_question_is_a_usage_error() {
    let server = Server::start(&[]);
    for args in [
        &["why"][..],
        &["why", ""],
        &["why", "#x"],
        &["why", "ip:foo"],
        &["why", "idle:10m"],
        &["why", "alice", "bob"],
        &["why", "alice", "--limit", "0"],
        &["why", "alice", "--limit", "10001"],
        &["channels", "--limit", "5"],
        &["channels", "--departed", "--limit", "many"],
    ] {
        let done = server.cli(args);
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{args:?}: {done:?}");
    }
    for request in [
        json!({"cmd": "why"}),
        json!({"cmd": "why", "target": "idle:10m"}),
        json!({"cmd": "why", "target": "all", "limit": 0}),
    ] {
        assert_eq!(server.control(&request)["ok"], false, "{request}");
    }
}

#[test]
fn people_read_a_departure_in_words_and_several_as_a_table() {
    let server = Server::start(&ENDLESS_GRACE);
    three_leave(&server);
    let bob = server.cli(&["why", "bob"]);
    assert!(bob.stdout.starts_with("bob left ") && bob.stderr.is_empty(), "{bob:?}");
    assert!(bob.stdout.contains(" ago: peer_reset (network), ECONNRESET (104)\n"), "{bob:?}");
    for command in [&["why", "all"][..], &["channels", "--departed"]] {
        let done = server.cli(command);
        let lines: Vec<_> = done.stdout.lines().collect();
        assert_eq!(lines.len(), 4, "{done:?}");
        assert!(lines[0].starts_with("when ") && lines[0].ends_with("lost"), "{done:?}");
        assert!(lines[1].contains("  carol  ") && lines[1].contains("  kicked "), "{done:?}");
        assert!(lines[2].contains("  ECONNRESET (104)  "), "{done:?}");
    }
}

#[test]
fn help_says_which_channels_leave_no_departure() {
    let help = linger(&["why", "--help"]);
    assert_eq!(help.code, Some(0), "{help:?}");
    assert!(help.stdout.contains("nobody ever logged in has no departure"), "{help:?}");
}
