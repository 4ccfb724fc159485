//! `linger drain`: everyone is sent away politely and in time. And what the service manager hears of it.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{
    Client, DEADLINE, Home, LineClient, PASSWORD, Server, eventually, numbers, one_line, unpack,
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Waits for the goodbye of a drain and the end; when to come back, in milliseconds.
#[track_caller]
fn drained(client: &mut Client) -> u64 {
    let goodbye = client.expect_goodbye("server_drain");
    assert_eq!(goodbye["advice"], "reconnect", "{goodbye}");
    client.expect_end();
    goodbye["retry_after_ms"].as_u64().unwrap_or_else(|| panic!("when to come back: {goodbye}"))
}

#[track_caller]
fn assert_gone_by_drain(home: &Home, users: impl IntoIterator<Item = i64>) {
    assert_eq!(home.online(), 0);
    for user in users {
        let left = home.departures(user);
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!((left[0].reason.as_str(), left[0].initiator.as_str()), ("server_drain", "admin"));
    }
}

fn refuses_connections(server: &Server) -> bool {
    TcpStream::connect(server.addr).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[test]
fn everyone_is_told_when_to_come_back_and_is_offline_in_the_database() {
    const USERS: usize = 20;
    let server = Server::start(&["--grace", "1h", "--workers", "2"]);
    let mut users: Vec<_> = (0..USERS).map(|n| server.user(&format!("user {n}"))).collect();
    let mut nobody = Client::connect(&server);
    eventually("all are there", || server.channels().len() == USERS + 1);
    assert_eq!(server.cli_json(&["drain"]), json!({"channels": USERS + 1}));
    let mut comebacks: HashSet<u64> = users.iter_mut().map(|(client, _)| drained(client)).collect();
    comebacks.insert(drained(&mut nobody));
    assert!(comebacks.len() > USERS / 2, "not all at once: {comebacks:?}");
    let ids: Vec<i64> = users.iter().map(|(_, id)| *id).collect();
    drop((users, nobody));
    let home = server.home.clone();
    let done = server.end();
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{done:?}");
    assert_gone_by_drain(&home, ids);
    assert!(!home.control_socket().exists(), "the control socket is gone");
}

#[test]
fn the_rate_paces_the_goodbyes() {
    const USERS: u32 = 20;
    const RATE: u32 = 20;
    let server = Server::start(&["--workers", "2"]);
    let mut users: Vec<_> = (0..USERS).map(|n| server.user(&format!("user {n}"))).collect();
    let start = Instant::now();
    let done = server.cli(&["drain", "--rate", &RATE.to_string()]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("20 channels"), "{done:?}");
    for (client, _) in &mut users {
        drained(client);
    }
    let paced = Duration::from_secs(1) * (USERS - 1) / RATE;
    assert!(start.elapsed() >= paced, "{:?}", start.elapsed());
    drop(users);
    assert_eq!(server.end().code, Some(0));
}

#[test]
fn while_a_drain_lasts_those_who_are_left_go_on_and_nobody_comes() {
    let server = Server::start(&["--workers", "2", "--grace", "1h"]);
    let (mut alice, _) = server.user("alice");
    let between: Vec<_> = (0..30).map(|n| server.user(&format!("user {n}"))).collect();
    let (mut bob, bob_id) = server.user("bob");
    let (mut carol, _) = server.user("carol");
    let [dave_id] = server.absent(["dave"]);
    let mut nobody = Client::connect(&server);
    eventually("nobody is there", || server.channel_with(&nobody).is_some());
    // Alice is the first to go. Half a minute later it is Bob's turn.
    let drain = json!({"cmd": "drain", "for_ms": 3_600_000, "rate": 1});
    assert_eq!(server.control(&drain)["ok"], true);
    eventually("it accepts nobody", || refuses_connections(&server));

    nobody.say(&json!({"msgid": 1, "id": dave_id, "password": PASSWORD}));
    drained(&mut nobody);
    assert!(server.home.departures(dave_id).is_empty(), "he never was online");

    carol.chat(bob_id, "still here?");
    assert_eq!(bob.hear()["msg"], "still here?");
    drained(&mut alice);

    let again = server.control(&drain);
    assert_eq!(again["ok"], false, "{again}");
    assert!(again["error"].as_str().is_some_and(|error| error.contains("already")), "{again}");
    one_line(&server.cli(&["drain"]), 1);
    drop((alice, bob, carol, nobody, between));
    assert_eq!(server.end().code, Some(0));
}

#[test]
fn a_drain_says_goodbye_in_lines_too() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let (mut ann, id) = server.guest("ann");
    let mut nobody = LineClient::connect(&server);
    eventually("both are there", || server.channels().len() == 2);
    assert_eq!(server.cli(&["drain"]).code, Some(0));
    for client in [&mut ann, &mut nobody] {
        assert_eq!(client.hear(), "error: server_drain: the server is being emptied");
        client.expect_end();
    }
    drop((ann, nobody));
    let home = server.home.clone();
    assert_eq!(server.end().code, Some(0));
    assert_gone_by_drain(&home, [id]);
}

