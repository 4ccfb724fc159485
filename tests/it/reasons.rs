//! Every reason of the contract, caused for real: the same word in the goodbye, the log, the metrics, the history and
//! `why`, soon.
//!
//! Peers that vanish, and limits from which loopback is exempt, are in `network`.

#![allow(clippy::unnecessary_wraps, reason = "all causes have one shape")]

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::faulty_server::{EIO, FAILS_TO_READ, FAILS_TO_WRITE};
use crate::common::{
    BULK_BYTES, Client, ECONNRESET, LineClient, PASSWORD, Server, eventually, eventually_within, expect_error,
};
use linger_server::channel::Reason;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Within that a channel has left, where no limit of the test's own is longer.
const SOON: Duration = Duration::from_secs(8);
/// `EMFILE` on Linux.
const EMFILE: i64 = 24;
/// A way for a user to leave, and what is said of it. `advice` is empty where nobody can be told.
struct Way {
    reason: &'static str,
    initiator: &'static str,
    errno: Option<i64>,
    advice: &'static str,
    flags: &'static [&'static str],
    caps: &'static [&'static str],
    start: fn(&[&str]) -> Server,
    /// Brings it about; the client comes back where it can still be told.
    cause: fn(&Server, Client) -> Option<Client>,
}

const WAY: Way = Way {
    reason: "",
    initiator: "client",
    errno: None,
    advice: "",
    flags: &[],
    caps: &[],
    start: Server::start,
    cause: |_, c| Some(c),
};

/// How somebody who is logged in may leave.
const WAYS: &[Way] = &[
    Way { reason: "client_quit", cause: quit, ..WAY },
    Way { reason: "peer_closed", cause: |_, client| gone(|| drop(client)), ..WAY },
    Way { reason: "malformed_frame", advice: "stop", cause: |_, client| say(client, b"nonsense"), ..WAY },
    Way { reason: "frame_too_large", advice: "reconnect", cause: say_too_much, ..WAY },
    Way { reason: "protocol_violation", advice: "stop", cause: err_a_hundred_times, ..WAY },
    Way {
        reason: "peer_reset",
        initiator: "network",
        errno: Some(ECONNRESET),
        cause: |_, client| gone(|| client.reset()),
        ..WAY
    },
    Way {
        reason: "keepalive_timeout",
        initiator: "network",
        advice: "reconnect",
        flags: &["--ping-interval", "300ms", "--ping-timeout", "300ms"],
        caps: &["ping"],
        cause: hear_one_ping,
        ..WAY
    },
    Way {
        reason: "rate_exceeded",
        initiator: "server",
        advice: "retry_after",
        flags: &["--request-rate", "5"],
        cause: ask_too_fast,
        ..WAY
    },
    Way {
        reason: "slow_consumer",
        initiator: "server",
        advice: "retry_after",
        flags: &["--out-limit", "64KiB"],
        cause: |_, client| read_nothing(client, 1000),
        ..WAY
    },
    Way {
        reason: "slow_consumer",
        initiator: "server",
        advice: "retry_after",
        flags: &["--write-timeout", "300ms", "--out-limit", "64MiB"],
        cause: |_, client| read_nothing(client, 1000),
        ..WAY
    },
    Way {
        reason: "idle_timeout",
        initiator: "server",
        advice: "reconnect",
        flags: &["--idle", "300ms"],
        cause: |_, client| Some(client),
        ..WAY
    },
    Way {
        reason: "read_error",
        initiator: "network",
        errno: Some(EIO),
        start: Server::start_faulty,
        cause: |_, client| say(client, FAILS_TO_READ.as_bytes()),
        ..WAY
    },
    Way {
        reason: "write_error",
        initiator: "network",
        errno: Some(EIO),
        start: Server::start_faulty,
        cause: |_, client| say_to_itself(client, FAILS_TO_WRITE),
        ..WAY
    },
    Way { reason: "replaced", initiator: "server", advice: "stop", cause: log_in_elsewhere, ..WAY },
    Way {
        reason: "server_shutdown",
        initiator: "server",
        advice: "reconnect",
        flags: &["--stop-drain", "8s"],
        cause: stop,
        ..WAY
    },
    Way { reason: "kicked", initiator: "admin", advice: "retry_after", cause: kick, ..WAY },
    Way { reason: "banned", initiator: "admin", advice: "retry_after", cause: ban, ..WAY },
    Way { reason: "server_drain", initiator: "admin", advice: "reconnect", cause: drain, ..WAY },
];

