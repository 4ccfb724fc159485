//! Section 2 of the contract as a client sees it: who may say what, what is answered, in which order.

use crate::common::{Client, PASSWORD, Server, eventually, expect_error, numbers, unpack};
use serde_json::{Value, json};

fn creates_group(client: &mut Client, name: &str, desc: &str) -> i64 {
    let answer = client.ask(&json!({"msgid": 8, "groupname": name, "groupdesc": desc, "seq": "new group"}));
    let id = answer["id"].as_i64().unwrap_or_else(|| panic!("no id for the new group: {answer}"));
    assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": "new group", "re": 8, "id": id}));
    id
}

fn joins_group(client: &mut Client, group: i64) {
    let answer = client.ask(&json!({"msgid": 9, "groupid": group, "seq": "join"}));
    assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": "join", "re": 9}));
}

#[test]
fn a_new_user_registers_and_logs_in_by_id_and_by_name() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    let answer = client.ask(&json!({"msgid": 4, "name": "zhang san", "password": PASSWORD}));
    let id = answer["id"].as_i64().unwrap();
    assert_eq!(answer, json!({"msgid": 5, "errno": 0, "id": id}));
    assert_eq!(server.home.state(id), "offline", "registering is not logging in");

    let welcome = json!({"msgid": 2, "errno": 0, "id": id, "name": "zhang san"});
    assert_eq!(client.login(id), welcome);
    assert_eq!(server.home.state(id), "online", "the answer comes after the commit");

    let mut other = Client::connect(&server);
    let second = other.register("li si");
    assert_eq!(other.login_as("li si")["id"], second);
    client.quiet();
}

#[test]
fn the_password_may_be_spelled_in_three_ways_and_the_receiver_in_two() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    for (index, field) in ["password", "passwd", "pwd"].into_iter().enumerate() {
        let answer = client.ask(&json!({"msgid": 4, "name": format!("user {index}"), field: "p"}));
        assert_eq!(answer["errno"], 0, "{answer}");
        let id = answer["id"].as_i64().unwrap();
        for spelled in ["password", "passwd", "pwd"] {
            let answer = client.ask(&json!({"msgid": 1, "id": id, spelled: "p"}));
            assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(0)), "{answer}");
        }
        for receiver in ["toid", "to"] {
            let heard = client.ask(&json!({"msgid": 6, receiver: id, "msg": receiver}));
            assert_eq!(heard["msg"], receiver);
        }
    }
}

#[test]
fn a_name_is_one_to_sixty_four_characters_without_control_characters_and_not_all_digits() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    let longest = "汉".repeat(64);
    for good in ["a", longest.as_str(), "7 of 9", "ünïcode", "a,b:c", "\"quoted\" \\", "@all"] {
        let id = client.register(good);
        let answer = client.login_as(good);
        assert_eq!((&answer["id"], &answer["name"]), (&json!(id), &json!(good)));
    }
    let too_long = "汉".repeat(65);
    for bad in ["", too_long.as_str(), "123", "0", "tab\there", "line\n", "nul\0", "del\u{7f}", "c1\u{85}"] {
        let answer = client.ask(&json!({"msgid": 4, "name": bad, "password": PASSWORD}));
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(5), &json!(1)), "{bad:?}: {answer}");
        assert!(answer["errmsg"].is_string(), "{answer}");
    }
}

#[test]
fn a_password_has_one_to_256_bytes() {
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    let (longest, too_long) = ("é".repeat(128), "x".repeat(257));
    let answer = client.ask(&json!({"msgid": 4, "name": "long", "password": longest}));
    assert_eq!(answer["errno"], 0, "{answer}");
    let answer = client.ask(&json!({"msgid": 1, "name": "long", "password": longest}));
    assert_eq!(answer["errno"], 0, "{answer}");
    for bad in ["", too_long.as_str()] {
        let answer = client.ask(&json!({"msgid": 4, "name": "other", "password": bad}));
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(5), &json!(1)), "{answer}");
    }
}

