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
use crate::testing::bench::Bench;
use crate::testing::commons::{CAPACITY, REGISTRATIONS};
use crate::testing::whole::{chat, login};
use crate::testing::wire::{Client, ENOSPC, connection};
use crate::testing::words::{HASH, SECOND_US, asker};

const ANN: UserId = UserId(1);
const BOB: UserId = UserId(2);
const NOBODY: UserId = UserId(9);

/// Somebody who is logged in and has heard so.
fn logged_in(bench: &mut Bench, user: UserId) -> (ChannelId, SessionNo, Client) {
    let (channel, client) = bench.accept();
    let session = bench.greet(channel, user);
    bench.turn();
    client.heard();
    bench.entries();
    (channel, session, client)
}

/// The same, with a message that the client has not taken.
fn with_unsent(bench: &mut Bench, user: UserId, text: &str) -> (ChannelId, SessionNo, Client) {
    let (channel, session, client) = logged_in(bench, user);
    client.take_only(0);
    bench.chat(channel, session, user, text);
    bench.turn();
    (channel, session, client)
}

fn unsent(session: SessionNo, texts: &[&str]) -> (Option<SessionNo>, Vec<String>) {
    (Some(session), texts.iter().map(|text| (*text).into()).collect())
}

/// So many asks wait for main that there is room for none.
fn fill_queue(bench: &Bench, channel: ChannelId) {
    for _ in 0..ASKS_MAX {
        bench.commons.queue.ask(Ask::Fence { asker: asker(channel, Msgid::Logout, None) }).unwrap();
    }
}

/// Nothing is under way for a channel any more, as far as its worker knows.
#[track_caller]
fn assert_nothing_under_way(bench: &mut Bench, channel: ChannelId) {
    let connection = bench.cores[0].connection(channel).expect("it is still there");
    let under_way =
        (connection.is_logging_in(), connection.in_main, connection.tickets, connection.input.len());
    assert_eq!(under_way, (false, 0, 0, 0), "login, requests in main, tickets, waiting input");
}

