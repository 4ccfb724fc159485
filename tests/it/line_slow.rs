//! Section 3 meets slow readers: what was not handed over comes back whole and in order, in either protocol.

use crate::common::{BULK_BYTES, Client, LineClient, PASSWORD, Server, eventually, fill, offline};
use serde_json::{Value, json};

/// Chats that are numbered also in their text, which is all that a line shows of them.
fn send_bulk(from: &mut Client, to: i64, numbers: std::ops::Range<u64>) {
    for n in numbers {
        from.chat_numbered(to, n, &format!("{n} {}", "x".repeat(BULK_BYTES)));
    }
}

/// The success of each.
#[track_caller]
fn hear_answers(from: &mut Client, count: u64) {
    for _ in 0..count {
        let answer = from.hear();
        assert_eq!((&answer["errno"], &answer["re"]), (&json!(0), &json!(6)), "{answer}");
    }
}

/// The number of a text of [`send_bulk`], which must be whole.
#[track_caller]
fn number_in(text: &str) -> u64 {
    let (number, bulk) = text.split_once(' ').unwrap_or_else(|| panic!("no number: {text:?}"));
    assert!(bulk.len() == BULK_BYTES && bulk.bytes().all(|byte| byte == b'x'), "not whole: {number}");
    number.parse().unwrap()
}

#[track_caller]
fn numbers_in_lines(lines: &[String], from: &str) -> Vec<u64> {
    let prefix = format!("from {from}: ");
    lines
        .iter()
        .map(|line| number_in(line.strip_prefix(&prefix).unwrap_or_else(|| panic!("{line:?}"))))
        .collect()
}

#[track_caller]
fn numbers_in_chats(chats: &[Value]) -> Vec<u64> {
    chats.iter().map(|chat| number_in(chat["msg"].as_str().unwrap())).collect()
}

/// A kick of a slow reader; what came before the goodbye, in numbers.
fn kicked_while_slow(
    server: &Server,
    alice: &mut Client,
    mut bob: LineClient,
    bob_id: i64,
    sent: u64,
) -> Vec<u64> {
    send_bulk(alice, bob_id, 0..sent);
    fill(server, alice, bob_id);
    server.cli_json(&["kick", &bob_id.to_string(), "--reason", "spam", "--wait"]);
    send_bulk(alice, bob_id, sent..sent + 1);
    hear_answers(alice, sent + 1);
    let mut heard = bob.hear_to_the_end();
    assert_eq!(heard.pop().as_deref(), Some("error: kicked: spam"));
    let numbers = numbers_in_lines(&heard, "alice");
    assert!(
        !numbers.is_empty() && numbers.len() < sent as usize,
        "some came and some did not: {}",
        numbers.len()
    );
    let account = || server.home.departures(bob_id)[0].clone();
    eventually("the account is settled", || account().saved.is_some_and(|saved| saved > 0));
    assert_eq!(account().lost, Some(0), "{:?}", account());
    numbers
}

#[test]
fn what_a_slow_guest_was_not_handed_comes_back_at_his_next_login() {
    const SENT: u64 = 100;
    let server = Server::with_lines(&["--grace", "1h", "--workers", "2"]);
    let (mut alice, _) = server.user("alice");
    let mut bob = LineClient::with_small_window(&server);
    bob.login("bob");
    let bob_id = server.home.id_of("bob").unwrap();
    let mut heard = kicked_while_slow(&server, &mut alice, bob, bob_id, SENT);
    let mut again = LineClient::connect(&server);
    again.say_first("bob");
    let rest = again.hear_all(SENT as usize + 1 - heard.len());
    heard.extend(numbers_in_lines(&rest, "alice"));
    assert_eq!(heard, (0..=SENT).collect::<Vec<_>>(), "whole, in order, each once");
    again.quiet();
}

#[test]
fn what_a_slow_line_user_was_not_handed_reaches_his_json_client() {
    const SENT: u64 = 100;
    let server = Server::with_lines(&["--grace", "1h", "--workers", "2"]);
    let (mut alice, alice_id) = server.user("alice");
    let [bob_id] = server.absent(["bob"]);
    let mut bob = LineClient::with_small_window(&server);
    bob.login(&format!("bob {PASSWORD}"));
    let mut heard = kicked_while_slow(&server, &mut alice, bob, bob_id, SENT);
    let mut again = Client::connect(&server);
    let rest = again.login_and_collect(bob_id, SENT as usize + 1 - heard.len());
    for chat in &rest {
        assert_eq!(
            (&chat["msgid"], &chat["id"], &chat["name"]),
            (&json!(6), &json!(alice_id), &json!("alice"))
        );
        assert_eq!((&chat["toid"], chat["time"].is_string()), (&json!(bob_id), true));
        assert!(chat["n"].is_u64() && chat.get("seq").is_none(), "as it was sent: {}", chat["n"]);
    }
    heard.extend(numbers_in_chats(&rest));
    assert_eq!(heard, (0..=SENT).collect::<Vec<_>>(), "whole, in order, each once");
    again.quiet();
}

