//! Section 3 meets section 6: a line user goes away, by itself or not, and everything about it is right.

use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, ECONNRESET, LINES, LineClient, PASSWORD, Server, eventually, offline};
use serde_json::json;

#[test]
fn a_second_login_under_a_held_name_is_never_deaf() {
    let server = Server::with_lines(&["--workers", "2", "--grace", "1h"]);
    let (mut bob, _) = server.user("bob");
    let (mut old, id) = server.guest("ann");
    for round in 1..=20 {
        let mut new = LineClient::connect(&server);
        new.login("ann");
        old.expect_goodbye("replaced");
        old.expect_end();
        assert_eq!(server.home.state(id), "online");
        eventually("the old session is over", || server.home.departures(id).len() == round);
        assert_eq!(server.home.state(id), "online", "the old one's end does not touch the new one");
        bob.chat(id, "to the new one");
        assert_eq!(new.hear(), "from bob: to the new one");
        new.say("bob: from the new one");
        assert_eq!(bob.hear()["msg"], "from the new one");
        old = new;
    }
    let left = server.home.departures(id);
    assert!(left.iter().all(|row| row.reason == "replaced" && row.initiator == "server"), "{left:?}");
    old.quiet();
}

#[test]
fn a_user_takes_over_from_one_protocol_to_the_other() {
    let server = Server::with_lines(&["--workers", "2", "--grace", "1h"]);
    let [id] = server.absent(["alice"]);
    let (mut ann, _) = server.guest("ann");
    let mut lines: Option<LineClient> = None;
    for round in 0..20 {
        let mut json = server.back(id);
        if let Some(mut old) = lines.take() {
            old.expect_goodbye("replaced");
            old.expect_end();
        }
        ann.say(&format!("alice: {round}"));
        assert_eq!(json.hear()["msg"], round.to_string());
        let mut line = LineClient::connect(&server);
        line.login(&format!("alice {PASSWORD}"));
        json.expect_goodbye("replaced");
        json.expect_end();
        ann.say(&format!("alice: {round}"));
        assert_eq!(line.hear(), format!("from ann: {round}"));
        lines = Some(line);
    }
    eventually("every old session is over", || server.home.departures(id).len() == 39);
    assert!(server.home.reasons(id).iter().all(|reason| reason == "replaced"));
    assert_eq!(server.home.state(id), "online");
}

#[test]
fn reject_refuses_a_second_login_on_either_side_and_leaves_the_first_alone() {
    let server = Server::with_lines(&["--duplicate", "reject", "--workers", "2"]);
    let [alice_id] = server.absent(["alice"]);
    let alice = format!("alice {PASSWORD}");
    let (mut ann, ann_id) = server.guest("ann");
    let mut first = LineClient::connect(&server);
    first.login(&alice);
    for name in ["ann", &alice] {
        let mut second = LineClient::connect(&server);
        second.say(name);
        second.say("ann: am I in?");
        second.expect_refused();
    }
    let answer = Client::connect(&server).ask(&json!({"msgid": 1, "id": alice_id, "password": PASSWORD}));
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(2)), "{answer}");
    ann.quiet();
    first.quiet();
    drop(first);
    let _json = server.back(alice_id);
    let mut second = LineClient::connect(&server);
    second.say(&alice);
    second.expect_refused();
    assert!(server.home.departures(ann_id).is_empty());
    assert_eq!(server.home.reasons(alice_id), ["peer_closed"]);
}

#[test]
fn an_immediate_login_again_is_accepted_under_reject() {
    const ROUNDS: usize = 100;
    let server = Server::with_lines(&["--duplicate", "reject", "--workers", "2"]);
    for round in 0..ROUNDS {
        let (ann, _) = server.guest("ann");
        if round % 2 == 0 { drop(ann) } else { ann.reset() }
    }
    let id = server.home.id_of("ann").unwrap();
    eventually("every session has its departure", || server.home.departures(id).len() == ROUNDS);
    offline(&server, id);
    let home = server.stop();
    assert_eq!(home.departures(id).len(), ROUNDS, "and none has two");
}