#[test]
fn a_signal_during_a_drain_makes_it_an_orderly_stop() {
    let server = Server::start(&["--grace", "1h"]);
    let mut users: Vec<_> = (0..30).map(|n| server.user(&format!("user {n}"))).collect();
    assert_eq!(server.control(&json!({"cmd": "drain", "rate": 1}))["channels"], 30);
    drained(&mut users[0].0);
    let start = Instant::now();
    server.signal(Signal::TERM);
    let reasons: Vec<Value> =
        users[1..].iter_mut().map(|(client, _)| client.hear()["reason"].clone()).collect();
    assert_eq!(reasons.last().unwrap(), "server_shutdown", "{reasons:?}");
    let home = server.home.clone();
    let done = server.end();
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(start.elapsed() < DEADLINE, "not at the pace of the drain");
    assert_eq!(home.online(), 0);
    assert_eq!(home.reasons(users[0].1), ["server_drain"]);
    assert_eq!(home.reasons(users[29].1), ["server_shutdown"]);
}

#[test]
fn at_the_deadline_whoever_is_left_is_sent_away_at_once() {
    let server = Server::start(&["--grace", "1h", "--stop-drain", "500ms"]);
    let mut users: Vec<_> = (0..30).map(|n| server.user(&format!("user {n}"))).collect();
    let start = Instant::now();
    assert_eq!(server.cli(&["drain", "--for", "1s", "--rate", "1"]).code, Some(0));
    for (client, _) in &mut users {
        drained(client);
    }
    let home = server.home.clone();
    // They have heard the end and do not close: the server does.
    assert_eq!(server.end().code, Some(0));
    assert!(start.elapsed() >= Duration::from_secs(1), "it had time until then: {:?}", start.elapsed());
    assert!(start.elapsed() < DEADLINE, "not at the rate: {:?}", start.elapsed());
    assert_gone_by_drain(&home, users.iter().map(|(_, id)| *id));
}

