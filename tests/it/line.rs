//! Section 3: who may come with a first line, and where a line begins and ends.

use crate::common::{
    Client, EARLY_FRAME_BYTES, FRAME_BYTES, Home, LineClient, PASSWORD, Server, eventually, one_line, serve,
};
use serde_json::json;

fn bytes_in(server: &Server, client: &LineClient) -> u64 {
    server.channel_with(client.wire()).map_or(0, |entry| entry["bytes_in"].as_u64().unwrap())
}

/// Says bytes in two parts that the server reads apart.
fn say_in_two(server: &Server, client: &mut LineClient, bytes: &[u8], at: usize) {
    let before = client.wire().sent_bytes();
    client.say_bytes(&bytes[..at]);
    eventually("the first part was read by itself", || bytes_in(server, client) == before + at as u64);
    client.say_bytes(&bytes[at..]);
}

#[test]
fn the_ready_line_names_the_line_port() {
    let server = Server::with_lines(&[]);
    let expected = format!(
        "linger ready pid={} json=127.0.0.1:{} line=127.0.0.1:{} control={}",
        server.pid(),
        server.addr.port(),
        server.line_addr().port(),
        server.home.control_socket().display()
    );
    assert_eq!(server.ready, expected);
    assert_ne!(server.line_addr().port(), 0);
    assert_ne!(server.line_addr(), server.addr);
    assert_eq!(Server::start(&[]).ready_field("line"), "off", "where nobody asked for it");
}

#[test]
fn a_taken_line_port_is_one_clear_line_and_changes_nothing() {
    let first = Server::with_lines(&["--workers", "2"]);
    for taken in [first.line_addr(), first.addr] {
        let (home, taken) = (Home::new(), taken.to_string());
        let done = serve(&home, &["--line", &taken]);
        one_line(&done, 1);
        assert!(done.stderr.contains(&taken), "says where: {done:?}");
        assert!(!home.data().exists(), "nothing changed");
    }
    let line = first.line_addr().to_string();
    one_line(&serve(&Home::new(), &["--listen", &line]), 1);
    for n in 0..10 {
        first.guest(&format!("guest{n}")).0.quiet();
    }
}

#[test]
fn a_line_port_is_free_again_after_a_stop() {
    let server = Server::with_lines(&[]);
    let (mut ann, _) = server.guest("ann");
    let line = server.line_addr().to_string();
    let home = server.stop();
    ann.expect_goodbye("server_shutdown");
    ann.expect_end();
    let server = Server::start_at(&home, &["--line", &line]);
    server.guest("ann").0.quiet();
}

#[test]
fn a_guest_is_a_user_without_a_password_online_while_the_channel_is() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let (ann, id) = server.guest("ann");
    assert!(server.home.is_guest(id));
    assert_eq!(server.home.state(id), "online");
    let (peer, channel) = (ann.wire().local_addr().to_string(), server.channel_of(id));
    drop(ann);
    eventually("the guest is offline", || server.home.state(id) == "offline");
    let left = server.home.departures(id);
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].name.as_str(), left[0].errno), ("ann", None));
    assert_eq!((left[0].reason.as_str(), left[0].initiator.as_str()), ("peer_closed", "client"));
    assert_eq!((left[0].peer.as_ref(), left[0].channel.as_ref()), (Some(&peer), Some(&channel)));

    let (_ann, again) = server.guest("ann");
    assert_eq!((again, server.home.users()), (id, 1), "the same guest");
    assert_eq!(server.home.state(id), "online");
}

#[test]
fn a_guests_name_is_taken_and_cannot_be_entered_with_a_password() {
    let server = Server::with_lines(&[]);
    let (mut ann, id) = server.guest("ann");
    let mut client = Client::connect(&server);
    let answer = client.ask(&json!({"msgid": 4, "name": "ann", "password": PASSWORD}));
    assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(5), &json!(1)), "{answer}");
    for password in ["", "NULL", PASSWORD] {
        for request in [
            json!({"msgid": 1, "id": id, "password": password}),
            json!({"msgid": 1, "name": "ann", "password": password}),
        ] {
            let answer = client.ask(&request);
            assert_eq!((&answer["msgid"], &answer["errno"]), (&json!(2), &json!(1)), "{answer}");
        }
    }
    ann.quiet();
    assert!(server.home.is_guest(id) && server.home.departures(id).is_empty());
}

