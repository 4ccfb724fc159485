//! Sections 2 and 3: nobody passes for somebody else, by a name that looks alike or by one that looks like a sender.

use crate::common::{Client, Home, LINES, LineClient, PASSWORD, Server};
use serde_json::{Value, json};

fn register(client: &mut Client, name: &str) -> Value {
    client.ask(&json!({"msgid": 4, "name": name, "password": PASSWORD}))
}

/// Asserts a refused registration, and what its text says.
#[track_caller]
fn refused(answer: &Value, rule: &str) {
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(5), &json!(1)), "{answer}");
    assert!(answer["errmsg"].as_str().unwrap().contains(rule), "{answer}");
}

#[test]
fn on_a_line_no_two_senders_look_alike() {
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut ann, ann_id) = server.guest("ann");
    for (name, written) in [
        ("alice", "alice"),
        ("alice: pay 1", "alice\\u{3a} pay 1"),
        ("alice@staff", "alice\\u{40}staff"),
        ("alice\\u{40}staff", "alice\\u{5c}u{40}staff"),
        ("a\\b", "a\\b"),
    ] {
        let (mut user, _) = server.user(name);
        user.chat(ann_id, "hi");
        assert_eq!(ann.hear(), format!("from {written}: hi"));
        ann.say(&format!("{written}: and back"));
        assert_eq!(user.hear()["msg"], "and back", "the written name reaches its user");
    }
    let mut guest = LineClient::connect(&server);
    guest.say("bob@staff\nann: hi");
    assert_eq!(ann.hear(), "from bob\\u{40}staff: hi");
    ann.say("bob@staff, a\\u{2c}b: hi");
    assert_eq!(guest.hear(), "from ann: hi");
    assert!(ann.hear_error().contains("a,b"), "a comma can be written");
    ann.quiet();
}

#[test]
fn a_group_never_makes_one_sender_look_like_another() {
    let server = Server::with_lines(&[]);
    let (mut alice, _) = server.user("alice");
    let (bob, bob_id) = server.user("bob");
    drop(bob);
    let mut bob = server.back(bob_id);
    let mut groups = Vec::new();
    for (name, written) in [("a@b", "a\\u{40}b"), ("a: b", "a\\u{3a} b"), ("a", "a")] {
        let create = json!({"msgid": 8, "groupname": name, "groupdesc": "", "seq": name});
        let group = alice.ask(&create)["id"].as_i64().unwrap();
        assert_eq!(bob.ask(&json!({"msgid": 9, "groupid": group, "seq": 1}))["errno"], 0);
        groups.push((group, written));
    }
    drop(bob);
    let mut bob = LineClient::connect(&server);
    bob.login(&format!("bob {PASSWORD}"));
    for (group, written) in groups {
        alice.say(&json!({"msgid": 10, "groupid": group, "msg": "hi"}));
        assert_eq!(bob.hear(), format!("from alice@{written}: hi"));
    }
}

#[test]
fn a_new_name_that_looks_like_another_or_like_nothing_is_refused_and_the_text_says_why() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    for name in ["alice", "user1", "straße", "zhang san", "👨‍👩‍👧", "a,b", "@all"] {
        assert_eq!(register(&mut client, name)["errno"], 0, "{name}");
    }
    refused(&register(&mut client, "alice"), "taken");
    for alike in ["Alice", "ALICE", "аlice", "alıce", "userl", "userI", "STRASSE", "zhang‐san"] {
        let answer = register(&mut client, alike);
        if alike == "zhang‐san" {
            assert_eq!(answer["errno"], 0, "a hyphen is no space");
        } else {
            refused(&answer, "looks like");
        }
    }
    for hidden in
        ["\u{3164}", "\u{2800}", "al\u{200b}ice", "\u{202e}bob", "bob\u{e0041}", "😀\u{200d}😀", "bob\u{a0}x"]
    {
        refused(&register(&mut client, hidden), "seen");
    }
    refused(&register(&mut client, " bob"), "space");
    refused(&register(&mut client, "１２"), "digits");
    assert_eq!(server.home.users(), 8);
}

