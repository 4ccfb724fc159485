//! Bounds: file descriptors, channels, time, slow readers, repeated messages, weak hashes.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    BULK_BYTES, Client, Home, LineClient, PASSWORD, Server, eventually, expect_error, numbers, unpack,
};
use serde_json::{Value, json};

#[test]
fn three_times_as_many_short_connections_as_there_are_fds_are_all_served() {
    const FDS: u32 = 256;
    let server = Server::start_with_fds(FDS, &["--grace", "1h", "--workers", "2"]);
    let (mut witness, _) = server.user("witness");
    let [id] = server.absent(["short"]);
    for n in 0..3 * FDS {
        let mut client = Client::connect(&server);
        if n % 4 == 0 {
            client.login(id);
        } else {
            expect_error(&client.ask(&json!({"msgid": 3})), 11, Some(3));
        }
    }
    witness.quiet();
    eventually("nobody else is online", || server.home.online() == 1);
}

#[test]
fn a_full_fd_table_ends_nobody_and_is_over_when_it_is_over() {
    const FDS: u32 = 128;
    let server = Server::start_with_fds(FDS, &["--grace", "0s", "--workers", "2"]);
    let (mut witness, _) = server.user("witness");
    let crowd: Vec<_> = (0..FDS).map(|_| Client::connect(&server)).collect();
    witness.quiet();
    drop(crowd);
    // Those who still waited in the kernel's queue come in when the others have gone, and take a place until then.
    let accepted = || server.cli_json(&["stats"])["accepted"].as_u64();
    eventually("the whole crowd has been in", || accepted() >= Some(1 + u64::from(FDS)));
    eventually("the crowd is gone", || server.channels().len() == 1);
    let (mut late, _) = server.user("late");
    late.quiet();
    witness.quiet();
}

#[test]
fn one_channel_too_many_is_told_so() {
    let server = Server::start(&["--max-channels", "3", "--grace", "0s"]);
    let (mut first, first_id) = server.user("first");
    let mut others = [Client::connect(&server), Client::connect(&server)];
    for client in &mut others {
        expect_error(&client.ask(&json!({"msgid": 3})), 11, Some(3));
    }
    for _ in 0..5 {
        let mut extra = Client::connect(&server);
        assert_eq!(extra.expect_goodbye("server_full")["advice"], "retry_after");
        extra.expect_end();
    }
    first.quiet();
    drop(first);
    eventually("the place is free", || server.channels().len() < 3);
    server.back(first_id).quiet();
}

#[test]
fn channels_that_are_already_gone_take_no_place() {
    let server = Server::start(&["--max-channels", "3", "--grace", "1h"]);
    let [id] = server.absent(["alice"]);
    for round in 1..=10 {
        server.back(id).quiet();
        eventually("this session is over", || server.home.departures(id).len() == round);
    }
}

#[test]
fn a_channel_where_nobody_logs_in_leaves_in_time() {
    let server = Server::start(&["--login-timeout", "300ms", "--grace", "1h"]);
    let (mut user, id) = server.user("alice");
    let start = Instant::now();
    let mut silent = Client::connect(&server);
    silent.hear_nothing_until("most of its time is over", || start.elapsed() >= Duration::from_millis(200));
    assert_eq!(silent.expect_goodbye("login_timeout")["advice"], "reconnect");
    silent.expect_end();

    let mut talker = Client::connect(&server);
    let mut heard = Value::Null;
    while heard["msgid"] != 20 {
        talker.try_say_bytes(b"{\"msgid\":22}");
        heard = talker.hear();
    }
    assert_eq!(heard["reason"], "login_timeout", "talking is not logging in: {heard}");

    user.quiet();
    assert_eq!(user.ask(&json!({"msgid": 3, "seq": 1}))["errno"], 0);
    user.expect_goodbye("login_timeout");
    user.expect_end();
    assert_eq!(server.home.reasons(id), ["client_quit"], "nobody was logged in at the end");
}

