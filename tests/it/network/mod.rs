//! What needs two machines: peers that vanish, and limits from which loopback is exempt.

mod net;

use std::time::{Duration, Instant};

use crate::common::{Client, PASSWORD, Server, eventually};
use net::{CLIENTS, between_two_machines, login};
use serde_json::{Value, json};

/// Error numbers of Linux.
const ECONNABORTED: i64 = 103;
const ETIMEDOUT: i64 = 110;
const EHOSTUNREACH: i64 = 113;

/// Keepalive that notices within some 3 s. Keepalive waits for a longer user timeout, so that one is short here as well.
const SOON: [&str; 6] = ["--keepalive", "1s,1s,2", "--write-timeout", "1s", "--user-timeout", "2s"];

/// Waits for the one departure of a user, and holds it, and the log, to what is expected: one of those error
/// numbers, or none where there are none.
#[track_caller]
fn expect_departure(server: &Server, user: i64, reason: &str, initiator: &str, errnos: &[i64]) {
    eventually("the user is offline", || !server.home.departures(user).is_empty());
    let left = server.home.departures(user);
    let said = (left[0].reason.as_str(), left[0].initiator.as_str());
    assert_eq!((left.len(), said), (1, (reason, initiator)), "{left:?}");
    assert!(left[0].errno.map_or(errnos.is_empty(), |errno| errnos.contains(&errno)), "{left:?}");
    assert_eq!(server.home.state(user), "offline");
    let word = format!("reason=\"{reason}\"");
    let logged = || server.log().lines().any(|line| line.contains(&word) && line.contains("offline"));
    eventually("the log says so", logged);
}

#[test]
fn a_silent_machine_is_noticed_by_keepalive_when_nothing_is_sent() {
    between_two_machines("a_silent_machine_is_noticed_by_keepalive_when_nothing_is_sent", |net| {
        let server = net.start(&SOON);
        let (_client, id) = server.user("alice");
        net.silence_client();
        let start = Instant::now();
        expect_departure(&server, id, "network_timeout", "network", &[ETIMEDOUT]);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    });
}

#[test]
fn keepalive_gives_up_behind_its_last_probe_and_not_before() {
    between_two_machines("keepalive_gives_up_behind_its_last_probe_and_not_before", |net| {
        // The user timeout is over long before.
        let limits = ["--keepalive", "4s,1s,4", "--write-timeout", "1s", "--user-timeout", "1500ms"];
        let server = net.start(&limits);
        let (mut client, id) = server.user("alice");
        // It acknowledges what it has heard.
        client.say_bytes(b"\n");
        eventually("that is read", || server.has_read_all_of(&client));
        net.silence_client();
        let start = Instant::now();
        expect_departure(&server, id, "network_timeout", "network", &[ETIMEDOUT]);
        let took = start.elapsed();
        assert!((Duration::from_millis(7500)..Duration::from_millis(9500)).contains(&took), "{took:?}");
    });
}

#[test]
fn a_machine_without_its_cable_is_noticed_by_keepalive() {
    between_two_machines("a_machine_without_its_cable_is_noticed_by_keepalive", |net| {
        let server = net.start(&SOON);
        let (_client, id) = server.user("alice");
        net.pull_the_cable();
        expect_departure(&server, id, "network_timeout", "network", &[ETIMEDOUT, EHOSTUNREACH]);
    });
}

#[test]
fn a_machine_that_acknowledges_nothing_is_noticed_by_the_user_timeout() {
    between_two_machines("a_machine_that_acknowledges_nothing_is_noticed_by_the_user_timeout", |net| {
        // A ping is output, and its timeout is too far away to be what ends the channel.
        let limits = ["--write-timeout", "1s", "--user-timeout", "2s"];
        let pings = ["--ping-interval", "500ms", "--ping-timeout", "1h"];
        let server = net.start(&[limits, pings].concat());
        let [id] = server.absent(["alice"]);
        let mut client = Client::connect(&server);
        assert_eq!(client.ask(&login(id, &["ping"]))["errno"], 0);
        net.silence_client();
        let start = Instant::now();
        expect_departure(&server, id, "network_timeout", "network", &[ETIMEDOUT]);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(8), "{took:?}");
    });
}

#[test]
fn a_machine_that_no_neighbour_finds_any_more_is_a_network_timeout_too() {
    between_two_machines("a_machine_that_no_neighbour_finds_any_more_is_a_network_timeout_too", |net| {
        let limits = ["--write-timeout", "1s", "--user-timeout", "5s"];
        let pings = ["--ping-interval", "500ms", "--ping-timeout", "1h"];
        let server = net.start(&[limits, pings].concat());
        let [id] = server.absent(["alice"]);
        let mut client = Client::connect(&server);
        assert_eq!(client.ask(&login(id, &["ping"]))["errno"], 0);
        net.pull_the_cable();
        net.on_server(&["ip", "neighbour", "flush", "all"]);
        expect_departure(&server, id, "network_timeout", "network", &[ETIMEDOUT, EHOSTUNREACH]);
    });
}

#[test]
fn a_silent_machine_is_noticed_by_the_ping_of_those_who_asked_for_it() {
    between_two_machines("a_silent_machine_is_noticed_by_the_ping_of_those_who_asked_for_it", |net| {
        let server = net.start(&["--ping-interval", "300ms", "--ping-timeout", "500ms"]);
        let [id] = server.absent(["alice"]);
        let mut client = Client::connect(&server);
        assert_eq!(client.ask(&login(id, &["ping"]))["errno"], 0);
        net.silence_client();
        expect_departure(&server, id, "keepalive_timeout", "network", &[]);
    });
}