#[test]
fn many_guests_under_one_new_name_at_once_leave_one_user_and_one_session() {
    const AT_ONCE: usize = 12;
    let server = Server::with_lines(&["--workers", "3"]);
    let mut guests: Vec<_> = (0..AT_ONCE).map(|_| LineClient::connect(&server)).collect();
    for guest in &mut guests {
        guest.say("ann");
    }
    eventually("the name is a user's", || server.home.id_of("ann").is_some());
    let id = server.home.id_of("ann").unwrap();
    eventually("all but one are over", || server.home.departures(id).len() == AT_ONCE - 1);
    eventually("the last one is in", || server.live_channel(id).is_some());
    eventually("and online", || server.home.state(id) == "online");
    assert_eq!(server.home.users(), 1);
    let survivor = server.live_channel(id).unwrap()["peer"].as_str().unwrap().to_owned();
    let mut alive = 0;
    for mut guest in guests {
        if guest.wire().local_addr().to_string() == survivor {
            guest.say("ann: here");
            assert_eq!(guest.hear(), "from ann: here");
            alive += 1;
        } else {
            guest.expect_goodbye("replaced");
            guest.expect_end();
        }
    }
    assert_eq!(alive, 1);
}

#[test]
fn a_guest_and_a_registration_never_share_a_new_name() {
    let server = Server::with_lines(&["--workers", "2", "--grace", "0s"]);
    let mut client = Client::connect(&server);
    let mut guests = 0;
    for round in 0..30 {
        let name = format!("name{round}");
        let register = json!({"msgid": 4, "name": name, "password": PASSWORD});
        let mut guest = LineClient::connect(&server);
        let answer = thread::scope(|scope| {
            let asked = scope.spawn(|| client.ask(&register));
            // The hash takes the registration a while, so the guest wins unless he comes later.
            thread::sleep(Duration::from_micros(100 * (round % 10)));
            guest.say_first(&name);
            asked.join().unwrap()
        });
        let id = server.home.id_of(&name).unwrap();
        if answer["errno"] == 0 {
            guest.expect_refused();
            assert!(!server.home.is_guest(id), "{name}");
        } else {
            assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(5), &json!(1)), "{answer}");
            guest.quiet();
            assert!(server.home.is_guest(id), "{name}");
            guests += 1;
        }
    }
    assert_eq!(server.home.users(), 30, "{guests} guests");
}

#[test]
fn a_kick_tells_a_line_user_why_at_once_and_not_after_the_grace() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let (mut witness, _) = server.guest("witness");
    let forms: [fn(i64, &Server) -> String; 3] =
        [|_, _| "ann".into(), |id, _| id.to_string(), |id, server| format!("#{}", server.channel_of(id))];
    for (round, form) in forms.into_iter().enumerate() {
        let (mut ann, id) = server.guest("ann");
        let receipt = server.cli_json(&["kick", &form(id, &server), "--reason", "spam", "--wait"]);
        assert_eq!(server.home.state(id), "offline", "committed before --wait returns");
        assert_eq!(
            (&receipt["kicked"][0]["user"], &receipt["kicked"][0]["name"]),
            (&json!(id), &json!("ann"))
        );
        assert_eq!(ann.hear(), "error: kicked: spam");
        ann.expect_end();
        assert!(server.holds_socket_of(ann.wire()), "the fd stays till the grace is over");
        let left = &server.home.departures(id)[round];
        assert_eq!((left.reason.as_str(), left.initiator.as_str()), ("kicked", "admin"));
        // The input is read and dropped meanwhile, so the client may talk on without a reset.
        for _ in 0..64 {
            ann.say_bytes(&[b'x'; 16 * 1024]);
        }
    }
    witness.quiet();
}

