//! Pings, user timeouts and the time to log in.

use super::{ANN, BOB, NOBODY};
use crate::channel::{ChannelId, Reason, Stage};
use crate::message::command::WorkerCommand;
use crate::message::reply::Answer;
use crate::message::reply_to::Completes;
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::protocol::request::Caps;
use crate::testing::builders::{HASH, SECOND_US};
use crate::testing::fake_socket::Client;
use crate::testing::worker_harness::WorkerHarness;

/// A user who asked for pings is logged in, on a worker that pings every so many seconds.
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

/// A second passes in small steps, as with a worker that wakes for its wheel. Returns how many pings came.
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
fn a_client_that_sends_anything_behind_a_ping_has_the_whole_timeout_again() {
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

/// A client connects to a worker and sends nothing.
fn silent(harness: &mut WorkerHarness, worker: usize) -> (ChannelId, Client) {
    let (channel, client) = harness.accept_at(worker);
    harness.turn();
    // The command to the worker whose channel had to leave.
    harness.turn();
    (channel, client)
}

fn stages<const N: usize>(harness: &WorkerHarness, channels: [ChannelId; N]) -> [bool; N] {
    channels.map(|channel| harness.stage(channel) != Stage::Offline)
}

#[test]
fn a_channel_without_a_login_has_all_its_time_while_half_of_the_places_are_free() {
    let mut harness = with_eight_places();
    let all: Vec<_> = (0..4).map(|n| silent(&mut harness, n % 2)).collect();
    seconds(&mut harness, 299);
    assert!(all.iter().all(|(channel, _)| harness.stage(*channel) == Stage::Connected));
    seconds(&mut harness, 2);
    assert!(all.iter().all(|(channel, _)| harness.stage(*channel) == Stage::Offline));
    assert!(all.iter().all(|(_, client)| client.heard().contains(r#""reason":"login_timeout""#)));
}

#[test]
fn while_places_are_short_the_channel_that_has_waited_longest_leaves_first_on_whichever_worker() {
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
    // Many are logged in: a channel without a login has 10 s.
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
    // The wait goes on where it stopped, and it was long already.
    let refused = Answer::Refused { re: Msgid::Login, errno: Errno::Refused, text: "no".into(), seq: None };
    harness.post(WorkerCommand::Answer { channel: asking, settles: Completes::Login, answer: Some(refused) });
    seconds(&mut harness, 1);
    assert_eq!(stages(&harness, [asking, registered]), [false, true]);
    // Channels that came since are younger than the wait that began with the registration.
    assert_eq!(harness.fixtures.table.present(), 4);
    silent(&mut harness, 0);
    seconds(&mut harness, 10);
    assert_eq!(stages(&harness, [registered]), [false]);
}