/// Reasons that the other tests here, and those in `network` and `reconcile`, cause.
const ELSEWHERE: &[&str] = &[
    "network_timeout",
    "login_timeout",
    "auth_failed",
    "server_full",
    "ip_limit",
    "resource_exhausted",
    "server_crash",
    "internal_error",
];

#[test]
fn every_reason_is_caused_by_one_test() {
    for reason in Reason::ALL {
        let word = reason.word();
        let places = [WAYS.iter().any(|way| way.reason == word), ELSEWHERE.contains(&word)];
        assert_eq!(places.iter().filter(|&&place| place).count(), 1, "{word}: {places:?}");
    }
}

#[test]
fn every_way_to_leave_has_one_word_in_goodbye_log_metrics_history_and_why() {
    for way in WAYS {
        let server = (way.start)(&[way.flags, &["--grace", "10s"]].concat());
        let mut client = Client::with_small_window(&server);
        let id = client.register("alice");
        let login = json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": way.caps});
        assert_eq!(client.ask(&login)["errno"], 0);
        let peer = client.local_addr();
        let start = Instant::now();
        let client = (way.cause)(&server, client);
        eventually_within(SOON, way.reason, || !server.home.departures(id).is_empty());
        expect_counted(&server, way.reason);
        expect_logged(&server, way.reason, peer);
        let why = server.cli_json(&["why", "alice"]);
        let told: Vec<_> = why["departures"].as_array().unwrap().iter().map(|row| &row["reason"]).collect();
        assert!(told.contains(&&json!(way.reason)), "{}: {why}", way.reason);
        if !way.advice.is_empty() {
            expect_told(client.unwrap(), way.reason, way.advice);
        }
        let left = server.home.departures(id);
        let said = (left[0].reason.as_str(), left[0].initiator.as_str(), left[0].errno);
        assert_eq!(said, (way.reason, way.initiator, way.errno));
        // Whoever took the place has left it too by now.
        assert!(left.len() == 1 || way.reason == "replaced", "{left:?}");
        assert!(start.elapsed() < SOON, "{}: {:?}", way.reason, start.elapsed());
        end_if_stopped(server, way.reason);
    }
}

