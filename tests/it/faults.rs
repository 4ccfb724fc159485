//! A machine that fails: calls that are cut short, disks, databases that others hold or spoil, clocks, stops, panics.
//! The server goes on with all that it can still do, or ends at once; it is never half dead.
//!
//! What needs more than a C compiler is in `syscall_faults`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::faulty_server::LIES_ABOUT_READING;
use crate::common::{Client, Home, PASSWORD, Server, eventually, eventually_within, one_line, serve, unpack};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Error numbers on Linux.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
/// How long a commit waits for another process, as the contract says, and a little more.
const PAST_BUSY_TIMEOUT: Duration = Duration::from_millis(6_500);
/// A page of the database, in bytes.
const PAGE_BYTES: u64 = 4096;
/// Seconds of five hours.
const FIVE_HOURS: i64 = 5 * 3600;

fn login(id: i64) -> Value {
    json!({"msgid": 1, "id": id, "password": PASSWORD})
}

/// Asserts that nothing can be stored for now, and that those who are online chat all the same.
#[track_caller]
fn expect_nothing_stored_but_chats_go_on(server: &Server, pair: &mut [(Client, i64); 2], absent: i64) {
    let refused = Client::connect(server).ask(&login(absent));
    assert_eq!((&refused["msgid"], &refused["errno"]), (&json!(2), &json!(19)), "{refused}");
    let [(ann, _), (bob, bob_id)] = pair;
    let refused = ann.ask(&json!({"msgid": 6, "toid": absent, "msg": "for later", "seq": 1}));
    assert_eq!((&refused["errno"], &refused["seq"]), (&json!(19), &json!(1)), "{refused}");
    ann.chat(*bob_id, "now");
    assert_eq!(bob.hear()["msg"], "now");
}

/// Asserts that all is as if nothing had been: `gone`, who left meanwhile, is offline with one row, and `absent` finds
/// nothing of what was refused.
#[track_caller]
fn expect_recovery(server: &Server, pair: &mut [(Client, i64); 2], gone: i64, absent: i64) {
    eventually("who left is offline", || server.home.state(gone) == "offline");
    assert_eq!(server.home.reasons(gone), ["peer_closed"], "one row, however often it was tried");
    let mut back = Client::connect(server);
    let answer = back.login(absent);
    assert!(answer.get("offlinemsg").is_none(), "what was refused is not kept: {answer}");
    back.quiet();
    let [(ann, _), (bob, _)] = pair;
    ann.quiet();
    bob.quiet();
}

fn ann_and_bob(server: &Server) -> [(Client, i64); 2] {
    [server.user("ann"), server.user("bob")]
}

#[test]
fn calls_that_are_cut_short_or_interrupted_change_nothing_of_what_is_said() {
    let server = Server::start_faulty(&["--workers", "2"]);
    let _broken = server.with_fault("crumbs", "");
    let [(mut ann, _), (mut bob, bob_id)] = ann_and_bob(&server);
    let text = "crumb ".repeat(300);
    for n in 0..5 {
        ann.chat_numbered(bob_id, n, &text);
    }
    for n in 0..5 {
        let heard = bob.hear();
        assert_eq!((&heard["n"], &heard["msg"]), (&json!(n), &json!(text)));
        assert_eq!(ann.hear()["errno"], 0);
    }
    assert!(server.kick(&bob_id.to_string()));
    bob.expect_goodbye("kicked");
    bob.expect_end();
}

#[test]
fn while_the_disk_fails_what_is_asked_is_refused_and_afterwards_what_was_owed_is_written() {
    let ways = [
        (format!("write {ENOSPC}"), "make room"),
        (format!("write {EROFS}"), "disk I/O error"),
        (format!("write {EIO}"), "disk I/O error"),
        (format!("sync {EIO}"), "disk I/O error"),
    ];
    for (fault, told) in ways {
        let server = Server::start_faulty(&[]);
        let [absent] = server.absent(["absent"]);
        let mut pair = ann_and_bob(&server);
        let (gone, gone_id) = server.user("gone");
        let broken = server.with_fault("disk", &fault);
        drop(gone);
        expect_nothing_stored_but_chats_go_on(&server, &mut pair, absent);
        assert_eq!(server.home.state(gone_id), "online", "{fault}: nothing was written");
        eventually(told, || server.log().contains(told));
        drop(broken);
        expect_recovery(&server, &mut pair, gone_id, absent);
    }
}

