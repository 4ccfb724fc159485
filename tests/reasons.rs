//! Every reason of the contract, caused for real: the same word in the goodbye, the log and the history, soon.
//!
//! Peers that vanish, and limits from which loopback is exempt, are in `network`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::unnecessary_wraps, reason = "all causes have one shape")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Client, PASSWORD, Server, eventually, eventually_within, expect_error};
use linger::channel::Reason;
use rustix::process::Signal;
use serde_json::{Value, json};

/// Within that a channel has left, where no limit of the test's own is longer.
const SOON: Duration = Duration::from_secs(8);
/// `ECONNRESET` on Linux.
const ECONNRESET: i64 = 104;
/// The text of a message that fills buffers soon.
const BULK_BYTES: usize = 8 * 1024;

/// A way for a user to leave, and what is said of it. `advice` is empty where nobody can be told.
struct Way {
    reason: &'static str,
    initiator: &'static str,
    errno: Option<i64>,
    advice: &'static str,
    flags: &'static [&'static str],
    caps: &'static [&'static str],
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
    Way { reason: "replaced", initiator: "server", advice: "stop", cause: log_in_elsewhere, ..WAY },
    Way { reason: "server_shutdown", initiator: "server", advice: "reconnect", cause: stop, ..WAY },
    Way { reason: "kicked", initiator: "admin", advice: "retry_after", cause: kick, ..WAY },
];

/// Reasons that the other tests here, and those in `network` and `reconcile`, cause.
const ELSEWHERE: &[&str] = &[
    "network_timeout",
    "read_error",
    "login_timeout",
    "auth_failed",
    "server_full",
    "ip_limit",
    "server_crash",
    "internal_error",
];

/// Reasons that no test causes with a real socket: faults of the machine or our own, and what is not built yet.
const NOT_CAUSED: &[&str] = &["write_error", "resource_exhausted", "banned", "server_drain"];

#[test]
fn every_reason_is_caused_or_named_as_one_that_is_not() {
    for reason in Reason::ALL {
        let word = reason.word();
        let places = [
            WAYS.iter().any(|way| way.reason == word),
            ELSEWHERE.contains(&word),
            NOT_CAUSED.contains(&word),
        ];
        assert_eq!(places.iter().filter(|&&place| place).count(), 1, "{word}: {places:?}");
    }
}