#[test]
fn a_drain_ends_at_its_deadline_when_a_client_never_reads_and_keeps_its_messages() {
    const SENT: u64 = 100;
    let server = Server::start(&["--grace", "1h", "--workers", "2"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, alice_id) = server.user("alice");
    let mut bob = Client::with_small_window(&server);
    bob.login(bob_id);
    let text = "x".repeat(8 * 1024);
    for n in 0..SENT {
        alice.chat_numbered(bob_id, n, &text);
    }
    eventually("all is read", || server.has_read_all_of(&alice));
    eventually("bob's kernel takes no more", || server.has_output_for(bob_id));
    let start = Instant::now();
    assert_eq!(server.cli(&["drain", "--for", "1s"]).code, Some(0));
    let goodbye = alice.hear_to_the_end().pop().unwrap();
    assert_eq!(goodbye["reason"], "server_drain");
    drop(alice);
    let home = server.home.clone();
    assert_eq!(server.end().code, Some(0));
    assert!(start.elapsed() >= Duration::from_secs(1), "bob had time until then: {:?}", start.elapsed());
    assert_gone_by_drain(&home, [alice_id, bob_id]);
    drop(bob);

    let server = Server::start_at(&home, &[]);
    let mut again = Client::connect(&server);
    let mut heard = numbers(&unpack(&again.login(bob_id), "offlinemsg"));
    while heard.last() != Some(&(SENT - 1)) {
        heard.push(again.hear()["n"].as_u64().unwrap());
    }
    assert_eq!(heard, (heard[0]..SENT).collect::<Vec<_>>(), "in order, without a gap");
}

#[test]
fn an_empty_server_answers_before_it_ends() {
    for _ in 0..10 {
        let server = Server::start(&["--durability", "normal"]);
        assert_eq!(server.cli_json(&["drain"]), json!({"channels": 0}));
        assert_eq!(server.end().code, Some(0));
    }
}

#[test]
fn a_drain_that_makes_no_sense_is_usage_and_changes_nothing() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    for wrong in [&["--rate", "0"][..], &["--rate", "-1"], &["--for", "soon"], &["--for", "61m"]] {
        one_line(&server.cli(&[&["drain"], wrong].concat()), 2);
    }
    for wrong in
        [json!({"rate": 0}), json!({"for_ms": 3_600_001}), json!({"for_ms": "2m"}), json!({"now": 1})]
    {
        let mut ask = wrong;
        ask["cmd"] = json!("drain");
        assert_eq!(server.control(&ask)["ok"], false, "{ask}");
    }
    alice.quiet();
}

/// A service manager's socket, and a server that is told of it.
fn managed(watchdog: Option<Duration>) -> (UnixDatagram, Server) {
    let home = Home::new();
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_linger"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--argon2", "8,1,1", "--data", &home.data_arg()]);
    command.env("NOTIFY_SOCKET", &path);
    if let Some(limit) = watchdog {
        command.env("WATCHDOG_USEC", limit.as_micros().to_string());
    }
    (socket, Server::launch(command, &home))
}

/// The next message to the service manager; none when it is silent for that long.
fn told(socket: &UnixDatagram, within: Duration) -> Option<String> {
    socket.set_read_timeout(Some(within)).unwrap();
    let mut bytes = [0; 512];
    let count = socket.recv(&mut bytes).ok()?;
    Some(String::from_utf8(bytes[..count].to_vec()).unwrap())
}

#[test]
fn the_service_manager_is_told_when_the_server_is_ready_and_when_it_stops() {
    let (socket, server) = managed(None);
    assert_eq!(told(&socket, DEADLINE).as_deref(), Some("READY=1\n"));
    let (alice, _) = server.user("alice");
    assert_eq!(server.cli(&["drain", "--for", "10m"]).code, Some(0));
    let stopping = told(&socket, DEADLINE).unwrap();
    let extended =
        stopping.strip_prefix("STOPPING=1\nEXTEND_TIMEOUT_USEC=").map(|rest| rest.trim_end().parse());
    assert!(extended.is_some_and(|us| us.is_ok_and(|us: u64| us >= 599_000_000)), "{stopping:?}");
    drop(alice);
    assert_eq!(server.end().code, Some(0));
    assert_eq!(told(&socket, Duration::from_millis(1)), None, "nothing is said twice");
}

#[test]
fn the_watchdog_hears_main_while_it_turns_and_only_then() {
    const LIMIT: Duration = Duration::from_millis(200);
    let (socket, server) = managed(Some(LIMIT));
    assert_eq!(told(&socket, DEADLINE).as_deref(), Some("READY=1\n"));
    let pinged = || assert_eq!(told(&socket, DEADLINE).as_deref(), Some("WATCHDOG=1\n"));
    pinged();
    pinged();
    pinged();
    // Main waits for the database, and so does not turn.
    let db = server.home.db_to_write();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut client = Client::connect(&server);
    client.say(&json!({"msgid": 4, "name": "alice", "password": PASSWORD}));
    eventually("it is silent", || told(&socket, 5 * LIMIT).is_none());
    db.execute_batch("ROLLBACK").unwrap();
    pinged();
    assert_eq!(client.hear()["errno"], 0);
}