#[test]
fn half_a_request_does_not_stop_the_login_clock() {
    let server = Server::start(&["--login-timeout", "300ms"]);
    let mut client = Client::connect(&server);
    client.say_bytes(b"{\"msgid\":1,\"na");
    client.expect_goodbye("login_timeout");
    client.expect_end();
}

#[test]
fn a_channel_without_input_leaves_where_the_operator_wants_it() {
    let server = Server::start(&["--idle", "700ms"]);
    let (mut silent, silent_id) = server.user("silent");
    let (mut talker, talker_id) = server.user("talker");
    eventually("the silent one is offline", || {
        talker.quiet();
        server.home.state(silent_id) == "offline"
    });
    assert_eq!(silent.expect_goodbye("idle_timeout")["advice"], "reconnect");
    silent.expect_end();
    talker.quiet();
    assert_eq!(server.home.reasons(silent_id), ["idle_timeout"]);
    assert!(server.home.departures(talker_id).is_empty());
}

#[test]
fn a_slow_reader_is_sent_away_and_loses_nothing() {
    const SENT: u64 = 200;
    let server = Server::start(&["--out-limit", "128KiB", "--grace", "1h", "--workers", "2"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let mut bob = Client::with_small_window(&server);
    bob.login(bob_id);
    let text = "x".repeat(BULK_BYTES);
    for n in 0..SENT {
        alice.chat_numbered(bob_id, n, &text);
    }
    eventually("bob is offline", || server.home.state(bob_id) == "offline");
    for _ in 0..SENT {
        assert_eq!(alice.hear()["errno"], 0);
    }
    assert_eq!(server.home.reasons(bob_id), ["slow_consumer"]);
    let mut heard = bob.hear_to_the_end();
    let goodbye = heard.pop().unwrap();
    assert_eq!((&goodbye["reason"], &goodbye["advice"]), (&json!("slow_consumer"), &json!("retry_after")));
    let mut again = Client::connect(&server);
    heard.extend(again.login_and_collect(bob_id, SENT as usize - heard.len()));
    assert_eq!(numbers(&heard), (0..SENT).collect::<Vec<_>>(), "whole, in order, each once");
    again.quiet();
}

#[test]
fn one_object_larger_than_the_smallest_out_limit_sends_nobody_away() {
    const CONTROLS: usize = 230;
    let server = Server::with_lines(&["--max-frame", "256", "--out-limit", "1KiB"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let mut ann = LineClient::connect(&server);
    ann.login("ann");
    let mut bob = Client::with_small_window(&server);
    bob.login(bob_id);
    let mut sent = 0;
    while !server.has_output_for(bob_id) {
        alice.chat_numbered(bob_id, sent, &"x".repeat(100));
        sent += 1;
        eventually("the chat is read", || server.has_read_all_of(&alice));
    }
    // Each is six bytes in JSON.
    ann.say(&format!("bob: a{}z", "\u{1}".repeat(CONTROLS)));
    eventually("the line is read", || server.has_read_all_of(ann.wire()));
    let (before, large) = bob.hear_until(|object| object["name"] == "ann");
    assert_eq!(before.len() as u64, sent);
    assert_eq!(large["msg"].as_str().map(str::len), Some(CONTROLS + 2));
    bob.quiet();
    assert!(server.home.departures(bob_id).is_empty());
}

#[test]
fn a_long_box_does_not_count_as_slow_reading() {
    const KEPT: u64 = 300;
    let server = Server::start(&["--out-limit", "64KiB"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let text = "x".repeat(BULK_BYTES);
    for n in 0..KEPT {
        alice.chat_numbered(bob_id, n, &text);
    }
    for _ in 0..KEPT {
        assert_eq!(alice.hear()["errno"], 0);
    }
    let mut bob = Client::with_small_window(&server);
    bob.say(&json!({"msgid": 1, "id": bob_id, "password": PASSWORD}));
    eventually("bob is online and has not read a byte", || server.live_channel(bob_id).is_some());
    alice.chat_numbered(bob_id, KEPT, "newer");
    let mut heard = unpack(&bob.hear(), "offlinemsg");
    while heard.len() <= KEPT as usize {
        heard.push(bob.hear());
    }
    assert_eq!(numbers(&heard), (0..=KEPT).collect::<Vec<_>>());
    assert_eq!(server.home.state(bob_id), "online");
}

#[test]
fn the_same_message_under_the_same_seq_is_delivered_once() {
    let server = Server::start(&[]);
    let (mut alice, alice_id) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    let say = |client: &mut Client, seq: Value, to: i64, text: &str| {
        let answer = client.ask(&json!({"msgid": 6, "toid": to, "msg": text, "seq": seq}));
        assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": seq, "re": 6}));
    };
    say(&mut alice, json!(1), bob_id, "one");
    assert_eq!(bob.hear()["msg"], "one");
    for _ in 0..3 {
        say(&mut alice, json!(1), bob_id, "one");
    }
    bob.quiet();
    say(&mut alice, json!(1), bob_id, "other content");
    assert_eq!(bob.hear()["msg"], "other content");
    say(&mut alice, json!(2), bob_id, "one");
    assert_eq!(bob.hear()["msg"], "one", "another seq is another message");
    let [carol_id] = server.absent(["carol"]);
    say(&mut alice, json!(1), carol_id, "one");
    say(&mut alice, json!(1), carol_id, "one");
    let kept = unpack(&Client::connect(&server).login(carol_id), "offlinemsg");
    assert_eq!(kept.len(), 1, "another receiver is another message, once: {kept:?}");
    say(&mut bob, json!(1), alice_id, "one");
    assert_eq!(alice.hear()["msg"], "one", "another sender's seq is his own");

    drop(alice);
    eventually("alice is offline", || server.home.state(alice_id) == "offline");
    let mut alice = server.back(alice_id);
    say(&mut alice, json!(2), bob_id, "one");
    bob.quiet();
    say(&mut alice, json!(3), bob_id, "three");
    assert_eq!(bob.hear()["msg"], "three");
}

#[test]
fn the_same_group_chat_under_the_same_seq_is_delivered_once() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let (mut bob, _) = server.user("bob");
    let group = alice.ask(&json!({"msgid": 8, "groupname": "g", "groupdesc": "", "seq": "g"}))["id"].clone();
    assert_eq!(bob.ask(&json!({"msgid": 9, "groupid": group, "seq": 1}))["errno"], 0);
    for _ in 0..3 {
        let answer = alice.ask(&json!({"msgid": 10, "groupid": group, "msg": "m", "seq": "s"}));
        assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": "s", "re": 10}));
    }
    assert_eq!(bob.hear()["msg"], "m");
    bob.quiet();
}

#[test]
fn messages_without_seq_are_never_taken_for_one() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    for _ in 0..3 {
        alice.chat(bob_id, "same");
    }
    for _ in 0..3 {
        assert_eq!(bob.hear()["msg"], "same");
    }
    bob.quiet();
}

#[test]
fn passwords_are_kept_as_argon2id_phc_strings_with_the_operators_cost() {
    let server = Server::start(&["--argon2", "16,2,1"]);
    let [first, second] = server.absent(["first", "second"]);
    let (one, other) = (server.home.hash(first), server.home.hash(second));
    assert!(one.starts_with("$argon2id$v=19$m=16,t=2,p=1$"), "{one}");
    assert_ne!(one, other, "each with its own salt");
    assert!(!one.contains(PASSWORD));
}

#[test]
fn a_weaker_hash_is_renewed_at_login_and_a_stronger_one_is_left_alone() {
    let server = Server::start(&["--argon2", "16,1,1"]);
    let [id] = server.absent(["alice"]);
    let old = server.home.hash(id);
    let home = server.stop();

    let server = Server::start_at(&home, &["--argon2", "32,2,1"]);
    let refused = Client::connect(&server).ask(&json!({"msgid": 1, "id": id, "password": "wrong"}));
    assert_eq!(refused["errno"], 1);
    assert_eq!(home.hash(id), old, "only the right password renews");
    server.back(id).quiet();
    eventually("the hash is renewed", || home.hash(id).starts_with("$argon2id$v=19$m=32,t=2,p=1$"));
    let strong = home.hash(id);
    server.stop();

    let server = Server::start_at(&home, &["--argon2", "8,1,1"]);
    server.back(id).quiet();
    server.back(id).quiet();
    server.stop();
    assert_eq!(home.hash(id), strong);
}

#[test]
fn a_wrong_password_is_refused_right_after_the_right_one_was_verified() {
    let server = Server::start(&[]);
    let (_, id) = server.user("alice");
    let mut client = Client::connect(&server);
    for wrong in ["", "correct hors", "correct horse ", "Correct horse"] {
        let answer = client.ask(&json!({"msgid": 1, "id": id, "password": wrong}));
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(1)), "{wrong:?}: {answer}");
    }
    client.login(id);
}

#[test]
fn whoever_answers_pings_or_says_anything_stays() {
    let server = Server::start(&["--ping-interval", "1s", "--ping-timeout", "1s"]);
    let [answers, talks, silent] = server.absent(["answers", "talks", "silent"]);
    let mut clients = [answers, talks, silent].map(|id| {
        let mut client = Client::connect(&server);
        let caps: &[&str] = if id == silent { &[] } else { &["ping"] };
        let login = json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": caps});
        assert_eq!(client.ask(&login)["errno"], 0);
        client
    });
    for _ in 0..4 {
        for (client, answer) in clients.iter_mut().zip([json!({"msgid": 23}), json!({"msgid": 22})]) {
            let (_, ping) = client.hear_until(|heard| heard["msgid"] != 23);
            assert_eq!(ping, json!({"msgid": 22}));
            client.say(&answer);
        }
    }
    assert_eq!(server.home.online(), 3, "and whoever has not asked for pings is not pinged");
    let silent = &mut clients[2];
    assert_eq!(silent.ask(&json!({"msgid": 22, "seq": 1})), json!({"msgid": 23, "seq": 1}));
}

#[test]
fn requests_above_the_rate_are_refused_one_by_one_and_in_time_taken_again() {
    let server = Server::start(&["--request-rate", "5"]);
    let [id] = server.absent(["alice"]);
    let mut client = Client::connect(&server);
    client.login(id);
    for n in 0..40 {
        client.say(&json!({"msgid": 6, "toid": id, "msg": "m", "seq": n}));
    }
    let mut answers = Vec::new();
    while answers.len() < 40 {
        let heard = client.hear();
        if heard["msgid"] == 0 {
            answers.push(heard);
        }
    }
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer["errno"] == 0);
    assert!((5..30).contains(&taken.len()), "a burst of twice the rate is borne: {}", taken.len());
    for answer in refused {
        expect_error(answer, 17, Some(6));
        assert!(answer["seq"].is_u64(), "{answer}");
    }
    let login = json!({"msgid": 1, "id": id, "password": PASSWORD, "seq": "l"});
    client.say(&login);
    let (_, answer) = client.hear_until(|heard| heard["seq"] == "l");
    assert_eq!(answer["msgid"], 2, "old clients wait for msgid 2: {answer}");
    eventually("the rate allows more", || {
        client.say(&json!({"msgid": 3, "seq": "x"}));
        let (_, answer) = client.hear_until(|heard| heard["seq"] == "x");
        thread::sleep(Duration::from_millis(100));
        answer["errno"] != 17
    });
}

#[test]
fn loopback_is_exempt_from_what_an_address_may() {
    let server =
        Server::start(&["--address-channels", "1", "--login-failures", "1", "--address-failures", "1"]);
    let [id, ..] = server.absent(["alice", "bob", "carol"]);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        let answer = client.ask(&json!({"msgid": 1, "id": id, "password": "guess"}));
        assert_eq!(answer["errno"], 1, "{answer}");
    }
    clients[0].login(id);
    for n in 0..40 {
        clients[1].register(&format!("new {n}"));
    }
}