#[test]
fn a_server_that_is_stopped_while_the_disk_is_full_says_so_and_the_next_start_sets_it_right() {
    let server = Server::start_faulty(&[]);
    let (_ann, ann_id) = server.user("ann");
    let _broken = server.with_fault("disk", &format!("write {ENOSPC}"));
    server.signal(Signal::TERM);
    let home = server.home.clone();
    let done = server.end();
    assert_eq!(done.code, Some(1), "{done:?}");
    let last = done.stderr.lines().last().unwrap();
    assert!(last.contains("could not be written") && last.contains("next start"), "{last}");
    assert_eq!(home.state(ann_id), "online");
    let server = Server::start_at(&home, &[]);
    assert_eq!((home.state(ann_id), home.reasons(ann_id)), ("offline".into(), vec!["server_crash".into()]));
    server.back(ann_id).quiet();
}

#[test]
fn while_another_process_holds_the_database_logins_are_refused_chats_go_on_and_it_is_over_by_itself() {
    let server = Server::start(&[]);
    let [absent] = server.absent(["absent"]);
    let mut pair = ann_and_bob(&server);
    let (gone, gone_id) = server.user("gone");
    let holder = server.home.db_to_write();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    drop(gone);
    let start = Instant::now();
    let mut early = Client::connect(&server);
    early.say(&login(absent));
    // Main waits for the database; nobody else does.
    let [(ann, _), (bob, bob_id)] = &mut pair;
    ann.chat(*bob_id, "meanwhile");
    assert_eq!(bob.hear()["msg"], "meanwhile");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let refused = early.hear_within(2 * PAST_BUSY_TIMEOUT);
    assert_eq!((&refused["msgid"], &refused["errno"]), (&json!(2), &json!(19)), "{refused}");
    eventually("the log says why", || server.log().contains("another process holds the database locked"));
    holder.execute_batch("ROLLBACK").unwrap();
    expect_recovery(&server, &mut pair, gone_id, absent);
}

#[test]
fn a_row_that_another_process_forbids_is_given_up_and_does_not_keep_anybody_online() {
    let server = Server::start(&[]);
    let [absent] = server.absent(["absent"]);
    let (gone, gone_id) = server.user("gone");
    let other = server.home.db_to_write();
    let forbid =
        "CREATE TRIGGER forbid BEFORE INSERT ON departure BEGIN SELECT RAISE(ABORT, 'forbidden'); END";
    other.execute_batch(forbid).unwrap();
    drop(gone);
    eventually_within(Duration::from_secs(30), "who left is offline", || {
        server.home.state(gone_id) == "offline"
    });
    assert!(server.home.departures(gone_id).is_empty());
    assert_eq!(server.cli_json(&["stats"])["writes_set_aside"], 1);
    let log = server.log();
    let row = log.lines().find(|line| line.contains("given up")).unwrap();
    assert!(
        row.contains("forbidden") && row.contains("name: \"gone\""),
        "the whole row is in the log: {row}"
    );
    other.execute_batch("DROP TRIGGER forbid").unwrap();
    drop(server.back(absent));
    eventually("the history goes on", || server.home.reasons(absent) == ["peer_closed"]);
}

/// A home with a database of many pages, whose users each have a long message waiting; and the users.
fn well_used_home() -> (Home, Vec<i64>) {
    const USERS: usize = 60;
    let server = Server::start(&[]);
    let mut client = Client::connect(&server);
    let users: Vec<i64> = (0..USERS).map(|n| client.register(&format!("user {n}"))).collect();
    let (mut ann, _) = server.user("ann");
    for user in &users {
        ann.chat(*user, &"x".repeat(3000));
    }
    ann.quiet();
    drop((client, ann));
    (server.stop(), users)
}

