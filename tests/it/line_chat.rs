//! Section 3: guests and JSON users talk to each other, also when one of them is not there.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::common::{Client, LINES, LineClient, PASSWORD, Server, eventually, offline, unpack};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// Cases of one proptest; each logs both ends in anew, so that it does not depend on the one before.
const CASES: u32 = 60;

/// One more than the texts of a case, at most.
const TEXTS: usize = 16;

/// As many messages as the box of an absent user takes.
const BOX_MESSAGES: usize = 1000;

fn cases() -> TestRunner {
    TestRunner::new(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })
}

/// A registered user on a line, with nothing kept for him.
fn user_on_a_line(server: &Server, name: &str) -> LineClient {
    let mut client = LineClient::connect(server);
    client.login(&format!("{name} {PASSWORD}"));
    client
}

/// A group with these members, the first of whom creates it.
fn group_of(name: &str, members: &mut [&mut Client]) -> i64 {
    let (creator, others) = members.split_first_mut().unwrap();
    let answer = creator.ask(&json!({"msgid": 8, "groupname": name, "groupdesc": "d", "seq": "g"}));
    let group = answer["id"].as_i64().unwrap_or_else(|| panic!("no group {name:?}: {answer}"));
    for member in others {
        assert_eq!(member.ask(&json!({"msgid": 9, "groupid": group, "seq": "j"}))["errno"], 0);
    }
    group
}

/// Asserts the object that a line becomes for a JSON user, and that its time reads `YYYY-MM-DD HH:MM:SS`.
#[track_caller]
fn expect_chat(mut heard: Value, from: (i64, &str), to: i64, text: &str) {
    let time = heard["time"].take();
    let (id, name) = from;
    assert_eq!(heard, json!({"msgid": 6, "id": id, "name": name, "toid": to, "msg": text, "time": null}));
    let shape: String =
        time.as_str().unwrap().chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00");
}

#[test]
fn a_line_reaches_a_json_user_as_a_chat_with_its_true_sender() {
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut bob, bob_id) = server.user("bob");
    let [alice_id] = server.absent(["alice"]);
    let (mut ann, ann_id) = server.guest("ann");
    let mut alice = user_on_a_line(&server, "alice");
    for text in ["hi", "\"quoted\" \\ {]} 汉 \u{1F600}", "{\"msgid\":6,\"id\":1}", "a: b, c: d"] {
        ann.say(&format!("bob: {text}"));
        expect_chat(bob.hear(), (ann_id, "ann"), bob_id, text);
        alice.say(&format!("bob:   {text}  "));
        expect_chat(bob.hear(), (alice_id, "alice"), bob_id, text);
    }
    bob.quiet();
}

#[test]
fn a_chat_reaches_a_line_user_as_one_line_with_its_true_sender() {
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut ann, ann_id) = server.guest("ann");
    for (n, name) in ["alice", "zhang san", "a,b", "汉"].into_iter().enumerate() {
        let (mut client, _) = server.user(name);
        client.say(
            &json!({"msgid": 6, "toid": ann_id, "msg": "hi: there", "name": "the queen", "x": [1, "y"]}),
        );
        assert_eq!(ann.hear(), format!("from {name}: hi: there"));
        client.chat_numbered(ann_id, n as u64, "\"{]\\ 汉 \u{1F600}");
        let answer = client.hear();
        assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": n, "re": 6}));
        assert_eq!(ann.hear(), format!("from {name}: \"{{]\\ 汉 \u{1F600}"));
    }
    ann.quiet();
}

#[test]
fn a_conversation_goes_on_in_both_directions() {
    let server = Server::with_lines(&["--workers", "3"]);
    let (mut bob, bob_id) = server.user("bob");
    let (mut ann, ann_id) = server.guest("ann");
    let (mut carol, _) = server.guest("carol");
    for n in 0..300 {
        ann.say(&format!("bob, carol: {n}"));
        assert_eq!(bob.hear()["msg"], n.to_string());
        assert_eq!(carol.hear(), format!("from ann: {n}"));
        carol.say(&format!("ann: {n}"));
        assert_eq!(ann.hear(), format!("from carol: {n}"));
        bob.chat(ann_id, &format!("back {n}"));
        assert_eq!(ann.hear(), format!("from bob: back {n}"));
    }
    assert_eq!(bob.id(), bob_id);
}