#[test]
fn new_users_from_loopback_are_limited_where_the_limit_is_given() {
    let home = Home::new();
    std::fs::write(home.path().join("linger.toml"), "address-registrations = 3").unwrap();
    let config = home.path().join("linger.toml").display().to_string();
    for option in [["--address-registrations", "3"], ["--config", &config]] {
        let server = Server::start(&[&option[..], &["--line", "127.0.0.1:0"]].concat());
        LineClient::connect(&server).login("ann");
        let mut client = Client::connect(&server);
        client.register("bob");
        client.register("carol");
        let answer = client.ask(&json!({"msgid": 4, "name": "dave", "password": PASSWORD}));
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(5), &json!(17)), "{answer}");
        let mut new_guest = LineClient::connect(&server);
        new_guest.say_first("erin");
        new_guest.expect_refused();
        LineClient::connect(&server).login("ann");
        client.login_as("bob");
    }
}

/// Members who are away of a group that alice has created.
const MEMBERS: usize = 2_500;

#[test]
fn a_chat_to_thousands_who_are_away_is_stored_once_reaches_all_and_holds_nobody_up() {
    const CHATS: u64 = 5;
    const TEXT_BYTES: usize = 20_000;
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let group = alice.ask(&json!({"msgid": 8, "groupname": "all", "groupdesc": "", "seq": 0}))["id"].clone();
    let mut db = server.home.db_to_write();
    // Rows that others insert are users.
    let rows = db.transaction().unwrap();
    for number in 0..MEMBERS {
        rows.execute("INSERT INTO user (name) VALUES (?1)", [format!("member {number}")]).unwrap();
        rows.execute("INSERT INTO member (groupid, user) VALUES (?1, last_insert_rowid())", [group.as_i64()])
            .unwrap();
    }
    rows.commit().unwrap();
    let text = "x".repeat(TEXT_BYTES);
    for seq in 1..=CHATS {
        alice.say(&json!({"msgid": 10, "groupid": group, "msg": text, "seq": seq}));
    }
    // Somebody else comes meanwhile.
    let (mut bob, _) = server.user("bob");
    bob.quiet();
    for seq in 1..=CHATS {
        let answer = alice.hear();
        assert_eq!((&answer["seq"], &answer["errno"]), (&json!(seq), &json!(0)), "{answer}");
    }
    let kept: i64 = db.query_row("SELECT count(*) FROM kept", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, MEMBERS as i64 * CHATS as i64);
    let home = server.stop();
    let bytes = std::fs::metadata(home.database()).unwrap().len();
    assert!(bytes < (MEMBERS * TEXT_BYTES) as u64, "{bytes} bytes of database");
}

#[test]
fn past_the_bound_of_all_boxes_together_a_chat_is_errno_20_until_somebody_takes_theirs() {
    let server = Server::start(&["--box-total", "100KiB"]);
    let (mut alice, _) = server.user("alice");
    let [bob, cy] = server.absent(["bob", "cy"]);
    let text = "x".repeat(40_000);
    let mut chat = |to: i64, seq: u64| {
        alice.ask(&json!({"msgid": 6, "toid": to, "msg": text, "seq": seq}))["errno"].clone()
    };
    assert_eq!([chat(bob, 1), chat(cy, 2)], [0, 0]);
    assert_eq!(chat(bob, 3), 20, "bob's own box has room");
    let mut cy = server.back(cy);
    cy.quiet();
    eventually("cy's message is taken out", || chat(bob, 3) == 0);
    // What is there is counted at the next start, too.
    let home = server.stop();
    let server = Server::start_at(&home, &["--box-total", "100KiB"]);
    let mut alice = Client::connect(&server);
    alice.login_as("alice");
    assert_eq!(alice.ask(&json!({"msgid": 6, "toid": bob, "msg": text, "seq": 5}))["errno"], 20);
}