/// Overwrites pages from that one on, counted from 1.
fn spoil(home: &Home, from: u64, pages: u64) {
    let file = fs::OpenOptions::new().write(true).open(home.database()).unwrap();
    for page in from..from + pages {
        file.write_all_at(&[0xa5; PAGE_BYTES as usize], (page - 1) * PAGE_BYTES).unwrap();
    }
}

/// The first page of a table.
fn root_page(home: &Home, table: &str) -> u64 {
    home.db()
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |row| row.get::<_, i64>(0))
        .unwrap() as u64
}

#[test]
fn a_database_whose_users_are_spoilt_is_one_clear_line_at_the_start() {
    let (home, _) = well_used_home();
    spoil(&home, root_page(&home, "user"), 1);
    let done = serve(&home, &[]);
    one_line(&done, 1);
    assert!(done.stderr.contains("restore it from a backup"), "{done:?}");
}

#[test]
fn a_database_whose_boxes_are_spoilt_refuses_their_owners_and_serves_everybody_else() {
    let (home, users) = well_used_home();
    spoil(&home, root_page(&home, "box"), 1);
    let server = Server::start_at(&home, &[]);
    let mut ann = Client::connect(&server);
    let refused = ann.ask(&login(users[0]));
    assert_eq!((&refused["msgid"], &refused["errno"]), (&json!(2), &json!(19)), "{refused}");
    eventually("the log says why", || server.log().contains("restore it from a backup"));
    let registered = ann.register("new");
    assert!(registered > 0, "what does not need the boxes goes on");
    assert_eq!(server.home.online(), 0, "who was refused is not online");
}

#[test]
fn steps_of_the_clock_by_hours_end_nobody_and_the_history_keeps_its_order() {
    let flags = ["--idle", "1h", "--login-timeout", "1h", "--ping-interval", "1h", "--grace", "0s"];
    let server = Server::start_faulty(&flags);
    let (mut ann, ann_id) = server.user("ann");
    let [bob_id] = server.absent(["bob"]);
    let mut stranger = Client::connect(&server);
    let leave = |n: usize| {
        drop(server.back(bob_id));
        eventually("bob's end is written", || server.home.departures(bob_id).len() == n);
    };
    leave(1);
    let forward = server.with_fault("clock", &FIVE_HOURS.to_string());
    leave(2);
    ann.chat(ann_id, "in the future");
    assert_eq!(ann.hear()["msg"], "in the future");
    drop(forward);
    let backward = server.with_fault("clock", &(-FIVE_HOURS).to_string());
    leave(3);
    ann.quiet();
    // Timers are looked at within that, were they to use that clock.
    thread::sleep(Duration::from_millis(300));
    drop(backward);
    leave(4);
    ann.quiet();
    assert_eq!(stranger.ask(&json!({"msgid": 3}))["errno"], 11, "nobody's login clock has jumped");
    let at: Vec<i64> = server.home.departures(bob_id).iter().map(|row| row.at).collect();
    let steps: Vec<i64> =
        at.windows(2).map(|pair| (pair[1] - pair[0] + 1_800_000).div_euclid(3_600_000)).collect();
    assert_eq!(steps, [5, -10, 5], "each row says what the clock said, in the order of the ends");
    let why = server.cli_json(&["why", "bob"]);
    let told: Vec<i64> =
        why["departures"].as_array().unwrap().iter().map(|row| row["at"].as_i64().unwrap()).collect();
    assert_eq!(told, at.into_iter().rev().collect::<Vec<_>>(), "newest first, whatever the clock said");
}

/// True when no thread of the server runs.
fn stands_still(server: &Server) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let state = |task: fs::DirEntry| fs::read_to_string(task.path().join("stat")).unwrap();
    tasks.map(|task| state(task.unwrap())).all(|stat| stat.rsplit(") ").next().unwrap().starts_with('T'))
}

