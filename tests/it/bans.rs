//! Section 4: bans of users and of addresses, while the server runs and across restarts.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::common::{Client, DEADLINE, PASSWORD, Server, eventually, one_line};
use serde_json::{Value, json};

const TEN_MINUTES_MS: i64 = 600_000;

/// A login as that user is answered by errno 17 and the goodbye of a ban, which is handed back.
#[track_caller]
fn kept_out(server: &Server, id: i64, said: &str) -> Value {
    let mut client = Client::connect(server);
    let answer = client.ask(&json!({"msgid": 1, "id": id, "password": PASSWORD, "seq": 9}));
    assert_eq!(
        (&answer["msgid"], &answer["errno"], &answer["seq"]),
        (&json!(2), &json!(17), &json!(9)),
        "{answer}"
    );
    assert!(answer["errmsg"].as_str().unwrap().contains(said), "{answer}");
    let goodbye = client.expect_goodbye("banned");
    client.expect_end();
    assert_eq!((&goodbye["errmsg"], &goodbye["advice"]), (&json!(said), &json!("retry_after")), "{goodbye}");
    goodbye
}

#[track_caller]
fn rest_of(goodbye: &Value) -> i64 {
    goodbye["retry_after_ms"].as_i64().unwrap_or_else(|| panic!("no retry_after_ms: {goodbye}"))
}

#[test]
fn a_banned_user_leaves_with_the_reason_and_cannot_come_back() {
    let server = Server::start(&[]);
    let (mut alice, id) = server.user("alice");
    let (mut bob, _) = server.user("bob");
    let kicked = server.cli_json(&["kick", "alice", "--ban", "10m", "--reason", "spam", "--wait"]);
    let rows = kicked["kicked"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["user"]), (1, &json!(id)), "{kicked}");
    assert!(rows[0]["channel"].is_string() && rows[0]["offline_us"].is_u64(), "{kicked}");
    assert_eq!(server.home.state(id), "offline");
    let goodbye = alice.expect_goodbye("banned");
    assert_eq!(goodbye["errmsg"], "spam");
    assert_eq!(goodbye["advice"], "retry_after");
    assert_eq!(rest_of(&goodbye), TEN_MINUTES_MS);
    alice.expect_end();
    // The second login is one whose password is remembered.
    for _ in 0..2 {
        let rest = rest_of(&kept_out(&server, id, "spam"));
        assert!((1..=TEN_MINUTES_MS).contains(&rest), "{rest}");
    }
    assert_eq!(server.home.reasons(id), ["banned"], "a login that is kept out is no session");
    bob.quiet();
}

#[test]
fn who_does_not_have_the_password_does_not_hear_of_the_ban() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    server.cli_json(&["kick", "alice", "--ban", "1h"]);
    let mut stranger = Client::connect(&server);
    let answer = stranger.ask(&json!({"msgid": 1, "id": id, "password": "guess"}));
    assert_eq!(answer["errno"], 1, "{answer}");
    kept_out(&server, id, "an administrator has banned you");
}

#[test]
fn an_immediate_login_finds_the_ban() {
    let server = Server::start(&["--workers", "2"]);
    for round in 0..20 {
        let (mut alice, id) = server.user(&format!("alice {round}"));
        let target = id.to_string();
        std::thread::scope(|scope| {
            scope.spawn(|| server.control(&json!({"cmd": "kick", "targets": [target], "ban_ms": 60_000})));
            alice.expect_goodbye("banned");
            kept_out(&server, id, "an administrator has banned you");
        });
        assert!(server.live_channel(id).is_none());
    }
}

#[test]
fn logins_that_race_a_ban_leave_nobody_online() {
    let server = Server::start(&["--workers", "2"]);
    let ids = server.absent(["a", "b", "c", "d", "e", "f", "g", "h"]);
    for id in ids {
        // They stay connected: if one of them is offline, the ban has done it.
        let mut clients = vec![server.back(id)];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..5 {
                    let mut client = Client::connect(&server);
                    client.say(&json!({"msgid": 1, "id": id, "password": PASSWORD}));
                    let heard = client.hear();
                    // Whoever is sent away before the answer is written hears the goodbye alone.
                    let parted = heard["reason"] == "banned" || heard["reason"] == "replaced";
                    assert!(heard["errno"] == 0 || heard["errno"] == 17 || parted, "{heard}");
                    clients.push(client);
                }
            });
            let answer =
                server.control(&json!({"cmd": "kick", "targets": [id.to_string()], "ban_ms": 60_000}));
            assert_eq!(answer["ok"], true, "{answer}");
            assert!(!answer["kicked"].as_array().unwrap().is_empty(), "{answer}");
        });
        eventually("nobody is online", || {
            server.live_channel(id).is_none() && server.home.state(id) == "offline"
        });
        kept_out(&server, id, "an administrator has banned you");
    }
}

