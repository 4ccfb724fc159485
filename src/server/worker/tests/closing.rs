//! When a connection cannot be registered, and how ends are counted.

use super::{ANN, logged_in, unsent};
use crate::channel::{Reason, Stage};
use crate::message::event::Event;
use crate::testing::fake_socket::{ENOSPC, connection};
use crate::testing::worker_harness::WorkerHarness;

#[test]
fn a_connection_that_cannot_be_registered_gets_its_goodbye_and_ends() {
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
    assert_eq!(departure.close_info.errno, Some(ENOSPC));
}

#[test]
fn a_connection_that_cannot_be_registered_for_writing_leaves_and_loses_nothing() {
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
