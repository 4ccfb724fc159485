//! What a session that ends leaves unsent is reported once, for its own user, and before its channel is.

use super::{ANN, BOB, assert_nothing_under_way, logged_in, unsent, with_unsent};
use crate::channel::Reason;
use crate::message::command::WorkerCommand;
use crate::message::event::Event;
use crate::message::reply::Answer;
use crate::message::reply_to::Completes;
use crate::protocol::msgid::Msgid;
use crate::testing::worker_harness::WorkerHarness;

#[test]
fn an_error_between_anothers_step_and_its_command_loses_nothing() {
    let mut harness = WorkerHarness::new();
    let (channel, session, client) = with_unsent(&mut harness, ANN, "hello");
    // The mailbox is taken, then another thread takes the step, then the reset is read in the same turn.
    harness.begin();
    assert!(harness.kicker.kick(channel, Reason::Replaced));
    client.reset();
    harness.poll();
    harness.finish();
    harness.turn();
    harness.turn();
    assert_eq!(harness.settlements(), [unsent(session, &["hello"])]);
}

#[test]
fn a_reset_before_the_commands_of_a_new_login_gives_messages_back_to_their_own_user() {
    let mut harness = WorkerHarness::new();
    let (channel, first, client) = with_unsent(&mut harness, ANN, "for ann");
    // Main ends the session and begins another user's; its commands wait for the commit.
    assert!(harness.fixtures.table.end_session(channel, first));
    let second = harness.fixtures.table.begin_session(channel, BOB).unwrap();
    client.reset();
    harness.turn();
    harness.turn();
    harness.post(WorkerCommand::Settle { channel, session: first });
    harness.turn();
    assert_eq!(harness.settlements(), [unsent(second, &[]), unsent(first, &["for ann"])]);
}

#[test]
fn a_channel_that_leaves_behind_its_logout_is_reported_after_the_session() {
    let mut harness = WorkerHarness::new();
    let (channel, session, client) = with_unsent(&mut harness, ANN, "hello");
    client.send(r#"{"msgid":3}x"#);
    harness.turn();
    assert_eq!(harness.settlements(), [], "main would ask for the socket of a channel that has settled");
    harness.turn();
    assert_eq!(harness.settlements(), [unsent(session, &["hello"]), (None, vec![])]);
    harness.post(WorkerCommand::Close { channel });
    harness.turn();
    assert!(matches!(harness.entries()[..], [Event::HandBack { .. }]));
}

#[test]
fn a_kick_before_the_command_of_a_logout_by_main_gives_the_messages_back() {
    let mut harness = WorkerHarness::new();
    let (channel, session, _client) = with_unsent(&mut harness, ANN, "hello");
    assert!(harness.fixtures.table.end_session(channel, session));
    assert!(harness.kicker.kick(channel, Reason::Kicked));
    harness.turn();
    harness.post(WorkerCommand::Settle { channel, session });
    harness.turn();
    assert_eq!(harness.settlements(), [(None, vec![]), unsent(session, &["hello"])]);
}

#[test]
fn a_chat_that_lies_in_the_mailbox_behind_the_step_goes_back() {
    let mut harness = WorkerHarness::new();
    let (channel, session, client) = with_unsent(&mut harness, ANN, "one");
    harness.begin();
    harness.chat(channel, session, ANN, "two");
    client.reset();
    harness.poll();
    harness.finish();
    harness.turn();
    assert_eq!(harness.settlements(), [unsent(session, &["one", "two"])]);
}

#[test]
fn a_logout_that_races_a_kick_has_the_session_and_the_channel_reported_once_each() {
    for kick_first in [false, true] {
        let mut harness = WorkerHarness::new();
        let (channel, session, client) = with_unsent(&mut harness, ANN, "hello");
        client.send(r#"{"msgid":3}"#);
        harness.begin();
        if kick_first {
            assert!(harness.kicker.kick(channel, Reason::Kicked));
        }
        harness.poll();
        if !kick_first {
            assert!(harness.kicker.kick(channel, Reason::Kicked));
        }
        harness.finish();
        harness.turn();
        harness.turn();
        let entries = harness.entries();
        let mut ended = Vec::new();
        let mut settled = Vec::new();
        for entry in &entries {
            match entry {
                Event::Departure(departure) => ended.push((departure.session, departure.stays)),
                Event::DeliveryReport(settlement) => {
                    settled.push((settlement.session, settlement.unsent.len()));
                }
                _ => {}
            }
        }
        if kick_first {
            assert_eq!((ended, settled), (vec![(Some(session), false)], vec![(Some(session), 1)]));
        } else {
            // The kick found no user logged in. It reports before the worker's turn is over, but the logout
            // goes with the requests of its channel, ahead of ends.
            assert_eq!(ended, [(Some(session), true), (None, false)]);
            settled.sort();
            assert_eq!(settled, [(None, 0), (Some(session), 1)]);
        }
    }
}

#[test]
fn an_answer_that_completes_request_and_chat_lets_the_channel_go_on() {
    let mut harness = WorkerHarness::new();
    let (channel, session, client) = logged_in(&mut harness, ANN);
    client.send(r#"{"msgid":6,"toid":9,"msg":"x","seq":1}"#);
    client.end();
    harness.turn();
    assert!(harness.settlements().is_empty(), "what was asked is still answered");
    let answer = Some(Answer::Done { re: Msgid::Chat, seq: "1".into(), id: None, full: Vec::new() });
    harness.post(WorkerCommand::Answer { channel, settles: Completes::RequestAndChat, answer });
    harness.turn();
    harness.turn();
    assert_nothing_under_way(&mut harness, channel);
    assert!(client.heard().contains(r#""errno":0,"seq":1"#));
    assert_eq!(harness.settlements(), [unsent(session, &[])]);
}

#[test]
fn main_gets_a_half_closed_clients_socket_only_behind_its_last_answer() {
    let mut harness = WorkerHarness::new();
    let (channel, session, client) = logged_in(&mut harness, ANN);
    client.send(r#"{"msgid":7,"friendid":2,"seq":1}"#);
    client.end();
    harness.turn();
    harness.turn();
    harness.turn();
    assert_eq!(harness.settlements(), [unsent(session, &[])]);
    harness.post(WorkerCommand::Close { channel });
    harness.turn();
    assert!(harness.entries().is_empty() && !client.sees_the_end(), "main has the request in hand");
    let answer = Some(Answer::Done { re: Msgid::AddFriend, seq: "1".into(), id: None, full: Vec::new() });
    harness.post(WorkerCommand::Answer { channel, settles: Completes::Request, answer });
    harness.turn();
    assert!(client.heard().contains(r#""errno":0,"seq":1"#));
    assert!(client.sees_the_end());
    assert!(matches!(harness.entries()[..], [Event::HandBack { socket: Some(_), .. }]));
}