#[test]
fn a_registered_name_logs_in_with_its_password() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let [id] = server.absent(["alice"]);
    for end in ["\n", "\r\n", "  \n"] {
        let mut alice = LineClient::connect(&server);
        alice.say_bytes(format!("alice {PASSWORD}{end}alice: it is me\n").as_bytes());
        assert_eq!(alice.hear(), "from alice: it is me");
        assert_eq!(server.home.state(id), "online");
        assert_eq!(server.home.users(), 1, "no guest beside her");
        drop(alice);
        eventually("she is offline", || server.home.state(id) == "offline");
    }
    assert_eq!(server.home.reasons(id), ["peer_closed"; 3]);
    assert!(server.home.hash(id).starts_with("$argon2id$"));
}

#[test]
fn a_registered_name_without_its_password_is_refused_and_nobody_was_here() {
    let server = Server::with_lines(&["--grace", "1h", "--workers", "2"]);
    let [alice] = server.absent(["alice"]);
    let (mut bob, bob_id) = server.user("bob");
    let too_long = format!("alice {}", "x".repeat(300));
    let refused =
        ["alice", "alice wrong", "alice correct hors", "alice Correct horse", &too_long, "bob", "bob x"];
    for first in refused {
        let mut client = LineClient::connect(&server);
        client.say(first);
        client.say("bob: am I in?");
        client.expect_refused();
        assert!(server.live_channel(alice).is_none(), "{first:?}");
    }
    bob.quiet();
    assert_eq!((server.home.state(alice), server.home.state(bob_id)), ("offline".into(), "online".into()));
    let home = server.stop();
    assert!(home.departures(alice).is_empty(), "nobody was logged in");
    assert_eq!(home.reasons(bob_id), ["server_shutdown"], "and nobody was taken over");
    assert_eq!(home.users(), 2);
}

#[test]
fn a_refused_client_may_talk_on_without_a_reset() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let mut client = LineClient::connect(&server);
    client.say("a,b");
    client.hear_error();
    for _ in 0..64 {
        client.say_bytes(&[b'\n'; 16 * 1024]);
    }
    client.expect_end();
}

#[test]
fn a_name_that_is_not_acceptable_is_refused_in_one_line() {
    let server = Server::with_lines(&["--grace", "0s"]);
    let (mut ann, _) = server.guest("ann");
    let too_long = "汉".repeat(65);
    let texts = ["", "   ", "a,b", ",", ",a", "a:b", "ann:", ":", "ann: hi", "123", "0", &too_long];
    let control = ["an\u{1}n", "an\0n", "an\u{7f}n", "an\u{80}n", "\u{1b}[2J"];
    let bytes: [&[u8]; 4] = [b"\xff\xfe", b"an\xffn", b"ann \xff", b"\xed\xa0\x80"];
    for first in texts.iter().chain(&control).map(|text| text.as_bytes()).chain(bytes) {
        for end in [&b"\n"[..], b"\r\n"] {
            let mut client = LineClient::connect(&server);
            client.say_bytes(&[first, end].concat());
            client.expect_refused();
            assert_eq!(server.home.users(), 1, "no row for {:?}", String::from_utf8_lossy(first));
        }
    }
    ann.quiet();
}