#[test]
fn a_user_who_is_away_is_banned_too_and_an_unknown_one_is_no_match() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let kicked = server.cli_json(&["kick", &id.to_string(), "--ban", "1h"]);
    let row = &kicked["kicked"][0];
    assert_eq!((&row["channel"], &row["user"], &row["name"]), (&Value::Null, &json!(id), &json!("alice")));
    kept_out(&server, id, "an administrator has banned you");
    for target in ["nobody", "4711"] {
        one_line(&server.cli(&["kick", target, "--ban", "1h"]), 3);
    }
    assert_eq!(server.cli_json(&["bans"])["bans"].as_array().unwrap().len(), 1);
}

#[test]
fn a_block_of_addresses_is_banned_for_everybody_in_it() {
    let server = Server::start(&[]);
    let (mut alice, id) = server.user("alice");
    let kicked = server.cli_json(&["kick", "ip:10.0.0.0/8", "--ban", "1h"]);
    assert_eq!(kicked["kicked"][0]["channel"], Value::Null, "a match although nobody is here: {kicked}");
    alice.quiet();
    server.cli_json(&["kick", "ip:127.0.0.0/8", "--ban", "1h", "--reason", "not from there"]);
    assert_eq!(alice.expect_goodbye("banned")["errmsg"], "not from there");
    kept_out(&server, id, "not from there");
    let bans = server.cli_json(&["bans"]);
    let addresses: Vec<_> =
        bans["bans"].as_array().unwrap().iter().map(|ban| ban["address"].clone()).collect();
    assert_eq!(addresses, ["10.0.0.0/8", "127.0.0.0/8"]);
    server.cli_json(&["unban", "ip:127.0.0.0/8"]);
    server.back(id).quiet();
}

#[test]
fn channels_ban_their_users_and_one_without_a_user_is_just_kicked() {
    let server = Server::start(&[]);
    let (mut alice, id) = server.user("alice");
    let mut nobody = Client::connect(&server);
    nobody.ask(&json!({"msgid": 3}));
    let kicked = server.cli_json(&["kick", "all", "--ban", "1h"]);
    assert_eq!(kicked["kicked"].as_array().unwrap().len(), 2, "{kicked}");
    alice.expect_goodbye("banned");
    nobody.expect_goodbye("banned");
    kept_out(&server, id, "an administrator has banned you");
    let bans = server.cli_json(&["bans"]);
    assert_eq!(bans["bans"].as_array().unwrap().len(), 1, "{bans}");
}

#[test]
fn bans_are_listed_lifted_and_kept_across_restarts() {
    let server = Server::start(&[]);
    let [alice, bob] = server.absent(["alice", "bob"]);
    server.cli_json(&["kick", "alice", "--ban", "720h", "--reason", "spam"]);
    server.cli_json(&["kick", "bob", "ip:10.1.2.3", "--ban", "1h"]);
    let before = server.cli_json(&["bans"]);
    let first = &before["bans"][0];
    assert_eq!((&first["user"], &first["name"]), (&json!(alice), &json!("alice")), "{before}");
    assert_eq!((&first["address"], &first["reason"]), (&Value::Null, &json!("spam")), "{before}");
    assert!(first["until_ms"].is_i64());
    let server = Server::start_at(&server.stop(), &[]);
    assert_eq!(server.cli_json(&["bans"]), before, "after a stop");
    let server = Server::start_at(&server.crash(), &[]);
    assert_eq!(server.cli_json(&["bans"]), before, "after a kill");
    kept_out(&server, alice, "spam");
    let lifted = server.cli_json(&["unban", "@alice", "ip:10.1.2.3"]);
    assert_eq!(lifted["unbanned"].as_array().unwrap().len(), 2, "{lifted}");
    assert_eq!(lifted["unbanned"][0], *first);
    one_line(&server.cli(&["unban", "alice"]), 3);
    server.back(alice).quiet();
    let server = Server::start_at(&server.stop(), &[]);
    let left = server.cli_json(&["bans"]);
    assert_eq!(
        (left["bans"].as_array().unwrap().len(), &left["bans"][0]["user"]),
        (1, &json!(bob)),
        "{left}"
    );
    assert!(server.cli(&["bans"]).stdout.contains("bob"));
}

#[test]
fn a_ban_ends_by_itself() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    server.cli_json(&["kick", "alice", "--ban", "1s"]);
    kept_out(&server, id, "an administrator has banned you");
    eventually("the ban is over", || server.cli_json(&["bans"])["bans"] == json!([]));
    server.back(id).quiet();
    one_line(&server.cli(&["unban", "alice"]), 3);
}