#[test]
fn a_name_is_given_only_once() {
    let server = Server::start(&[]);
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        client.say(&json!({"msgid": 4, "name": "wanted", "password": PASSWORD}));
    }
    let given = clients.iter_mut().map(|client| {
        let answer = client.hear();
        assert_eq!(answer["msgid"], 5, "{answer}");
        assert!(answer["errno"] == 0 || answer["errno"] == 1, "{answer}");
        answer["errno"] == 0
    });
    assert_eq!(given.filter(|given| *given).count(), 1);
}

#[test]
fn a_refused_login_never_says_what_was_wrong() {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    let mut client = Client::connect(&server);
    let refusals: Vec<_> = [
        json!({"msgid": 1, "id": id, "password": "wrong"}),
        json!({"msgid": 1, "name": "alice", "password": "wrong"}),
        json!({"msgid": 1, "id": id + 1000, "password": PASSWORD}),
        json!({"msgid": 1, "name": "nobody", "password": PASSWORD}),
        json!({"msgid": 1, "name": "alice", "password": "x".repeat(300)}),
        json!({"msgid": 1, "id": -1, "password": PASSWORD}),
    ]
    .iter()
    .map(|request| client.ask(request))
    .collect();
    for refusal in &refusals {
        assert_eq!((&refusal["msgid"], &refusal["errno"]), (&json!(2), &json!(1)), "{refusal}");
        assert_eq!(refusal, &refusals[0], "all refusals read alike");
    }
    assert_eq!(server.home.state(id), "offline");
    client.login(id);
}

#[test]
fn a_chat_arrives_with_the_true_sender_and_everything_else_that_was_said() {
    let server = Server::start(&[]);
    let (mut alice, alice_id) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    alice.say(&json!({
        "msgid": 6, "id": alice_id, "name": "the queen", "toid": bob_id, "msg": "hi \u{0}\n\"{]",
        "time": "2001-02-03 04:05:06", "colour": {"r": [1, 2, null]}, "号": 1.5,
        "mid": 1, "again": true, "seq": 77, "re": 9, "errno": 3, "caps": ["ack"], "token": "t"
    }));
    let answer = alice.hear();
    assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": 77, "re": 6}));
    let heard = bob.hear();
    assert_eq!(
        (&heard["msgid"], &heard["id"], &heard["name"]),
        (&json!(6), &json!(alice_id), &json!("alice"))
    );
    assert_eq!(heard["msg"], "hi \u{0}\n\"{]");
    assert_eq!(heard["time"], "2001-02-03 04:05:06");
    assert_eq!((&heard["colour"], &heard["号"]), (&json!({"r": [1, 2, null]}), &json!(1.5)));
    for never in ["mid", "again", "seq", "re", "errno", "caps", "token"] {
        assert!(heard.get(never).is_none(), "{never} never passes: {heard}");
    }
    bob.quiet();
    alice.quiet();
}

#[test]
fn a_chat_without_a_time_gets_the_servers() {
    let server = Server::start(&[]);
    let (mut alice, id) = server.user("alice");
    let heard = alice.ask(&json!({"msgid": 6, "toid": id, "msg": "to myself"}));
    assert_eq!(
        (&heard["id"], &heard["name"], &heard["msg"]),
        (&json!(id), &json!("alice"), &json!("to myself"))
    );
    let time = heard["time"].as_str().unwrap();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00", "{time:?}");
}