#[test]
fn a_socket_that_the_kernel_aborts_is_a_read_error() {
    between_two_machines("a_socket_that_the_kernel_aborts_is_a_read_error", |net| {
        let server = net.start(&[]);
        let (_client, id) = server.user("alice");
        net.on_server(&["ss", "--kill", "--tcp", "dst", CLIENTS[0]]);
        expect_departure(&server, id, "read_error", "network", &[ECONNABORTED]);
    });
}

#[test]
fn an_address_may_have_so_many_channels_and_another_has_its_own() {
    between_two_machines("an_address_may_have_so_many_channels_and_another_has_its_own", |net| {
        let server = net.start(&["--address-channels", "2", "--grace", "2s"]);
        let (first, _) = server.user("first");
        let (mut second, _) = server.user("second");
        for _ in 0..5 {
            let mut extra = Client::connect(&server);
            assert_eq!(extra.expect_goodbye("ip_limit")["advice"], "retry_after");
            extra.expect_end();
        }
        eventually("the log says so", || server.log().contains("reason=\"ip_limit\""));
        net.speak_from(CLIENTS[1]);
        let (mut other, _) = server.user("other");
        assert!(other.local_addr().ip().to_string() == CLIENTS[1]);
        other.quiet();
        net.speak_from(CLIENTS[0]);
        drop(first);
        eventually("the first one is offline", || server.home.online() == 2);
        Client::connect(&server).expect_goodbye("ip_limit");
        eventually("its connection is closed", || server.cli_json(&["queue"])["lingering"] == 0);
        server.user("third").0.quiet();
        second.quiet();
    });
}

#[test]
fn an_address_that_guesses_is_shut_out_of_that_user_and_nobody_else_is() {
    between_two_machines("an_address_that_guesses_is_shut_out_of_that_user_and_nobody_else_is", |net| {
        let server = net.start(&["--login-failures", "3"]);
        let [alice, bob] = server.absent(["alice", "bob"]);
        // Now the password is remembered.
        assert_eq!(refusal(&server, alice, PASSWORD), 0);
        assert_eq!(refusal(&server, alice, "guess"), 1);
        assert_eq!(refusal_by_name(&server, "alice", "guess"), 1);
        assert_eq!(refusal_by_name(&server, "alice", "guess"), 1);
        for guess in ["guess", PASSWORD] {
            assert_eq!(refusal(&server, alice, guess), 17, "the right password too");
            assert_eq!(refusal_by_name(&server, "alice", guess), 17, "by either way to name her");
        }
        for _ in 0..3 {
            assert_eq!(refusal_by_name(&server, "nobody", "guess"), 1);
        }
        assert_eq!(refusal_by_name(&server, "nobody", "guess"), 17, "no otherwise than somebody");
        assert_eq!(refusal(&server, bob, PASSWORD), 0, "another user is not meant");
        net.speak_from(CLIENTS[1]);
        assert_eq!(refusal(&server, alice, PASSWORD), 0, "another address is not meant");
    });
}

#[test]
fn an_address_that_guesses_at_many_users_is_shut_out_of_all() {
    between_two_machines("an_address_that_guesses_at_many_users_is_shut_out_of_all", |net| {
        let server = net.start(&["--login-failures", "2", "--address-failures", "4"]);
        let [alice, bob, carol] = server.absent(["alice", "bob", "carol"]);
        for user in [alice, bob, alice, bob] {
            assert_eq!(refusal(&server, user, "guess"), 1);
        }
        assert_eq!(refusal(&server, carol, PASSWORD), 17);
        net.speak_from(CLIENTS[1]);
        assert_eq!(refusal(&server, carol, PASSWORD), 0);
    });
}

#[test]
fn an_address_may_make_so_many_new_users_and_another_has_its_own() {
    between_two_machines("an_address_may_make_so_many_new_users_and_another_has_its_own", |net| {
        let server = net.start(&["--address-registrations", "3"]);
        let register = |name: &str| {
            let answer =
                Client::connect(&server).ask(&json!({"msgid": 4, "name": name, "password": PASSWORD}));
            assert_eq!(answer["msgid"], 5, "{answer}");
            answer["errno"].as_i64().unwrap()
        };
        assert_eq!((register("one"), register("one")), (0, 1));
        assert_eq!(register("two"), 0, "a name that is taken has made no user");
        assert_eq!(register("three"), 0);
        assert_eq!(register("four"), 17);
        net.speak_from(CLIENTS[1]);
        assert_eq!(register("four"), 0, "another address has its own");
        assert_eq!(server.home.users(), 4);
    });
}

/// The errno of a login on a connection of its own.
#[track_caller]
fn refusal(server: &Server, id: i64, password: &str) -> i64 {
    refusal_of(server, &json!({"msgid": 1, "id": id, "password": password, "seq": 7}))
}

#[track_caller]
fn refusal_by_name(server: &Server, name: &str, password: &str) -> i64 {
    refusal_of(server, &json!({"msgid": 1, "name": name, "password": password, "seq": 7}))
}

#[track_caller]
fn refusal_of(server: &Server, login: &Value) -> i64 {
    let answer = Client::connect(server).ask(login);
    assert_eq!((&answer["msgid"], &answer["seq"]), (&json!(2), &json!(7)), "{answer}");
    answer["errno"].as_i64().unwrap()
}
