//! The database is deleted, moved away or replaced while the server runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::common::{Client, Home, PASSWORD, Server, eventually};
use rustix::process::Signal;
use serde_json::json;

/// What a way of losing it does to the database, given an older copy of it.
type Way = fn(database: &Path, copy: &Path);

const WAYS: [(&str, Way); 4] = [
    ("deleted", |database, _| fs::remove_file(database).unwrap()),
    ("moved away", |database, _| fs::rename(database, database.with_extension("old")).unwrap()),
    ("replaced", |database, copy| fs::rename(copy, database).unwrap()),
    ("overwritten", |database, copy| assert!(fs::copy(copy, database).is_ok())),
];

#[test]
fn a_database_that_is_lost_is_noticed_nothing_is_promised_any_more_and_the_server_ends_with_goodbyes() {
    for (what, act) in WAYS {
        let home = Home::new();
        let server = Server::start_at(&home, &[]);
        let [ann] = server.absent(["ann"]);
        server.stop();
        let copy = home.path().join("copy.db");
        fs::copy(home.database(), &copy).unwrap();
        let server = Server::start_at(&home, &["--stop-drain", "8s"]);
        let mut client = Client::connect(&server);
        client.login(ann);
        let mut waits = Client::connect(&server);
        assert_eq!(waits.ask(&json!({"msgid": 3}))["errno"], 11);
        let before = fs::read(&copy).unwrap();
        act(&home.database(), &copy);
        client.expect_goodbye("server_shutdown");
        waits.expect_goodbye("server_shutdown");
        eventually("the log says so", || server.log().contains(" ERROR ") && server.log().contains(what));
        client.expect_end();
        waits.expect_end();
        drop((client, waits));
        let done = server.end();
        assert_eq!(done.code, Some(1), "{what}: {done:?}");
        let last = done.stderr.lines().last().unwrap();
        assert!(last.starts_with("linger: ") && last.contains("database"), "{what}: {last}");
        match what {
            "replaced" | "overwritten" => {
                assert!(fs::read(home.database()).unwrap() == before, "{what}: nothing is written into it");
            }
            _ => assert!(!home.database().exists(), "{what}: no other is made"),
        }
    }
}

#[test]
fn the_next_start_shows_what_took_the_place_of_a_lost_database_and_applies_no_log_to_it() {
    for (what, act) in WAYS {
        let home = Home::new();
        let server = Server::start_at(&home, &[]);
        let [ann] = server.absent(["ann"]);
        server.stop();
        let copy = home.path().join("copy.db");
        fs::copy(home.database(), &copy).unwrap();
        let server = Server::start_at(&home, &[]);
        server.absent(["bob", "carol", "dave"]);
        // From the last time.
        fs::write(beside(&home, "-wal.lost"), "earlier").unwrap();
        act(&home.database(), &copy);
        let done = server.end();
        assert_eq!(done.code, Some(1), "{what}: {done:?}");
        let last = done.stderr.lines().last().unwrap();
        for end in ["-wal", "-shm"] {
            assert!(!beside(&home, end).exists(), "{what}: {end} is left");
            let kept = beside(&home, &format!("{end}.lost"));
            assert!(last.contains(kept.to_str().unwrap()), "{what}: {last}");
            let mode = fs::metadata(&kept).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{what}: {end}");
            assert_ne!(fs::read(&kept).unwrap(), b"earlier", "{what}: {end}");
        }
        if what == "moved away" {
            fs::rename(home.database().with_extension("old"), home.database()).unwrap();
            fs::rename(beside(&home, "-wal.lost"), beside(&home, "-wal")).unwrap();
        }
        let server = Server::start_at(&home, &[]);
        let (has_ann, has_bob) = match what {
            "deleted" => (None, None),
            "moved away" => (Some(ann), Some(ann + 1)),
            _ => (Some(ann), None),
        };
        assert_eq!((home.id_of("ann"), home.id_of("bob")), (has_ann, has_bob), "{what}");
        Client::connect(&server).register("erin");
        server.stop();
        let whole: String = home.db().query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok", "{what}");
    }
}

#[test]
fn a_copy_that_is_put_in_place_just_before_a_stop_stays_as_it_is() {
    for (what, act) in WAYS {
        let home = Home::new();
        let server = Server::start_at(&home, &[]);
        server.absent(["ann"]);
        server.stop();
        let copy = home.path().join("copy.db");
        fs::copy(home.database(), &copy).unwrap();
        let before = fs::read(&copy).unwrap();
        let server = Server::start_at(&home, &[]);
        server.absent(["bob"]);
        act(&home.database(), &copy);
        server.signal(Signal::TERM);
        let done = server.end();
        assert_eq!(done.code, Some(1), "{what}: {done:?}");
        assert!(!beside(&home, "-wal").exists(), "{what}");
        if home.database().exists() {
            assert!(fs::read(home.database()).unwrap() == before, "{what}: nothing is written into it");
        }
    }
}

#[test]
fn a_database_that_is_still_there_keeps_its_log() {
    let server = Server::start(&[]);
    server.absent(["ann"]);
    let home = server.home.clone();
    fs::remove_file(beside(&home, "-shm")).unwrap();
    let done = server.end();
    assert_eq!(done.code, Some(1), "{done:?}");
    let server = Server::start_at(&home, &[]);
    assert!(home.id_of("ann").is_some(), "{}", done.stderr);
    server.stop();
}

/// A file beside the database.
fn beside(home: &Home, end: &str) -> PathBuf {
    let mut name = home.database().into_os_string();
    name.push(end);
    name.into()
}

#[test]
fn a_login_or_chat_that_comes_when_the_database_is_lost_is_not_stored() {
    let server = Server::start(&["--stop-drain", "8s"]);
    let [ann] = server.absent(["ann"]);
    let (mut bob, _) = server.user("bob");
    let mut late = Client::connect(&server);
    assert_eq!(late.ask(&json!({"msgid": 3}))["errno"], 11);
    fs::remove_file(server.home.data().join("linger.db-wal")).unwrap();
    // Whoever is quick enough is still told; nobody is told that something is stored once it is noticed.
    eventually("it is noticed", || server.log().contains("-wal was deleted or moved away"));
    bob.try_say_bytes(json!({"msgid": 6, "toid": ann, "msg": "x", "seq": 1}).to_string().as_bytes());
    late.try_say_bytes(json!({"msgid": 1, "id": ann, "password": PASSWORD}).to_string().as_bytes());
    for client in [&mut bob, &mut late] {
        let (before, _) = client.hear_until(|heard| heard["reason"] == "server_shutdown");
        assert!(before.iter().all(|heard| heard["errno"] != 0), "{before:?}");
        client.expect_end();
    }
    drop((bob, late));
    assert_eq!(server.end().code, Some(1));
}