#[test]
fn friends_are_listed_at_login_with_their_state() {
    let server = Server::start(&[]);
    let (mut alice, alice_id) = server.user("alice");
    let (bob, bob_id) = server.user("bob");
    let [carol_id] = server.absent(["carol"]);
    for friend in [bob_id, carol_id, carol_id] {
        let answer = alice.ask(&json!({"msgid": 7, "id": alice_id, "friendid": friend, "seq": "f"}));
        assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": "f", "re": 7}));
    }
    let answer = alice.login(alice_id);
    let mut friends = unpack(&answer, "friends");
    friends.sort_by_key(|friend| friend["id"].as_i64());
    assert_eq!(
        friends,
        [
            json!({"id": bob_id, "name": "bob", "state": "online"}),
            json!({"id": carol_id, "name": "carol", "state": "offline"}),
        ]
    );
    assert!(answer.get("groups").is_none() && answer.get("offlinemsg").is_none(), "{answer}");
    drop(bob);
    eventually("bob is offline", || server.home.state(bob_id) == "offline");
    let friends = unpack(&alice.login(alice_id), "friends");
    assert!(friends.contains(&json!({"id": bob_id, "name": "bob", "state": "offline"})), "{friends:?}");
    let bob_sees = server.back(bob_id).login(bob_id);
    assert!(bob_sees.get("friends").is_none(), "a friend is whom one added: {bob_sees}");
}

#[test]
fn groups_are_listed_at_login_with_their_members_and_roles() {
    let server = Server::start(&[]);
    let (mut alice, alice_id) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    let group = creates_group(&mut alice, "读书", "books, \"and\" more");
    joins_group(&mut bob, group);
    joins_group(&mut bob, group);
    let answer = bob.login(bob_id);
    let groups = unpack(&answer, "groups");
    assert_eq!(groups.len(), 1, "{answer}");
    assert_eq!(groups[0]["id"], group);
    assert_eq!(
        (&groups[0]["groupname"], &groups[0]["groupdesc"]),
        (&json!("读书"), &json!("books, \"and\" more"))
    );
    let mut users = unpack(&groups[0], "users");
    users.sort_by_key(|user| user["id"].as_i64());
    assert_eq!(
        users,
        [
            json!({"id": alice_id, "name": "alice", "state": "online", "role": "creator"}),
            json!({"id": bob_id, "name": "bob", "state": "online", "role": "normal"}),
        ]
    );
}

#[test]
fn a_group_chat_reaches_every_other_member_and_nobody_else() {
    let server = Server::start(&["--workers", "3"]);
    let (mut alice, alice_id) = server.user("alice");
    let group = creates_group(&mut alice, "all", "");
    let mut members: Vec<_> = (0..5).map(|n| server.user(&format!("member {n}"))).collect();
    for (member, _) in &mut members {
        joins_group(member, group);
    }
    let (mut stranger, _) = server.user("stranger");
    let (absent, absent_id) = members.pop().unwrap();
    drop(absent);
    eventually("the last member is offline", || server.home.state(absent_id) == "offline");

    let answer =
        alice.ask(&json!({"msgid": 10, "groupid": group, "msg": "hello all", "name": "x", "seq": 1, "n": 5}));
    assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": 1, "re": 10}));
    let is_it = |heard: &Value| {
        assert_eq!((&heard["msgid"], &heard["groupid"], &heard["n"]), (&json!(10), &json!(group), &json!(5)));
        assert_eq!((&heard["id"], &heard["name"]), (&json!(alice_id), &json!("alice")), "{heard}");
        assert_eq!(heard["msg"], "hello all");
    };
    for (member, _) in &mut members {
        is_it(&member.hear());
        member.quiet();
    }
    alice.quiet();
    stranger.quiet();
    let kept = unpack(&Client::connect(&server).login(absent_id), "offlinemsg");
    assert_eq!(kept.len(), 1, "{kept:?}");
    is_it(&kept[0]);
}

#[test]
fn messages_to_somebody_who_is_away_are_handed_over_once_and_in_order() {
    let server = Server::start(&[]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, alice_id) = server.user("alice");
    for n in 0..20 {
        alice.chat_numbered(bob_id, n, &format!("number {n}"));
    }
    for _ in 0..20 {
        let answer = alice.hear();
        assert_eq!((&answer["errno"], &answer["re"]), (&json!(0), &json!(6)), "{answer}");
    }
    let mut bob = Client::connect(&server);
    let answer = bob.login(bob_id);
    let kept = unpack(&answer, "offlinemsg");
    assert_eq!(numbers(&kept), (0..20).collect::<Vec<_>>());
    for message in &kept {
        assert_eq!((&message["msgid"], &message["id"]), (&json!(6), &json!(alice_id)), "{message}");
        assert_eq!(message["name"], "alice");
        assert!(message.get("seq").is_none() && message["time"].is_string(), "{message}");
    }
    bob.quiet();
    assert!(bob.login(bob_id).get("offlinemsg").is_none(), "handed over once");
}