#[test]
fn those_whom_nobody_knows_are_told_logged_and_counted_and_have_no_history() {
    type Cause = fn(&Server, &mut Client) -> Vec<Client>;
    let ways: &[(&str, &str, &[&str], Cause)] = &[
        ("login_timeout", "reconnect", &["--login-timeout", "300ms"], |_, _| Vec::new()),
        ("auth_failed", "stop", &[], |_, client| {
            for _ in 0..10 {
                client.say(&json!({"msgid": 1, "id": 1, "password": "guess"}));
            }
            Vec::new()
        }),
        ("malformed_frame", "stop", &[], |_, client| {
            client.say_bytes(b"]");
            Vec::new()
        }),
        ("frame_too_large", "reconnect", &[], |_, client| {
            client.say_bytes(&[b'['; 9 * 1024]);
            Vec::new()
        }),
        ("server_full", "retry_after", &["--max-channels", "1"], |server, client| {
            expect_error(&client.ask(&json!({"msgid": 3})), 11, Some(3));
            vec![std::mem::replace(client, Client::connect(server))]
        }),
        ("kicked", "retry_after", &[], |server, _| {
            eventually("the channel is there", || server.kick("all"));
            Vec::new()
        }),
        ("banned", "retry_after", &[], |server, client| {
            eventually("the channel is there", || server.channel_with(client).is_some());
            server.cli_json(&["kick", "all", "--ban", "1h"]);
            Vec::new()
        }),
        ("server_shutdown", "reconnect", &["--stop-drain", "8s"], |server, client| {
            eventually("the channel is there", || server.channel_with(client).is_some());
            server.signal(Signal::TERM);
            Vec::new()
        }),
        ("server_drain", "reconnect", &[], |server, client| {
            eventually("the channel is there", || server.channel_with(client).is_some());
            server.cli_json(&["drain"]);
            Vec::new()
        }),
    ];
    for (reason, advice, flags, cause) in ways {
        let server = Server::start(flags);
        let mut client = Client::connect(&server);
        let present = cause(&server, &mut client);
        expect_counted(&server, reason);
        expect_logged(&server, reason, client.local_addr());
        expect_told(client, reason, advice);
        let rows: i64 =
            server.home.db().query_row("SELECT count(*) FROM departure", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{reason}: nobody was logged in");
        drop(present);
        end_if_stopped(server, reason);
    }
}

#[test]
fn those_who_go_by_themselves_without_a_login_are_logged_and_counted_too() {
    let server = Server::start(&[]);
    let mut closes = Client::connect(&server);
    let mut resets = Client::connect(&server);
    for client in [&mut closes, &mut resets] {
        expect_error(&client.ask(&json!({"msgid": 3})), 11, Some(3));
    }
    let peers = [closes.local_addr(), resets.local_addr()];
    drop(closes);
    resets.reset();
    for (reason, peer) in ["peer_closed", "peer_reset"].into_iter().zip(peers) {
        expect_counted(&server, reason);
        expect_logged(&server, reason, peer);
    }
    assert!(server.log().contains(&format!("errno={ECONNRESET}")), "{}", server.log());
}

#[test]
fn whoever_finds_no_fd_is_told_logged_and_counted_in_either_protocol_and_the_server_goes_on() {
    let server = Server::with_lines(&["--workers", "1"]);
    let (mut alice, _) = server.user("alice");
    let few = server.with_few_fds();
    let (_present, first) = fill(&server);
    let mut peers = vec![first.local_addr()];
    expect_told(first, "resource_exhausted", "reconnect");
    for _ in 0..2 {
        let client = Client::connect(&server);
        peers.push(client.local_addr());
        expect_told(client, "resource_exhausted", "reconnect");
        let mut line = LineClient::connect(&server);
        peers.push(line.wire().local_addr());
        // What is unread when the server closes must not eat the goodbye.
        line.try_say_bytes(b"bob\n");
        line.expect_goodbye("resource_exhausted");
        line.expect_end();
    }
    drop(few);
    for peer in &peers {
        let peer = format!("peer={peer} reason=\"resource_exhausted\" errno={EMFILE}");
        eventually("the log tells of each", || server.log().contains(&peer));
        let log = server.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&peer)).collect();
        assert!(lines.len() == 1 && lines[0].contains("INFO"), "{peer}: {lines:?}");
    }
    assert_eq!(server.cli_json(&["stats"])["left_resource_exhausted"], peers.len());
    alice.quiet();
    server.user("late").0.quiet();
}

#[test]
fn the_numbers_of_all_reasons_are_there_from_the_start_and_a_flood_is_counted_in_the_log() {
    const FLOOD: u64 = 300;
    let server = Server::start(&["--workers", "1"]);
    let stats = server.cli_json(&["stats"]);
    for reason in Reason::ALL {
        assert_eq!(stats[format!("left_{}", reason.word())], 0, "{reason:?}");
    }
    for _ in 0..FLOOD {
        drop(Client::connect(&server));
    }
    eventually("all are gone", || server.cli_json(&["stats"])["left_peer_closed"] == FLOOD);
    let lines = server.log().lines().filter(|line| line.contains("peer_closed")).count();
    assert!(lines < FLOOD as usize, "{lines} lines");
    let home = server.home.clone();
    server.signal(Signal::TERM);
    let log = server.end().stderr;
    let more = format!("count={}", FLOOD as usize - lines);
    assert!(log.lines().any(|line| line.contains("peer_closed") && line.contains(&more)), "{more} in {log}");
    drop(home);
}

