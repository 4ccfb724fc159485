//! The cap `ack`: numbers, confirmations, and what comes again. And `seq` across a crash of the server.

use crate::common::{Client, Home, PASSWORD, Server, eventually, numbers, unpack};
use serde_json::{Value, json};

/// Messages under way without a confirmation, by default.
const WINDOW: usize = 32;

/// Connects and logs in with `ack`; answers what lay in the box.
fn confirming(server: &Server, id: i64) -> (Client, Vec<Value>) {
    let mut client = Client::connect(server);
    let answer = client.ask(&json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": ["ack"]}));
    assert_eq!(answer["errno"], 0, "{answer}");
    let kept = answer.get("offlinemsg").is_some().then(|| unpack(&answer, "offlinemsg"));
    (client, kept.unwrap_or_default())
}

fn confirm(client: &mut Client, chat: &Value) {
    client.say(&json!({"msgid": 24, "mid": chat["mid"]}));
}

fn mid(chat: &Value) -> i64 {
    chat["mid"].as_i64().unwrap_or_else(|| panic!("no number in {chat}"))
}

/// Proves that nothing was under way through main: what is asked there now is answered next.
fn quiet(client: &mut Client, own: i64) {
    let answer = client.ask(&json!({"msgid": 7, "friendid": own, "seq": "quiet"}));
    assert_eq!((&answer["msgid"], &answer["seq"]), (&json!(0), &json!("quiet")), "{answer}");
}

fn say_with_seq(client: &mut Client, to: i64, n: u64) -> Value {
    client.ask(&json!({"msgid": 6, "toid": to, "msg": n.to_string(), "seq": n}))
}

fn texts(chats: &[Value]) -> Vec<&str> {
    chats.iter().filter_map(|chat| chat["msg"].as_str()).collect()
}

#[test]
fn numbers_are_below_2_to_the_53_and_rise_from_chat_to_chat_session_to_session_and_run_to_run() {
    let server = Server::start(&[]);
    let [ann] = server.absent(["ann"]);
    let (mut bob, bob_id) = server.user("bob");
    let mut latest = 0;
    let mut rises = |chat: &Value| {
        assert!(mid(chat) > latest && mid(chat) < 1 << 53, "{chat} after {latest}");
        latest = mid(chat);
    };
    let (mut client, _) = confirming(&server, ann);
    for text in ["one", "two"] {
        bob.chat(ann, text);
        let chat = client.hear();
        rises(&chat);
        confirm(&mut client, &chat);
    }
    drop(client);
    eventually("ann has left", || server.home.state(ann) == "offline");
    bob.chat(ann, "three");
    eventually("the third is kept", || kept(&server.home, ann) == 1);
    let (mut client, box_of_ann) = confirming(&server, ann);
    rises(&box_of_ann[0]);
    confirm(&mut client, &box_of_ann[0]);
    quiet(&mut client, ann);
    let home = server.crash();
    let server = Server::start_at(&home, &[]);
    let (mut client, _) = confirming(&server, ann);
    server.back(bob_id).chat(ann, "four");
    rises(&client.hear_until(|chat| chat["msg"] == "four").1);
}

#[test]
fn thirty_two_are_under_way_and_each_confirmation_brings_as_many_more() {
    let server = Server::start(&[]);
    let [ann] = server.absent(["ann"]);
    let (mut bob, _) = server.user("bob");
    let (mut client, _) = confirming(&server, ann);
    let count = WINDOW as u64 + 20;
    for n in 0..count {
        bob.chat_numbered(ann, n, "");
    }
    let mut heard: Vec<Value> = (0..WINDOW).map(|_| client.hear()).collect();
    quiet(&mut client, ann);
    confirm(&mut client, &heard[4]);
    heard.extend((0..5).map(|_| client.hear()));
    quiet(&mut client, ann);
    confirm(&mut client, &heard[WINDOW]);
    heard.extend((0..15).map(|_| client.hear()));
    assert_eq!(numbers(&heard), (0..count).collect::<Vec<_>>());
    assert!(heard.iter().all(|chat| chat.get("again").is_none()));
}

#[test]
fn what_is_not_confirmed_comes_again_however_the_channel_ended() {
    let server = Server::start(&["--grace", "0s"]);
    let [ann] = server.absent(["ann"]);
    let (mut bob, _) = server.user("bob");
    let ends: [fn(&Server, Client, i64); 4] = [
        |_, client, _| client.reset(),
        |_, client, _| drop(client),
        |server, mut client, _| {
            assert!(server.kick("ann"));
            client.expect_goodbye("kicked");
        },
        |server, mut client, ann| {
            let (second, _) = confirming(server, ann);
            client.expect_goodbye("replaced");
            drop(second);
        },
    ];
    let (mut client, _) = confirming(&server, ann);
    bob.chat(ann, "one");
    bob.chat(ann, "two");
    let first = [client.hear(), client.hear()];
    assert!(first[0].get("again").is_none());
    for end in ends {
        end(&server, client, ann);
        eventually("ann has left", || server.home.state(ann) == "offline");
        let (next, again) = confirming(&server, ann);
        assert_eq!(again.iter().map(mid).collect::<Vec<_>>(), first.iter().map(mid).collect::<Vec<_>>());
        assert_eq!(texts(&again), ["one", "two"]);
        assert!(again.iter().all(|chat| chat["again"] == true), "{again:?}");
        client = next;
    }
    confirm(&mut client, &first[1]);
    quiet(&mut client, ann);
    drop(client);
    eventually("ann has left", || server.home.state(ann) == "offline");
    assert_eq!(confirming(&server, ann).1, [] as [Value; 0]);
}

#[test]
fn a_crash_of_the_server_loses_no_accepted_chat_and_doubles_none() {
    let server = Server::start(&[]);
    let [ann] = server.absent(["ann"]);
    let (mut bob, bob_id) = server.user("bob");
    let (mut client, _) = confirming(&server, ann);
    for n in 1..=3 {
        assert_eq!(say_with_seq(&mut bob, ann, n)["errno"], 0);
    }
    let first: Vec<Value> = (0..3).map(|_| client.hear()).collect();
    confirm(&mut client, &first[0]);
    eventually("the confirmation is on the disk", || kept(&server.home, ann) == 2);
    let home = server.crash();

    let server = Server::start_at(&home, &[]);
    let mut bob = server.back(bob_id);
    // The answers might have been lost with the server: a client asks again.
    for n in 1..=4 {
        assert_eq!(say_with_seq(&mut bob, ann, n)["errno"], 0);
    }
    let (_, again) = confirming(&server, ann);
    assert_eq!(texts(&again), ["2", "3", "4"]);
    assert_eq!(mid(&again[0]), mid(&first[1]));
    assert_eq!(again.iter().map(|chat| chat["again"] == true).collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn a_client_without_the_cap_gets_a_repetition_once_across_a_crash_too() {
    let server = Server::start(&[]);
    let (mut ann, ann_id) = server.user("ann");
    let (mut bob, bob_id) = server.user("bob");
    assert_eq!(say_with_seq(&mut bob, ann_id, 1)["errno"], 0);
    assert_eq!(ann.hear()["msg"], "1");
    let home = server.crash();
    let server = Server::start_at(&home, &[]);
    let mut ann = server.back(ann_id);
    assert_eq!(say_with_seq(&mut server.back(bob_id), ann_id, 1)["errno"], 0);
    ann.quiet();
}

#[test]
fn the_account_of_a_session_counts_what_was_confirmed_as_delivered_and_the_rest_as_saved() {
    let server = Server::start(&["--grace", "0s"]);
    let [ann] = server.absent(["ann"]);
    let (mut bob, _) = server.user("bob");
    let (mut client, _) = confirming(&server, ann);
    for n in 0..40 {
        bob.chat_numbered(ann, n, "");
    }
    let heard: Vec<Value> = (0..WINDOW).map(|_| client.hear()).collect();
    confirm(&mut client, &heard[9]);
    for _ in 0..8 {
        client.hear();
    }
    client.reset();
    let columns = "select delivered, saved, lost from departure where user = ?1";
    let account = || {
        let row = |row: &rusqlite::Row<'_>| {
            Ok([row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Option<i64>>(2)?])
        };
        server.home.db().query_row(columns, [ann], row).ok()
    };
    eventually("the account is settled", || account() == Some([Some(10), Some(30), Some(0)]));
}

fn kept(home: &Home, user: i64) -> i64 {
    home.db()
        .query_row("select count(*) from kept where user = ?1", [user], |row| row.get(0))
        .expect("a count")
}
