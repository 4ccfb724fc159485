//! How many channels and registrations an address may have.

use crate::channel::Stage;
use crate::ip_block::IpBlock;
use crate::message::command::WorkerCommand;
use crate::message::event::Event;
use crate::message::reply::Answer;
use crate::message::reply_to::Completes;
use crate::message::request::Ask;
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::testing::fixtures::{CAPACITY, REGISTRATIONS};
use crate::testing::worker_harness::WorkerHarness;
use crate::worker::requests::REGISTRATIONS_MAX;

#[test]
fn an_address_has_its_place_again_when_main_has_the_socket_and_not_before() {
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
