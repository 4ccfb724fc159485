//! Clients that confirm their messages, and senders that repeat theirs.

use super::*;
use crate::channel::Reason;
use crate::main_loop::transaction::RETRY_US;
use crate::main_loop::users::UserState;
use crate::protocol::line::LineFramer;
use crate::store::OfflineBox;
use crate::testing::fixtures::{ACK_WINDOW, BOX_AGE_MS, BOX_MESSAGES};
use crate::testing::memory::Fault;
use crate::worker::Codec;

/// A chat as its receiver saw it: number, text, whether it was marked as sent again.
type Seen = (i64, String, bool);

fn seen(line: &str) -> Option<Seen> {
    let chat: serde_json::Value = serde_json::from_str(line).expect("the server sends JSON");
    let mid = chat.get("mid")?.as_i64()?;
    Some((mid, chat["msg"].as_str()?.to_owned(), chat.get("again").is_some_and(|again| again == true)))
}

fn live(client: &Client) -> Vec<Seen> {
    client.lines().iter().filter_map(|line| seen(line)).collect()
}

fn brought(answer: &str) -> Vec<Seen> {
    let answer: serde_json::Value = serde_json::from_str(answer).expect("the server sends JSON");
    let kept = answer.get("offlinemsg").and_then(|kept| kept.as_array()).cloned().unwrap_or_default();
    kept.iter().filter_map(|kept| seen(kept.as_str()?)).collect()
}

fn said(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|(_, text, _)| text.as_str()).collect()
}

