//! Sections 1, 4 and 5: starting, stopping, being killed, the admin commands, the files on disk.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::common::{
    Client, DEADLINE, Home, IMPATIENT_AFTER, PASSWORD, Server, eventually, mode, numbers, one_line, run,
    serve, unpack,
};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::json;

/// A home on which a server has run, with a user in it.
fn used_home() -> (Home, i64) {
    let server = Server::start(&[]);
    let [id] = server.absent(["alice"]);
    (server.stop(), id)
}

#[test]
fn the_ready_line_is_exactly_as_promised_and_the_only_line() {
    let server = Server::start(&[]);
    let expected = format!(
        "linger ready pid={} json=127.0.0.1:{} line=off control={}",
        server.pid(),
        server.addr.port(),
        server.home.control_socket().display()
    );
    assert_eq!(server.ready, expected);
    assert_ne!(server.addr.port(), 0);
    server.user("alice").0.quiet();
    server.signal(Signal::TERM);
    let done = server.end();
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""));
}

#[test]
fn the_ready_line_lists_every_address_and_each_is_served() {
    let server = Server::start(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    let json = server.ready_field("json").to_owned();
    let addresses: Vec<_> = json.split(',').collect();
    assert_eq!(addresses.len(), 2, "{json}");
    assert_ne!(addresses[0], addresses[1]);
    for (n, address) in addresses.iter().enumerate() {
        Client::to(address.parse().unwrap()).register(&format!("user {n}"));
    }
}

#[test]
fn the_data_directory_is_linger_data_here_when_nothing_is_said() {
    let home = Home::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_linger"));
    command.args(["serve", "--listen", "127.0.0.1:0"]).current_dir(home.path());
    let server = Server::launch(command, &home);
    assert_eq!(server.ready_field("control"), "linger-data/control.sock");
    assert!(home.path().join("linger-data/linger.db").exists());
    let mut who = Command::new(env!("CARGO_BIN_EXE_linger"));
    who.args(["who", "--json"]).current_dir(home.path());
    let done = run(who);
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn settings_come_from_flag_environment_and_file_in_that_order() {
    let home = Home::new();
    let file = home.path().join("linger.toml");
    fs::write(&file, "max-frame = \"1000\"\nmax-channels = 2\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_linger"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--argon2", "8,1,1", "--data", &home.data_arg()]);
    command.arg("--config").arg(&file).env("LINGER_MAX_CHANNELS", "1");
    let server = Server::launch(command, &home);
    let mut client = Client::connect(&server);
    let id = client.register("alice");
    client.login(id);
    Client::connect(&server).expect_goodbye("server_full");
    client.say_bytes(format!("{{\"msgid\":99,\"x\":\"{}\"}}", "x".repeat(1000)).as_bytes());
    assert_eq!(client.hear()["errno"], 16, "the file's limit, where nothing else names it");
}

#[test]
fn the_data_directory_and_the_control_socket_are_private() {
    let server = Server::start(&[]);
    assert_eq!(mode(&server.home.data()), 0o700);
    assert_eq!(mode(&server.home.control_socket()), 0o600);
    assert!(fs::metadata(server.home.control_socket()).unwrap().file_type().is_socket());
}

#[test]
fn a_taken_port_is_one_clear_line_and_changes_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (used, id) = used_home();
    let before = used.snapshot();
    let done = serve(&used, &["--listen", &address]);
    one_line(&done, 1);
    assert!(done.stderr.contains(&address), "says where: {done:?}");
    assert_eq!(used.snapshot(), before);
    let fresh = Home::new();
    one_line(&serve(&fresh, &["--listen", &address]), 1);
    assert!(!fresh.data().exists(), "nothing changed");
    drop(taken);
    let server = Server::start_at(&used, &["--listen", &address]);
    server.back(id).quiet();
}

#[test]
fn a_port_that_another_linger_serves_is_taken_too() {
    let first = Server::start(&["--workers", "2"]);
    let address = first.addr.to_string();
    for _ in 0..3 {
        let home = Home::new();
        let done = serve(&home, &["--listen", &address]);
        one_line(&done, 1);
        assert!(done.stderr.contains(&address), "{done:?}");
    }
    for n in 0..20 {
        first.user(&format!("user {n}")).0.quiet();
    }
}

#[test]
fn a_port_is_free_again_right_after_a_stop_and_after_a_crash() {
    let server = Server::start(&[]);
    let (mut client, id) = server.user("alice");
    let address = server.addr.to_string();
    let home = server.stop();
    client.expect_goodbye("server_shutdown");
    let server = Server::start_at(&home, &["--listen", &address]);
    let client = server.back(id);
    let home = server.crash();
    drop(client);
    let server = Server::start_at(&home, &["--listen", &address]);
    server.back(id).quiet();
}

#[test]
fn a_data_directory_that_a_live_server_holds_is_refused_and_the_first_server_goes_on() {
    let first = Server::start(&[]);
    let (mut alice, id) = first.user("alice");
    for _ in 0..3 {
        let done = serve(&first.home, &[]);
        one_line(&done, 1);
    }
    alice.quiet();
    assert_eq!(first.home.state(id), "online", "the second one did not set anybody offline");
    assert!(first.home.departures(id).is_empty());
    assert_eq!(first.cli_json(&["who"])["users"][0]["id"], id, "the control socket is still the first one's");
    first.user("bob").0.quiet();
}

#[test]
fn a_database_that_is_not_ours_is_refused_and_left_as_it_is() {
    let foreign = Home::new();
    fs::create_dir(foreign.data()).unwrap();
    let db = Connection::open(foreign.database()).unwrap();
    db.execute_batch(
        "CREATE TABLE recipe (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO recipe VALUES (1, 'soup')",
    )
    .unwrap();
    db.close().unwrap();
    let text = Home::new();
    fs::create_dir(text.data()).unwrap();
    fs::write(
        text.database(),
        "this is not a database, and longer than a header of SQLite would be\n".repeat(20),
    )
    .unwrap();
    for home in [foreign, text] {
        let before = home.snapshot();
        let done = serve(&home, &[]);
        one_line(&done, 1);
        assert!(done.stderr.contains("linger.db"), "says where: {done:?}");
        assert_eq!(home.snapshot(), before);
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_as_it_is() {
    let (home, _) = used_home();
    let db = Connection::open(home.database()).unwrap();
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert!(version > 0, "the version is kept in user_version");
    db.pragma_update(None, "user_version", version + 1).unwrap();
    db.close().unwrap();
    let before = home.snapshot();
    let done = serve(&home, &[]);
    one_line(&done, 1);
    assert_eq!(home.snapshot(), before);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_one_clear_line() {
    let home = Home::new();
    fs::write(home.path().join("file"), "a file").unwrap();
    let before = home.snapshot();
    for place in [home.path().join("file"), home.path().join("file/below"), "/proc/linger-data".into()] {
        let place = place.to_str().unwrap().to_owned();
        let done = serve(&home, &["--data", &place]);
        one_line(&done, 1);
        assert!(done.stderr.contains(&place), "says where: {done:?}");
    }
    assert_eq!(home.snapshot(), before);
}

#[test]
fn bad_flags_are_usage_errors_of_one_line_and_change_nothing() {
    let home = Home::new();
    let cases: &[&[&str]] = &[
        &["--nonsense"],
        &["--grace", "2h"],
        &["--grace", "soon"],
        &["--duplicate", "maybe"],
        &["--listen", "nowhere"],
        &["--listen", "127.0.0.1:99999"],
        &["--workers", "0"],
        &["--workers", "-1"],
        &["--argon2", "8,1"],
        &["--argon2", "1,1,1"],
        &["--max-frame", "big"],
        &["--max-channels", "0"],
        &["--durability", "some"],
        &["--log", "loud"],
        &["--log-format", "xml"],
        &["surplus"],
    ];
    for case in cases {
        let done = serve(&home, case);
        assert_eq!(done.code, Some(2), "{case:?}: {done:?}");
        one_line(&done, 2);
    }
    assert!(!home.data().exists());
}

#[test]
fn a_bad_configuration_is_one_line_that_names_the_key_and_the_nearest_known_one() {
    let home = Home::new();
    let file = home.path().join("linger.toml");
    let file_arg = file.to_str().unwrap();
    let refused = |content: Option<&str>| {
        let _ = fs::remove_file(&file);
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let done = serve(&home, &["--config", file_arg]);
        assert!(matches!(done.code, Some(1 | 2)), "{done:?}");
        one_line(&done, done.code.unwrap());
        assert!(!home.data().exists());
        done.stderr
    };
    let message = refused(Some("grase = \"5s\"\n"));
    assert!(message.contains("grase") && message.contains("grace"), "{message}");
    refused(Some("grace = \"never\"\n"));
    refused(Some("grace = \n"));
    let message = refused(None);
    assert!(message.contains(file_arg), "{message}");
}

#[test]
fn each_signal_to_stop_is_an_orderly_stop() {
    for signal in [Signal::INT, Signal::TERM] {
        let server = Server::start(&["--grace", "1h"]);
        let (mut alice, alice_id) = server.user("alice");
        let (mut bob, bob_id) = server.user("bob");
        let mut nobody = Client::connect(&server);
        let (mut away, away_id) = server.user("away");
        assert_eq!(away.ask(&json!({"msgid": 3, "seq": 1}))["errno"], 0);
        server.signal(signal);
        for client in [&mut alice, &mut bob, &mut nobody, &mut away] {
            assert_eq!(client.expect_goodbye("server_shutdown")["advice"], "reconnect");
            client.expect_end();
        }
        let home = server.home.clone();
        let done = server.end();
        assert_eq!((done.code, done.stdout.as_str()), (Some(0), ""), "{signal:?}: {done:?}");
        assert_eq!(home.online(), 0);
        assert!(!home.control_socket().exists(), "the control socket is gone");
        for id in [alice_id, bob_id] {
            let left = home.departures(id);
            assert_eq!(left.len(), 1);
            assert_eq!((left[0].reason.as_str(), left[0].initiator.as_str()), ("server_shutdown", "server"));
        }
        assert_eq!(home.reasons(away_id), ["client_quit"]);
    }
}

#[test]
fn a_stop_does_not_wait_for_those_who_neither_read_nor_leave_and_keeps_their_messages() {
    const SENT: u64 = 100;
    let server = Server::start(&["--grace", "1h", "--workers", "2"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let mut bob = Client::with_small_window(&server);
    bob.login(bob_id);
    let text = "x".repeat(8 * 1024);
    for n in 0..SENT {
        alice.chat_numbered(bob_id, n, &text);
    }
    eventually("all is read", || server.has_read_all_of(&alice));
    eventually("bob's kernel takes no more", || server.has_output_for(bob_id));
    let start = Instant::now();
    let home = server.stop();
    assert!(start.elapsed() < DEADLINE);
    assert_eq!(home.online(), 0);
    let mut answers = alice.hear_to_the_end();
    assert_eq!(answers.pop().unwrap()["reason"], "server_shutdown");
    drop(bob);

    let server = Server::start_at(&home, &[]);
    let mut again = Client::connect(&server);
    let kept = unpack(&again.login(bob_id), "offlinemsg");
    let mut heard = numbers(&kept);
    while heard.last() != Some(&(SENT - 1)) {
        heard.push(again.hear()["n"].as_u64().unwrap());
    }
    assert_eq!(heard, (heard[0]..SENT).collect::<Vec<_>>(), "in order, without a gap");
    again.quiet();
}

#[test]
fn a_second_signal_a_second_later_stops_at_once_with_exit_code_1() {
    let server = Server::start(&["--stop-drain", "8s", "--workers", "2"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut alice, _) = server.user("alice");
    let mut bob = Client::with_small_window(&server);
    bob.login(bob_id);
    let text = "x".repeat(8 * 1024);
    for n in 0..100 {
        alice.chat_numbered(bob_id, n, &text);
    }
    eventually("all is read", || server.has_read_all_of(&alice));
    eventually("bob's kernel takes no more", || server.has_output_for(bob_id));
    server.signal(Signal::TERM);
    alice.hear_until(|heard| heard["reason"] == "server_shutdown");
    thread::sleep(IMPATIENT_AFTER);
    let start = Instant::now();
    server.signal(Signal::INT);
    let done = server.end();
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(start.elapsed().as_secs() < 3, "at once, not after the drain");
}

#[test]
fn after_a_kill_the_next_start_sets_everybody_offline_and_writes_it_down() {
    let server = Server::start(&[]);
    let users: Vec<_> = (0..5).map(|n| server.user(&format!("user {n}"))).collect();
    let [away_id] = server.absent(["away"]);
    let (mut left, left_id) = server.user("left");
    assert_eq!(left.ask(&json!({"msgid": 3, "seq": 1}))["errno"], 0);
    eventually("the one who left is offline", || server.home.state(left_id) == "offline");
    left.login(left_id);
    left.chat_numbered(away_id, 1, "accepted before the kill");
    assert_eq!(left.hear()["errno"], 0);
    let home = server.crash();
    assert_eq!(home.online(), 6, "nobody could write it down");

    let server = Server::start_at(&home, &[]);
    assert_eq!(home.online(), 0, "before the ready line");
    for (_, id) in &users {
        let rows = home.departures(*id);
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].reason.as_str(), rows[0].initiator.as_str()), ("server_crash", "server"));
        assert_eq!(rows[0].channel, None);
    }
    assert_eq!(home.reasons(left_id), ["client_quit", "server_crash"]);
    assert!(home.departures(away_id).is_empty(), "who was not online did not leave");
    let kept = unpack(&Client::connect(&server).login(away_id), "offlinemsg");
    assert_eq!(kept[0]["msg"], "accepted before the kill");
    server.back(users[0].1).quiet();
    let home = server.stop();
    drop(Server::start_at(&home, &[]));
    assert_eq!(home.reasons(users[1].1), ["server_crash"], "a second start adds nothing");
}

#[test]
fn a_kill_right_after_the_start_and_a_stale_control_socket_do_not_matter() {
    let home = Home::new();
    for _ in 0..5 {
        Server::start_at(&home, &[]).crash();
        assert!(home.control_socket().exists(), "left behind");
    }
    let server = Server::start_at(&home, &[]);
    server.user("alice").0.quiet();
    assert_eq!(server.cli(&["who"]).code, Some(0));
}

#[test]
fn other_processes_may_read_and_write_the_database_beside_the_server() {
    let server = Server::start(&[]);
    let (mut alice, alice_id) = server.user("alice");
    let other = server.home.db_to_write();
    for n in 0..100 {
        let changed = other.execute("UPDATE user SET name = name WHERE id = ?1", [alice_id]).unwrap();
        assert_eq!(changed, 1);
        let (client, id) = server.user(&format!("user {n}"));
        let state: String =
            other.query_row("SELECT state FROM user WHERE id = ?1", [id], |row| row.get(0)).unwrap();
        assert_eq!(state, "online");
        drop(client);
        alice.quiet();
    }
    let journal: String = other.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(journal, "wal");
    drop(other);
    drop(alice);
    let home = server.stop();
    let sound: String = home.db().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
}

#[test]
fn rows_inserted_while_the_server_is_stopped_are_users() {
    let (home, alice) = used_home();
    let hash = home.hash(alice);
    let db = home.db_to_write();
    db.execute("INSERT INTO user (name, password) VALUES ('inserted', ?1)", [&hash]).unwrap();
    let inserted = db.last_insert_rowid();
    db.execute("INSERT INTO user (name) VALUES ('guest')", []).unwrap();
    let guest = db.last_insert_rowid();
    db.execute("INSERT INTO user (name, password, state) VALUES ('ghost', ?1, 'online')", [&hash]).unwrap();
    let ghost = db.last_insert_rowid();
    drop(db);
    let server = Server::start_at(&home, &[]);
    assert_eq!(home.online(), 0, "never online after a start");
    server.back(inserted).quiet();
    server.back(ghost).quiet();
    let mut client = Client::connect(&server);
    for password in ["", PASSWORD] {
        let answer = client.ask(&json!({"msgid": 1, "id": guest, "password": password}));
        assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(1)), "a guest has no password");
    }
    let answer = server.back(alice).ask(&json!({"msgid": 6, "toid": guest, "msg": "hello", "seq": 1}));
    assert_eq!(answer["errno"], 0, "a guest is a user: {answer}");
}

#[test]
fn the_database_has_the_columns_that_others_rely_on() {
    let (home, id) = used_home();
    let db = home.db();
    let (name, state, password): (String, String, Option<String>) = db
        .query_row("SELECT name, state, password FROM user WHERE id = ?1", [id], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .unwrap();
    assert_eq!((name.as_str(), state.as_str()), ("alice", "offline"));
    assert!(password.unwrap().starts_with("$argon2id$"));
    let again = home.db_to_write().execute("INSERT INTO user (name) VALUES ('alice')", []);
    assert!(again.is_err(), "names are unique");
    db.prepare("SELECT rowid, at, channel, user, name, peer, reason, initiator, errno, offline_us, closed_us, delivered, saved, lost FROM departure")
        .unwrap();
}