#[test]
fn a_storm_of_ends_is_taken_in_a_few_at_a_turn_while_others_are_read_at_once() {
    let mut bench = Bench::with(1, 3 * EOFS_MAX);
    let lost: Vec<Client> = (0..3 * EOFS_MAX / 2).map(|_| bench.accept().1).collect();
    let (_, _, stayer) = logged_in(&mut bench, ANN);
    lost.iter().for_each(Client::end);
    stayer.send(r#"{"msgid":7,"friendid":2}"#);
    let departures =
        |entries: &[Event<_>]| entries.iter().filter(|entry| matches!(entry, Event::Departure(_))).count();
    bench.turn();
    let first = bench.entries();
    assert_eq!(departures(&first), EOFS_MAX, "the rest waits");
    assert!(first.iter().any(|entry| matches!(entry, Event::Ask(_))), "behind whoever has more to say");
    let late: Vec<Client> = (0..EOFS_MAX).map(|_| bench.accept().1).collect();
    late.iter().for_each(Client::end);
    bench.turn();
    assert_eq!(
        departures(&bench.entries()),
        EOFS_MAX,
        "those that have waited, and as many more as a turn takes"
    );
    bench.turn();
    assert_eq!(departures(&bench.entries()), lost.len() + late.len() - 2 * EOFS_MAX);
    bench.turn();
    assert_eq!(departures(&bench.entries()), 0, "each once");
    assert!(lost.iter().all(|client| client.ends_read() == 1), "who has read an end needs no second read");
}

#[test]
fn an_end_behind_a_login_is_known_before_main_hears_of_the_login() {
    let mut bench = Bench::new();
    let (channel, client) = bench.accept();
    client.send(&login(ANN));
    client.end();
    bench.turn();
    assert!(bench.commons.table.has_ended(channel));
}

/// So many broken connections that the end of the last one has to wait for another turn.
fn storm(bench: &mut Bench) -> ChannelId {
    let lost: Vec<(ChannelId, Client)> = (0..=EOFS_MAX).map(|_| bench.accept()).collect();
    bench.begin();
    for (channel, client) in &lost {
        client.reset();
        bench.cores[0].hung_up(channel.slot as usize);
    }
    bench.finish();
    let (last, _) = lost[EOFS_MAX];
    assert_eq!(bench.stage(last), Stage::Connected, "it waits");
    last
}

#[test]
fn an_end_that_waits_is_not_watched_meanwhile_and_keeps_the_worker_awake() {
    let mut bench = Bench::with(1, 2 * EOFS_MAX);
    let last = storm(&mut bench);
    let connection = bench.cores[0].connection(last).expect("it is still there");
    assert_eq!(connection.io.watching(), (false, false), "the poller would tell of it in every turn");
    assert!(bench.cores[0].has_more());
    bench.entries();
    bench.begin();
    bench.finish();
    let reasons: Vec<_> = bench
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
    let mut bench = Bench::with(1, 2 * EOFS_MAX);
    let last = storm(&mut bench);
    bench.entries();
    bench.post(WorkerCommand::Probe { channel: last, user: ANN });
    bench.begin();
    bench.finish();
    let entries = bench.entries();
    let left = entries.iter().position(|entry| matches!(entry, Event::Departure(_)));
    let looked_at = entries.iter().position(|entry| matches!(entry, Event::Probed { .. }));
    assert!(left.is_some() && left < looked_at, "{entries:?}");
}

#[test]
fn an_error_between_anothers_step_and_its_letter_loses_nothing() {
    let mut bench = Bench::new();
    let (channel, session, client) = with_unsent(&mut bench, ANN, "hello");
    // The mailbox is taken, then somebody takes the step, then the reset is read in the same turn.
    bench.begin();
    assert!(bench.kicker.kick(channel, Reason::Replaced));
    client.reset();
    bench.poll();
    bench.finish();
    bench.turn();
    bench.turn();
    assert_eq!(bench.settlements(), [unsent(session, &["hello"])]);
}

#[test]
fn a_reset_before_the_letters_of_a_new_login_gives_messages_back_to_their_own_user() {
    let mut bench = Bench::new();
    let (channel, first, client) = with_unsent(&mut bench, ANN, "for ann");
    // Main ends the session and begins another user's; its letters wait for the commit.
    assert!(bench.commons.table.end_session(channel, first));
    let second = bench.commons.table.begin_session(channel, BOB).unwrap();
    client.reset();
    bench.turn();
    bench.turn();
    bench.post(WorkerCommand::Settle { channel, session: first });
    bench.turn();
    assert_eq!(bench.settlements(), [unsent(second, &[]), unsent(first, &["for ann"])]);
}

#[test]
fn a_channel_that_leaves_behind_its_logout_settles_behind_the_session() {
    let mut bench = Bench::new();
    let (channel, session, client) = with_unsent(&mut bench, ANN, "hello");
    client.send(r#"{"msgid":3}x"#);
    bench.turn();
    assert_eq!(bench.settlements(), [], "main would ask for the socket of a channel that has settled");
    bench.turn();
    assert_eq!(bench.settlements(), [unsent(session, &["hello"]), (None, vec![])]);
    bench.post(WorkerCommand::Close { channel });
    bench.turn();
    assert!(matches!(bench.entries()[..], [Event::HandBack { .. }]));
}

#[test]
fn a_kick_before_the_letter_of_a_logout_by_main_gives_the_messages_back() {
    let mut bench = Bench::new();
    let (channel, session, _client) = with_unsent(&mut bench, ANN, "hello");
    assert!(bench.commons.table.end_session(channel, session));
    assert!(bench.kicker.kick(channel, Reason::Kicked));
    bench.turn();
    bench.post(WorkerCommand::Settle { channel, session });
    bench.turn();
    assert_eq!(bench.settlements(), [(None, vec![]), unsent(session, &["hello"])]);
}

#[test]
fn a_chat_that_lies_in_the_mailbox_behind_the_step_goes_back() {
    let mut bench = Bench::new();
    let (channel, session, client) = with_unsent(&mut bench, ANN, "one");
    bench.begin();
    bench.chat(channel, session, ANN, "two");
    client.reset();
    bench.poll();
    bench.finish();
    bench.turn();
    assert_eq!(bench.settlements(), [unsent(session, &["one", "two"])]);
}

#[test]
fn a_logout_that_races_a_kick_settles_the_session_and_the_channel_once_each() {
    for kick_first in [false, true] {
        let mut bench = Bench::new();
        let (channel, session, client) = with_unsent(&mut bench, ANN, "hello");
        client.send(r#"{"msgid":3}"#);
        bench.begin();
        if kick_first {
            assert!(bench.kicker.kick(channel, Reason::Kicked));
        }
        bench.poll();
        if !kick_first {
            assert!(bench.kicker.kick(channel, Reason::Kicked));
        }
        bench.finish();
        bench.turn();
        bench.turn();
        let entries = bench.entries();
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
    let mut bench = Bench::new();
    let (channel, session, client) = logged_in(&mut bench, ANN);
    client.send(r#"{"msgid":6,"toid":9,"msg":"x","seq":1}"#);
    client.end();
    bench.turn();
    assert!(bench.settlements().is_empty(), "what was asked is still answered");
    let answer = Some(Answer::Done { re: Msgid::Chat, seq: "1".into(), id: None, full: Vec::new() });
    bench.post(WorkerCommand::Answer { channel, settles: Completes::RequestAndChat, answer });
    bench.turn();
    bench.turn();
    assert_nothing_under_way(&mut bench, channel);
    assert!(client.heard().contains(r#""errno":0,"seq":1"#));
    assert_eq!(bench.settlements(), [unsent(session, &[])]);
}

#[test]
fn main_gets_a_half_closed_clients_socket_only_behind_its_last_answer() {
    let mut bench = Bench::new();
    let (channel, session, client) = logged_in(&mut bench, ANN);
    client.send(r#"{"msgid":7,"friendid":2,"seq":1}"#);
    client.end();
    bench.turn();
    bench.turn();
    bench.turn();
    assert_eq!(bench.settlements(), [unsent(session, &[])]);
    bench.post(WorkerCommand::Close { channel });
    bench.turn();
    assert!(bench.entries().is_empty() && !client.sees_the_end(), "main has the request in hand");
    let answer = Some(Answer::Done { re: Msgid::AddFriend, seq: "1".into(), id: None, full: Vec::new() });
    bench.post(WorkerCommand::Answer { channel, settles: Completes::Request, answer });
    bench.turn();
    assert!(client.heard().contains(r#""errno":0,"seq":1"#));
    assert!(client.sees_the_end());
    assert!(matches!(bench.entries()[..], [Event::HandBack { socket: Some(_), .. }]));
}

#[test]
fn a_chat_that_finds_mains_queue_full_is_errno_18_and_leaves_nothing_counted() {
    let mut bench = Bench::new();
    let (channel, _, client) = logged_in(&mut bench, ANN);
    fill_queue(&bench, channel);
    client.send(&format!(r#"{}{{"msgid":6,"toid":9,"msg":"x","seq":7}}"#, chat(NOBODY, "without seq")));
    client.send(r#"{"msgid":10,"groupid":1,"msg":"x"}{"msgid":7,"friendid":2}"#);
    bench.turn();
    bench.turn();
    let lines = client.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains(r#""errno":18"#)), "{lines:?}");
    assert_eq!(lines.iter().filter(|line| line.contains(r#""seq":7"#)).count(), 1);
    assert_nothing_under_way(&mut bench, channel);
    bench.entries();
    client.send(&chat(NOBODY, "again"));
    bench.turn();
    assert!(matches!(bench.entries()[..], [Event::Ask(Ask::Chat(_))]), "there is room now");
}

#[test]
fn a_login_that_finds_mains_queue_full_is_errno_18_and_what_is_behind_it_goes_on() {
    let mut bench = Bench::new();
    let (channel, client) = bench.accept();
    bench.commons.auth.remember(&Who::Id(ANN), HASH, ANN, HashTag::of(HASH), 1);
    fill_queue(&bench, channel);
    client.send(&format!(r#"{}{{"msgid":22}}"#, login(ANN)));
    bench.turn();
    bench.turn();
    let lines = client.lines();
    assert!(lines[0].contains(r#""msgid":2,"errno":18"#) && lines[1].contains(r#""msgid":23"#), "{lines:?}");
    assert_nothing_under_way(&mut bench, channel);
    bench.entries();
    client.send(&login(ANN));
    bench.turn();
    assert!(matches!(bench.entries()[..], [Event::Ask(Ask::Login(_))]), "there is room now");
}

#[test]
fn a_login_that_finds_no_room_at_the_auth_threads_is_errno_18() {
    let mut bench = Bench::new();
    let (channel, client) = bench.accept();
    let peer = "127.0.0.1:1".parse().unwrap();
    for _ in 0..JOBS_MAX {
        let (who, caps) = (Who::Id(ANN), Caps::default());
        for task in [
            Task::Register { peer, name: "x".into(), password: "x".into() },
            Task::Login { peer, who, password: "x".into(), caps, lines: false },
        ] {
            bench.commons.auth.submit(Job { asker: asker(channel, Msgid::Register, None), task }).unwrap();
        }
    }
    client.send(&format!(r#"{}{{"msgid":4,"name":"dee","password":"x"}}{{"msgid":22}}"#, login(ANN)));
    bench.turn();
    let lines = client.lines();
    assert!(lines[0].contains(r#""msgid":2,"errno":18"#), "{lines:?}");
    assert!(lines[1].contains(r#""msgid":5,"errno":18"#), "{lines:?}");
    assert!(lines[2].contains(r#""msgid":23"#), "{lines:?}");
    assert_nothing_under_way(&mut bench, channel);
}

#[test]
fn a_chat_that_comes_back_from_another_worker_to_a_full_queue_is_errno_18() {
    let mut bench = Bench::with(2, 16);
    let (channel, _, client) = logged_in(&mut bench, ANN);
    let (other, _) = bench.accept_at(1);
    bench.greet(other, BOB);
    bench.turn();
    fill_queue(&bench, channel);
    bench.begin();
    client.send(&chat(BOB, "hello"));
    bench.poll();
    assert!(bench.kicker.kick(other, Reason::Kicked), "the receiver leaves while the letter is written");
    bench.finish();
    bench.turn();
    let lines = client.lines();
    assert!(matches!(&lines[..], [line] if line.contains(r#""errno":18"#)), "{lines:?}");
    assert_nothing_under_way(&mut bench, channel);
}

#[test]
fn a_logout_needs_no_room_in_mains_queue() {
    let mut bench = Bench::new();
    let (channel, _, client) = logged_in(&mut bench, ANN);
    fill_queue(&bench, channel);
    client.send(r#"{"msgid":3}{"msgid":3,"seq":1}"#);
    bench.turn();
    bench.turn();
    assert_eq!(bench.stage(channel), Stage::Connected, "the session is over");
    let lines = client.lines();
    assert!(
        matches!(&lines[..], [line] if line.contains(r#""errno":11,"#)),
        "only the second is an error: {lines:?}"
    );
    assert_nothing_under_way(&mut bench, channel);
}

#[test]
fn who_cannot_be_watched_is_told_so_and_ends() {
    let mut bench = Bench::new();
    let (wire, client) = connection();
    client.cannot_be_watched();
    let (channel, client) = bench.accept_over(0, (wire, client));
    bench.turn();
    assert!(client.heard().contains(r#""reason":"resource_exhausted""#));
    assert!(client.sees_the_end());
    assert_eq!(bench.stage(channel), Stage::Offline);
    assert_eq!(bench.commons.metrics.left.value(Reason::ResourceExhausted), 1);
    assert_eq!(bench.commons.table.connected(), 0, "nobody waits for this client");
    let entries = bench.entries();
    let [Event::Departure(departure), Event::DeliveryReport(_)] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(departure.parting.errno, Some(ENOSPC));
}

#[test]
fn who_cannot_be_watched_for_room_any_more_leaves_and_loses_nothing() {
    let mut bench = Bench::new();
    let (channel, session, client) = logged_in(&mut bench, ANN);
    client.take_only(0);
    client.cannot_be_watched();
    bench.chat(channel, session, ANN, "hello");
    bench.turn();
    bench.turn();
    assert_eq!(bench.settlements(), [unsent(session, &["hello"])]);
    assert_eq!(bench.commons.metrics.left.value(Reason::ResourceExhausted), 1);
    assert!(client.heard().is_empty(), "the kernel takes nothing");
}

#[test]
fn an_address_has_its_place_again_when_the_connection_is_handed_back_and_not_before() {
    let mut bench = Bench::with(1, 3 * CAPACITY);
    let crowd: Vec<_> = (0..CAPACITY).map(|_| bench.accept_from("192.0.2.1:1", 0)).collect();
    bench.turn();
    let (first, client) = &crowd[0];
    client.end();
    bench.turn();
    assert_eq!(bench.stage(*first), Stage::Offline);
    let is_let_in = |bench: &mut Bench| {
        let (channel, _) = bench.accept_from("192.0.2.1:1", 0);
        bench.stage(channel) == Stage::Connected
    };
    for _ in 0..2 {
        assert!(!is_let_in(&mut bench), "a channel that lingers counts");
    }
    bench.post(WorkerCommand::Close { channel: *first });
    bench.turn();
    assert!(is_let_in(&mut bench), "those who were turned away do not");
    assert!(!is_let_in(&mut bench), "it was one place");
}

#[test]
fn a_channel_registers_so_many_and_has_one_under_way_at_a_time() {
    let mut bench = Bench::new();
    let (channel, client) = bench.accept_from("192.0.2.9:1", 0);
    let register = r#"{"msgid":4,"name":"new","password":"x"}"#;
    client.send(&register.repeat(2));
    bench.turn();
    assert_eq!(bench.commons.jobs.take_all().len(), 1, "the second waits for the first");
    let refused = |bench: &mut Bench| {
        let (errno, text) = (Errno::Refused, "taken".into());
        let answer = Some(Answer::Refused { re: Msgid::Register, errno, text, seq: None });
        bench.post(WorkerCommand::Answer { channel, settles: Completes::Login, answer });
        bench.turn();
        bench.commons.jobs.take_all().len()
    };
    for _ in 2..REGISTRATIONS_MAX {
        assert_eq!(refused(&mut bench), 1);
        client.send(register);
    }
    assert_eq!(refused(&mut bench), 1, "as many as may be");
    client.heard();
    assert_eq!(refused(&mut bench), 0);
    client.send(register);
    bench.turn();
    assert_eq!(
        (bench.commons.jobs.take_all().len(), bench.stage(channel)),
        (0, Stage::Connected),
        "it stays"
    );
    assert!(is_to_be_refused(&bench), "main says so");
}

/// True exactly when the worker has asked main to refuse a registration.
fn is_to_be_refused(bench: &Bench) -> bool {
    bench.entries().iter().any(|entry| matches!(entry, Event::Ask(Ask::RefuseNewcomer { .. })))
}

#[test]
fn an_address_that_has_registered_enough_is_refused_before_anything_is_hashed() {
    let mut bench = Bench::new();
    let far = IpBlock::of([192, 0, 2, 1].into());
    (0..REGISTRATIONS).for_each(|_| assert!(bench.commons.attempts.register(far, 0)));
    for (peer, jobs) in [("192.0.2.1:1", 0), ("192.0.2.2:1", 1), ("127.0.0.1:1", 1)] {
        let (_, client) = bench.accept_from(peer, 0);
        client.send(r#"{"msgid":4,"name":"new","password":"x"}"#);
        bench.turn();
        assert_eq!(bench.commons.jobs.take_all().len(), jobs, "{peer}");
        assert_eq!(is_to_be_refused(&bench), jobs == 0, "{peer}");
    }
}

#[test]
fn every_end_is_counted_once_with_its_reason() {
    let mut bench = Bench::new();
    let (channel, _, client) = logged_in(&mut bench, ANN);
    client.send(r#"{"msgid":3}"#);
    bench.turn();
    let left = |reason| bench.commons.metrics.left.value(reason);
    assert_eq!((left(Reason::ClientQuit), bench.commons.metrics.departures.value()), (1, 0));
    assert!(bench.kicker.kick(channel, Reason::Kicked));
    assert!(!bench.kicker.kick(channel, Reason::Replaced));
    client.reset();
    bench.turn();
    let left = |reason| bench.commons.metrics.left.value(reason);
    let all: u64 = Reason::ALL.iter().map(|&reason| left(reason)).sum();
    assert_eq!((left(Reason::ClientQuit), left(Reason::Kicked), all), (1, 1, 2));
    assert_eq!(bench.commons.metrics.departures.value(), 1);
}

/// Somebody who asked for pings is logged in, on a worker that pings every so many seconds.
fn pinged(interval_s: u64, timeout_s: u64) -> (Bench, ChannelId, Client) {
    let mut bench = Bench::limited(1, 16, |limits| {
        limits.ping_interval_us = interval_s * SECOND_US;
        limits.ping_timeout_us = timeout_s * SECOND_US;
    });
    let (channel, client) = bench.accept();
    client.send(&format!(r#"{{"msgid":1,"id":{ANN},"password":"{HASH}","caps":["ping"]}}"#));
    bench.turn();
    bench.greet_with(channel, ANN, Caps { ping: true, ..Caps::default() });
    bench.turn();
    client.heard();
    (bench, channel, client)
}

/// A second passes in small steps, as with a worker that wakes for its wheel. Answers how many pings were heard.
fn second(bench: &mut Bench, client: &Client) -> usize {
    for _ in 0..10 {
        bench.commons.clock.advance(SECOND_US / 10);
        bench.turn();
    }
    client.lines().iter().filter(|line| line.contains(r#""msgid":22"#)).count()
}

#[test]
fn pings_that_come_faster_than_their_timeout_do_not_put_it_off() {
    let (mut bench, channel, client) = pinged(2, 5);
    let mut pings = Vec::new();
    while bench.stage(channel) != Stage::Offline && pings.len() < 20 {
        pings.push(second(&mut bench, &client));
    }
    // The first ping goes out after 2 s, so the end comes 5 s later; a tick of the wheel is allowed for each.
    assert!((7..=8).contains(&pings.len()), "{pings:?}");
    assert_eq!(pings.iter().sum::<usize>(), 3, "and it is pinged all the same: {pings:?}");
    assert_eq!(bench.commons.metrics.left.value(Reason::KeepaliveTimeout), 1);
}

#[test]
fn whoever_says_anything_behind_a_ping_has_the_whole_timeout_again() {
    let (mut bench, channel, client) = pinged(2, 5);
    for _ in 0..20 {
        for _ in 0..4 {
            second(&mut bench, &client);
        }
        client.send(r#"{"msgid":23}"#);
        bench.turn();
    }
    assert_ne!(bench.stage(channel), Stage::Offline, "it is silent for 4 s at a time");
}

#[test]
fn a_ping_is_sent_once_in_an_interval_that_is_longer_than_the_timeout() {
    let (mut bench, channel, client) = pinged(6, 2);
    let mut pings = 0;
    for _ in 0..30 {
        let heard = second(&mut bench, &client);
        if heard > 0 {
            client.send(r#"{"msgid":23}"#);
        }
        pings += heard;
    }
    assert!((4..=5).contains(&pings), "{pings}");
    assert_ne!(bench.stage(channel), Stage::Offline);
}

#[test]
fn the_user_timeout_is_short_only_until_what_was_written_must_have_arrived() {
    let mut bench = Bench::limited(1, 16, |limits| {
        limits.user_timeout_us = 5 * SECOND_US;
        limits.quiet_timeout_us = 90 * SECOND_US;
    });
    let (channel, client) = bench.accept();
    bench.turn();
    let session = bench.greet(channel, ANN);
    for round in 0..3 {
        bench.turn();
        // The listener's at first.
        let short = (round > 0).then_some(5);
        assert_eq!(client.user_timeout_s(), short, "round {round}");
        for _ in 0..4 {
            second(&mut bench, &client);
        }
        bench.chat(channel, session, ANN, "hello");
        for _ in 0..6 {
            assert_eq!(client.user_timeout_s(), short, "round {round}: the latest write counts");
            second(&mut bench, &client);
        }
        for _ in 0..2 {
            second(&mut bench, &client);
        }
        assert_eq!(client.user_timeout_s(), Some(90), "round {round}");
        bench.chat(channel, session, ANN, "and again");
    }
}

/// Seconds pass in small steps, as with workers that wake for their wheels.
fn seconds(bench: &mut Bench, count: u64) {
    for _ in 0..count * 10 {
        bench.commons.clock.advance(SECOND_US / 10);
        bench.turn();
    }
}

/// Two workers, eight places, and five minutes to log in.
fn with_eight_places() -> Bench {
    Bench::limited(2, 16, |limits| (limits.login_timeout_us, limits.max_channels) = (300 * SECOND_US, 8))
}

/// Somebody comes to a worker and says nothing.
fn silent(bench: &mut Bench, worker: usize) -> (ChannelId, Client) {
    let (channel, client) = bench.accept_at(worker);
    bench.turn();
    // The letter to the worker whose channel had to leave.
    bench.turn();
    (channel, client)
}

fn stages<const N: usize>(bench: &Bench, channels: [ChannelId; N]) -> [bool; N] {
    channels.map(|channel| bench.stage(channel) != Stage::Offline)
}

#[test]
fn a_channel_with_nobody_logged_in_has_all_its_time_while_half_of_the_places_are_free() {
    let mut bench = with_eight_places();
    let all: Vec<_> = (0..4).map(|n| silent(&mut bench, n % 2)).collect();
    seconds(&mut bench, 299);
    assert!(all.iter().all(|(channel, _)| bench.stage(*channel) == Stage::Connected));
    seconds(&mut bench, 2);
    assert!(all.iter().all(|(channel, _)| bench.stage(*channel) == Stage::Offline));
    assert!(all.iter().all(|(_, client)| client.heard().contains(r#""reason":"login_timeout""#)));
}

#[test]
fn while_places_are_short_whoever_has_waited_longest_leaves_first_on_whichever_worker() {
    let mut bench = with_eight_places();
    // The oldest is not on the worker to which the newcomers come.
    let ((first, told), (second, _)) = (silent(&mut bench, 1), silent(&mut bench, 0));
    seconds(&mut bench, 1);
    let ((third, _), (fourth, _)) = (silent(&mut bench, 1), silent(&mut bench, 0));
    seconds(&mut bench, 60);
    let waiting = [first, second, third, fourth];
    assert_eq!(stages(&bench, waiting), [true; 4]);
    let (fifth, _) = silent(&mut bench, 0);
    assert_eq!(stages(&bench, waiting), [false, true, true, true]);
    assert!(told.heard().contains(r#""reason":"login_timeout""#) && told.sees_the_end());
    silent(&mut bench, 0);
    assert_eq!(stages(&bench, waiting), [false, false, true, true]);
    assert_eq!(bench.commons.metrics.left.value(Reason::LoginTimeout), 2);
    // Those who are logged in are many now: 10 s are enough for whoever is not.
    for (channel, user) in [(third, ANN), (fourth, BOB), (fifth, NOBODY)] {
        bench.greet(channel, user);
    }
    bench.turn();
    let (late, _) = silent(&mut bench, 1);
    assert_eq!(stages(&bench, [third, fourth, fifth, late]), [true; 4], "nobody has waited for 10 s");
    seconds(&mut bench, 11);
    assert_eq!(stages(&bench, [third, fourth, fifth]), [true; 3]);
    assert!(bench.commons.table.present() <= 4);
}

#[test]
fn a_login_that_is_worked_on_and_a_registration_put_off_the_end_of_a_wait() {
    let mut bench = with_eight_places();
    let ((asking, client), (registered, other)) = (silent(&mut bench, 1), silent(&mut bench, 1));
    let rest = [silent(&mut bench, 1).0, silent(&mut bench, 1).0];
    seconds(&mut bench, 20);
    client.send(&format!(r#"{{"msgid":1,"id":{ANN},"password":"wrong"}}"#));
    other.send(r#"{"msgid":4,"name":"cy","password":"p"}"#);
    bench.turn();
    let answer = Some(Answer::Registered { id: BOB, seq: None });
    bench.post(WorkerCommand::Answer { channel: registered, settles: Completes::Login, answer });
    bench.turn();
    seconds(&mut bench, 1);
    for _ in 0..3 {
        silent(&mut bench, 0);
    }
    assert_eq!(stages(&bench, rest), [false; 2], "they have waited for 21 s");
    assert_eq!(stages(&bench, [asking, registered]), [true; 2]);
    // The wait goes on where it stood, and that was long already.
    let refused = Answer::Refused { re: Msgid::Login, errno: Errno::Refused, text: "no".into(), seq: None };
    bench.post(WorkerCommand::Answer { channel: asking, settles: Completes::Login, answer: Some(refused) });
    seconds(&mut bench, 1);
    assert_eq!(stages(&bench, [asking, registered]), [false, true]);
    // Those who came since are younger than the wait that began with the registration.
    assert_eq!(bench.commons.table.present(), 4);
    silent(&mut bench, 0);
    seconds(&mut bench, 10);
    assert_eq!(stages(&bench, [registered]), [false]);
}