#[test]
fn a_guest_and_a_line_login_are_kept_out_in_one_line() {
    let server = Server::start(&["--line", "127.0.0.1:0"]);
    let line = server.ready_field("line").to_owned();
    let speak = |first: &str| {
        let mut stream = TcpStream::connect(&line).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(format!("{first}\n").as_bytes()).unwrap();
        stream
    };
    let to_the_end = |mut stream: TcpStream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    server.absent(["alice"]);
    let guest = speak("guest");
    eventually("the guest is online", || server.home.online() == 1);
    server.cli_json(&["kick", "guest", "alice", "--ban", "1h", "--reason", "spam"]);
    assert_eq!(to_the_end(guest), "error: banned: spam\n");
    for first in ["guest".to_owned(), format!("alice {PASSWORD}")] {
        assert_eq!(to_the_end(speak(&first)), "error: banned: spam\n", "{first}");
    }
    assert_eq!(to_the_end(speak("alice guess")), "error: wrong id, name or password\n");
}

#[test]
fn nobody_registers_from_a_banned_address() {
    let server = Server::start(&["--line", "127.0.0.1:0"]);
    let [id] = server.absent(["alice"]);
    server.cli_json(&["kick", "ip:127.0.0.0/8", "--ban", "10m", "--reason", "not from there"]);
    let register = json!({"msgid": 4, "name": "new", "password": PASSWORD, "seq": 7});
    let mut client = Client::connect(&server);
    let answer = client.ask(&register);
    let said = (&answer["msgid"], &answer["errno"], &answer["seq"], &answer["errmsg"]);
    assert_eq!(said, (&json!(5), &json!(17), &json!(7), &json!("banned: not from there")), "{answer}");
    let goodbye = client.expect_goodbye("banned");
    assert!((1..=TEN_MINUTES_MS).contains(&goodbye["retry_after_ms"].as_i64().unwrap()), "{goodbye}");
    client.expect_end();
    let mut guest = TcpStream::connect(server.ready_field("line")).unwrap();
    guest.set_read_timeout(Some(DEADLINE)).unwrap();
    guest.write_all(b"guest\n").unwrap();
    let mut text = String::new();
    guest.read_to_string(&mut text).unwrap();
    assert_eq!(text, "error: banned: not from there\n");
    assert_eq!(server.home.users(), 1, "and nobody new is stored");
    assert_eq!(server.cli_json(&["stats"])["left_banned"], 2);
    server.cli_json(&["unban", "all"]);
    server.back(id).quiet();
    assert_eq!(Client::connect(&server).ask(&register)["errno"], 0);
}

#[test]
fn a_ban_is_told_before_a_limit_of_new_users() {
    let server = Server::start(&["--address-registrations", "1"]);
    Client::connect(&server).register("alice");
    let register = json!({"msgid": 4, "name": "new", "password": PASSWORD});
    let mut client = Client::connect(&server);
    assert_eq!(client.ask(&register)["errno"], 17);
    client.login_as("alice");
    server.cli_json(&["kick", "ip:127.0.0.0/8", "--ban", "10m", "--reason", "not from there"]);
    let mut client = Client::connect(&server);
    let answer = client.ask(&register);
    let said = (&answer["msgid"], &answer["errno"], &answer["errmsg"]);
    assert_eq!(said, (&json!(5), &json!(17), &json!("banned: not from there")), "{answer}");
    client.expect_goodbye("banned");
    client.expect_end();
}

#[test]
fn a_banned_ipv6_address_is_its_64_unless_a_length_is_given() {
    let server = Server::start(&[]);
    let kicked = server.cli_json(&["kick", "ip:2001:db8::1", "ip:2001:db8:0:1::1/128", "--ban", "1h"]);
    assert_eq!(kicked["kicked"].as_array().unwrap().len(), 2, "{kicked}");
    let listed = |server: &Server| {
        let bans = server.cli_json(&["bans"]);
        let bans = bans["bans"].as_array().unwrap();
        bans.iter().map(|ban| ban["address"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let both = ["2001:db8:0:1::1/128", "2001:db8::/64"];
    assert_eq!(listed(&server), both);
    let server = Server::start_at(&server.stop(), &[]);
    assert_eq!(listed(&server), both, "after a restart");
    server.cli_json(&["unban", "ip:2001:db8::9"]);
    assert_eq!(listed(&server), both[..1]);
    server.cli_json(&["unban", "ip:2001:db8:0:1::1/128"]);
    let server = Server::start_at(&server.stop(), &[]);
    assert!(listed(&server).is_empty());
}