#[test]
fn a_name_has_up_to_sixty_four_characters_of_nearly_any_kind() {
    let server = Server::with_lines(&[]);
    let longest = "汉".repeat(64);
    for name in ["a", &longest, "👨‍👩‍👧", "7of9", "ünïcode", "\"quoted\"\\", "@all", "#7.3", "{[]}"]
    {
        let (mut guest, id) = server.guest(name);
        guest.quiet();
        assert_eq!(server.home.state(id), "online", "{name:?}");
    }
    let mut spaced = LineClient::connect(&server);
    spaced.say_bytes(b"   bob  \r\n bob : hi\n");
    assert_eq!(spaced.hear(), "from bob: hi", "spaces around a name are dropped");
    assert!(server.home.id_of("bob").is_some_and(|id| server.home.is_guest(id)));
}

#[test]
fn a_text_goes_to_each_name_in_front_of_its_first_colon() {
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut ann, _) = server.guest("ann");
    let mut others = ["bob", "carol", "dave"].map(|name| server.guest(name).0);
    let lines = [
        ("bob,carol,dave:hi", "hi"),
        ("bob, carol, dave: hi", "hi"),
        ("  bob ,carol  ,   dave  :    hi   there  ", "hi   there"),
        ("dave, bob, carol: see http://example.org:80/ : there", "see http://example.org:80/ : there"),
        ("carol, bob, dave:: x", ": x"),
        ("bob, carol, dave: from ann: error: \"{]\\ 汉 \u{1F600}", "from ann: error: \"{]\\ 汉 \u{1F600}"),
    ];
    for (line, text) in lines {
        ann.say(line);
        for other in &mut others {
            assert_eq!(other.hear(), format!("from ann: {text}"), "{line:?}");
        }
    }
    ann.say("ann, bob: to myself too");
    assert_eq!(ann.hear(), "from ann: to myself too");
    assert_eq!(others[0].hear(), "from ann: to myself too");
    for other in &mut others {
        other.quiet();
    }
    ann.quiet();
}

#[test]
fn an_unknown_name_is_an_error_and_the_others_still_get_it() {
    let server = Server::with_lines(&[]);
    let (mut ann, id) = server.guest("ann");
    let (mut bob, _) = server.guest("bob");
    let (mut carol, _) = server.user("carol");
    for line in ["nobody, bob, carol: hi", "bob, nobody, carol: hi", "bob, carol, nobody: hi"] {
        ann.say(line);
        assert!(ann.hear_error().contains("nobody"), "says who");
        assert_eq!((bob.hear(), carol.hear()["msg"].clone()), ("from ann: hi".into(), json!("hi")));
    }
    ann.say("nobody: hi");
    ann.hear_error();
    ann.say("BOB: names are compared byte by byte");
    ann.hear_error();
    ann.quiet();
    bob.quiet();
    carol.quiet();
    assert!(server.home.id_of("nobody").is_none(), "asking for a name makes no user");
    assert!(server.home.departures(id).is_empty());
}

#[test]
fn a_line_goes_to_each_name_once_however_often_it_is_named() {
    const TIMES: usize = 17_000;
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut ann, _) = server.guest("ann");
    let (mut bo, _) = server.user("bo");
    let [carol] = server.absent(["carol"]);
    ann.say(&format!("{}: hi", vec!["bo"; TIMES].join(",")));
    assert_eq!(bo.hear()["msg"], "hi");
    ann.say(&format!("carol, {}, carol: hi", vec!["no"; TIMES].join(",")));
    assert!(ann.hear_error().contains("no"));
    ann.quiet();
    bo.quiet();
    let mut back = Client::connect(&server);
    assert_eq!(back.login_and_collect(carol, 1)[0]["msg"], "hi");
    back.quiet();
}

#[test]
fn a_line_goes_to_a_hundred_names_and_one_for_more_to_nobody() {
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut ann, _) = server.guest("ann");
    let mut others: Vec<_> = (0..100).map(|n| server.guest(&format!("g{n:03}")).0).collect();
    let names: Vec<_> = (0..100).map(|n| format!("g{n:03}")).collect();
    ann.say(&format!("{}, ann: nobody gets this", names.join(", ")));
    assert!(ann.hear_error().contains("100 names"));
    ann.say(&format!("{}: everybody gets this", names.join(", ")));
    for other in &mut others {
        assert_eq!(other.hear(), "from ann: everybody gets this");
    }
    ann.quiet();
}

