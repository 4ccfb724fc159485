//! What a worker does with its channels, turn by turn, on made-up connections. The test plays main and the others.

use super::input::EOFS_MAX;
use super::requests::REGISTRATIONS_MAX;
use crate::auth::pool::{JOBS_MAX, Job, Task};
use crate::channel::{ChannelId, Reason, SessionNo, Stage};
use crate::ids::UserId;
use crate::ip_block::IpBlock;
use crate::message::command::WorkerCommand;
use crate::message::event::Event;
use crate::message::reply::Answer;
use crate::message::reply_to::Completes;
use crate::message::request::Ask;
use crate::message::request::{HashTag, Who};
use crate::net::transport::Transport;
use crate::offline_queue::queue::ASKS_MAX;
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::protocol::request::Caps;
use crate::testing::builders::{HASH, SECOND_US, asker};
use crate::testing::fake_socket::{Client, ENOSPC, connection};
use crate::testing::fixtures::{CAPACITY, REGISTRATIONS};
use crate::testing::server_harness::{chat, login};
use crate::testing::worker_harness::WorkerHarness;

const ANN: UserId = UserId(1);
const BOB: UserId = UserId(2);
const NOBODY: UserId = UserId(9);

/// Somebody who is logged in and has heard so.
fn logged_in(harness: &mut WorkerHarness, user: UserId) -> (ChannelId, SessionNo, Client) {
    let (channel, client) = harness.accept();
    let session = harness.greet(channel, user);
    harness.turn();
    client.heard();
    harness.entries();
    (channel, session, client)
}

/// The same, with a message that the client has not taken.
fn with_unsent(harness: &mut WorkerHarness, user: UserId, text: &str) -> (ChannelId, SessionNo, Client) {
    let (channel, session, client) = logged_in(harness, user);
    client.take_only(0);
    harness.chat(channel, session, user, text);
    harness.turn();
    (channel, session, client)
}

fn unsent(session: SessionNo, texts: &[&str]) -> (Option<SessionNo>, Vec<String>) {
    (Some(session), texts.iter().map(|text| (*text).into()).collect())
}

/// So many asks wait for main that there is room for none.
fn fill_queue(harness: &WorkerHarness, channel: ChannelId) {
    for _ in 0..ASKS_MAX {
        harness.fixtures.queue.ask(Ask::Fence { asker: asker(channel, Msgid::Logout, None) }).unwrap();
    }
}

/// Nothing is under way for a channel any more, as far as its worker knows.
#[track_caller]
fn assert_nothing_under_way(harness: &mut WorkerHarness, channel: ChannelId) {
    let connection = harness.states[0].connection(channel).expect("it is still there");
    let under_way =
        (connection.is_logging_in(), connection.in_main, connection.tickets, connection.input.len());
    assert_eq!(under_way, (false, 0, 0, 0), "login, requests in main, tickets, waiting input");
}

