//! No accepted message is lost: `linger stress chaos` against a server that it kills with -9 and starts again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::common::{Client, Finished, Home, LINGER, PASSWORD, Server, one_line, run_within, unpack};
use rusqlite::Connection;
use serde_json::{Value, json};

/// Short, so that two runs fit into a test: what the tests of the ledger do not see shows in longer runs.
const SECONDS: &str = "3";

/// A run comes to its end by itself, with a verdict, within this; it kills what it started only then.
const RUN_WITHIN: Duration = Duration::from_secs(90);

/// The size of a page of the database.
const PAGE_BYTES: usize = 4096;

fn chaos(seed: u64, more: &[&str]) -> Finished {
    let mut command = Command::new(LINGER);
    command.args(["stress", "chaos", "--json", "--seed", &seed.to_string(), "--seconds", SECONDS]);
    command.args(["--clients", "12", "--blow-ms", "15"]).args(more);
    run_within(RUN_WITHIN, command)
}

/// A run with a server of its own.
fn chaos_with_kills(seed: u64, serve: &[&str]) -> Value {
    let home = Home::new();
    let data = home.data_arg();
    let server =
        [LINGER, "serve", "--data", &data, "--listen", "127.0.0.1:0", "--argon2", "8,1,1", "--log", "warn"];
    good(&chaos(seed, &[&["--server-kill-ms", "600", "--"], &server[..], serve].concat()))
}

#[track_caller]
fn good(done: &Finished) -> Value {
    assert_eq!(done.code, Some(0), "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).expect("--json prints one document");
    assert_eq!(report["good"], true, "{report}");
    let figures = report["figures"].clone();
    for at_least_one in ["sent", "confirmed_to_senders", "repeated", "marked_again", "dropped_by_number"] {
        assert!(figures[at_least_one].as_u64() > Some(0), "{at_least_one}: {figures}");
    }
    for none in ["missing", "doubled", "out_of_order"] {
        assert_eq!(figures[none], 0, "{figures}");
    }
    figures
}

#[test]
fn what_was_confirmed_to_its_sender_is_received_once_and_in_order_though_receivers_and_server_are_killed() {
    let figures = chaos_with_kills(1, &["--workers", "2"]);
    for blow in ["reset", "close", "kick", "takeover", "sigkill", "server_kill"] {
        assert!(figures["blows"][blow].as_u64() > Some(0), "{blow}: {figures}");
    }
}

#[test]
fn a_kill_of_the_process_loses_nothing_with_durability_normal_either() {
    // Another run each time; the seed is in the report, and in the failure.
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let figures = chaos_with_kills(seed, &["--durability", "normal", "--workers", "1"]);
    assert_eq!(figures["seed"], seed);
    assert!(figures["blows"]["server_kill"].as_u64() > Some(0), "{figures}");
}

/// Copies pages out of the log as far as a checkpoint had come that wrote the first page and then was killed.
fn begin_checkpoint(home: &Home) -> std::io::Result<()> {
    let aside = home.path().join("aside.db");
    let log = |database: &Path| format!("{}-wal", database.display());
    fs::copy(home.database(), &aside)?;
    fs::copy(log(&home.database()), log(&aside))?;
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let db = Connection::open(&aside).map_err(std::io::Error::other)?;
    db.query_row(checkpoint, (), |_| Ok(())).map_err(std::io::Error::other)?;
    drop(db);
    let (whole, mut begun) = (fs::read(&aside)?, fs::read(home.database())?);
    assert!(whole.len() > begun.len(), "the log holds pages that the file has not");
    begun[..PAGE_BYTES].copy_from_slice(&whole[..PAGE_BYTES]);
    fs::write(home.database(), begun)
}

#[test]
fn a_server_that_was_killed_in_the_middle_of_a_checkpoint_starts_again_with_every_message() {
    let server = Server::start(&[]);
    let [ann] = server.absent(["ann"]);
    let (mut bob, _) = server.user("bob");
    let text = "x".repeat(PAGE_BYTES);
    for n in 0..20 {
        let answer = bob.ask(&json!({"msgid": 6, "toid": ann, "msg": format!("{n} {text}"), "seq": n}));
        assert_eq!(answer["errno"], 0, "{answer}");
    }
    let home = server.crash();
    begin_checkpoint(&home).expect("the database can be copied");
    let server = Server::start_at(&home, &[]);
    let answer = Client::connect(&server).ask(&json!({"msgid": 1, "id": ann, "password": PASSWORD}));
    assert_eq!(unpack(&answer, "offlinemsg").len(), 20);
}

#[test]
fn a_server_that_runs_already_is_left_running() {
    let server = Server::start(&[]);
    let target = server.addr.to_string();
    let figures = good(&chaos(3, &["--target", &target, "--data", &server.home.data_arg()]));
    assert!(figures["blows"].get("server_kill").is_none(), "{figures}");
    assert!(figures["goodbyes"]["kicked"].as_u64() > Some(0), "{figures}");
}

#[test]
fn a_server_that_cannot_be_started_is_one_line_and_exit_code_1() {
    one_line(&chaos(1, &["--", "/nonexistent/linger"]), 1);
}
