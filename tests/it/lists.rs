//! Friends and groups of a login answer: how many there may be, and how large an answer gets.

use crate::common::{Client, PASSWORD, Server, eventually, unpack};
use serde_json::json;

/// What a login answer has at most, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// Runs SQL on the database of a server that is not running, and starts it again.
fn restarted_after(server: Server, sql: &str, flags: &[&str]) -> Server {
    let home = server.stop();
    home.db_to_write().execute_batch(sql).unwrap();
    Server::start_at(&home, flags)
}

/// So many rows of `n`, for the rest of a statement.
fn rows(count: usize) -> String {
    format!("WITH RECURSIVE rows(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM rows WHERE n < {count})")
}

#[test]
fn one_more_friend_or_group_than_a_user_may_have_is_errno_20_and_what_is_there_stays() {
    let flags = ["--friends-max", "2", "--groups-max", "2"];
    let server = Server::start(&flags);
    let [ann, bob, cy, dan] = server.absent(["ann", "bob", "cy", "dan"]);
    let mut client = server.back(ann);
    let mut ask = |request: serde_json::Value| client.ask(&request)["errno"].clone();
    for friend in [bob, cy, bob] {
        assert_eq!(ask(json!({"msgid": 7, "friendid": friend, "seq": 1})), 0);
    }
    assert_eq!(ask(json!({"msgid": 7, "friendid": dan, "seq": 1})), 20);
    for _ in 0..2 {
        assert_eq!(ask(json!({"msgid": 8, "groupname": "g", "groupdesc": "d", "seq": 1})), 0);
    }
    // Without `seq` too.
    assert_eq!(ask(json!({"msgid": 8, "groupname": "g", "groupdesc": "d"})), 20);
    let mut other = server.back(bob);
    other.ask(&json!({"msgid": 8, "groupname": "g", "groupdesc": "d", "seq": 1}));
    assert_eq!(ask(json!({"msgid": 9, "groupid": 3, "seq": 1})), 20);
    assert_eq!(ask(json!({"msgid": 9, "groupid": 1, "seq": 1})), 0, "a member already");

    let lower = ["--friends-max", "1", "--groups-max", "1"];
    let server = restarted_after(server, "", &lower);
    let mut client = Client::connect(&server);
    let answer = client.login(ann);
    assert_eq!((unpack(&answer, "friends").len(), unpack(&answer, "groups").len()), (2, 2));
    assert_eq!(answer.get("more"), None);
    assert_eq!(client.ask(&json!({"msgid": 7, "friendid": dan, "seq": 1}))["errno"], 20);
    assert_eq!(client.ask(&json!({"msgid": 7, "friendid": cy, "seq": 1}))["errno"], 0);
}

#[test]
fn a_login_answer_has_a_mebibyte_at_most_and_is_no_reason_to_send_anybody_away() {
    let server = Server::start(&[]);
    let [ann, bob] = server.absent(["ann", "bob"]);
    // Too large for any answer, and the first in the list.
    let large = format!(
        "INSERT INTO user (name) {rows} SELECT 'guest ' || n FROM rows;
        INSERT INTO chatgroup (id, name) VALUES (1, 'large'), (2, 'small');
        INSERT INTO member SELECT 1, id, 'normal' FROM user;
        INSERT INTO member VALUES (2, {ann}, 'creator'), (2, {bob}, 'normal');",
        rows = rows(20_000)
    );
    let many = format!(
        "INSERT INTO chatgroup (id, name, description) {rows} SELECT n + 2, 'many', hex(zeroblob(512)) FROM rows;
        INSERT INTO member SELECT id, {bob}, 'normal' FROM chatgroup WHERE id > 2;
        INSERT INTO friend SELECT {bob}, id FROM user;",
        rows = rows(20_000)
    );
    let flags = ["--out-limit", "1KiB", "--write-timeout", "5s", "--max-frame", "1KiB"];
    let server = restarted_after(server, &(large + &many), &flags);

    let mut client = Client::connect(&server);
    let answer = client.login(ann);
    let groups = unpack(&answer, "groups");
    assert_eq!((groups.len(), &groups[0]["groupname"], &answer["more"]), (1, &json!("small"), &json!(true)));
    assert_eq!(unpack(&groups[0], "users").len(), 2);
    client.quiet();

    let mut client = Client::connect(&server);
    client.say(&json!({"msgid": 1, "id": bob, "password": PASSWORD, "caps": ["presence"]}));
    let answer = client.hear_bytes();
    assert!(answer.len() < ANSWER_MAX && answer.len() > ANSWER_MAX - 2048, "{}", answer.len());
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((&answer["errno"], &answer["more"]), (&json!(0), &json!(true)));
    assert!(unpack(&answer, "friends").len() > 10_000);
    client.chat(bob, "still here");
    assert_eq!(client.hear()["msg"], "still here");
}

#[test]
fn a_kept_message_that_is_larger_than_an_answer_may_hold_follows_the_answer() {
    let server = Server::start(&["--max-frame", "2MiB", "--out-limit", "4MiB"]);
    let (mut ann, _) = server.user("ann");
    let [bob] = server.absent(["bob"]);
    let large = "l".repeat(1_500_000);
    for (round, caps) in [json!([]), json!(["ack"])].iter().enumerate() {
        for text in [&large, "small"] {
            ann.say(&json!({"msgid": 6, "toid": bob, "msg": text, "seq": format!("{round} {}", text.len())}));
            assert_eq!(ann.hear()["errno"], 0);
        }
        let mut client = Client::connect(&server);
        let login = json!({"msgid": 1, "id": bob, "password": PASSWORD, "caps": caps});
        let answer = client.ask(&login);
        assert_eq!((&answer["errno"], answer.get("offlinemsg")), (&json!(0), None));
        let first = client.hear();
        assert_eq!(first["msg"], large);
        if round == 1 {
            client.say(&json!({"msgid": 24, "mid": first["mid"]}));
        }
        assert_eq!(client.hear()["msg"], "small");
        drop(client);
        eventually("bob is offline", || server.home.state(bob) == "offline");
    }
}