#[test]
fn what_a_slow_json_client_was_not_handed_reaches_his_line() {
    const SENT: usize = 100;
    let server = Server::with_lines(&["--grace", "1h", "--workers", "2"]);
    let [bob_id] = server.absent(["bob"]);
    let (mut ann, _) = server.guest("ann");
    let mut bob = Client::with_small_window(&server);
    bob.login(bob_id);
    for n in 0..SENT {
        ann.say(&format!("bob: {n} {}", "x".repeat(BULK_BYTES)));
    }
    fill(&server, ann.wire(), bob_id);
    assert!(server.kick("bob"));
    let mut chats = bob.hear_to_the_end();
    assert_eq!(chats.pop().unwrap()["reason"], "kicked");
    let mut heard = numbers_in_chats(&chats);
    assert!(!heard.is_empty() && heard.len() < SENT, "some came and some did not: {}", heard.len());
    let mut again = LineClient::connect(&server);
    again.say_first(&format!("bob {PASSWORD}"));
    heard.extend(numbers_in_lines(&again.hear_all(SENT - heard.len()), "ann"));
    assert_eq!(heard, (0..SENT as u64).collect::<Vec<_>>(), "whole, in order, each once");
    again.quiet();
}

#[test]
fn what_was_not_handed_over_survives_a_reset_by_the_line_user() {
    const SENT: u64 = 60;
    let server = Server::with_lines(&["--workers", "2"]);
    let (mut alice, _) = server.user("alice");
    let mut bob = LineClient::with_small_window(&server);
    bob.login("bob");
    let bob_id = server.home.id_of("bob").unwrap();
    send_bulk(&mut alice, bob_id, 0..SENT);
    fill(&server, &alice, bob_id);
    bob.reset();
    hear_answers(&mut alice, SENT);
    let mut again = LineClient::connect(&server);
    again.say_first("bob");
    let first = numbers_in_lines(&[again.hear()], "alice")[0];
    let rest = numbers_in_lines(&again.hear_all((SENT - 1 - first) as usize), "alice");
    assert_eq!(rest, (first + 1..SENT).collect::<Vec<_>>(), "in order, without a gap");
    again.quiet();
}

#[test]
fn a_slow_line_reader_is_sent_away_and_loses_nothing() {
    const SENT: u64 = 200;
    let server = Server::with_lines(&["--out-limit", "128KiB", "--grace", "1h", "--workers", "2"]);
    let (mut alice, _) = server.user("alice");
    let mut bob = LineClient::with_small_window(&server);
    bob.login("bob");
    let bob_id = server.home.id_of("bob").unwrap();
    send_bulk(&mut alice, bob_id, 0..SENT);
    offline(&server, bob_id);
    hear_answers(&mut alice, SENT);
    assert_eq!(server.home.reasons(bob_id), ["slow_consumer"]);
    let mut lines = bob.hear_to_the_end();
    assert!(lines.pop().unwrap().starts_with("error: slow_consumer: "));
    let mut again = LineClient::connect(&server);
    again.say_first("bob");
    lines.extend(again.hear_all(SENT as usize - lines.len()));
    assert_eq!(
        numbers_in_lines(&lines, "alice"),
        (0..SENT).collect::<Vec<_>>(),
        "whole, in order, each once"
    );
    again.quiet();
}

#[test]
fn a_long_box_does_not_count_as_slow_reading_of_lines() {
    const KEPT: u64 = 300;
    let server = Server::with_lines(&["--out-limit", "64KiB"]);
    let (mut alice, _) = server.user("alice");
    let (bob, bob_id) = server.guest("bob");
    drop(bob);
    offline(&server, bob_id);
    send_bulk(&mut alice, bob_id, 0..KEPT);
    hear_answers(&mut alice, KEPT);
    let mut bob = LineClient::with_small_window(&server);
    bob.say_first("bob");
    eventually("bob is online and has not read a byte", || server.live_channel(bob_id).is_some());
    send_bulk(&mut alice, bob_id, KEPT..KEPT + 1);
    let lines = bob.hear_all(KEPT as usize + 1);
    assert_eq!(numbers_in_lines(&lines, "alice"), (0..=KEPT).collect::<Vec<_>>());
    bob.quiet();
}

#[test]
fn a_takeover_hands_the_unread_lines_to_the_new_channel() {
    const SENT: u64 = 80;
    let server = Server::with_lines(&["--workers", "2", "--grace", "1h"]);
    let (mut alice, _) = server.user("alice");
    let mut old = LineClient::with_small_window(&server);
    old.login("bob");
    let bob_id = server.home.id_of("bob").unwrap();
    send_bulk(&mut alice, bob_id, 0..SENT);
    fill(&server, &alice, bob_id);
    let mut new = LineClient::connect(&server);
    new.say_first("bob");
    let mut later = vec![new.hear()];
    while numbers_in_lines(&later[later.len() - 1..], "alice") != [SENT - 1] {
        later.push(new.hear());
    }
    let mut heard = old.hear_to_the_end();
    assert!(heard.pop().unwrap().starts_with("error: replaced: "));
    heard.extend(later);
    assert_eq!(
        numbers_in_lines(&heard, "alice"),
        (0..SENT).collect::<Vec<_>>(),
        "whole, in order, each once"
    );
    new.quiet();
}