#[test]
fn a_kicks_reason_never_becomes_a_second_line() {
    let server = Server::with_lines(&[]);
    let (mut ann, _) = server.guest("ann");
    let reason = "two\nerror: lines\r\n";
    let answer = server.control(&json!({"cmd": "kick", "targets": ["ann"], "reason": reason, "wait": true}));
    if answer["ok"] == true {
        let text = ann.expect_goodbye("kicked");
        assert!(text.starts_with("two") && text.contains("error: lines"), "{text:?}");
        ann.expect_end();
    } else {
        assert!(answer["error"].is_string(), "{answer}");
        ann.quiet();
    }
}

#[test]
fn a_stop_tells_every_line_client() {
    let server = Server::with_lines(&["--grace", "1h", "--workers", "2"]);
    let (mut ann, id) = server.guest("ann");
    let mut nobody = LineClient::connect(&server);
    eventually("the other one is known", || server.channel_with(nobody.wire()).is_some());
    let home = server.stop();
    for client in [&mut ann, &mut nobody] {
        client.expect_goodbye("server_shutdown");
        client.expect_end();
    }
    assert_eq!((home.state(id), home.reasons(id)), ("offline".into(), vec!["server_shutdown".to_owned()]));
}

#[test]
fn a_line_channel_where_nobody_logs_in_leaves_in_time() {
    let server = Server::with_lines(&["--login-timeout", "300ms", "--grace", "1h"]);
    let (mut ann, _) = server.guest("ann");
    let start = Instant::now();
    let mut silent = LineClient::connect(&server);
    let mut halfway = LineClient::connect(&server);
    halfway.say_bytes(b"nobo");
    silent.hear_nothing_until("most of its time is over", || start.elapsed() >= Duration::from_millis(200));
    for client in [&mut silent, &mut halfway] {
        client.expect_goodbye("login_timeout");
        client.expect_end();
    }
    ann.quiet();
    assert!(server.home.id_of("nobo").is_none());
}

#[test]
fn an_idle_line_channel_leaves_where_the_operator_wants_it() {
    let server = Server::with_lines(&["--idle", "700ms"]);
    let (mut silent, silent_id) = server.guest("silent");
    let (mut talker, talker_id) = server.guest("talker");
    eventually("the silent one is offline", || {
        talker.quiet();
        server.home.state(silent_id) == "offline"
    });
    silent.expect_goodbye("idle_timeout");
    silent.expect_end();
    assert_eq!(server.home.reasons(silent_id), ["idle_timeout"]);
    assert!(server.home.departures(talker_id).is_empty());
}

#[test]
fn one_line_channel_too_many_is_told_so() {
    let server = Server::with_lines(&["--max-channels", "2", "--grace", "0s"]);
    let (mut alice, _) = server.user("alice");
    let (mut ann, _) = server.guest("ann");
    for _ in 0..5 {
        let mut extra = LineClient::connect(&server);
        extra.expect_goodbye("server_full");
        extra.expect_end();
    }
    Client::connect(&server).expect_goodbye("server_full");
    ann.quiet();
    alice.quiet();
    drop(ann);
    eventually("the place is free", || server.channels().len() < 2);
    server.guest("bob").0.quiet();
}

#[test]
fn a_line_users_reset_is_told_from_a_close() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let (ann, id) = server.guest("ann");
    ann.reset();
    offline(&server, id);
    let left = server.home.departures(id);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].reason.as_str(), left[0].errno), ("peer_reset", Some(ECONNRESET)));
    let (mut ann, _) = server.guest("ann");
    ann.end_input();
    ann.expect_end();
    offline(&server, id);
    assert_eq!(server.home.reasons(id), ["peer_reset", "peer_closed"]);
}

#[test]
fn a_hundred_connects_followed_by_a_reset_end_nobody() {
    let server = Server::with_lines(&["--grace", "0s", "--workers", "2"]);
    let (mut alice, _) = server.user("alice");
    let (mut ann, _) = server.guest("ann");
    for said in [&b""[..], b"bo", b"bob\n", b"bob\nann: hi\nalice: hi", b"\xff\n"] {
        for _ in 0..100 {
            let mut client = LineClient::connect(&server);
            client.try_say_bytes(said);
            client.reset();
        }
    }
    eventually("they are all gone", || server.channels().len() == 2);
    eventually("nobody else is online", || server.home.online() == 2);
    ann.say("ann: mark");
    while ann.hear() != "from ann: mark" {}
    ann.quiet();
    alice.chat(alice.id(), "mark");
    alice.hear_until(|heard| heard["msg"] == "mark");
    server.guest("bob").0.quiet();
}

