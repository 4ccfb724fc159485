//! The cap `resume` of section 2.2: logging in once more by a token, against the real server and its database.

use std::sync::Barrier;
use std::thread;

use crate::common::{Client, Home, PASSWORD, Server, eventually, unpack};
use serde_json::{Value, json};

/// Logs in by password on a new connection; it and its token.
#[track_caller]
fn login(server: &Server, id: i64) -> (Client, String) {
    let mut client = Client::connect(server);
    let answer = client.ask(&json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": ["resume"]}));
    (client, token_in(&answer, id))
}

/// The token in a login's answer, which must be a success.
#[track_caller]
fn token_in(answer: &Value, id: i64) -> String {
    assert_eq!(
        (&answer["msgid"], &answer["errno"], &answer["id"]),
        (&json!(2), &json!(0), &json!(id)),
        "{answer}"
    );
    answer["token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
}

/// What a login by that token, on a new connection, is answered.
fn resume(server: &Server, token: &str) -> (Client, Value) {
    let mut client = Client::connect(server);
    let answer = client.ask(&json!({"msgid": 1, "token": token, "caps": ["resume"]}));
    (client, answer)
}

#[track_caller]
fn refused(server: &Server, token: &str) {
    let (_, answer) = resume(server, token);
    assert_eq!(answer, json!({"msgid": 2, "errno": 1, "errmsg": "wrong id, name or password"}));
}

/// Ends a session; the user is offline when this returns.
fn leave(server: &Server, id: i64, client: Client) {
    drop(client);
    eventually("the user is offline", || server.home.state(id) == "offline");
}

fn counted(server: &Server, name: &str) -> u64 {
    let stats = server.cli_json(&["stats"]);
    stats[name].as_u64().unwrap_or_else(|| panic!("no {name}: {stats}"))
}

/// As another program with business of its own changes a row.
fn change(home: &Home, statement: &str) {
    assert!(home.db_to_write().execute(statement, []).unwrap() > 0, "{statement}");
}

#[test]
fn a_token_comes_only_to_those_who_ask_and_logs_in_once_without_a_password() {
    let server = Server::start(&[]);
    let (mut alice, id) = server.user("alice");
    let answer = alice.login(id);
    assert!(answer.get("token").is_none(), "{answer}");
    let (client, first) = login(&server, id);
    leave(&server, id, client);
    alice.expect_goodbye("replaced");
    let (bob, _) = server.user("bob");
    let mut bob = bob;
    bob.chat(id, "while you were away");
    bob.quiet();

    let hashed = counted(&server, "logins_cached");
    let (mut client, answer) = resume(&server, &first);
    let second = token_in(&answer, id);
    assert_eq!(answer["name"], "alice");
    assert_eq!(unpack(&answer, "offlinemsg")[0]["msg"], "while you were away");
    assert_ne!(first, second);
    assert_eq!(server.home.state(id), "online");
    client.chat(id, "a session like any other");
    assert_eq!(client.hear()["msg"], "a session like any other");
    assert_eq!((counted(&server, "logins_resumed"), counted(&server, "logins_cached")), (1, hashed));

    refused(&server, &first);
    client.chat(id, "undisturbed");
    assert_eq!(client.hear()["msg"], "undisturbed");
    leave(&server, id, client);
    refused(&server, &first);
    let (client, answer) = resume(&server, &second);
    token_in(&answer, id);
    leave(&server, id, client);
}

#[test]
fn the_answer_repeats_seq_and_a_token_without_the_cap_brings_no_other() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let (client, token) = login(&server, id);
    leave(&server, id, client);
    let mut client = Client::connect(&server);
    let answer = client.ask(&json!({"msgid": 1, "token": token, "seq": "s"}));
    assert_eq!(answer, json!({"msgid": 2, "errno": 0, "id": id, "name": "alice", "seq": "s"}));
    let answer = client.ask(&json!({"msgid": 1, "token": token, "seq": 7}));
    let errmsg = &json!("wrong id, name or password");
    assert_eq!(answer, json!({"msgid": 2, "errno": 1, "errmsg": errmsg, "seq": 7}));
    assert_eq!(server.home.state(id), "online", "a failed login changes nothing");
}

#[test]
fn tokens_outlive_an_orderly_stop_and_a_crash() {
    let server = Server::start(&[]);
    let [alice, bob] = server.absent(["alice", "bob"]);
    let (_alice, hers) = login(&server, alice);
    let (_bob, his) = login(&server, bob);
    let server = Server::start_at(&server.stop(), &[]);
    let (_alice, answer) = resume(&server, &hers);
    let hers = token_in(&answer, alice);
    let server = Server::start_at(&server.crash(), &[]);
    for (id, token) in [(alice, &hers), (bob, &his)] {
        let (_client, answer) = resume(&server, token);
        token_in(&answer, id);
        refused(&server, token);
    }
}

#[test]
fn no_token_is_in_the_database() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let (_client, token) = login(&server, id);
    let home = server.stop();
    assert!(token.len() >= 64, "32 random bytes, as text: {token}");
    for (path, bytes) in home.snapshot() {
        let found = bytes.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!found, "the token is in {}", path.display());
    }
}