#[test]
fn whatever_a_json_user_says_is_one_line() {
    let server = Server::with_lines(&[]);
    let [bob_id] = server.absent(["bob"]);
    let visible = |text: &str| -> String {
        text.chars().filter(|char| !char.is_control() && !char.is_whitespace()).collect()
    };
    let check = |texts: &[String]| {
        let (mut bob, (mut ann, ann_id)) = (server.back(bob_id), server.guest("ann"));
        for text in texts {
            bob.chat(ann_id, text);
            let heard = ann.hear();
            let said = heard.strip_prefix("from bob:").unwrap_or_else(|| panic!("{text:?} became {heard:?}"));
            assert_eq!(visible(said), visible(text), "{text:?} became {heard:?}");
        }
        ann.quiet();
    };
    check(
        &[
            "a\nerror: kicked: x",
            "a\r\nfrom carol: x\r\n",
            "\n",
            "",
            "\0\0",
            "\u{1b}[2J\u{7}",
            "a\u{85}b\u{7f}",
            "\r",
        ]
        .map(str::to_owned),
    );
    let text = prop_oneof![".{0,40}", any::<String>(), "[\\n\\r\\x00-\\x1f\\x7f-\\x9fa: ]{0,40}"];
    cases()
        .run(&vec(text, 1..TEXTS), |texts| {
            check(&texts);
            Ok(())
        })
        .unwrap();
}