fn answers(client: &Client) -> Vec<String> {
    client.lines().into_iter().filter(|line| line.starts_with(r#"{"msgid":0"#)).collect()
}

fn confirm(client: &Client, mid: i64) {
    client.send(&format!(r#"{{"msgid":24,"mid":{mid}}}"#));
}

impl ServerHarness {
    fn confirming(&mut self, user: UserId) -> (ChannelId, Client, Vec<Seen>) {
        let (channel, client) = self.workers.accept();
        let answer = self.log_in(&client, &login_with(user, "ack"));
        (channel, client, brought(&answer))
    }

    fn commits(&self) -> u64 {
        self.workers.fixtures.metrics.commits.value()
    }

    /// What main believes that a box holds is what it holds.
    fn expect_usage_of_the_box(&mut self, user: UserId) {
        let held = self.disk.beside().box_usage(user).unwrap();
        let believed = self.main.users.look(user).and_then(UserState::usage);
        assert_eq!(believed, Some(held));
    }
}

/// Ann, who confirms, and Bob, who has sent her so many chats, "0" first: her number, her client, and his.
fn with_chats(count: usize) -> (ServerHarness, UserId, Client, Client) {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (_, _, bob) = server.online("bob");
    let (_, client, _) = server.confirming(ann);
    for number in 0..count {
        bob.send(&chat(ann, &number.to_string()));
    }
    server.run();
    (server, ann, client, bob)
}

#[test]
fn what_a_client_has_not_confirmed_comes_again_under_the_same_numbers_and_before_anything_newer() {
    for sent_with_seq in [false, true] {
        let mut server = ServerHarness::new();
        let ann = server.user("ann");
        let (_, _, bob) = server.online("bob");
        let (channel, client, _) = server.confirming(ann);
        for (seq, text) in ["one", "two", "three"].iter().enumerate() {
            bob.send(&if sent_with_seq { chat_with_seq(ann, text, seq as i64) } else { chat(ann, text) });
        }
        server.run();
        let first = live(&client);
        assert_eq!(said(&first), ["one", "two", "three"]);
        assert!(first.is_sorted_by(|a, b| a.0 < b.0) && first.iter().all(|seen| !seen.2), "{first:?}");
        confirm(&client, first[0].0);
        client.reset();
        server.run();
        bob.send(&chat(ann, "newer"));
        server.run();
        let departed = server.disk.departures().pop().unwrap().completion.unwrap();
        assert_eq!((departed.delivered, departed.saved, departed.lost), (1, 2, 0));
        let (_, client, again) = server.confirming(ann);
        let expected: Vec<Seen> =
            first[1..].iter().map(|(mid, text, _)| (*mid, text.clone(), true)).collect();
        assert_eq!(again[..2], expected, "with seq: {sent_with_seq}");
        assert_eq!((again[2].1.as_str(), again[2].2), ("newer", false));
        assert!(again[2].0 > again[1].0);
        confirm(&client, again[2].0);
        server.run();
        assert_eq!(server.disk.texts(ann).len(), 0);
        assert!(!server.workers.kicker.kick(channel, Reason::Kicked));
    }
}

#[test]
fn no_more_than_the_window_is_under_way_and_a_confirmation_brings_more_in_order() {
    let (mut server, ann, client, bob) = with_chats(10);
    let mut all = live(&client);
    assert_eq!(all.len(), ACK_WINDOW);
    assert_eq!(server.disk.texts(ann).len(), 10 - ACK_WINDOW, "the rest waits in the box");
    confirm(&client, all[1].0);
    server.run();
    all.extend(live(&client));
    assert_eq!(all.len(), ACK_WINDOW + 2);
    bob.send(&chat(ann, "10"));
    while all.len() < 11 {
        confirm(&client, all.last().unwrap().0);
        server.run();
        let more = live(&client);
        assert!(!more.is_empty() && more.len() <= ACK_WINDOW, "{more:?}");
        all.extend(more);
    }
    let numbers: Vec<String> = (0..11).map(|number| number.to_string()).collect();
    assert_eq!(said(&all), numbers);
    assert!(all.is_sorted_by(|a, b| a.0 < b.0));
    confirm(&client, all[10].0);
    server.run();
    assert_eq!(server.disk.texts(ann).len(), 0);
    // The window is open again: what comes now touches no disk.
    let before = server.commits();
    bob.send(&chat(ann, "direct"));
    server.run();
    let last = live(&client);
    assert_eq!(said(&last), ["direct"]);
    confirm(&client, last[0].0);
    server.run();
    assert_eq!(server.commits(), before);
}

#[test]
fn a_confirmation_of_what_was_never_sent_confirms_only_what_was() {
    let (mut server, ann, client, _bob) = with_chats(ACK_WINDOW + 2);
    assert_eq!(live(&client).len(), ACK_WINDOW);
    confirm(&client, i64::MAX);
    server.run();
    assert_eq!(live(&client).len(), 2, "the rest is not confirmed with it");
    client.reset();
    server.run();
    assert_eq!(server.disk.texts(ann).len(), 2);
}

#[test]
fn a_client_without_the_cap_is_told_that_there_is_nothing_to_confirm() {
    let mut server = ServerHarness::new();
    let (_, _, client) = server.online("ann");
    confirm(&client, 1);
    server.run();
    assert!(client.heard().contains(r#""errno":10"#));
}

#[test]
fn a_chat_with_seq_is_stored_before_a_client_that_confirms_sees_it() {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (_, _, bob) = server.online("bob");
    let (_, client, _) = server.confirming(ann);
    server.disk.fail_next(Fault::Commit);
    bob.send(&chat_with_seq(ann, "lost", 1));
    server.run();
    assert_eq!(live(&client), []);
    assert!(answers(&bob)[0].contains(r#""errno":19"#));
    for _ in 0..ACK_WINDOW {
        bob.send(&chat_with_seq(ann, "lost", 1));
        bob.send(&chat(ann, "next"));
    }
    server.run();
    let all = live(&client);
    assert_eq!(said(&all), ["lost", "next", "next", "next"], "repeated, it is a new try, and has its place");
    assert!(answers(&bob)[0].contains(r#""errno":0"#), "it is on the disk");
    assert_eq!(server.disk.texts(ann).len(), 2);
}

#[test]
fn a_crash_costs_no_accepted_message_and_doubles_none_for_a_client_that_remembers_its_last_number() {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (bob, _, sender) = server.online("bob");
    let (_, client, _) = server.confirming(ann);
    sender.send(&chat_with_seq(ann, "one", 1));
    server.run();
    let first = live(&client);
    // The client has it, and neither its confirmation nor the answer to the sender has arrived.
    let mut server = server.restarted();
    let (_, sender) = server.enter(bob);
    sender.send(&chat_with_seq(ann, "one", 1));
    sender.send(&chat_with_seq(ann, "two", 2));
    server.run();
    assert_eq!(answers(&sender).iter().filter(|line| line.contains(r#""errno":0"#)).count(), 2);
    let (_, _, again) = server.confirming(ann);
    assert_eq!(again[0], (first[0].0, "one".into(), true));
    assert_eq!((again[1].1.as_str(), again.len()), ("two", 2));
    assert!(again[1].0 > again[0].0, "numbers rise across crashes");
}

#[test]
fn a_repetition_is_known_after_a_crash_whoever_received_it() {
    let mut server = ServerHarness::new();
    let (ann, _, client) = server.online("ann");
    let (bob, _, sender) = server.online("bob");
    let away = server.user("cy");
    let all = |server: &mut ServerHarness, sender: &Client| {
        for to in [ann, away] {
            sender.send(&chat_with_seq(to, "hello", 1));
        }
        server.run();
        assert_eq!(answers(sender).iter().filter(|line| line.contains(r#""errno":0"#)).count(), 2);
    };
    all(&mut server, &sender);
    assert_eq!(client.lines().len(), 1);
    let mut server = server.restarted();
    let (_, client) = server.enter(ann);
    let (_, sender) = server.enter(bob);
    all(&mut server, &sender);
    assert_eq!(client.heard(), "");
    assert_eq!(server.disk.texts(away).len(), 1);
}

#[test]
fn a_confirmation_that_races_a_kick_still_counts() {
    for kick_first in [false, true] {
        let mut server = ServerHarness::new();
        let ann = server.user("ann");
        let (_, _, bob) = server.online("bob");
        let (channel, client, _) = server.confirming(ann);
        bob.send(&chat(ann, "one"));
        server.run();
        let first = live(&client);
        confirm(&client, first[0].0);
        server.workers.begin();
        server.workers.poll();
        assert!(!kick_first || server.workers.kicker.kick(channel, Reason::Kicked));
        server.workers.finish();
        assert!(kick_first || server.workers.kicker.kick(channel, Reason::Kicked));
        server.run();
        assert_eq!(server.disk.texts(ann), [""; 0], "kicked first: {kick_first}");
    }
}

#[test]
fn a_takeover_brings_the_new_session_what_the_old_one_has_not_confirmed() {
    for workers in [1, 2] {
        let mut server = ServerHarness::with(policy(), workers);
        let ann = server.user("ann");
        let (_, _, bob) = server.online("bob");
        let (_, old, _) = server.confirming(ann);
        for number in 0..ACK_WINDOW + 3 {
            bob.send(&chat(ann, &number.to_string()));
        }
        server.run();
        let first = live(&old);
        let (_, new) = server.workers.accept_at(workers - 1);
        new.send(&login_with(ann, "ack"));
        bob.send(&chat(ann, "meanwhile"));
        server.run();
        let lines = new.lines();
        let again = brought(&lines[0]);
        assert_eq!(
            again[..ACK_WINDOW].iter().map(|seen| seen.0).collect::<Vec<_>>(),
            first.iter().map(|seen| seen.0).collect::<Vec<_>>()
        );
        let texts: Vec<&str> = said(&again);
        assert_eq!(texts, ["0", "1", "2", "3", "4", "5", "6", "meanwhile"], "{workers} workers");
        assert!(
            again[..ACK_WINDOW].iter().all(|seen| seen.2) && again[ACK_WINDOW..].iter().all(|seen| !seen.2)
        );
    }
}

#[test]
fn a_full_box_behind_the_window_is_errno_20() {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (_, _, bob) = server.online("bob");
    let (_, client, _) = server.confirming(ann);
    for number in 0..ACK_WINDOW as u64 + BOX_MESSAGES {
        bob.send(&chat(ann, &number.to_string()));
    }
    server.run();
    assert_eq!(answers(&bob), [""; 0]);
    bob.send(&chat(ann, "too much"));
    server.run();
    assert!(answers(&bob)[0].contains(r#""errno":20"#));
    // The first window was never in the box, the next one is.
    for _ in 0..2 {
        let all = live(&client);
        confirm(&client, all.last().unwrap().0);
        server.run();
    }
    bob.send(&chat(ann, "fits"));
    server.run();
    assert_eq!(answers(&bob), [""; 0], "there is room again");
}

#[test]
fn what_a_line_sender_says_counts_in_the_box_as_what_the_box_holds() {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (_, line) = server.workers.accept_speaking(0, Codec::Line(LineFramer::default()));
    line.send("bob\n");
    server.run();
    for texts in [["one", "two"], ["three", "four"]] {
        let (_, client, _) = server.confirming(ann);
        for text in texts {
            line.send(&format!("ann: {text}\n"));
        }
        server.run();
        client.reset();
        server.run();
        server.expect_usage_of_the_box(ann);
    }
    let (_, client, again) = server.confirming(ann);
    assert_eq!(said(&again), ["one", "two", "three", "four"]);
    confirm(&client, again[2].0);
    server.run();
    server.expect_usage_of_the_box(ann);
    assert_eq!(server.disk.texts(ann).len(), 1);
}

#[test]
fn a_client_that_no_longer_confirms_gets_what_is_left_without_numbers() {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (_, _, bob) = server.online("bob");
    let (_, client, _) = server.confirming(ann);
    bob.send(&chat(ann, "one"));
    server.run();
    client.reset();
    server.run();
    let (_, plain) = server.workers.accept();
    let answer = server.log_in(&plain, &login(ann));
    assert!(answer.contains("one") && !answer.contains("mid"), "{answer}");
    assert_eq!(server.disk.texts(ann), [""; 0]);
}

#[test]
fn a_chat_to_a_session_whose_login_could_not_be_committed_waits_for_the_next() {
    let mut server = ServerHarness::new();
    let ann = server.user("ann");
    let (_, _, bob) = server.online("bob");
    let (_, client) = server.workers.accept();
    client.send(&login_with(ann, "ack"));
    server.workers.turn();
    server.verify();
    // The login and the chat are in one batch.
    bob.send(&chat(ann, "early"));
    server.workers.turn();
    server.disk.fail_next(Fault::Commit);
    server.main();
    server.run();
    assert!(client.heard().contains(r#""errno":19"#));
    let (_, _, kept) = server.confirming(ann);
    assert_eq!(said(&kept), ["early"]);
}

#[test]
fn what_came_from_the_box_behind_a_confirmation_is_marked_before_it_is_sent() {
    for commits_before_the_fault in [None, Some(0), Some(1), Some(2)] {
        let (mut server, ann, client, _bob) = with_chats(ACK_WINDOW + 2);
        confirm(&client, live(&client)[1].0);
        if let Some(good) = commits_before_the_fault {
            server.disk.fail_after(good, Fault::Commit);
        }
        // Looked at before main may commit again: what the client has then must be marked already.
        let round = |_| {
            server.workers.fixtures.clock.advance(RETRY_US);
            server.main();
            server.workers.turn();
            Some(live(&client)).filter(|seen| !seen.is_empty())
        };
        let first = (0..ROUNDS_MAX).find_map(round).expect("a confirmation brings more");
        assert!(first.iter().all(|seen| !seen.2), "it has not been sent before: {first:?}");
        server.disk.heal();
        let mut server = server.restarted();
        let (_, _, again) = server.confirming(ann);
        assert!(again.iter().all(|seen| seen.2), "{commits_before_the_fault:?}: {again:?}");
    }
}

#[test]
fn what_could_not_be_marked_waits_and_nothing_newer_goes_before_it() {
    for good in 0..4 {
        let (mut server, ann, client, bob) = with_chats(ACK_WINDOW + 2);
        let mut all = live(&client);
        confirm(&client, all[3].0);
        server.disk.fail_after(good, Fault::Commit);
        server.workers.turn();
        server.main();
        // The window has room: with nothing left in the box, these would go past it.
        bob.send(&chat(ann, "newer"));
        bob.send(&chat_with_seq(ann, "newest", 1));
        server.run();
        server.disk.heal();
        server.pass(1);
        all.extend(live(&client));
        let mut seen = said(&all);
        // What could not be kept was refused, and its sender knows.
        seen.retain(|text| !text.starts_with("new"));
        assert_eq!(seen, ["0", "1", "2", "3", "4", "5"], "{good} good commits");
        assert!(all.is_sorted_by(|a, b| a.0 < b.0) && all.iter().all(|seen| !seen.2), "{all:?}");
        let refused = answers(&bob).iter().filter(|line| line.contains(r#""errno":19"#)).count();
        assert_eq!(all.len() + refused, 8, "{good} good commits: {all:?}");
        bob.send(&chat(ann, "at last"));
        confirm(&client, all.last().unwrap().0);
        server.run();
        assert_eq!(said(&live(&client)), ["at last"], "{good} good commits");
    }
}

#[test]
fn what_has_expired_on_its_way_takes_nothing_out_of_the_box_when_it_is_confirmed() {
    let (mut server, ann, client, bob) = with_chats(0);
    bob.send(&chat_with_seq(ann, "old", 1));
    server.run();
    server.pass(BOX_AGE_MS / 1000 + 2 * 61);
    assert_eq!(server.disk.texts(ann).len(), 0, "it has expired");
    bob.send(&chat_with_seq(ann, "new", 2));
    server.run();
    server.expect_usage_of_the_box(ann);
    let sent = live(&client);
    assert_eq!(said(&sent), ["old", "new"]);
    confirm(&client, sent[0].0);
    server.run();
    bob.send(&chat_with_seq(ann, "newer", 3));
    server.run();
    server.expect_usage_of_the_box(ann);
    // From then on it is counted as ever.
    confirm(&client, live(&client)[0].0);
    server.run();
    server.expect_usage_of_the_box(ann);
    assert_eq!(server.disk.texts(ann).len(), 0);
}