#[test]
fn whoever_spoke_in_time_stays_though_the_server_stood_still_and_who_was_silent_leaves() {
    const STOOD_STILL: Duration = Duration::from_secs(3);
    let limits = ["--ping-interval", "1s", "--ping-timeout", "1s", "--login-timeout", "2s"];
    let server = Server::start(&[&limits[..], &["--grace", "0s"]].concat());
    let ids = server.absent(["answers", "silent", "late"]);
    let [mut answers, mut silent] = [ids[0], ids[1]].map(|id| {
        let mut client = Client::connect(&server);
        let login = json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": ["ping"]});
        assert_eq!(client.ask(&login)["errno"], 0);
        client
    });
    for client in [&mut answers, &mut silent] {
        assert_eq!(client.hear(), json!({"msgid": 22}));
    }
    let mut late = Client::connect(&server);
    eventually("the server has it", || server.channel_with(&late).is_some());
    server.signal(Signal::STOP);
    eventually("every thread stands still", || stands_still(&server));
    answers.say(&json!({"msgid": 23}));
    late.say(&login(ids[2]));
    thread::sleep(STOOD_STILL);
    server.signal(Signal::CONT);
    assert_eq!(late.hear()["errno"], 0, "the login came in time");
    silent.hear_until(|heard| heard["reason"] == "keepalive_timeout");
    // Pings go on, and whoever answers them stays.
    let (_, ping) = answers.hear_until(|heard| heard["msgid"] == 22);
    assert_eq!(ping, json!({"msgid": 22}));
    assert_eq!(server.home.state(ids[0]), "online");
    assert_eq!(server.home.reasons(ids[1]), ["keepalive_timeout"]);
    assert!(server.home.departures(ids[0]).is_empty(), "{:?}", server.home.departures(ids[0]));
}

#[test]
fn a_worker_that_panics_ends_the_server_at_once_and_the_next_start_sets_everybody_offline() {
    let server = Server::start_faulty(&["--workers", "2"]);
    let [(mut ann, ann_id), (_bob, bob_id)] = ann_and_bob(&server);
    let [absent] = server.absent(["absent"]);
    assert_eq!(ann.ask(&json!({"msgid": 6, "toid": absent, "msg": "kept", "seq": 1}))["errno"], 0);
    let home = server.home.clone();
    server.expects_panic();
    ann.try_say_bytes(LIES_ABOUT_READING.as_bytes());
    let done = server.end();
    assert_eq!(done.code, Some(1), "{done:?}");
    let said: Vec<_> = done.stderr.lines().filter(|line| !line.contains(" INFO ")).collect();
    assert!(said.iter().any(|line| line.contains("'worker-") && line.contains("panicked at")), "{said:?}");
    assert!(said.last().unwrap().starts_with("linger: a thread panicked"), "{said:?}");

    let server = Server::start_at(&home, &[]);
    for id in [ann_id, bob_id] {
        assert_eq!((home.state(id), home.reasons(id)), ("offline".into(), vec!["server_crash".into()]));
    }
    let kept = unpack(&Client::connect(&server).login(absent), "offlinemsg");
    assert_eq!(kept[0]["msg"], "kept", "what was answered is there");
    server.back(ann_id).quiet();
}

#[test]
fn the_size_of_the_databases_log_is_a_metric_and_a_reader_that_does_not_end_makes_it_grow() {
    const LONG: usize = 60;
    let server = Server::start(&[]);
    let [absent] = server.absent(["absent"]);
    let (mut ann, _) = server.user("ann");
    let size = || server.cli_json(&["stats"])["wal_bytes"].as_u64().unwrap();
    let reader = server.home.db();
    reader.execute_batch("BEGIN; SELECT count(*) FROM user").unwrap();
    let before = size();
    for n in 0..LONG {
        ann.chat(absent, &format!("{n}{}", "x".repeat(5_000)));
    }
    ann.quiet();
    eventually("it has grown", || size() >= before + (LONG * 5_000) as u64);
    reader.execute_batch("COMMIT").unwrap();
}
