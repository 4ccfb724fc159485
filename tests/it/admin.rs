//! Section 4: the control socket and the commands that are thin clients of it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use crate::common::{Client, DEADLINE, Home, Server, eventually, linger, one_line};
use serde_json::{Value, json};

#[test]
fn help_is_help_and_an_unknown_command_is_usage() {
    let help = linger(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    let all = ["serve", "kick", "who", "channels", "queue", "stats", "why", "drain", "bans", "unban"];
    for command in all {
        assert!(help.stdout.contains(command), "{command} is in the help");
        let own = linger(&[command, "--help"]);
        assert_eq!(own.code, Some(0), "{own:?}");
        assert!(own.stdout.contains("--data") && own.stderr.is_empty(), "{own:?}");
    }
    assert_eq!(linger(&["frobnicate"]).code, Some(2));
    assert_eq!(linger(&["kick"]).code, Some(2));
    assert_eq!(linger(&["who", "--nonsense"]).code, Some(2));
}

#[test]
fn an_admin_command_without_a_server_fails_in_one_line_and_creates_nothing() {
    let home = Home::new();
    let data = home.data_arg();
    let plain = [&["who"][..], &["channels"], &["queue"], &["stats"], &["drain"]];
    for command in plain.into_iter().chain([&["kick", "all"][..], &["why", "all"]]) {
        for json in [&["--data", &data][..], &["--json", "--data", &data]] {
            one_line(&linger(&[command, json].concat()), 1);
        }
    }
    assert!(!home.data().exists());
    let used = Server::start(&[]).stop();
    one_line(&linger(&["who", "--data", &used.data_arg()]), 1);
}

#[test]
fn who_and_channels_tell_what_is_so() {
    let server = Server::start(&["--grace", "1h"]);
    let (alice, alice_id) = server.user("alice");
    let nobody = Client::connect(&server);
    eventually("the second channel is known", || server.channel_with(&nobody).is_some());

    let who = server.cli_json(&["who"]);
    let users = who["users"].as_array().unwrap();
    assert_eq!(users.len(), 1, "{who}");
    let user = &users[0];
    assert_eq!((&user["id"], &user["name"]), (&json!(alice_id), &json!("alice")));
    assert_eq!(user["peer"], alice.local_addr().to_string());
    assert_eq!(user["channel"], server.channel_of(alice_id));
    assert!(user["since_ms"].as_u64().is_some_and(|ms| ms > 1_600_000_000_000), "Unix milliseconds: {user}");
    assert!(user["idle_ms"].as_u64().is_some_and(|ms| ms < 60_000), "{user}");

    let channels = server.cli_json(&["channels"]);
    let entries = channels["channels"].as_array().unwrap();
    assert_eq!(entries.len(), 2, "{channels}");
    let of = |client: &Client, state: &str| {
        let peer = client.local_addr().to_string();
        let entry = entries.iter().find(|entry| entry["peer"] == peer.as_str()).unwrap().clone();
        assert_eq!(entry["state"], state, "{entry}");
        for number in ["worker", "bytes_in", "bytes_out", "queued", "age_ms", "idle_ms"] {
            assert!(entry[number].as_u64().is_some(), "{number}: {entry}");
        }
        entry
    };
    let live = of(&alice, "live");
    assert_eq!((&live["user"], &live["name"]), (&json!(alice_id), &json!("alice")));
    assert!(live["bytes_in"].as_u64() > Some(50) && live["bytes_out"].as_u64() > Some(50), "{live}");
    let new = of(&nobody, "new");
    assert_eq!((&new["user"], &new["name"], &new["bytes_in"]), (&Value::Null, &Value::Null, &json!(0)));

    drop(nobody);
    eventually("it lingers", || server.channels().iter().any(|entry| entry["state"] == "lingering"));
    let queue = server.cli_json(&["queue"]);
    for number in ["depth", "oldest_ms", "lingering", "drained"] {
        assert!(queue.get(number).is_some(), "{number}: {queue}");
    }
    assert_eq!(queue["lingering"], 1, "{queue}");
    let stats = server.cli_json(&["stats"]);
    assert!(
        stats.as_object().is_some_and(|all| all.values().all(|value| !value.is_object())),
        "flat: {stats}"
    );
}

#[test]
fn tables_for_people_name_everybody() {
    let server = Server::start(&[]);
    let (_client, id) = server.user("zhang san");
    for command in ["who", "channels"] {
        let done = server.cli(&[command]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
        assert!(done.stdout.contains("zhang san") && done.stdout.contains(&id.to_string()), "{done:?}");
    }
    for command in ["queue", "stats"] {
        let done = server.cli(&[command]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
        assert!(!done.stdout.is_empty());
    }
    let done = server.cli(&["kick", "zhang san"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("zhang san"), "{done:?}");
    let done = server.cli(&["kick", "nobody"]);
    assert_eq!(done.code, Some(3), "{done:?}");
}

#[test]
fn the_control_socket_answers_nonsense_and_goes_on() {
    let server = Server::start(&[]);
    for nonsense in [
        &b"\n"[..],
        b"hello\n",
        b"{}\n",
        b"[]\n",
        b"{\"cmd\":\"dance\"}\n",
        b"{\"cmd\":5}\n",
        b"{\"cmd\":\"kick\"}\n",
        b"{\"cmd\":\"kick\",\"targets\":\"13\"}\n",
        b"{\"cmd\":\"kick\",\"targets\":[13.5]}\n",
        b"{\"cmd\":\"kick\",\"targets\":[\"ip:nowhere\"]}\n",
        b"{\"cmd\":\"kick\",\"targets\":[\"#x.y\"]}\n",
        b"\xff\xfe\n",
    ] {
        let answer = server.control_bytes(nonsense);
        let text = String::from_utf8_lossy(nonsense);
        assert_eq!(answer["ok"], false, "{text:?}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|error| !error.is_empty()), "{text:?}: {answer}");
    }
    let nobody = server.control(&json!({"cmd": "kick", "targets": ["nobody"]}));
    assert_eq!(nobody, json!({"ok": true, "kicked": []}));
    assert_eq!(server.control(&json!({"cmd": "who"})), json!({"ok": true, "users": []}));
    server.user("alice").0.quiet();
}

#[test]
fn one_control_connection_takes_many_requests_and_an_unfinished_one_blocks_nobody() {
    let server = Server::start(&[]);
    let mut half = UnixStream::connect(server.home.control_socket()).unwrap();
    half.write_all(b"{\"cmd\":").unwrap();
    let mut stream = UnixStream::connect(server.home.control_socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        stream.write_all(b"{\"cmd\":\"who\"}\n").unwrap();
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), json!({"ok": true, "users": []}));
    }
    half.write_all(b"\"who\"}\n").unwrap();
    let mut line = String::new();
    half.set_read_timeout(Some(DEADLINE)).unwrap();
    BufReader::new(half).read_line(&mut line).unwrap();
    assert!(line.contains("users"), "{line:?}");
}