#[test]
fn a_full_box_starts_in_the_answer_and_goes_on_behind_it_before_anything_newer() {
    const TEXT_BYTES: usize = 60_000;
    const ANSWER_LIMIT_BYTES: usize = 256 * 1024;
    const KEPT: usize = 12;
    let server = Server::start(&[]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    for n in 0..KEPT {
        alice.chat_numbered(bob_id, n as u64, &"x".repeat(TEXT_BYTES));
        assert_eq!(alice.hear()["errno"], 0);
    }
    let mut bob = Client::connect(&server);
    let answer = bob.login(bob_id);
    let first = unpack(&answer, "offlinemsg");
    let bytes: usize = first.iter().map(|message| message.to_string().len()).sum();
    assert!(bytes <= ANSWER_LIMIT_BYTES, "{bytes} bytes in the answer");
    assert!(bytes + TEXT_BYTES > ANSWER_LIMIT_BYTES - 2048, "only {bytes} bytes in the answer");
    alice.chat_numbered(bob_id, KEPT as u64, "newer");
    let mut all = first;
    while all.len() <= KEPT {
        all.push(bob.hear());
    }
    assert_eq!(numbers(&all), (0..=KEPT as u64).collect::<Vec<_>>());
    bob.quiet();
}

#[test]
fn logging_out_ends_the_session_and_leaves_the_channel_to_log_in_again() {
    let server = Server::start(&[]);
    let (mut alice, id) = server.user("alice");
    let answer = alice.ask(&json!({"msgid": 3, "id": id, "seq": "bye"}));
    assert_eq!(answer, json!({"msgid": 0, "errno": 0, "seq": "bye", "re": 3}));
    eventually("alice is offline", || server.home.state(id) == "offline");
    expect_error(&alice.ask(&json!({"msgid": 6, "toid": id, "msg": "still here?"})), 11, Some(6));
    let left = server.home.departures(id);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].reason.as_str(), left[0].initiator.as_str()), ("client_quit", "client"));
    assert_eq!((left[0].name.as_str(), left[0].errno), ("alice", None));
    assert_eq!(left[0].peer.as_deref(), Some(alice.local_addr().to_string().as_str()));

    alice.login(id);
    assert_eq!(server.home.state(id), "online");
    alice.say(&json!({"msgid": 3}));
    eventually("alice is offline again", || server.home.reasons(id) == ["client_quit", "client_quit"]);
    assert_eq!(server.home.state(id), "offline");
    alice.login(id);
    alice.quiet();
}

#[test]
fn what_is_said_to_somebody_who_logged_out_waits_for_the_next_login() {
    let server = Server::start(&[]);
    let (mut alice, _) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    assert_eq!(bob.ask(&json!({"msgid": 3, "seq": 1}))["errno"], 0);
    alice.chat_numbered(bob_id, 1, "later");
    assert_eq!(alice.hear()["errno"], 0);
    assert_eq!(numbers(&unpack(&bob.login(bob_id), "offlinemsg")), [1], "nothing came before it");
}

#[test]
fn a_login_on_a_channel_with_a_session_ends_that_session_first() {
    let server = Server::start(&[]);
    let (mut client, alice_id) = server.user("alice");
    let [bob_id] = server.absent(["bob"]);
    client.login(bob_id);
    eventually("alice is offline", || server.home.state(alice_id) == "offline");
    assert_eq!(server.home.state(bob_id), "online");
    assert_eq!(server.home.reasons(alice_id), ["client_quit"]);
    client.quiet();
    client.login(bob_id);
    eventually("bob's first session is over", || server.home.reasons(bob_id) == ["client_quit"]);
    assert_eq!(server.home.state(bob_id), "online");
    client.quiet();
}

