//! A kernel that refuses: `accept4` and `epoll` fail by strace's fault injection, and a real file system is full.
//!
//! Behind the feature `faults`: it needs strace, util-linux, and root or unprivileged user namespaces.
//! What needs less is in `faults`.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Client, Home, PASSWORD, Server, eventually, linger, unpack};
use serde_json::{Value, json};

/// What the tests here need.
const NEEDS: &str = "needs strace and unshare (util-linux), and root or unprivileged user namespaces";

/// A server of one worker whose system calls strace spoils by that rule, and where it writes which it has seen.
fn spoilt(trace: &str, rule: &str) -> (Server, PathBuf) {
    let home = Home::new();
    let seen = home.path().join("strace");
    let mut command = Command::new("strace");
    // `-D`: the server is our child, and strace its grandchild.
    command.args(["-D", "-f", "-qq", "-e", "signal=none", "-o"]).arg(&seen);
    command.args(["-e", &format!("trace={trace}"), "-e", &format!("inject={trace}:{rule}")]);
    command.arg(env!("CARGO_BIN_EXE_linger")).args(["serve", "--data", &home.data_arg()]);
    command.args(["--listen", "127.0.0.1:0", "--argon2", "8,1,1", "--workers", "1", "--grace", "0s"]);
    (Server::launch(command, &home), seen)
}

/// Waits until strace has made so many calls of one thread fail; it counts for each thread by itself.
#[track_caller]
fn expect_injected(seen: &Path, count: usize) {
    eventually("strace has spoilt the calls", || {
        let mut by_thread: HashMap<String, usize> = HashMap::new();
        for line in fs::read_to_string(seen).unwrap().lines().filter(|line| line.contains("(INJECTED)")) {
            *by_thread.entry(line.split(' ').next().unwrap().to_owned()).or_default() += 1;
        }
        by_thread.values().any(|injected| *injected >= count)
    });
}

#[test]
fn who_knocks_while_accepting_fails_for_want_of_fds_or_memory_waits_and_is_served() {
    for error in ["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"] {
        // Each attempt is two calls: one for the client, one with the spare fd.
        let (server, seen) = spoilt("accept4", &format!("error={error}:when=1..6"));
        let start = Instant::now();
        let mut ann = Client::connect(&server);
        let id = ann.register("ann");
        ann.login(id);
        ann.quiet();
        expect_injected(&seen, 6);
        assert!(start.elapsed() >= Duration::from_millis(200), "{error}: it has rested");
        // The control socket's own thread meets the same.
        assert_eq!(server.cli_json(&["stats"])["accept_errors"], 3, "{error}: one attempt a rest");
        let told = server.log().lines().filter(|line| line.contains("accepting failed")).count();
        assert_eq!(told, 1, "{error}: said once, not each time:\n{}", server.log());
    }
}

#[test]
fn who_finds_no_fd_but_the_spare_one_is_told_so_and_the_next_one_is_served() {
    for (error, errno) in [("EMFILE", 24), ("ENFILE", 23), ("ENOMEM", 12)] {
        let (server, _seen) = spoilt("accept4", &format!("error={error}:when=1"));
        let mut first = Client::connect(&server);
        first.expect_goodbye("resource_exhausted");
        first.expect_end();
        eventually("the log says so", || {
            server.log().contains(&format!("reason=\"resource_exhausted\" errno={errno}"))
        });
        server.user("ann").0.quiet();
    }
}

#[test]
fn connections_that_fail_while_they_are_accepted_cost_nobody_else_anything() {
    for error in ["ECONNABORTED", "EINTR", "EPROTO", "ENETDOWN"] {
        let (server, seen) = spoilt("accept4", &format!("error={error}:when=1..20"));
        let start = Instant::now();
        server.user("ann").0.quiet();
        expect_injected(&seen, 20);
        assert!(start.elapsed() < Duration::from_secs(3), "{error}: no rest is needed");
        assert_eq!(server.cli_json(&["stats"])["accept_errors"], 0, "{error}: nothing has run short");
        assert_eq!(server.cli_json(&["stats"])["left_resource_exhausted"], 0, "{error}");
    }
}

#[test]
fn waits_that_are_interrupted_lose_nothing() {
    let (server, seen) = spoilt("/epoll_p?wait.*", "error=EINTR:when=1+2");
    let (mut ann, _) = server.user("ann");
    let (mut bob, bob_id) = server.user("bob");
    for n in 0..50 {
        ann.chat_numbered(bob_id, n, "hello");
        assert_eq!(ann.hear()["errno"], 0);
        assert_eq!(bob.hear()["n"], n);
    }
    expect_injected(&seen, 50);
    assert!(server.kick(&bob_id.to_string()));
    bob.expect_goodbye("kicked");
    bob.expect_end();
}

/// A server whose data directory is a small file system of its own, and that directory as seen from here.
fn on_a_small_disk(bytes: &str) -> (Server, PathBuf) {
    let home = Home::new();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c"]);
    command
        .arg(format!("mkdir \"$0\" && mount -t tmpfs -o mode=0700,size={bytes} tmpfs \"$0\" && exec \"$@\""));
    command.arg(home.data()).arg(env!("CARGO_BIN_EXE_linger"));
    command.args(["serve", "--data", &home.data_arg(), "--listen", "127.0.0.1:0", "--argon2", "8,1,1"]);
    let server = Server::launch(command, &home);
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.pid(), home.data_arg()));
    assert!(inside.join("linger.db").exists(), "{NEEDS}");
    (server, inside)
}

#[test]
fn a_full_file_system_refuses_what_is_to_be_stored_and_with_room_again_all_is_written() {
    let (server, inside) = on_a_small_disk("8M");
    let mut ann = Client::connect(&server);
    let [ann_id, absent] = ["ann", "absent"].map(|name| ann.register(name));
    ann.login(ann_id);
    let (mut bob, bob_id) = server.user("bob");
    let (gone, gone_id) = server.user("gone");
    let ballast = inside.join("ballast");
    let mut file = fs::File::create(&ballast).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}

    // The log may have some room left in its last page: it is full when something is refused.
    let text = "x".repeat(8000);
    let mut kept = 0;
    let refused = loop {
        let answer = ann.ask(&json!({"msgid": 6, "toid": absent, "msg": text, "seq": kept}));
        if answer["errno"] != 0 {
            break answer;
        }
        kept += 1;
    };
    assert_eq!(refused["errno"], 19, "{refused}");
    drop(gone);
    let refused = Client::connect(&server).ask(&json!({"msgid": 1, "id": absent, "password": PASSWORD}));
    assert_eq!((&refused["msgid"], &refused["errno"]), (&json!(2), &json!(19)), "{refused}");
    ann.chat(bob_id, "still here");
    assert_eq!(bob.hear()["msg"], "still here");
    eventually("the log says why", || server.log().contains("the disk or a quota is full, make room"));

    drop(file);
    fs::remove_file(&ballast).unwrap();
    // SQLite would follow the link in that path to another file, so the server is asked.
    let data = inside.to_str().unwrap();
    eventually("who left meanwhile is offline", || {
        let why = linger(&["why", &gone_id.to_string(), "--json", "--data", data]);
        serde_json::from_str::<Value>(&why.stdout)
            .is_ok_and(|why| why["departures"][0]["reason"] == "peer_closed")
    });
    let answer = Client::connect(&server).login(absent);
    assert_eq!(unpack(&answer, "offlinemsg").len(), kept.min(32), "what was accepted, and no more");
    ann.quiet();
}