#[test]
fn a_client_that_decomposes_names_registers_and_comes_back() {
    let server = Server::with_lines(&[]);
    let mut client = Client::connect(&server);
    let id = register(&mut client, "re\u{301}mi")["id"].as_i64().unwrap();
    for name in ["re\u{301}mi", "rémi"] {
        let mut client = Client::connect(&server);
        let answer = client.ask(&json!({"msgid": 1, "name": name, "password": PASSWORD}));
        assert_eq!(
            (&answer["errno"], &answer["id"], &answer["name"]),
            (&json!(0), &json!(id), &json!("rémi"))
        );
        refused(&register(&mut client, name), "taken");
    }
    let (mut ann, _) = server.guest("ann");
    let mut remi = LineClient::connect(&server);
    remi.say(&format!("re\u{301}mi {PASSWORD}\nre\u{301}mi: to myself"));
    assert_eq!(remi.hear(), "from rémi: to myself");
    ann.say("re\u{301}mi: hi");
    assert_eq!(remi.hear(), "from ann: hi");
    assert!(server.kick("re\u{301}mi"));
    remi.expect_goodbye("kicked");
}

#[test]
fn a_guest_takes_no_name_that_looks_like_another() {
    let server = Server::with_lines(&["--grace", "0s"]);
    let (mut ann, id) = server.guest("ann");
    for first in ["Ann", "аnn", "ANN", "\u{3164}", "a\u{200b}nn", "123"] {
        let mut client = LineClient::connect(&server);
        client.say(first);
        client.expect_refused();
    }
    ann.quiet();
    assert_eq!((server.home.users(), server.home.state(id)), (1, "online".into()));
    let mut remi = LineClient::connect(&server);
    remi.say("re\u{301}mi\nrémi: hi");
    assert_eq!(remi.hear(), "from rémi: hi");
    assert!(server.home.id_of("rémi").is_some_and(|id| server.home.is_guest(id)));
}

#[test]
fn whoever_exists_logs_in_whatever_the_name_and_keeps_look_alikes_out() {
    let server = Server::with_lines(&[]);
    let [alice] = server.absent(["alice"]);
    let hash = server.home.hash(alice);
    let home: Home = server.stop();
    let others = ["Alice", "\u{3164}", "123", "bob", "BOB", "e\u{301}", "zo\u{308}e"];
    let db = home.db_to_write();
    for name in others {
        db.execute("INSERT INTO user (name, password) VALUES (?1, ?2)", [name, &hash]).unwrap();
    }
    drop(db);

    let server = Server::start_at(&home, &LINES);
    for name in others.iter().chain(&["alice"]) {
        let id = home.id_of(name).unwrap();
        let mut client = Client::connect(&server);
        let answer = client.ask(&json!({"msgid": 1, "name": name, "password": PASSWORD}));
        assert_eq!((&answer["errno"], &answer["id"]), (&json!(0), &json!(id)), "{name}");
        let mut line = LineClient::connect(&server);
        line.say(&format!("{name} {PASSWORD}\n{name}: hi"));
        let written = if *name == "\u{3164}" { "\\u{3164}" } else { name };
        assert_eq!(line.hear(), format!("from {written}: hi"));
    }
    let mut client = Client::connect(&server);
    for alike in ["aLICE", "b0b", "BoB", "zöe"] {
        refused(&register(&mut client, alike), "looks like");
    }
    // Somebody who comes while the server runs, and one who is renamed.
    let db = home.db_to_write();
    db.execute("INSERT INTO user (name, password) VALUES ('carol', ?1)", [&hash]).unwrap();
    db.execute("UPDATE user SET name = 'dave' WHERE name = 'bob'", []).unwrap();
    drop(db);
    refused(&register(&mut client, "CAROL"), "looks like");
    refused(&register(&mut client, "Dave"), "looks like");
}

#[test]
fn an_emoji_of_several_characters_is_shown_whole_and_stands_in_its_column() {
    let server = Server::start(&[]);
    let (_family, _) = server.user("👨‍👩‍👧");
    let (_bob, _) = server.user("bob");
    let who = server.cli(&["who"]).stdout;
    let row = |name: &str| who.lines().find(|line| line.contains(name)).unwrap().split(name).nth(1).unwrap();
    let gap = |name: &str| row(name).len() - row(name).trim_start().len();
    assert_eq!(gap("👨‍👩‍👧"), gap("bob") + 1, "two columns instead of three: {who}");
    let log = server.log();
    assert!(log.contains("name=\"👨‍👩‍👧\""), "{log}");
}