#[test]
fn a_refused_login_on_a_channel_with_a_session_changes_nothing() {
    let server = Server::start(&[]);
    let (mut client, alice_id) = server.user("alice");
    let [bob_id] = server.absent(["bob"]);
    let refused = client.ask(&json!({"msgid": 1, "id": bob_id, "password": "wrong"}));
    assert_eq!((&refused["msgid"], &refused["errno"]), (&json!(2), &json!(1)), "{refused}");
    client.quiet();
    assert_eq!(client.id(), alice_id);
    assert_eq!((server.home.state(alice_id), server.home.state(bob_id)), ("online".into(), "offline".into()));
    assert!(server.home.departures(alice_id).is_empty());
}

#[test]
fn a_client_that_ends_its_side_first_still_gets_its_answers() {
    let server = Server::start(&["--grace", "1h"]);
    let mut client = Client::connect(&server);
    client.say(&json!({"msgid": 4, "name": "late", "password": PASSWORD}));
    client.say(&json!({"msgid": 99}));
    client.end_input();
    let answer = client.hear();
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(5), &json!(0)), "{answer}");
    expect_error(&client.hear(), 10, Some(99));
    client.expect_end();

    let mut client = Client::connect(&server);
    client.login_as("late");
    let id = client.id();
    for n in 0..50 {
        client.say(&json!({"msgid": 6, "toid": id + 1000, "msg": "x", "seq": n}));
    }
    client.end_input();
    let answers = client.hear_to_the_end();
    let seqs: Vec<_> = answers.iter().map(|answer| answer["seq"].as_u64()).collect();
    assert_eq!(seqs, (0..50).map(Some).collect::<Vec<_>>(), "and no goodbye: the client left by itself");
    eventually("offline", || server.home.reasons(id) == ["peer_closed"]);
}

#[test]
fn a_login_asked_before_the_end_is_answered_and_leaves_nobody_online() {
    let server = Server::start(&["--grace", "1h"]);
    let [id] = server.absent(["late"]);
    for _ in 0..20 {
        let mut client = Client::connect(&server);
        client.say(&json!({"msgid": 1, "id": id, "password": PASSWORD}));
        client.end_input();
        let answer = client.hear();
        assert_eq!(answer["msgid"], 2, "{answer}");
        client.expect_end();
    }
    eventually("offline", || server.home.state(id) == "offline");
    server.back(id).quiet();
    let home = server.stop();
    assert_eq!(home.online(), 0);
}

#[test]
fn requests_behind_a_registration_and_a_login_wait_for_it() {
    let server = Server::start(&[]);
    let (mut bob, bob_id) = server.user("bob");
    let mut alice = Client::connect(&server);
    let mut all = json!({"msgid": 4, "name": "alice", "password": PASSWORD, "seq": "a"}).to_string();
    all += &json!({"msgid": 1, "name": "alice", "password": PASSWORD, "seq": "b"}).to_string();
    for n in 0..100 {
        all += &json!({"msgid": 6, "toid": bob_id, "msg": "pipelined", "n": n}).to_string();
    }
    all += &json!({"msgid": 3, "seq": "c"}).to_string();
    all += &json!({"msgid": 6, "toid": bob_id, "msg": "not logged in", "seq": "d"}).to_string();
    alice.say_bytes(all.as_bytes());
    let answers: Vec<_> = (0..4).map(|_| alice.hear()).collect();
    let answer_to = |seq: &str| answers.iter().find(|answer| answer["seq"] == seq).unwrap().clone();
    let id = answer_to("a")["id"].clone();
    assert_eq!(answer_to("a"), json!({"msgid": 5, "errno": 0, "id": id, "seq": "a"}));
    assert_eq!(answer_to("b"), json!({"msgid": 2, "errno": 0, "id": id, "name": "alice", "seq": "b"}));
    assert_eq!(answer_to("c"), json!({"msgid": 0, "errno": 0, "seq": "c", "re": 3}));
    assert_eq!((&answer_to("d")["errno"], &answer_to("d")["re"]), (&json!(11), &json!(6)));
    let heard: Vec<_> = (0..100).map(|_| bob.hear()).collect();
    assert_eq!(numbers(&heard), (0..100).collect::<Vec<_>>());
    bob.quiet();
}

