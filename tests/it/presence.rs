//! The cap `presence`: friends who come and go.

use crate::common::{Client, PASSWORD, Server, eventually, unpack};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A delay long enough that no test waits for its end.
const NEVER: [&str; 2] = ["--presence-delay", "1h"];
/// The delay where its end is waited for.
const SHORT: Duration = Duration::from_millis(300);

fn short() -> [&'static str; 2] {
    ["--presence-delay", "300ms"]
}

/// Connects and logs in with `presence`; answers what was said of friends.
fn watching(server: &Server, id: i64) -> (Client, Vec<Value>) {
    let mut client = Client::connect(server);
    let answer = client.ask(&json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": ["presence"]}));
    assert_eq!(answer["errno"], 0, "{answer}");
    let friends = unpack(&answer, "friends");
    (client, friends)
}

fn add_friend(client: &mut Client, friend: i64) {
    let answer = client.ask(&json!({"msgid": 7, "friendid": friend, "seq": "add"}));
    assert_eq!((&answer["errno"], &answer["seq"]), (&json!(0), &json!("add")), "{answer}");
}

/// Proves that no event was under way: what is asked of main now is answered next.
fn quiet(client: &mut Client) {
    let answer = client.ask(&json!({"msgid": 8, "groupname": "quiet", "groupdesc": "", "seq": "quiet"}));
    assert_eq!((&answer["errno"], &answer["seq"]), (&json!(0), &json!("quiet")), "{answer}");
}

#[track_caller]
fn expect(client: &mut Client, id: i64, name: &str, state: &str) -> i64 {
    let event = client.hear();
    let epoch = event["epoch"].as_i64().unwrap_or_else(|| panic!("no epoch: {event}"));
    assert_eq!(event, json!({"msgid": 21, "id": id, "name": name, "state": state, "epoch": epoch}));
    epoch
}

fn leaves(server: &Server, client: Client, id: i64) {
    drop(client);
    eventually("the user has left", || server.home.state(id) == "offline");
}

#[test]
fn a_friend_comes_and_goes_and_each_session_has_a_higher_epoch() {
    let server = Server::start(&short());
    let [ann, bob, carl] = server.absent(["ann", "bob", "carl"]);
    let (mut watcher, _) = watching(&server, ann);
    add_friend(&mut watcher, bob);
    let mut latest = 0;
    for _ in 0..3 {
        let stranger = server.back(carl);
        let friend = server.back(bob);
        let came = expect(&mut watcher, bob, "bob", "online");
        assert!(came > latest, "{came} after {latest}");
        let left_at = Instant::now();
        drop((friend, stranger));
        assert_eq!(expect(&mut watcher, bob, "bob", "offline"), came);
        assert!(left_at.elapsed() >= SHORT, "held back");
        latest = came;
    }
    quiet(&mut watcher);
    assert_eq!(server.cli_json(&["stats"])["presence_told"], 6);
}

#[test]
fn a_quick_reconnect_shows_nothing_and_neither_does_a_takeover() {
    let server = Server::start(&NEVER);
    let [ann, bob] = server.absent(["ann", "bob"]);
    let (mut watcher, _) = watching(&server, ann);
    add_friend(&mut watcher, bob);
    let friend = server.back(bob);
    let first = expect(&mut watcher, bob, "bob", "online");
    leaves(&server, friend, bob);
    // Whoever logs in meanwhile sees that he is away, and so hears that he is back.
    let eve = Client::connect(&server).register("eve");
    let (mut other, _) = watching(&server, eve);
    add_friend(&mut other, bob);
    drop(other);
    let (mut other, friends) = watching(&server, eve);
    assert_eq!(friends, [json!({"id": bob, "name": "bob", "state": "offline"})]);
    let mut replaced = server.back(bob);
    assert!(expect(&mut other, bob, "bob", "online") > first);
    let friend = server.back(bob);
    replaced.expect_goodbye("replaced");
    quiet(&mut watcher);
    quiet(&mut other);
    assert!(server.cli_json(&["stats"])["presence_spared"].as_u64() >= Some(1));
    drop(friend);
}

#[test]
fn only_those_are_told_who_added_the_friend_and_asked_for_it() {
    let server = Server::start(&["--presence-delay", "0s"]);
    let [ann, bob, carl] = server.absent(["ann", "bob", "carl"]);
    let (mut watcher, _) = watching(&server, ann);
    add_friend(&mut watcher, bob);
    let (mut added, _) = watching(&server, bob);
    expect(&mut watcher, bob, "bob", "online");
    let mut plain = server.back(carl);
    add_friend(&mut plain, bob);
    // Being a friend is not having one.
    drop(watcher);
    eventually("ann has left", || server.home.state(ann) == "offline");
    quiet(&mut added);
    leaves(&server, added, bob);
    plain.quiet();
}

#[test]
fn after_a_logout_no_event_is_written_to_the_channel() {
    let server = Server::start(&["--presence-delay", "0s"]);
    let [ann, bob] = server.absent(["ann", "bob"]);
    let (mut watcher, _) = watching(&server, ann);
    add_friend(&mut watcher, bob);
    watcher.say(&json!({"msgid": 3}));
    eventually("ann has logged out", || server.home.state(ann) == "offline");
    let friend = server.back(bob);
    leaves(&server, friend, bob);
    watcher.login(ann);
    watcher.quiet();
}

#[test]
fn thousands_of_events_reach_one_watcher_and_none_is_missing() {
    const FRIENDS: usize = 300;
    let server = Server::start(&short());
    let [ann] = server.absent(["ann"]);
    let (mut watcher, _) = watching(&server, ann);
    let mut maker = Client::connect(&server);
    let friends: Vec<i64> = (0..FRIENDS).map(|n| maker.register(&format!("friend {n}"))).collect();
    for friend in &friends {
        add_friend(&mut watcher, *friend);
    }
    for _ in 0..3 {
        let clients: Vec<Client> = friends.iter().map(|id| server.back(*id)).collect();
        all_are(&mut watcher, &friends, "online");
        drop(clients);
        all_are(&mut watcher, &friends, "offline");
    }
    quiet(&mut watcher);
}

fn all_are(watcher: &mut Client, friends: &[i64], state: &str) {
    let mut missing: Vec<i64> = friends.to_vec();
    while !missing.is_empty() {
        let event = watcher.hear();
        assert_eq!((&event["msgid"], &event["state"]), (&json!(21), &json!(state)), "{event}");
        let at = missing.iter().position(|id| event["id"] == *id);
        missing.swap_remove(at.unwrap_or_else(|| panic!("told twice: {event}")));
    }
}

#[test]
fn a_stop_does_not_wait_for_the_delay_and_tells_no_friend_that_others_go() {
    let server = Server::start(&NEVER);
    let [ann, bob] = server.absent(["ann", "bob"]);
    let (mut watcher, _) = watching(&server, ann);
    add_friend(&mut watcher, bob);
    let friend = server.back(bob);
    expect(&mut watcher, bob, "bob", "online");
    leaves(&server, friend, bob);
    let heard = std::thread::spawn(move || watcher.hear_to_the_end());
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let heard = heard.join().expect("the watcher hears to the end");
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert_eq!(heard[0]["reason"], "server_shutdown");
}
