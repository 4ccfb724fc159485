//! How many ends of clients a turn handles, and in what order.

use super::{ANN, logged_in};
use crate::channel::{ChannelId, Reason, Stage};
use crate::message::command::WorkerCommand;
use crate::message::event::Event;
use crate::net::transport::Transport;
use crate::testing::fake_socket::Client;
use crate::testing::server_harness::login;
use crate::testing::worker_harness::WorkerHarness;
use crate::worker::input::EOFS_MAX;

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
fn an_end_that_waits_is_not_registered_meanwhile_and_keeps_the_worker_awake() {
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
            Event::Departure(departure) => Some((departure.channel, departure.close_info.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [(last, Reason::PeerReset)]);
}

#[test]
fn a_probe_of_a_channel_whose_end_waits_handles_the_end() {
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