#[test]
fn a_crash_is_logged_and_written_down_by_the_next_start() {
    let server = Server::start(&[]);
    let (_client, id) = server.user("alice");
    let server = Server::start_at(&server.crash(), &[]);
    eventually("the log says so", || server.log().contains("reason=\"server_crash\""));
    expect_counted(&server, "server_crash");
    let why = server.cli_json(&["why", "alice"]);
    assert_eq!(why["departures"][0]["reason"], "server_crash", "{why}");
    let left = server.home.departures(id);
    let said = (left[0].reason.as_str(), left[0].initiator.as_str(), left[0].errno);
    assert_eq!((left.len(), said), (1, ("server_crash", "server", None)));
}

#[test]
fn a_goodbye_arrives_though_megabytes_of_the_client_are_unread() {
    const FLOOD: usize = 8 * 1024 * 1024;
    // While a hash this dear is computed, the channel is not read.
    let server = Server::start(&["--argon2", "65536,20,1", "--grace", "10s"]);
    let mut client = Client::connect(&server);
    client.say(&json!({"msgid": 4, "name": "alice", "password": PASSWORD}));
    thread::scope(|scope| {
        scope.spawn(|| {
            let read = || server.channels().first().map_or(0, |entry| entry["bytes_in"].as_u64().unwrap());
            eventually("the server reads no more", || {
                let before = read();
                thread::sleep(Duration::from_millis(50));
                before > BULK_BYTES as u64 && read() == before
            });
            assert!(read() < FLOOD as u64 / 2, "most is unread");
            assert!(server.kick("all"));
        });
        assert!(client.try_say_bytes(&vec![b' '; FLOOD]), "what comes after the step is read and dropped");
    });
    client.expect_goodbye("kicked");
    client.expect_end();
}

#[test]
fn a_client_that_never_reads_is_offline_at_once_and_closed_after_the_grace() {
    const GRACE_US: i64 = 500_000;
    let server = Server::start(&["--grace", "500ms", "--out-limit", "64MiB"]);
    let [id] = server.absent(["alice"]);
    let mut client = Client::with_small_window(&server);
    client.login(id);
    let client = read_nothing(client, 200).unwrap();
    eventually("the kernel takes no more", || server.has_output_for(id));
    let start = Instant::now();
    assert!(server.kick(&id.to_string()));
    eventually("offline", || server.home.state(id) == "offline");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    eventually("the fd is closed", || !server.holds_socket_of(&client));
    eventually("closed_us is completed", || server.home.departures(id)[0].closed_us.is_some());
    let left = server.home.departures(id)[0].clone();
    assert!(left.closed_us.is_some_and(|us| (GRACE_US..5_000_000).contains(&us)), "{left:?}");
    assert!(left.saved.is_some_and(|saved| saved > 0), "{left:?}");
    assert!(left.lost.is_some_and(|lost| lost <= 1), "only what the kernel has in part: {left:?}");
}

/// The last that the client hears is that goodbye, and then the end without a reset.
#[track_caller]
fn expect_told(mut client: Client, reason: &str, advice: &str) {
    let goodbye = client.hear_to_the_end().pop().unwrap_or(Value::Null);
    let said = (&goodbye["msgid"], &goodbye["reason"], &goodbye["advice"]);
    assert_eq!(said, (&json!(20), &json!(reason), &json!(advice)), "{goodbye}");
    assert!(goodbye["errmsg"].as_str().is_some_and(|text| !text.is_empty()), "{goodbye}");
}

/// A second signal would not be an orderly stop any more, so one that was sent is waited for.
#[track_caller]
fn end_if_stopped(server: Server, reason: &str) {
    if ["server_shutdown", "server_drain"].contains(&reason) {
        assert_eq!(server.end().code, Some(0));
    }
}