#[test]
fn every_way_to_leave_has_one_word_in_goodbye_log_and_history() {
    for way in WAYS {
        let server = Server::start(&[way.flags, &["--log", "debug", "--grace", "10s"]].concat());
        let [id] = server.absent(["alice"]);
        let mut client = Client::with_small_window(&server);
        let login = json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": way.caps});
        assert_eq!(client.ask(&login)["errno"], 0);
        let start = Instant::now();
        let client = (way.cause)(&server, client);
        eventually_within(SOON, way.reason, || !server.home.departures(id).is_empty());
        if !way.advice.is_empty() {
            expect_told(client.unwrap(), way.reason, way.advice);
        }
        expect_logged(&server, way.reason);
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
fn those_whom_nobody_knows_are_told_and_logged_and_have_no_history() {
    type Cause = fn(&Server, &mut Client) -> Option<Client>;
    let ways: &[(&str, &str, &[&str], Cause)] = &[
        ("login_timeout", "reconnect", &["--login-timeout", "300ms"], |_, _| None),
        ("auth_failed", "stop", &[], |_, client| {
            for _ in 0..10 {
                client.say(&json!({"msgid": 1, "id": 1, "password": "guess"}));
            }
            None
        }),
        ("malformed_frame", "stop", &[], |_, client| {
            client.say_bytes(b"]");
            None
        }),
        ("frame_too_large", "reconnect", &[], |_, client| {
            client.say_bytes(&[b'['; 9 * 1024]);
            None
        }),
        ("server_full", "retry_after", &["--max-channels", "1"], |server, client| {
            expect_error(&client.ask(&json!({"msgid": 3})), 11, Some(3));
            Some(std::mem::replace(client, Client::connect(server)))
        }),
        ("kicked", "retry_after", &[], |server, _| {
            eventually("the channel is there", || server.kick("all"));
            None
        }),
        ("server_shutdown", "reconnect", &[], |server, _| {
            server.signal(Signal::TERM);
            None
        }),
    ];
    for (reason, advice, flags, cause) in ways {
        let server = Server::start(&[flags, &["--log", "debug"][..]].concat());
        let mut client = Client::connect(&server);
        let _present = cause(&server, &mut client);
        expect_told(client, reason, advice);
        expect_logged(&server, reason);
        let rows: i64 =
            server.home.db().query_row("SELECT count(*) FROM departure", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{reason}: nobody was logged in");
        end_if_stopped(server, reason);
    }
}

#[test]
fn a_crash_is_logged_and_written_down_by_the_next_start() {
    let server = Server::start(&[]);
    let (_client, id) = server.user("alice");
    let server = Server::start_at(&server.crash(), &[]);
    expect_logged(&server, "server_crash");
    let left = server.home.departures(id);
    let said = (left[0].reason.as_str(), left[0].initiator.as_str(), left[0].errno);
    assert_eq!((left.len(), said), (1, ("server_crash", "server", None)));
}

#[test]
fn whoever_answers_pings_or_says_anything_stays() {
    let server = Server::start(&["--ping-interval", "1s", "--ping-timeout", "1s"]);
    let [answers, talks, silent] = server.absent(["answers", "talks", "silent"]);
    let mut clients = [answers, talks, silent].map(|id| {
        let mut client = Client::connect(&server);
        let caps: &[&str] = if id == silent { &[] } else { &["ping"] };
        let login = json!({"msgid": 1, "id": id, "password": PASSWORD, "caps": caps});
        assert_eq!(client.ask(&login)["errno"], 0);
        client
    });
    for _ in 0..4 {
        for (client, answer) in clients.iter_mut().zip([json!({"msgid": 23}), json!({"msgid": 22})]) {
            let (_, ping) = client.hear_until(|heard| heard["msgid"] != 23);
            assert_eq!(ping, json!({"msgid": 22}));
            client.say(&answer);
        }
    }
    assert_eq!(server.home.online(), 3, "and whoever has not asked for pings is not pinged");
    let silent = &mut clients[2];
    assert_eq!(silent.ask(&json!({"msgid": 22, "seq": 1})), json!({"msgid": 23, "seq": 1}));
}

#[test]
fn requests_above_the_rate_are_refused_one_by_one_and_in_time_taken_again() {
    let server = Server::start(&["--request-rate", "5"]);
    let [id] = server.absent(["alice"]);
    let mut client = Client::connect(&server);
    client.login(id);
    for n in 0..40 {
        client.say(&json!({"msgid": 6, "toid": id, "msg": "m", "seq": n}));
    }
    let mut answers = Vec::new();
    while answers.len() < 40 {
        let heard = client.hear();
        if heard["msgid"] == 0 {
            answers.push(heard);
        }
    }
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer["errno"] == 0);
    assert!((5..30).contains(&taken.len()), "a burst of twice the rate is borne: {}", taken.len());
    for answer in refused {
        expect_error(answer, 17, Some(6));
        assert!(answer["seq"].is_u64(), "{answer}");
    }
    let login = json!({"msgid": 1, "id": id, "password": PASSWORD, "seq": "l"});
    client.say(&login);
    let (_, answer) = client.hear_until(|heard| heard["seq"] == "l");
    assert_eq!(answer["msgid"], 2, "old clients wait for msgid 2: {answer}");
    eventually("the rate allows more", || {
        client.say(&json!({"msgid": 3, "seq": "x"}));
        let (_, answer) = client.hear_until(|heard| heard["seq"] == "x");
        thread::sleep(Duration::from_millis(100));
        answer["errno"] != 17
    });
}

#[test]
fn loopback_is_exempt_from_what_an_address_may() {
    let limits = ["--address-channels", "1", "--login-failures", "1", "--address-failures", "1"];
    let server = Server::start(&limits);
    let [id] = server.absent(["alice"]);
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(&server)).collect();
    for client in &mut clients {
        let answer = client.ask(&json!({"msgid": 1, "id": id, "password": "guess"}));
        assert_eq!(answer["errno"], 1, "{answer}");
    }
    clients[0].login(id);
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
    assert!(left.saved.is_some_and(|saved| saved > 0) && left.lost == Some(0), "{left:?}");
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
    if reason == "server_shutdown" {
        assert_eq!(server.end().code, Some(0));
    }
}

#[track_caller]
fn expect_logged(server: &Server, reason: &str) {
    let word = format!("reason=\"{reason}\"");
    eventually(&format!("{reason} is in the log"), || server.log().contains(&word));
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
        expect_error(&client.ask(&json!({"msgid": 99})), 10, Some(99));
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