#[test]
fn a_token_that_is_over_is_refused_like_any_wrong_one() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let (client, token) = login(&server, id);
    leave(&server, id, client);
    let left: i64 = server
        .home
        .db()
        .query_row("SELECT t.expires - d.at FROM token AS t JOIN departure AS d USING (user)", [], |row| {
            row.get(0)
        })
        .unwrap();
    // Two clocks: that of the history and that by which ages are judged.
    assert!((299_000..=301_000).contains(&left), "five minutes after the user left: {left} ms");
    change(&server.home, "UPDATE token SET expires = expires - 302000");
    refused(&server, &token);
    refused(&server, "guess");
    refused(&server, "");
}

#[test]
fn a_kick_with_a_ban_kills_tokens_and_one_without_does_not() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let (client, away) = login(&server, id);
    leave(&server, id, client);
    let (_client, token) = login(&server, id);
    server.cli_json(&["kick", "alice", "--wait"]);
    let (mut client, answer) = resume(&server, &token);
    let token = token_in(&answer, id);
    server.cli_json(&["kick", "alice", "--ban", "1h", "--wait"]);
    client.expect_goodbye("banned");
    for token in [&away, &token] {
        refused(&server, token);
    }
    server.cli_json(&["unban", "alice"]);
    for token in [&away, &token] {
        refused(&server, token);
    }
    login(&server, id);
}

#[test]
fn a_ban_of_addresses_is_told_to_a_good_token_and_leaves_it_good() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let (client, token) = login(&server, id);
    leave(&server, id, client);
    server.cli_json(&["kick", "ip:127.0.0.0/8", "--ban", "1h", "--reason", "not from there"]);
    let (mut client, answer) = resume(&server, &token);
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(17)), "{answer}");
    client.expect_goodbye("banned");
    client.expect_end();
    server.cli_json(&["unban", "all"]);
    let (_client, answer) = resume(&server, &token);
    token_in(&answer, id);
}

#[test]
fn a_password_that_another_process_changes_kills_tokens() {
    let server = Server::start(&[]);
    let [alice, bob] = server.absent(["alice", "bob"]);
    let ((her_client, hers), (his_client, his)) = (login(&server, alice), login(&server, bob));
    leave(&server, alice, her_client);
    leave(&server, bob, his_client);
    change(
        &server.home,
        "UPDATE user SET password = (SELECT password FROM user WHERE name = 'bob') WHERE name = 'alice'",
    );
    refused(&server, &hers);
    let (_client, answer) = resume(&server, &his);
    token_in(&answer, bob);
}

#[test]
fn a_hash_that_is_renewed_at_a_login_kills_no_token() {
    let server = Server::start(&["--argon2", "8,1,1"]);
    let [id] = server.absent(["alice"]);
    let (client, older) = login(&server, id);
    leave(&server, id, client);
    let before = server.home.hash(id);
    let server = Server::start_at(&server.stop(), &["--argon2", "16,1,1"]);
    let (client, newer) = login(&server, id);
    assert_ne!(server.home.hash(id), before);
    leave(&server, id, client);
    for token in [older, newer] {
        let (client, answer) = resume(&server, &token);
        token_in(&answer, id);
        leave(&server, id, client);
    }
}