#[test]
fn whatever_a_line_says_arrives_as_it_was_said() {
    let server = Server::with_lines(&[]);
    let [bob_id] = server.absent(["bob"]);
    let text = prop_oneof!["\\PC{1,60}", "[,:\"\\\\{}\\[\\] a]{1,40}"]
        .prop_filter("a text", |text| !text.trim().is_empty());
    cases()
        .run(&(vec(text, 1..TEXTS), any::<bool>()), |(texts, with_cr)| {
            let (mut bob, (mut ann, ann_id)) = (server.back(bob_id), server.guest("ann"));
            for text in texts {
                ann.say(&format!("bob:{text}{}", if with_cr { "\r" } else { "" }));
                expect_chat(bob.hear(), (ann_id, "ann"), bob_id, text.trim());
            }
            bob.quiet();
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_group_chat_reaches_line_users_with_the_groups_name() {
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut alice, alice_id) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    let (mut carol, _) = server.user("carol");
    let (mut guest, _) = server.guest("guest");
    let dev = group_of("dev", &mut [&mut alice, &mut bob, &mut carol]);
    let odd = group_of("two words: x", &mut [&mut alice, &mut bob]);
    drop(bob);
    offline(&server, bob_id);
    let mut bob = user_on_a_line(&server, "bob");
    let say = |client: &mut Client, group: i64, text: &str| {
        let answer = client.ask(&json!({"msgid": 10, "groupid": group, "msg": text, "seq": text}));
        assert_eq!(answer["errno"], 0, "{answer}");
    };
    for n in 0..20 {
        say(&mut alice, dev, &format!("hi {n}"));
        assert_eq!(bob.hear(), format!("from alice@dev: hi {n}"));
        let heard = carol.hear();
        assert_eq!(
            (&heard["msgid"], &heard["id"], &heard["groupid"]),
            (&json!(10), &json!(alice_id), &json!(dev))
        );
    }
    say(&mut alice, odd, "odd");
    assert_eq!(bob.hear(), "from alice@two words\\u{3a} x: odd");
    say(&mut alice, dev, "a\nfrom carol: b\r\n");
    let line = bob.hear();
    assert!(line.starts_with("from alice@dev: a") && line.contains("from carol: b"), "{line:?}");
    bob.quiet();
    guest.quiet();
    alice.quiet();
}

#[test]
fn a_groups_name_never_becomes_a_second_line() {
    let server = Server::with_lines(&[]);
    let (mut alice, _) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    let request = json!({"msgid": 8, "groupname": "dev\nerror: x\r\n", "groupdesc": "d", "seq": 1});
    let answer = alice.ask(&request);
    let Some(group) = answer["id"].as_i64() else {
        assert_ne!(answer["errno"], 0, "refused, or the group's id: {answer}");
        return;
    };
    assert_eq!(bob.ask(&json!({"msgid": 9, "groupid": group, "seq": 1}))["errno"], 0);
    let say = json!({"msgid": 10, "groupid": group, "msg": "hi"});
    drop(bob);
    offline(&server, bob_id);
    alice.say(&say);
    alice.quiet();
    let mut bob = LineClient::connect(&server);
    bob.say_first(&format!("bob {PASSWORD}"));
    for _ in 0..2 {
        let line = bob.hear();
        assert!(line.starts_with("from alice@dev") && line.ends_with(": hi"), "{line:?}");
        bob.quiet();
        alice.say(&say);
    }
}

#[test]
fn text_for_someone_absent_is_handed_over_at_the_next_login_on_a_line() {
    const EACH: usize = 60;
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut alice, _) = server.user("alice");
    let [carol] = server.absent(["carol"]);
    let (mut ann, _) = server.guest("ann");
    let (bob, bob_id) = server.guest("bob");
    drop(bob);
    offline(&server, bob_id);
    for (name, id, first) in
        [("bob", bob_id, "bob".to_owned()), ("carol", carol, format!("carol {PASSWORD}"))]
    {
        for n in 0..EACH {
            ann.say(&format!("{name}: {n}"));
            alice.chat_numbered(id, n as u64, &format!("{n}\nnot a line"));
            assert_eq!(alice.hear()["errno"], 0);
        }
        ann.quiet();
        let mut receiver = LineClient::connect(&server);
        receiver.say_first(&first);
        let heard = receiver.hear_all(2 * EACH);
        let of = |from: &str| heard.iter().filter_map(|line| line.strip_prefix(from)).collect::<Vec<_>>();
        let from_ann: Vec<_> = (0..EACH).map(|n| n.to_string()).collect();
        assert_eq!(of("from ann: "), from_ann);
        let from_alice: Vec<_> =
            of("from alice: ").iter().map(|text| text.split_once(' ').unwrap().0).collect();
        assert_eq!(from_alice, from_ann);
        receiver.quiet();
        drop(receiver);
        offline(&server, id);
        let mut again = LineClient::connect(&server);
        again.login(&first);
    }
}

#[test]
fn text_of_a_line_is_kept_for_a_json_user() {
    const SENT: usize = 100;
    let server = Server::with_lines(&["--workers", "2"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut ann, ann_id) = server.guest("ann");
    for n in 0..SENT {
        ann.say(&format!("bob, ann: {n}"));
    }
    assert_eq!(ann.hear_all(SENT), (0..SENT).map(|n| format!("from ann: {n}")).collect::<Vec<_>>());
    ann.quiet();
    drop(ann);
    offline(&server, ann_id);
    let mut bob = Client::connect(&server);
    let kept = unpack(&bob.login(bob_id), "offlinemsg");
    assert_eq!(kept.len(), SENT);
    for (n, message) in kept.into_iter().enumerate() {
        expect_chat(message, (ann_id, "ann"), bob_id, &n.to_string());
    }
    bob.quiet();
    bob.chat(ann_id, "and back");
    bob.quiet();
    let mut ann = LineClient::connect(&server);
    ann.say_first("ann");
    assert_eq!(ann.hear(), "from bob: and back");
    ann.quiet();
}

#[test]
fn a_group_chat_is_kept_for_a_line_user() {
    let server = Server::with_lines(&[]);
    let (mut alice, _) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    let dev = group_of("dev", &mut [&mut alice, &mut bob]);
    drop(bob);
    offline(&server, bob_id);
    for n in 0..10 {
        let request = json!({"msgid": 10, "groupid": dev, "msg": n.to_string(), "seq": n});
        assert_eq!(alice.ask(&request)["errno"], 0);
        alice.chat_numbered(bob_id, n, "private");
        assert_eq!(alice.hear()["errno"], 0);
    }
    let mut bob = LineClient::connect(&server);
    bob.say_first(&format!("bob {PASSWORD}"));
    for n in 0..10 {
        assert_eq!(bob.hear(), format!("from alice@dev: {n}"));
        assert_eq!(bob.hear(), "from alice: private");
    }
    bob.quiet();
}

#[test]
fn guests_and_their_text_outlive_a_stop_and_a_crash() {
    let server = Server::with_lines(&[]);
    let (mut alice, _) = server.user("alice");
    let (mut ann, ann_id) = server.guest("ann");
    let (bob, bob_id) = server.guest("bob");
    drop(bob);
    offline(&server, bob_id);
    ann.say("bob: one");
    ann.quiet();
    let home = server.stop();
    ann.expect_goodbye("server_shutdown");
    assert_eq!(home.online(), 0);

    let server = Server::start_at(&home, &LINES);
    drop(alice);
    alice = Client::connect(&server);
    alice.login_as("alice");
    let (mut ann, again) = server.guest("ann");
    assert_eq!(again, ann_id);
    alice.chat_numbered(bob_id, 2, "two");
    assert_eq!(alice.hear()["errno"], 0, "answered, so on disk");
    ann.quiet();
    let home = server.crash();

    let server = Server::start_at(&home, &LINES);
    assert_eq!(
        (home.online(), home.reasons(ann_id)),
        (0, vec!["server_shutdown".into(), "server_crash".into()])
    );
    let mut bob = LineClient::connect(&server);
    bob.say_first("bob");
    assert_eq!(bob.hear_all(2), ["from ann: one", "from alice: two"]);
    bob.quiet();
}

#[test]
fn a_full_box_is_an_error() {
    let server = Server::with_lines(&[]);
    let [bob_id] = server.absent(["bob"]);
    let (mut ann, _) = server.guest("ann");
    let lines: Vec<_> = (0..BOX_MESSAGES).map(|n| format!("bob: {n}")).collect();
    ann.say(&lines.join("\n"));
    ann.quiet();
    ann.say("bob, ann: one too many");
    let mut heard = ann.hear_all(2);
    heard.sort_unstable();
    assert!(heard[0].starts_with("error: ") && heard[1] == "from ann: one too many", "{heard:?}");
    let mut bob = Client::connect(&server);
    let kept = bob.login_and_collect(bob_id, BOX_MESSAGES);
    let texts: Vec<_> = kept.iter().map(|message| message["msg"].as_str().unwrap().to_owned()).collect();
    assert_eq!(texts, (0..BOX_MESSAGES).map(|n| n.to_string()).collect::<Vec<_>>());
    bob.quiet();
}

#[test]
fn nothing_is_lost_doubled_or_overtaken_while_the_line_user_comes_and_goes() {
    const ALL: u64 = 600;
    let server = Server::with_lines(&["--workers", "3", "--grace", "0s"]);
    let (bob, bob_id) = server.guest("bob");
    drop(bob);
    let (mut alice, _) = server.user("alice");
    let talk = std::thread::spawn(move || {
        for n in 0..ALL {
            alice.chat_numbered(bob_id, n, &n.to_string());
            if n % 8 == 7 {
                for _ in 0..8 {
                    assert_eq!(alice.hear()["errno"], 0);
                }
            }
        }
        alice
    });
    let mut heard = Vec::new();
    let mut visits = 0;
    while heard.len() < ALL as usize {
        let mut bob = LineClient::connect(&server);
        bob.say_first("bob");
        for _ in 0..=(visits * 7) % 40 {
            if heard.len() < ALL as usize {
                heard.push(bob.hear());
            }
        }
        // Ending only its own side, so that whatever the kernel has taken is still read.
        bob.end_input();
        heard.extend(bob.hear_to_the_end());
        visits += 1;
    }
    assert_eq!(heard, (0..ALL).map(|n| format!("from alice: {n}")).collect::<Vec<_>>(), "in {visits} visits");
    talk.join().unwrap().quiet();
    server.guest("bob").0.quiet();
}

#[test]
fn lines_through_a_pipe_are_delivered_before_the_half_close_takes_effect() {
    const ROUNDS: usize = 20;
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut bob, _) = server.user("bob");
    let [absent] = server.absent(["carol"]);
    let addr = server.line_addr();
    for round in 0..ROUNDS {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let said = format!("ann\nbob: hi {round}\nnobody: hi\ncarol: kept {round}\n");
        stream.write_all(said.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).unwrap();
        assert!(
            heard.starts_with("error: ") && heard.lines().count() == 1,
            "its answer, and no more: {heard:?}"
        );
        assert_eq!(bob.hear()["msg"], format!("hi {round}"));
    }
    let ann = server.home.id_of("ann").unwrap();
    offline(&server, ann);
    bob.quiet();
    let mut carol = Client::connect(&server);
    let kept = carol.login_and_collect(absent, ROUNDS);
    let texts: HashSet<_> = kept.iter().map(|message| message["msg"].to_string()).collect();
    assert_eq!((texts.len(), kept.len()), (ROUNDS, ROUNDS), "{kept:?}");
    carol.quiet();
    let home = server.stop();
    assert_eq!(home.online(), 0);
}

#[test]
fn who_channels_and_friends_show_line_users_like_others() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let (mut alice, alice_id) = server.user("alice");
    let (mut ann, ann_id) = server.guest("ann");
    alice.chat(ann_id, "hi");
    ann.hear();
    assert_eq!(alice.ask(&json!({"msgid": 7, "friendid": ann_id, "seq": 1}))["errno"], 0);

    let who = server.cli_json(&["who"]);
    let users = who["users"].as_array().unwrap();
    let entry = |id: i64| users.iter().find(|entry| entry["id"] == id).unwrap_or_else(|| panic!("{who}"));
    let keys = |entry: &Value| entry.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(users.len(), 2, "{who}");
    assert_eq!(keys(entry(ann_id)), keys(entry(alice_id)));
    assert_eq!(entry(ann_id)["name"], "ann");
    assert_eq!(entry(ann_id)["peer"], ann.wire().local_addr().to_string());
    assert_eq!(entry(ann_id)["channel"], server.channel_of(ann_id));

    let channel = server.channel_with(ann.wire()).unwrap();
    assert_eq!(keys(&channel), keys(&server.channel_with(&alice).unwrap()));
    assert_eq!(
        (&channel["state"], &channel["user"], &channel["name"]),
        (&json!("live"), &json!(ann_id), &json!("ann"))
    );
    let silent = LineClient::connect(&server);
    eventually("one before its first line is there too", || {
        server
            .channel_with(silent.wire())
            .is_some_and(|entry| entry["state"] == "new" && entry["user"].is_null())
    });
    assert!(server.has_read_all_of(ann.wire()));
    let heard = "from ann: marker 1\nfrom alice: hi\n".len();
    eventually("its bytes are counted", || server.channel_with(ann.wire()).unwrap()["bytes_out"] == heard);

    let friends = |server: &Server| unpack(&server.back(alice_id).login(alice_id), "friends");
    assert_eq!(friends(&server), [json!({"id": ann_id, "name": "ann", "state": "online"})]);
    drop(ann);
    offline(&server, ann_id);
    assert_eq!(friends(&server), [json!({"id": ann_id, "name": "ann", "state": "offline"})]);
    let why = server.home.departures(ann_id);
    eventually("the account is settled", || server.home.departures(ann_id)[0].delivered.is_some());
    let account = &server.home.departures(ann_id)[0];
    assert_eq!((why.len(), account.saved, account.lost), (1, Some(0), Some(0)));
    assert_eq!(account.delivered, Some(2), "what alice said, and the marker");
}