/// One line at level info has the word and the peer, and no second one has the word.
#[track_caller]
fn expect_logged(server: &Server, reason: &str, peer: SocketAddr) {
    let word = format!("reason=\"{reason}\"");
    let lines = || -> Vec<String> {
        server.log().lines().filter(|line| line.contains(&word)).map(ToOwned::to_owned).collect()
    };
    eventually(&format!("{reason} is in the log"), || !lines().is_empty());
    let lines = lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("INFO") && lines[0].contains(&format!("peer={peer}")), "{peer} in {lines:?}");
}

/// Somebody was counted with that reason, once.
#[track_caller]
fn expect_counted(server: &Server, reason: &str) {
    let name = format!("left_{reason}");
    let mut count = Value::Null;
    eventually(&format!("{name} is counted"), || {
        count = server.cli_json(&["stats"])[&name].clone();
        assert!(count.is_u64(), "{name} is always there");
        count != 0
    });
    assert_eq!(count, 1, "{name}");
}

fn gone(leave: impl FnOnce()) -> Option<Client> {
    leave();
    None
}

fn say(mut client: Client, bytes: &[u8]) -> Option<Client> {
    client.say_bytes(bytes);
    Some(client)
}

fn quit(_: &Server, mut client: Client) -> Option<Client> {
    assert_eq!(client.ask(&json!({"msgid": 3, "seq": 1}))["errno"], 0);
    Some(client)
}

fn say_too_much(_: &Server, client: Client) -> Option<Client> {
    let request = json!({"msgid": 6, "toid": 1, "msg": "x".repeat(70 * 1024)});
    say(client, request.to_string().as_bytes())
}

fn err_a_hundred_times(_: &Server, mut client: Client) -> Option<Client> {
    for _ in 0..100 {
        expect_error(&client.ask(&json!({"msgid": 6})), 10, Some(6));
    }
    Some(client)
}

fn hear_one_ping(_: &Server, mut client: Client) -> Option<Client> {
    assert_eq!(client.hear(), json!({"msgid": 22}));
    Some(client)
}

fn ask_too_fast(_: &Server, mut client: Client) -> Option<Client> {
    for _ in 0..200 {
        client.try_say_bytes(b"{\"msgid\":22}");
    }
    Some(client)
}

/// Talks to itself without listening, as long as it is let.
fn read_nothing(mut client: Client, chats: usize) -> Option<Client> {
    let chat = json!({"msgid": 6, "toid": 1, "msg": "x".repeat(BULK_BYTES)}).to_string();
    for _ in 0..chats {
        if !client.try_say_bytes(chat.as_bytes()) {
            break;
        }
    }
    Some(client)
}

fn log_in_elsewhere(server: &Server, client: Client) -> Option<Client> {
    Client::connect(server).login_as("alice");
    Some(client)
}

fn kick(server: &Server, client: Client) -> Option<Client> {
    assert!(server.kick("alice"));
    Some(client)
}

fn stop(server: &Server, client: Client) -> Option<Client> {
    server.signal(Signal::TERM);
    Some(client)
}

fn ban(server: &Server, client: Client) -> Option<Client> {
    server.cli_json(&["kick", "alice", "--ban", "1h"]);
    Some(client)
}

fn drain(server: &Server, client: Client) -> Option<Client> {
    server.cli_json(&["drain"]);
    Some(client)
}

fn say_to_itself(mut client: Client, text: &str) -> Option<Client> {
    client.say(&json!({"msgid": 6, "toid": 1, "msg": text}));
    Some(client)
}

/// Takes all fds that are left; whoever came too late is answered apart, with the goodbye still to be heard.
fn fill(server: &Server) -> (Vec<Client>, Client) {
    let mut present = Vec::new();
    loop {
        let mut client = Client::connect(server);
        let peer = format!("peer={} reason=\"resource_exhausted\"", client.local_addr());
        client.say(&json!({"msgid": 3}));
        let (mut came_in, mut turned_away) = (false, false);
        eventually("it comes in or does not", || {
            turned_away = server.log().contains(&peer);
            came_in = !turned_away && client.has_before_it("\"errno\":11");
            came_in || turned_away
        });
        if turned_away {
            return (present, client);
        }
        present.push(client);
    }
}