#[test]
fn messages_arrive_in_the_order_sent_between_workers_too() {
    const EACH: u64 = 2000;
    let server = Server::start(&["--workers", "4"]);
    let (mut bob, bob_id) = server.user("bob");
    let senders: Vec<_> = (0..4).map(|n| server.user(&format!("sender {n}"))).collect();
    let ids: Vec<_> = senders.iter().map(|(_, id)| *id).collect();
    let threads: Vec<_> = senders
        .into_iter()
        .map(|(mut sender, _)| {
            std::thread::spawn(move || {
                for n in 0..EACH {
                    sender.say(&json!({"msgid": 6, "toid": bob_id, "msg": "go", "n": n}));
                }
                sender
            })
        })
        .collect();
    let heard: Vec<_> = (0..EACH * 4).map(|_| bob.hear()).collect();
    for id in ids {
        let from: Vec<_> = heard.iter().filter(|message| message["id"] == id).cloned().collect();
        assert_eq!(numbers(&from), (0..EACH).collect::<Vec<_>>(), "from {id}");
    }
    bob.quiet();
    for thread in threads {
        thread.join().unwrap().quiet();
    }
}

#[test]
fn nothing_is_lost_doubled_or_overtaken_while_the_receiver_comes_and_goes() {
    const ALL: u64 = 1500;
    let server = Server::start(&["--workers", "2"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let talk = std::thread::spawn(move || {
        for n in 0..ALL {
            alice.chat_numbered(bob_id, n, "steady");
            // Keeps the box below its limit of 1,000 while nobody is there.
            let answer = alice.hear();
            assert_eq!((&answer["errno"], &answer["seq"]), (&json!(0), &json!(n)), "{answer}");
        }
        alice
    });
    let mut heard = Vec::new();
    let mut visits = 0;
    while heard.len() < ALL as usize {
        let mut bob = Client::connect(&server);
        heard.extend(unpack(&bob.login(bob_id), "offlinemsg"));
        for _ in 0..(visits * 7) % 40 {
            if heard.len() < ALL as usize {
                heard.push(bob.hear());
            }
        }
        // Ending only its own side, so that whatever the kernel has taken is still read.
        bob.end_input();
        heard.extend(bob.hear_to_the_end());
        visits += 1;
    }
    assert_eq!(numbers(&heard), (0..ALL).collect::<Vec<_>>(), "in {visits} visits");
    talk.join().unwrap().quiet();
    let mut bob = Client::connect(&server);
    assert!(bob.login(bob_id).get("offlinemsg").is_none(), "nothing is left over");
}

#[test]
fn users_friends_groups_and_messages_outlive_the_server() {
    let server = Server::start(&[]);
    let (mut alice, alice_id) = server.user("alice");
    let [bob_id] = server.absent(["bob"]);
    alice.say(&json!({"msgid": 7, "friendid": bob_id}));
    let group = creates_group(&mut alice, "g", "d");
    alice.chat_numbered(bob_id, 1, "kept over the stop");
    assert_eq!(alice.hear()["errno"], 0);
    let home = server.stop();
    let server = Server::start_at(&home, &[]);
    let answer = Client::connect(&server).login(alice_id);
    assert_eq!(unpack(&answer, "friends"), [json!({"id": bob_id, "name": "bob", "state": "offline"})]);
    assert_eq!(unpack(&answer, "groups")[0]["id"], group);
    let kept = unpack(&Client::connect(&server).login(bob_id), "offlinemsg");
    assert_eq!(kept[0]["msg"], "kept over the stop");
}