#[test]
fn a_full_fd_table_ends_no_line_user_and_is_over_when_it_is_over() {
    const FDS: u32 = 128;
    let server = Server::start_with_fds(FDS, &[&LINES[..], &["--grace", "0s", "--workers", "2"]].concat());
    let (mut alice, _) = server.user("alice");
    let (mut ann, _) = server.guest("ann");
    let crowd: Vec<_> = (0..FDS).map(|_| LineClient::connect(&server)).collect();
    ann.quiet();
    ann.say("alice: in the crowd");
    assert_eq!(alice.hear()["msg"], "in the crowd");
    drop(crowd);
    // Those who still waited in the kernel's queue come in when the others have gone, and take a place until then.
    let accepted = || server.cli_json(&["stats"])["accepted"].as_u64();
    eventually("the whole crowd has been in", || accepted() >= Some(2 + u64::from(FDS)));
    eventually("the crowd is gone", || server.channels().len() == 2);
    server.guest("late").0.quiet();
    ann.quiet();
    alice.quiet();
}

#[test]
fn noise_on_one_port_does_not_reach_the_other() {
    const CONNECTIONS: u64 = 60;
    let server = Server::with_lines(&["--grace", "0s", "--workers", "2"]);
    let (mut alice, _) = server.user("alice");
    let (mut bob, bob_id) = server.user("bob");
    let (mut ann, ann_id) = server.guest("ann");
    thread::scope(|scope| {
        for seed in 1..=2 {
            let server = &server;
            scope.spawn(move || {
                let mut noise = Noise(seed);
                for n in 0..CONNECTIONS {
                    let mut client = LineClient::connect(server);
                    if n % 2 == 0 {
                        client.say(&format!("noise{seed}"));
                    }
                    for _ in 0..4 {
                        client.try_say_bytes(&noise.bytes(3000));
                    }
                    if n % 3 == 0 {
                        client.reset();
                    }
                }
            });
        }
        for n in 0..500 {
            alice.chat_numbered(bob_id, n, "hi");
            assert_eq!(bob.hear()["n"], n);
            assert_eq!(alice.hear()["errno"], 0);
            alice.chat(ann_id, "hi");
            assert_eq!(ann.hear(), "from alice: hi");
        }
    });
    alice.quiet();
    bob.quiet();
    ann.quiet();
    assert!(server.home.departures(bob_id).is_empty());
    eventually("the noise is gone", || server.channels().len() == 3);
}

#[test]
fn a_client_on_the_wrong_port_is_told_and_harms_nobody() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let (mut ann, _) = server.guest("ann");
    let (mut alice, alice_id) = server.user("alice");
    let mut json_to_lines = LineClient::connect(&server);
    json_to_lines.say(&json!({"msgid": 1, "id": alice_id, "password": PASSWORD}).to_string());
    json_to_lines.expect_refused();
    let mut lines_to_json = Client::connect(&server);
    lines_to_json.say_bytes(b"ann\nalice: hi\n");
    assert_eq!(lines_to_json.hear()["errno"], 10);
    lines_to_json.expect_goodbye("malformed_frame");
    lines_to_json.expect_end();
    ann.say_bytes(b"{\"msgid\":6,\"toid\":1,\"msg\":\"hi\"}\n{}\n[1,\n");
    for _ in 0..3 {
        ann.hear_error();
    }
    ann.quiet();
    alice.quiet();
}

/// Bytes of a seeded generator (xorshift), with line ends and commas where they do most.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count)
            .map(|_| match self.next() % 300 {
                value @ 0..=255 => value as u8,
                256..=265 => b'\n',
                266..=275 => b':',
                276..=285 => b',',
                286..=290 => b'\0',
                _ => b'{',
            })
            .collect()
    }
}
