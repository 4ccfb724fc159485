//! A wall clock that is wrong: at the start, or from one moment to the next. And copies of the database from before.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{Client, Home, PASSWORD, Server, eventually, unpack};
use linger_server::ids::Epoch;
use serde_json::{Value, json};

/// Seconds of a day.
const DAY: i64 = 24 * 3600;

/// Since 1970, in seconds.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A faulty server on that home whose wall clock is wrong by so many seconds from the start.
fn start_with_clock(home: &Home, wrong: i64) -> Server {
    fs::write(home.path().join("clock"), wrong.to_string()).unwrap();
    Server::start_faulty_at(home, &["--box-age", "3d", "--history-age", "3d"])
}

/// What a login by password is answered, and the connection.
fn login(server: &Server, id: i64, caps: &[&str]) -> (Client, Value) {
    let mut client = Client::connect(server);
    let answer = client.ask(&json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": caps}));
    (client, answer)
}

/// What there is to lose: a message in bob's box, his end in the history, a token of his, a ban of cy for an hour, and
/// a chat of ann's with `seq`.
struct Stored {
    ann: i64,
    bob: i64,
    cy: i64,
    token: String,
}

fn store(server: &Server) -> Stored {
    let [ann, bob, cy] = server.absent(["ann", "bob", "cy"]);
    let (client, answer) = login(server, bob, &["resume"]);
    drop(client);
    eventually("bob's end is in the history", || server.home.departures(bob).len() == 1);
    let mut writer = server.back(ann);
    let kept = writer.ask(&json!({"msgid": 6, "toid": bob, "msg": "for later", "seq": 1}));
    assert_eq!(kept["errno"], 0, "{kept}");
    server.cli_json(&["kick", &cy.to_string(), "--ban", "1h"]);
    Stored { ann, bob, cy, token: answer["token"].as_str().unwrap().to_owned() }
}

impl Stored {
    /// Asserts that all of it is there.
    #[track_caller]
    fn check(&self, server: &Server) {
        let mut writer = server.back(self.ann);
        let again = writer.ask(&json!({"msgid": 6, "toid": self.bob, "msg": "for later", "seq": 1}));
        assert_eq!(again["errno"], 0, "{again}");
        let (mut banned, answer) = login(server, self.cy, &[]);
        assert_eq!(answer["errno"], 17, "{answer}");
        let retry_after_ms = banned.expect_goodbye("banned")["retry_after_ms"].as_i64().unwrap();
        assert!(
            (1..=3_600_000).contains(&retry_after_ms),
            "no longer than it was given for: {retry_after_ms}"
        );
        assert_eq!(server.home.departures(self.bob).len(), 1);
        let mut bob = Client::connect(server);
        let answer = bob.ask(&json!({"msgid": 1, "token": self.token}));
        assert_eq!(answer["errno"], 0, "the token is good: {answer}");
        assert_eq!(unpack(&answer, "offlinemsg").len(), 1, "{answer}");
    }
}

#[test]
fn a_clock_that_steps_by_days_while_the_server_runs_changes_nothing_that_is_stored() {
    for wrong in [20 * DAY, -20 * DAY] {
        let server = start_with_clock(&Home::new(), 0);
        let stored = store(&server);
        let _wrong = server.with_fault("clock", &wrong.to_string());
        stored.check(&server);
    }
}

#[test]
fn a_server_that_starts_in_1970_or_far_in_the_future_loses_nothing_that_is_stored() {
    for wrong in [-now() + 60, 20 * DAY, 20_000 * DAY] {
        let home = Home::new();
        let server = start_with_clock(&home, 0);
        let stored = store(&server);
        server.stop();
        stored.check(&start_with_clock(&home, wrong));
    }
}

#[test]
fn a_ban_ends_by_itself_whatever_the_clock_does() {
    let server = start_with_clock(&Home::new(), 0);
    let [id] = server.absent(["ann"]);
    server.cli_json(&["kick", "ann", "--ban", "2s"]);
    let _wrong = server.with_fault("clock", &(-20 * DAY).to_string());
    assert_eq!(login(&server, id, &[]).1["errno"], 17);
    eventually("the ban is over", || server.cli_json(&["bans"])["bans"] == json!([]));
    server.back(id).quiet();
}

/// Logs in with `ack` and `presence`, takes one message and confirms it; answers its number.
fn takes_one(server: &Server, writer: &mut Client, id: i64) -> i64 {
    let (mut client, answer) = login(server, id, &["ack"]);
    assert_eq!(answer["errno"], 0, "{answer}");
    writer.chat(id, "hello");
    let chat = client.hear_until(|heard| heard["msgid"] == 6).1;
    let mid = chat["mid"].as_i64().unwrap();
    client.say(&json!({"msgid": 24, "mid": mid}));
    let done = client.ask(&json!({"msgid": 7, "friendid": id, "seq": "quiet"}));
    assert_eq!(done["errno"], 0, "{done}");
    mid
}

/// The wall clock, in Unix milliseconds.
fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// The latest epoch of a user.
fn epoch(home: &Home, id: i64) -> i64 {
    home.db().query_row("SELECT epoch FROM user WHERE id = ?1", [id], |row| row.get(0)).unwrap()
}

#[test]
fn after_an_older_copy_of_the_database_is_restored_numbers_and_epochs_go_on_rising() {
    let home = Home::new();
    let server = Server::start_at(&home, &[]);
    let [ann, bob] = server.absent(["ann", "bob"]);
    let mut latest = takes_one(&server, &mut server.back(bob), ann);
    server.stop();
    let copy = home.path().join("copy.db");
    fs::copy(home.database(), &copy).unwrap();
    let server = Server::start_at(&home, &[]);
    let mut writer = server.back(bob);
    for _ in 0..20 {
        let mid = takes_one(&server, &mut writer, ann);
        assert!(mid > latest, "{mid} after {latest}");
        latest = mid;
    }
    drop(writer);
    server.stop();
    let latest_epoch = epoch(&home, ann);
    // Nobody logs in more often than the clock's share of the epochs rises, for all the time in between.
    eventually("the clock is past the latest epoch", || Epoch::lowest_at(unix_ms()).0 > latest_epoch);
    fs::copy(&copy, home.database()).unwrap();
    assert!(epoch(&home, ann) < latest_epoch, "the copy is older");
    let server = Server::start_at(&home, &[]);
    let mid = takes_one(&server, &mut server.back(bob), ann);
    assert!(mid > latest, "{mid} after {latest}: a client that drops known numbers would lose it");
    assert!(epoch(&home, ann) > latest_epoch);
}

#[test]
fn whatever_epochs_and_times_another_process_writes_the_server_serves_and_numbers_stay_exact() {
    let home = Home::new();
    let server = Server::start_at(&home, &[]);
    let [ann, bob] = server.absent(["ann", "bob"]);
    let mut latest = takes_one(&server, &mut server.back(bob), ann);
    server.stop();
    for wild in [i64::MIN, -1, 1 << 25, 1 << 40, 1 << 60, i64::MAX] {
        let db = home.db_to_write();
        db.execute("UPDATE user SET epoch = ?1", [wild]).unwrap();
        db.execute("UPDATE departure SET at = ?1, trusted = ?1, since = ?1", [wild]).unwrap();
        db.execute("INSERT INTO acceptance (at, chats) VALUES (?1, zeroblob(24))", [wild]).unwrap();
        db.execute("INSERT OR REPLACE INTO ban (user, until) VALUES (99, ?1)", [wild]).unwrap();
        let token = "INSERT OR REPLACE INTO token (user, epoch, hash, password, expires)
            VALUES (99, ?1, randomblob(32), randomblob(32), ?1)";
        db.execute(token, [wild]).unwrap();
        db.execute("UPDATE clock SET trusted = ?1, wall = ?1", [wild]).unwrap();
        drop(db);
        let server = Server::start_at(&home, &[]);
        let mid = takes_one(&server, &mut server.back(bob), ann);
        assert!(mid > latest && mid < 1 << 53, "{wild}: {mid} after {latest}");
        latest = mid;
        server.cli_json(&["bans"]);
        server.cli_json(&["why", "ann"]);
        server.stop();
    }
}