#[test]
fn errors_for_unknown_names_are_not_longer_than_what_was_sent() {
    let server = Server::with_lines(&[]);
    let (mut ann, _) = server.guest("ann");
    let names: Vec<_> = (0..100).map(|n| format!("nobody{n}")).collect();
    ann.say(&format!("{}: hi", names.join(",")));
    for name in &names {
        assert!(ann.hear_error().ends_with(name));
    }
    ann.say(&format!("{}: hi", "x".repeat(60_000)));
    assert!(ann.hear_error().len() < 200);
    ann.quiet();
}

#[test]
fn a_guests_first_line_with_more_than_a_name_and_a_password_is_refused() {
    let server = Server::with_lines(&["--grace", "0s"]);
    for first in ["ann secret more", "hello there everybody", "ann a\tb"] {
        let mut client = LineClient::connect(&server);
        client.say(first);
        client.expect_refused();
    }
    assert_eq!(server.home.users(), 0);
}

#[test]
fn a_line_that_says_nothing_to_nobody_is_an_error_and_the_channel_stays() {
    let server = Server::with_lines(&[]);
    let (mut ann, id) = server.guest("ann");
    let (mut bob, _) = server.guest("bob");
    let bad: [&[u8]; 9] = [
        b"hello",
        b"",
        b"bob",
        b": hi",
        b" , : hi",
        b"bob: \xff",
        b"\xff: hi",
        b"bob: \xed\xa0\x80",
        b"\xc3",
    ];
    for line in bad {
        for end in [&b"\n"[..], b"\r\n"] {
            ann.say_bytes(&[line, end].concat());
            ann.hear_error();
        }
        ann.quiet();
    }
    bob.quiet();
    assert!(server.home.departures(id).is_empty());
}

#[test]
fn lines_may_be_split_at_every_byte() {
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut bob, _) = server.user("bob");
    let said = "ann\r\nbob: h\u{e9}\nbob,nobody: x:y\r\nno colon\nbob: last\n".as_bytes();
    let mut check = |ann: &mut LineClient, how: &str| {
        let heard = [(); 3].map(|()| bob.hear()["msg"].clone());
        assert_eq!(heard, [json!("h\u{e9}"), json!("x:y"), json!("last")], "{how}");
        ann.hear_error();
        ann.hear_error();
    };
    for at in 1..said.len() {
        let mut ann = LineClient::connect(&server);
        say_in_two(&server, &mut ann, said, at);
        check(&mut ann, &format!("split at {at}"));
    }
    let mut ann = LineClient::connect(&server);
    for byte in said {
        ann.say_bytes(&[*byte]);
    }
    check(&mut ann, "byte by byte");
}

#[test]
fn many_lines_may_arrive_in_one_segment_also_behind_the_first() {
    const LINES: usize = 500;
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut bob, _) = server.user("bob");
    let (mut carol, _) = server.guest("carol");
    let [_] = server.absent(["alice"]);
    for first in ["ann".to_owned(), format!("alice {PASSWORD}")] {
        let name = first.split(' ').next().unwrap();
        let mut bytes = format!("{first}\n").into_bytes();
        for n in 0..LINES {
            let end = if n % 3 == 0 { "\r\n" } else { "\n" };
            bytes.extend(format!("bob, carol: {n}{end}").bytes());
        }
        let mut sender = LineClient::connect(&server);
        sender.say_bytes(&bytes);
        for n in 0..LINES {
            assert_eq!(bob.hear()["msg"], n.to_string());
            assert_eq!(carol.hear(), format!("from {name}: {n}"));
        }
    }
}

