//! Another process writes rows that are main's to write, while the server runs: the reconciler sets them right.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, Home, PASSWORD, RECONCILED, Server, eventually, eventually_within};
use serde_json::json;

/// Within that a difference is found on a server of few users: it is believed after 2 s, in steps of 0.5 s.
const FOUND_WITHIN: Duration = Duration::from_secs(8);

/// One statement of another process about one user.
fn spoil(home: &Home, statement: &str, user: i64) {
    assert_eq!(home.db_to_write().execute(statement, [user]).unwrap(), 1, "{statement}");
}

fn departures(home: &Home) -> i64 {
    home.db().query_row("SELECT count(*) FROM departure", [], |row| row.get(0)).unwrap()
}

#[test]
fn rows_that_another_process_has_written_are_set_right_and_counted_once() {
    let server = Server::start(&[]);
    server.expects_differences();
    let (mut alice, alice_id) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    let [ghost] = server.absent(["ghost"]);
    spoil(&server.home, "UPDATE user SET state = 'offline' WHERE id = ?1", alice_id);
    spoil(&server.home, "UPDATE user SET epoch = epoch + 7 WHERE id = ?1", bob_id);
    spoil(&server.home, "UPDATE user SET state = 'online' WHERE id = ?1", ghost);
    let home = &server.home;
    eventually_within(FOUND_WITHIN, "all three are set right", || {
        home.state(alice_id) == "online" && home.state(ghost) == "offline" && server.reconciled() == 3
    });
    for client in [&mut alice, &mut bob] {
        client.quiet();
    }
    assert_eq!(departures(home), 0, "nobody has left");
    drop(bob);
    eventually("bob's end is still that of the row's epoch", || home.state(bob_id) == "offline");
    // What is set right stays so: as many rounds again find nothing.
    let rounds = || server.cli_json(&["stats"])["reconcile_rounds"].as_u64().unwrap();
    let until = rounds() + 6;
    eventually_within(FOUND_WITHIN, "six more rounds", || rounds() >= until);
    assert_eq!(server.reconciled(), 3);
    assert_eq!(server.log().matches(RECONCILED).count(), 3, "{}", server.log());
}

#[test]
fn a_session_whose_row_is_deleted_is_told_of_an_internal_error() {
    let server = Server::start(&["--grace", "300ms"]);
    server.expects_differences();
    let (mut alice, alice_id) = server.user("alice");
    let (mut bob, _) = server.user("bob");
    let start = Instant::now();
    spoil(&server.home, "DELETE FROM user WHERE id = ?1", alice_id);
    let goodbye = alice.expect_goodbye("internal_error");
    assert_eq!(goodbye["advice"], "reconnect");
    assert_eq!(goodbye["errmsg"], "your account is no longer in the server's database");
    alice.expect_end();
    assert!(start.elapsed() < FOUND_WITHIN, "{:?}", start.elapsed());
    drop(alice);
    eventually("the history says so", || server.home.reasons(alice_id) == ["internal_error"]);
    let left = server.home.departures(alice_id)[0].clone();
    assert_eq!((left.initiator.as_str(), left.errno), ("server", None));
    eventually("her fd is closed", || server.channels().len() == 1);
    assert_eq!(server.reconciled(), 1);
    assert!(server.log().contains("reason=\"internal_error\""), "{}", server.log());
    bob.quiet();
    let answer = Client::connect(&server).ask(&json!({"msgid": 1, "id": alice_id, "password": PASSWORD}));
    assert_eq!(answer["errno"], 1, "{answer}");
}

#[test]
fn a_server_on_which_people_come_and_go_for_rounds_counts_nothing() {
    let server = Server::start(&["--grace", "100ms", "--workers", "3"]);
    let names: Vec<String> = (0..6).map(|n| format!("user{n}")).collect();
    let ids: Vec<i64> = names.iter().map(|name| server.user(name).1).collect();
    let end = Instant::now() + Duration::from_secs(4);
    thread::scope(|scope| {
        for (at, &id) in ids.iter().enumerate() {
            let (server, to) = (&server, ids[(at + 1) % ids.len()]);
            scope.spawn(move || {
                let mut earlier = None;
                for n in 0.. {
                    if Instant::now() >= end {
                        break;
                    }
                    // Each login takes over, logs out behind a message, is kicked, or finds nobody there.
                    let mut client = server.back(id);
                    client.say(&json!({"msgid": 6, "toid": to, "msg": "m"}));
                    match n % 4 {
                        0 => earlier = Some(client),
                        1 => client.say(&json!({"msgid": 3})),
                        2 => drop(server.kick(&id.to_string())),
                        _ => client.reset(),
                    }
                }
                drop(earlier);
            });
        }
    });
    // A busy server compares seldom: what differs by now is believed when it has been looked at twice more.
    eventually("it has been looked at", || {
        server.cli_json(&["stats"])["reconcile_rounds"].as_u64().is_some_and(|rounds| rounds >= 4)
    });
    let stats = server.cli_json(&["stats"]);
    assert!(stats["logins"].as_u64().unwrap() > 50, "{stats}");
    assert_eq!(stats["reconciled"], 0, "{}", server.log());
}