#[test]
fn a_storm_of_ends_is_taken_in_a_few_at_a_turn_while_others_are_read_at_once() {
    let mut harness = WorkerHarness::with(1, 3 * EOFS_MAX);
    let lost: Vec<Client> = (0..3 * EOFS_MAX / 2).map(|_| harness.accept().1).collect();
    let (_, _, stayer) = logged_in(&mut harness, ANN);
    lost.iter().for_each(Client::end);
    stayer.send(r#"{"msgid":7,"friendid":2}"#);
    let departures =
        |entries: &[Event<_>]| entries.iter().filter(|entry| matches!(entry, Event::Departure(_))).count();
    harness.turn();
    let first = harness.entries();
    assert_eq!(departures(&first), EOFS_MAX, "the rest waits");
    assert!(first.iter().any(|entry| matches!(entry, Event::Ask(_))), "behind whoever has more to say");
    let late: Vec<Client> = (0..EOFS_MAX).map(|_| harness.accept().1).collect();
    late.iter().for_each(Client::end);
    harness.turn();
    assert_eq!(
        departures(&harness.entries()),
        EOFS_MAX,
        "those that have waited, and as many more as a turn takes"
    );
    harness.turn();
    assert_eq!(departures(&harness.entries()), lost.len() + late.len() - 2 * EOFS_MAX);
    harness.turn();
    assert_eq!(departures(&harness.entries()), 0, "each once");
    assert!(lost.iter().all(|client| client.ends_read() == 1), "who has read an end needs no second read");
}

#[test]
fn an_end_behind_a_login_is_known_before_main_hears_of_the_login() {
    let mut harness = WorkerHarness::new();
    let (channel, client) = harness.accept();
    client.send(&login(ANN));
    client.end();
    harness.turn();
    assert!(harness.fixtures.table.has_ended(channel));
}

/// So many broken connections that the end of the last one has to wait for another turn.
fn storm(harness: &mut WorkerHarness) -> ChannelId {
    let lost: Vec<(ChannelId, Client)> = (0..=EOFS_MAX).map(|_| harness.accept()).collect();
    harness.begin();
    for (channel, client) in &lost {
        client.reset();
        harness.states[0].hung_up(channel.slot as usize);
    }
    harness.finish();
    let (last, _) = lost[EOFS_MAX];
    assert_eq!(harness.stage(last), Stage::Connected, "it waits");
    last
}

#[test]
fn an_end_that_waits_is_not_watched_meanwhile_and_keeps_the_worker_awake() {
    let mut harness = WorkerHarness::with(1, 2 * EOFS_MAX);
    let last = storm(&mut harness);
    let connection = harness.states[0].connection(last).expect("it is still there");
    assert_eq!(connection.io.watching(), (false, false), "the poller would tell of it in every turn");
    assert!(harness.states[0].has_more());
    harness.entries();
    harness.begin();
    harness.finish();
    let reasons: Vec<_> = harness
        .entries()
        .into_iter()
        .filter_map(|entry| match entry {
            Event::Departure(departure) => Some((departure.channel, departure.parting.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [(last, Reason::PeerReset)]);
}

#[test]
fn a_look_at_a_channel_whose_end_waits_takes_it_in() {
    let mut harness = WorkerHarness::with(1, 2 * EOFS_MAX);
    let last = storm(&mut harness);
    harness.entries();
    harness.post(WorkerCommand::Probe { channel: last, user: ANN });
    harness.begin();
    harness.finish();
    let entries = harness.entries();
    let left = entries.iter().position(|entry| matches!(entry, Event::Departure(_)));
    let looked_at = entries.iter().position(|entry| matches!(entry, Event::Probed { .. }));
    assert!(left.is_some() && left < looked_at, "{entries:?}");
}

#[test]
fn an_error_between_anothers_step_and_its_letter_loses_nothing() {
    let mut harness = WorkerHarness::new();
    let (channel, session, client) = with_unsent(&mut harness, ANN, "hello");
    // The mailbox is taken, then somebody takes the step, then the reset is read in the same turn.
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
fn a_reset_before_the_letters_of_a_new_login_gives_messages_back_to_their_own_user() {
    let mut harness = WorkerHarness::new();
    let (channel, first, client) = with_unsent(&mut harness, ANN, "for ann");
    // Main ends the session and begins another user's; its letters wait for the commit.
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
fn a_channel_that_leaves_behind_its_logout_settles_behind_the_session() {
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
fn a_kick_before_the_letter_of_a_logout_by_main_gives_the_messages_back() {
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
fn a_logout_that_races_a_kick_settles_the_session_and_the_channel_once_each() {
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
            // The kick found nobody logged in any more. It reports before the worker's turn is over, but the logout
            // goes with the requests of its channel, ahead of ends.
            assert_eq!(ended, [(Some(session), true), (None, false)]);
            settled.sort();
            assert_eq!(settled, [(None, 0), (Some(session), 1)]);
        }
    }
}

#[test]
fn an_answer_that_settles_request_and_ticket_lets_the_channel_go_on() {
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

#[test]
fn a_chat_that_finds_mains_queue_full_is_errno_18_and_leaves_nothing_counted() {
    let mut harness = WorkerHarness::new();
    let (channel, _, client) = logged_in(&mut harness, ANN);
    fill_queue(&harness, channel);
    client.send(&format!(r#"{}{{"msgid":6,"toid":9,"msg":"x","seq":7}}"#, chat(NOBODY, "without seq")));
    client.send(r#"{"msgid":10,"groupid":1,"msg":"x"}{"msgid":7,"friendid":2}"#);
    harness.turn();
    harness.turn();
    let lines = client.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains(r#""errno":18"#)), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains(r#""seq":7"#)).count(), 1);
    assert_nothing_under_way(&mut harness, channel);
    harness.entries();
    client.send(&chat(NOBODY, "again"));
    harness.turn();
    assert!(matches!(harness.entries()[..], [Event::Ask(Ask::Chat(_))]), "there is room now");
}

#[test]
fn a_login_that_finds_mains_queue_full_is_errno_18_and_what_is_behind_it_goes_on() {
    let mut harness = WorkerHarness::new();
    let (channel, client) = harness.accept();
    harness.fixtures.auth.remember(&Who::Id(ANN), HASH, ANN, HashTag::of(HASH), 1);
    fill_queue(&harness, channel);
    client.send(&format!(r#"{}{{"msgid":22}}"#, login(ANN)));
    harness.turn();
    harness.turn();
    let lines = client.lines();
    assert!(lines[0].contains(r#""msgid":2,"errno":18"#) && lines[1].contains(r#""msgid":23"#), "{lines:?}");
    assert_nothing_under_way(&mut harness, channel);
    harness.entries();
    client.send(&login(ANN));
    harness.turn();
    assert!(matches!(harness.entries()[..], [Event::Ask(Ask::Login(_))]), "there is room now");
}

#[test]
fn a_login_that_finds_no_room_at_the_auth_threads_is_errno_18() {
    let mut harness = WorkerHarness::new();
    let (channel, client) = harness.accept();
    let peer = "127.0.0.1:1".parse().unwrap();
    for _ in 0..JOBS_MAX {
        let (who, caps) = (Who::Id(ANN), Caps::default());
        for task in [
            Task::Register { peer, name: "x".into(), password: "x".into() },
            Task::Login { peer, who, password: "x".into(), caps, lines: false },
        ] {
            harness.fixtures.auth.submit(Job { asker: asker(channel, Msgid::Register, None), task }).unwrap();
        }
    }
    client.send(&format!(r#"{}{{"msgid":4,"name":"dee","password":"x"}}{{"msgid":22}}"#, login(ANN)));
    harness.turn();
    let lines = client.lines();
    assert!(lines[0].contains(r#""msgid":2,"errno":18"#), "{lines:?}");
    assert!(lines[1].contains(r#""msgid":5,"errno":18"#), "{lines:?}");
    assert!(lines[2].contains(r#""msgid":23"#), "{lines:?}");
    assert_nothing_under_way(&mut harness, channel);
}

#[test]
fn a_chat_that_comes_back_from_another_worker_to_a_full_queue_is_errno_18() {
    let mut harness = WorkerHarness::with(2, 16);
    let (channel, _, client) = logged_in(&mut harness, ANN);
    let (other, _) = harness.accept_at(1);
    harness.greet(other, BOB);
    harness.turn();
    fill_queue(&harness, channel);
    harness.begin();
    client.send(&chat(BOB, "hello"));
    harness.poll();
    assert!(harness.kicker.kick(other, Reason::Kicked), "the receiver leaves while the letter is written");
    harness.finish();
    harness.turn();
    let lines = client.lines();
    assert!(matches!(&lines[..], [line] if line.contains(r#""errno":18"#)), "{lines:?}");
    assert_nothing_under_way(&mut harness, channel);
}

#[test]
fn a_logout_needs_no_room_in_mains_queue() {
    let mut harness = WorkerHarness::new();
    let (channel, _, client) = logged_in(&mut harness, ANN);
    fill_queue(&harness, channel);
    client.send(r#"{"msgid":3}{"msgid":3,"seq":1}"#);
    harness.turn();
    harness.turn();
    assert_eq!(harness.stage(channel), Stage::Connected, "the session is over");
    let lines = client.lines();
    assert!(
        matches!(&lines[..], [line] if line.contains(r#""errno":11,"#)),
        "only the second is an error: {lines:?}"
    );
    assert_nothing_under_way(&mut harness, channel);
}

#[test]
fn who_cannot_be_watched_is_told_so_and_ends() {
    let mut harness = WorkerHarness::new();
    let (wire, client) = connection();
    client.cannot_be_watched();
    let (channel, client) = harness.accept_over(0, (wire, client));
    harness.turn();
    assert!(client.heard().contains(r#""reason":"resource_exhausted""#));
    assert!(client.sees_the_end());
    assert_eq!(harness.stage(channel), Stage::Offline);
    assert_eq!(harness.fixtures.metrics.left.value(Reason::ResourceExhausted), 1);
    assert_eq!(harness.fixtures.table.connected(), 0, "nobody waits for this client");
    let entries = harness.entries();
    let [Event::Departure(departure), Event::DeliveryReport(_)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(departure.parting.errno, Some(ENOSPC));
}

#[test]
fn who_cannot_be_watched_for_room_any_more_leaves_and_loses_nothing() {
    let mut harness = WorkerHarness::new();
    let (channel, session, client) = logged_in(&mut harness, ANN);
    client.take_only(0);
    client.cannot_be_watched();
    harness.chat(channel, session, ANN, "hello");
    harness.turn();
    harness.turn();
    assert_eq!(harness.settlements(), [unsent(session, &["hello"])]);
    assert_eq!(harness.fixtures.metrics.left.value(Reason::ResourceExhausted), 1);
    assert!(client.heard().is_empty(), "the kernel takes nothing");
}

#[test]
fn an_address_has_its_place_again_when_the_connection_is_handed_back_and_not_before() {
    let mut harness = WorkerHarness::with(1, 3 * CAPACITY);
    let crowd: Vec<_> = (0..CAPACITY).map(|_| harness.accept_from("192.0.2.1:1", 0)).collect();
    harness.turn();
    let (first, client) = &crowd[0];
    client.end();
    harness.turn();
    assert_eq!(harness.stage(*first), Stage::Offline);
    let is_let_in = |harness: &mut WorkerHarness| {
        let (channel, _) = harness.accept_from("192.0.2.1:1", 0);
        harness.stage(channel) == Stage::Connected
    };
    for _ in 0..2 {
        assert!(!is_let_in(&mut harness), "a channel that lingers counts");
    }
    harness.post(WorkerCommand::Close { channel: *first });
    harness.turn();
    assert!(is_let_in(&mut harness), "those who were turned away do not");
    assert!(!is_let_in(&mut harness), "it was one place");
}

#[test]
fn a_channel_registers_so_many_and_has_one_under_way_at_a_time() {
    let mut harness = WorkerHarness::new();
    let (channel, client) = harness.accept_from("192.0.2.9:1", 0);
    let register = r#"{"msgid":4,"name":"new","password":"x"}"#;
    client.send(&register.repeat(2));
    harness.turn();
    assert_eq!(harness.fixtures.jobs.take_all().len(), 1, "the second waits for the first");
    let refused = |harness: &mut WorkerHarness| {
        let (errno, text) = (Errno::Refused, "taken".into());
        let answer = Some(Answer::Refused { re: Msgid::Register, errno, text, seq: None });
        harness.post(WorkerCommand::Answer { channel, settles: Completes::Login, answer });
        harness.turn();
        harness.fixtures.jobs.take_all().len()
    };
    for _ in 2..REGISTRATIONS_MAX {
        assert_eq!(refused(&mut harness), 1);
        client.send(register);
    }
    assert_eq!(refused(&mut harness), 1, "as many as may be");
    client.heard();
    assert_eq!(refused(&mut harness), 0);
    client.send(register);
    harness.turn();
    assert_eq!(
        (harness.fixtures.jobs.take_all().len(), harness.stage(channel)),
        (0, Stage::Connected),
        "it stays"
    );
    assert!(is_to_be_refused(&harness), "main says so");
}

/// True exactly when the worker has asked main to refuse a registration.
fn is_to_be_refused(harness: &WorkerHarness) -> bool {
    harness.entries().iter().any(|entry| matches!(entry, Event::Ask(Ask::RefuseNewcomer { .. })))
}

#[test]
fn an_address_that_has_registered_enough_is_refused_before_anything_is_hashed() {
    let mut harness = WorkerHarness::new();
    let far = IpBlock::of([192, 0, 2, 1].into());
    (0..REGISTRATIONS).for_each(|_| assert!(harness.fixtures.attempts.register(far, 0)));
    for (peer, jobs) in [("192.0.2.1:1", 0), ("192.0.2.2:1", 1), ("127.0.0.1:1", 1)] {
        let (_, client) = harness.accept_from(peer, 0);
        client.send(r#"{"msgid":4,"name":"new","password":"x"}"#);
        harness.turn();
        assert_eq!(harness.fixtures.jobs.take_all().len(), jobs, "{peer}");
        assert_eq!(is_to_be_refused(&harness), jobs == 0, "{peer}");
    }
}

#[test]
fn every_end_is_counted_once_with_its_reason() {
    let mut harness = WorkerHarness::new();
    let (channel, _, client) = logged_in(&mut harness, ANN);
    client.send(r#"{"msgid":3}"#);
    harness.turn();
    let left = |reason| harness.fixtures.metrics.left.value(reason);
    assert_eq!((left(Reason::ClientQuit), harness.fixtures.metrics.departures.value()), (1, 0));
    assert!(harness.kicker.kick(channel, Reason::Kicked));
    assert!(!harness.kicker.kick(channel, Reason::Replaced));
    client.reset();
    harness.turn();
    let left = |reason| harness.fixtures.metrics.left.value(reason);
    let all: u64 = Reason::ALL.iter().map(|&reason| left(reason)).sum();
    assert_eq!((left(Reason::ClientQuit), left(Reason::Kicked), all), (1, 1, 2));
    assert_eq!(harness.fixtures.metrics.departures.value(), 1);
}

/// Somebody who asked for pings is logged in, on a worker that pings every so many seconds.
fn pinged(interval_s: u64, timeout_s: u64) -> (WorkerHarness, ChannelId, Client) {
    let mut harness = WorkerHarness::limited(1, 16, |limits| {
        limits.ping_interval_us = interval_s * SECOND_US;
        limits.ping_timeout_us = timeout_s * SECOND_US;
    });
    let (channel, client) = harness.accept();
    client.send(&format!(r#"{{"msgid":1,"id":{ANN},"password":"{HASH}","caps":["ping"]}}"#));
    harness.turn();
    harness.greet_with(channel, ANN, Caps { ping: true, ..Caps::default() });
    harness.turn();
    client.heard();
    (harness, channel, client)
}

/// A second passes in small steps, as with a worker that wakes for its wheel. Answers how many pings were heard.
fn second(harness: &mut WorkerHarness, client: &Client) -> usize {
    for _ in 0..10 {
        harness.fixtures.clock.advance(SECOND_US / 10);
        harness.turn();
    }
    client.lines().iter().filter(|line| line.contains(r#""msgid":22"#)).count()
}

#[test]
fn pings_that_come_faster_than_their_timeout_do_not_put_it_off() {
    let (mut harness, channel, client) = pinged(2, 5);
    let mut pings = Vec::new();
    while harness.stage(channel) != Stage::Offline && pings.len() < 20 {
        pings.push(second(&mut harness, &client));
    }
    // The first ping goes out after 2 s, so the end comes 5 s later; a tick of the wheel is allowed for each.
    assert!((7..=8).contains(&pings.len()), "{pings:?}");
    assert_eq!(pings.iter().sum::<usize>(), 3, "and it is pinged all the same: {pings:?}");
    assert_eq!(harness.fixtures.metrics.left.value(Reason::KeepaliveTimeout), 1);
}

#[test]
fn whoever_says_anything_behind_a_ping_has_the_whole_timeout_again() {
    let (mut harness, channel, client) = pinged(2, 5);
    for _ in 0..20 {
        for _ in 0..4 {
            second(&mut harness, &client);
        }
        client.send(r#"{"msgid":23}"#);
        harness.turn();
    }
    assert_ne!(harness.stage(channel), Stage::Offline, "it is silent for 4 s at a time");
}

#[test]
fn a_ping_is_sent_once_in_an_interval_that_is_longer_than_the_timeout() {
    let (mut harness, channel, client) = pinged(6, 2);
    let mut pings = 0;
    for _ in 0..30 {
        let heard = second(&mut harness, &client);
        if heard > 0 {
            client.send(r#"{"msgid":23}"#);
        }
        pings += heard;
    }
    assert!((4..=5).contains(&pings), "{pings}");
    assert_ne!(harness.stage(channel), Stage::Offline);
}

#[test]
fn the_user_timeout_is_short_only_until_what_was_written_must_have_arrived() {
    let mut harness = WorkerHarness::limited(1, 16, |limits| {
        limits.user_timeout_us = 5 * SECOND_US;
        limits.quiet_timeout_us = 90 * SECOND_US;
    });
    let (channel, client) = harness.accept();
    harness.turn();
    let session = harness.greet(channel, ANN);
    for round in 0..3 {
        harness.turn();
        // The listener's at first.
        let short = (round > 0).then_some(5);
        assert_eq!(client.user_timeout_s(), short, "round {round}");
        for _ in 0..4 {
            second(&mut harness, &client);
        }
        harness.chat(channel, session, ANN, "hello");
        for _ in 0..6 {
            assert_eq!(client.user_timeout_s(), short, "round {round}: the latest write counts");
            second(&mut harness, &client);
        }
        for _ in 0..2 {
            second(&mut harness, &client);
        }
        assert_eq!(client.user_timeout_s(), Some(90), "round {round}");
        harness.chat(channel, session, ANN, "and again");
    }
}

/// Seconds pass in small steps, as with workers that wake for their wheels.
fn seconds(harness: &mut WorkerHarness, count: u64) {
    for _ in 0..count * 10 {
        harness.fixtures.clock.advance(SECOND_US / 10);
        harness.turn();
    }
}

/// Two workers, eight places, and five minutes to log in.
fn with_eight_places() -> WorkerHarness {
    WorkerHarness::limited(2, 16, |limits| {
        (limits.login_timeout_us, limits.max_channels) = (300 * SECOND_US, 8);
    })
}

/// Somebody comes to a worker and says nothing.
fn silent(harness: &mut WorkerHarness, worker: usize) -> (ChannelId, Client) {
    let (channel, client) = harness.accept_at(worker);
    harness.turn();
    // The letter to the worker whose channel had to leave.
    harness.turn();
    (channel, client)
}

fn stages<const N: usize>(harness: &WorkerHarness, channels: [ChannelId; N]) -> [bool; N] {
    channels.map(|channel| harness.stage(channel) != Stage::Offline)
}

#[test]
fn a_channel_with_nobody_logged_in_has_all_its_time_while_half_of_the_places_are_free() {
    let mut harness = with_eight_places();
    let all: Vec<_> = (0..4).map(|n| silent(&mut harness, n % 2)).collect();
    seconds(&mut harness, 299);
    assert!(all.iter().all(|(channel, _)| harness.stage(*channel) == Stage::Connected));
    seconds(&mut harness, 2);
    assert!(all.iter().all(|(channel, _)| harness.stage(*channel) == Stage::Offline));
    assert!(all.iter().all(|(_, client)| client.heard().contains(r#""reason":"login_timeout""#)));
}

#[test]
fn while_places_are_short_whoever_has_waited_longest_leaves_first_on_whichever_worker() {
    let mut harness = with_eight_places();
    // The oldest is not on the worker to which the newcomers come.
    let ((first, told), (second, _)) = (silent(&mut harness, 1), silent(&mut harness, 0));
    seconds(&mut harness, 1);
    let ((third, _), (fourth, _)) = (silent(&mut harness, 1), silent(&mut harness, 0));
    seconds(&mut harness, 60);
    let waiting = [first, second, third, fourth];
    assert_eq!(stages(&harness, waiting), [true; 4]);
    let (fifth, _) = silent(&mut harness, 0);
    assert_eq!(stages(&harness, waiting), [false, true, true, true]);
    assert!(told.heard().contains(r#""reason":"login_timeout""#) && told.sees_the_end());
    silent(&mut harness, 0);
    assert_eq!(stages(&harness, waiting), [false, false, true, true]);
    assert_eq!(harness.fixtures.metrics.left.value(Reason::LoginTimeout), 2);
    // Those who are logged in are many now: 10 s are enough for whoever is not.
    for (channel, user) in [(third, ANN), (fourth, BOB), (fifth, NOBODY)] {
        harness.greet(channel, user);
    }
    harness.turn();
    let (late, _) = silent(&mut harness, 1);
    assert_eq!(stages(&harness, [third, fourth, fifth, late]), [true; 4], "nobody has waited for 10 s");
    seconds(&mut harness, 11);
    assert_eq!(stages(&harness, [third, fourth, fifth]), [true; 3]);
    assert!(harness.fixtures.table.present() <= 4);
}

#[test]
fn a_login_that_is_worked_on_and_a_registration_put_off_the_end_of_a_wait() {
    let mut harness = with_eight_places();
    let ((asking, client), (registered, other)) = (silent(&mut harness, 1), silent(&mut harness, 1));
    let rest = [silent(&mut harness, 1).0, silent(&mut harness, 1).0];
    seconds(&mut harness, 20);
    client.send(&format!(r#"{{"msgid":1,"id":{ANN},"password":"wrong"}}"#));
    other.send(r#"{"msgid":4,"name":"cy","password":"p"}"#);
    harness.turn();
    let answer = Some(Answer::Registered { id: BOB, seq: None });
    harness.post(WorkerCommand::Answer { channel: registered, settles: Completes::Login, answer });
    harness.turn();
    seconds(&mut harness, 1);
    for _ in 0..3 {
        silent(&mut harness, 0);
    }
    assert_eq!(stages(&harness, rest), [false; 2], "they have waited for 21 s");
    assert_eq!(stages(&harness, [asking, registered]), [true; 2]);
    // The wait goes on where it stood, and that was long already.
    let refused = Answer::Refused { re: Msgid::Login, errno: Errno::Refused, text: "no".into(), seq: None };
    harness.post(WorkerCommand::Answer { channel: asking, settles: Completes::Login, answer: Some(refused) });
    seconds(&mut harness, 1);
    assert_eq!(stages(&harness, [asking, registered]), [false, true]);
    // Those who came since are younger than the wait that began with the registration.
    assert_eq!(harness.fixtures.table.present(), 4);
    silent(&mut harness, 0);
    seconds(&mut harness, 10);
    assert_eq!(stages(&harness, [registered]), [false]);
}