#[test]
fn a_line_is_as_long_as_a_frame_without_its_end_and_not_a_byte_longer() {
    const LIMIT: usize = 1000;
    let server = Server::with_lines(&["--max-frame", "1000", "--grace", "1h"]);
    let (mut bob, _) = server.guest("bob");
    let of = |bytes: usize| format!("bob: {}", "x".repeat(bytes - "bob: ".len()));
    let (mut ann, id) = server.guest("ann");
    let longest = format!("from ann: {}", &of(LIMIT)["bob: ".len()..]);
    for end in ["\n", "\r\n"] {
        let line = format!("{}{end}", of(LIMIT));
        ann.say_bytes(line.as_bytes());
        assert_eq!(bob.hear(), longest);
        for at in [LIMIT - 1, LIMIT, line.len() - 1] {
            say_in_two(&server, &mut ann, line.as_bytes(), at);
            assert_eq!(bob.hear(), longest, "split at {at} of {}", line.len());
        }
    }
    ann.quiet();
    for bytes in [LIMIT + 1, LIMIT + 2, 10 * LIMIT] {
        for end in ["\n", "\r\n"] {
            let before = server.home.departures(id).len();
            ann.say_bytes(format!("{}{end}bob: behind it\n", of(bytes)).as_bytes());
            ann.expect_goodbye("frame_too_large");
            ann.expect_end();
            eventually("ann is offline", || server.home.departures(id).len() == before + 1);
            ann = server.guest("ann").0;
        }
    }
    assert!(server.home.departures(id).iter().all(|left| left.reason == "frame_too_large"));
    bob.quiet();
}

#[test]
fn a_line_without_an_end_is_too_long_and_its_rest_does_not_eat_the_goodbye() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let (mut bob, _) = server.guest("bob");
    for logged_in in [false, true] {
        let mut client = LineClient::connect(&server);
        if logged_in {
            client.login("ann");
        }
        for _ in 0..64 {
            client.try_say_bytes(&[b'x'; 16 * 1024]);
        }
        client.expect_goodbye("frame_too_large");
        client.expect_end();
    }
    bob.quiet();
}

#[test]
fn the_default_limits_are_eight_kib_for_the_first_line_and_sixty_four_for_others() {
    let server = Server::with_lines(&["--grace", "0s"]);
    let (mut bob, _) = server.user("bob");
    let first = |bytes: usize| format!("bob {}", "x".repeat(bytes - "bob ".len()));
    let mut client = LineClient::connect(&server);
    client.say(&first(EARLY_FRAME_BYTES));
    let refused = client.expect_refused();
    assert!(!refused.starts_with("frame_too_large"), "only the password is wrong: {refused}");
    let mut client = LineClient::connect(&server);
    client.say(&first(EARLY_FRAME_BYTES + 1));
    client.expect_goodbye("frame_too_large");
    client.expect_end();

    let (mut ann, _) = server.guest("ann");
    ann.say(&format!("bob: {}", "y".repeat(FRAME_BYTES - "bob: ".len())));
    assert_eq!(bob.hear()["msg"].as_str().unwrap().len(), FRAME_BYTES - "bob: ".len());
    ann.say(&format!("bob: {}", "y".repeat(FRAME_BYTES - "bob: ".len() + 1)));
    ann.expect_goodbye("frame_too_large");
    ann.expect_end();
    bob.quiet();
}

#[test]
fn a_last_line_that_was_never_ended_is_no_line() {
    let server = Server::with_lines(&["--grace", "1h"]);
    let (mut bob, _) = server.user("bob");
    let (mut ann, id) = server.guest("ann");
    ann.say_bytes(b"bob: whole\nbob: cut o");
    ann.end_input();
    ann.expect_end();
    assert_eq!(bob.hear()["msg"], "whole");
    eventually("ann is offline", || server.home.reasons(id) == ["peer_closed"]);
    bob.quiet();
    let mut nobody = LineClient::connect(&server);
    nobody.say_bytes(b"caro");
    nobody.end_input();
    nobody.expect_end();
    assert!(server.home.id_of("caro").is_none());
}