#[test]
fn a_token_takes_over_from_a_session_that_goes_on_or_is_told_of_it() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let (mut old, token) = login(&server, id);
    let (mut new, answer) = resume(&server, &token);
    let next = token_in(&answer, id);
    old.expect_goodbye("replaced");
    old.expect_end();
    // On its own connection too.
    let answer = new.ask(&json!({"msgid": 1, "token": next}));
    assert_eq!(answer["errno"], 0, "{answer}");
    assert_eq!(server.home.reasons(id), ["replaced", "client_quit"]);

    let server = Server::start(&["--duplicate", "reject"]);
    let [id] = server.absent(["alice"]);
    let (client, token) = login(&server, id);
    assert_eq!(resume(&server, &token).1["errno"], 2);
    leave(&server, id, client);
    let (_client, answer) = resume(&server, &token);
    token_in(&answer, id);
}

#[test]
fn of_many_logins_by_one_token_at_once_one_is_granted() {
    let server = Server::start(&["--workers", "2"]);
    let [id] = server.absent(["alice"]);
    let (client, token) = login(&server, id);
    leave(&server, id, client);
    let at_once = 6;
    let barrier = Barrier::new(at_once);
    let heard: Vec<(Client, Value)> = thread::scope(|scope| {
        let tries: Vec<_> = (0..at_once)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    resume(&server, &token)
                })
            })
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let granted = heard.iter().filter(|(_, answer)| answer["errno"] == 0).count();
    let refused = heard.iter().filter(|(_, answer)| answer["errno"] == 1).count();
    assert_eq!(
        (granted, refused),
        (1, at_once - 1),
        "{:?}",
        heard.iter().map(|(_, a)| a).collect::<Vec<_>>()
    );
    assert_eq!(server.home.state(id), "online");
    assert_eq!(server.home.reasons(id), ["peer_closed"], "nobody was replaced");
}

#[test]
fn ten_wrong_tokens_end_a_channel() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    for _ in 0..10 {
        assert_eq!(client.ask(&json!({"msgid": 1, "token": "guess"}))["errno"], 1);
    }
    client.expect_goodbye("auth_failed");
    client.expect_end();
}

#[test]
fn a_client_that_ends_its_side_behind_a_token_keeps_it() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let (client, token) = login(&server, id);
    leave(&server, id, client);
    let sessions = server.home.reasons(id).len();
    let mut half = Client::connect(&server);
    let mut bytes = json!({"msgid": 1, "token": token, "caps": ["resume"]}).to_string().into_bytes();
    bytes.push(b'\n');
    half.say_bytes(&bytes);
    half.end_input();
    let answer = half.hear();
    half.expect_end();
    assert_eq!(answer["errno"], 0, "{answer}");
    // Whether the end was read before main took the login is chance; either way one good token is left.
    let left = answer["token"].as_str().unwrap_or(&token).to_owned();
    eventually("the user is offline", || server.home.state(id) == "offline");
    let began = server.home.reasons(id).len() > sessions;
    assert_eq!(began, answer.get("token").is_some(), "{answer}");
    let (_client, answer) = resume(&server, &left);
    token_in(&answer, id);
}

#[test]
fn a_crowd_comes_back_by_token_after_a_crash() {
    let server = Server::start(&["--address-channels", "1000"]);
    let names: [String; 40] = std::array::from_fn(|n| format!("user {n}"));
    let ids = server.absent(names.each_ref().map(String::as_str));
    let crowd: Vec<(Client, String)> = ids.iter().map(|&id| login(&server, id)).collect();
    let server = Server::start_at(&server.crash(), &["--address-channels", "1000"]);
    let mut back: Vec<Client> = crowd
        .iter()
        .map(|(_, token)| {
            let mut client = Client::connect(&server);
            client.say(&json!({"msgid": 1, "token": token, "caps": ["resume"]}));
            client
        })
        .collect();
    for (client, &id) in back.iter_mut().zip(&ids) {
        token_in(&client.hear(), id);
    }
    assert_eq!(counted(&server, "logins_resumed"), ids.len() as u64);
    assert_eq!(server.home.online(), ids.len() as i64);
}
