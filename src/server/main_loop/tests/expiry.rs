//! What is removed for its age, and how fast.

use crate::channel::Reason;
use crate::clock::Now;
use crate::ids::UserId;
use crate::main_loop::context::Policy;
use crate::message::chat::{Body, Chat, Sender};
use crate::sync::Arc;
use crate::testing::builders::{SECOND_US, Summary, accepted};
use crate::testing::fixtures::{BOX_AGE_MS, BOX_MESSAGES, CAPACITY, policy};
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::{Disk, Fault};

const BOX_AGE_US: u64 = BOX_AGE_MS * 1000;
/// A little more than the time between two looks.
const NEXT_LOOK_US: u64 = 61 * SECOND_US;

/// Somebody who is away with that many messages in the box, and another who can write.
fn boxed(harness: &mut MainHarness, messages: u64) -> (Online, UserId) {
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    for number in 0..messages {
        harness.chat(ann, bob, &number.to_string());
    }
    harness.finish_all();
    (ann, bob)
}

fn pass(harness: &mut MainHarness, us: u64) {
    harness.fixtures.clock.advance(us);
    let now: Now = harness.fixtures.clock.now();
    harness.main.cx.now = now;
    harness.finish_all();
}

fn expired(harness: &MainHarness) -> u64 {
    harness.fixtures.metrics.chats_expired.value()
}

#[test]
fn a_message_older_than_the_age_of_boxes_goes_and_is_counted_and_a_younger_one_stays() {
    let mut harness = MainHarness::new();
    let (ann, bob) = boxed(&mut harness, 1);
    pass(&mut harness, BOX_AGE_US - 10 * SECOND_US);
    harness.chat(ann, bob, "younger");
    harness.finish_all();
    assert_eq!((harness.disk.texts(bob).len(), expired(&harness)), (2, 0));
    pass(&mut harness, NEXT_LOOK_US);
    assert_eq!((harness.disk.texts(bob), expired(&harness)), (vec!["younger".to_owned()], 1));
}

#[test]
fn a_box_that_was_full_takes_messages_again_when_the_old_ones_have_expired() {
    let mut harness = MainHarness::new();
    let (ann, bob) = boxed(&mut harness, BOX_MESSAGES);
    harness.chat_with_seq(ann, bob, "too much", "1");
    harness.finish_all();
    assert!(harness.heard(ann.channel).contains(&Summary::Error(crate::protocol::errno::Errno::BoxFull)));
    pass(&mut harness, BOX_AGE_US + SECOND_US);
    harness.chat_with_seq(ann, bob, "fits", "2");
    harness.finish_all();
    assert!(harness.heard(ann.channel).contains(&Summary::Done));
    assert_eq!(harness.disk.texts(bob), ["fits"]);
}

#[test]
fn more_than_one_look_removes_goes_in_looks_that_follow_soon() {
    let messages = 600;
    let policy = Policy { box_messages: messages, ..policy() };
    let mut harness = MainHarness::with(policy, CAPACITY, Disk::default());
    let (_, bob) = boxed(&mut harness, messages);
    pass(&mut harness, BOX_AGE_US + SECOND_US);
    assert_eq!(expired(&harness), 256, "one turn stays short");
    assert!(harness.main.timeout_us().unwrap() <= SECOND_US, "main comes back soon");
    for _ in 0..3 {
        pass(&mut harness, SECOND_US);
    }
    assert_eq!((harness.disk.texts(bob).len(), expired(&harness)), (0, messages));
    let rests_us = harness.main.retention.due_us() - harness.fixtures.clock.now().mono_us;
    assert!(rests_us > SECOND_US, "and rests when all is done: {rests_us}");
}

#[test]
fn what_a_failed_commit_has_not_removed_is_not_counted_and_goes_later() {
    let mut harness = MainHarness::new();
    let (_, bob) = boxed(&mut harness, 3);
    harness.disk.fail_next(Fault::Commit);
    pass(&mut harness, BOX_AGE_US + SECOND_US);
    assert_eq!((harness.disk.texts(bob).len(), expired(&harness)), (3, 0));
    pass(&mut harness, NEXT_LOOK_US);
    assert_eq!((harness.disk.texts(bob).len(), expired(&harness)), (0, 3));
}

#[test]
fn the_history_keeps_as_many_rows_and_as_long_as_it_is_told() {
    let policy = Policy { history_rows: 2, history_age_ms: 3_600_000, ..policy() };
    let mut harness = MainHarness::with(policy, CAPACITY, Disk::default());
    let ann = harness.user("ann");
    for _ in 0..4 {
        let online = harness.enter(ann);
        harness.send_away(online, Reason::PeerClosed);
        harness.settle(online, vec![]);
        harness.finish_all();
    }
    assert_eq!(harness.disk.departures().len(), 4);
    pass(&mut harness, NEXT_LOOK_US);
    assert_eq!(harness.disk.departures().len(), 2, "the newest");
    pass(&mut harness, 3_600 * SECOND_US);
    assert_eq!(harness.disk.departures().len(), 0, "too old");
}

#[test]
fn a_line_that_comes_back_counts_with_the_bytes_that_it_takes_in_the_box() {
    let sender = Sender { id: UserId(9), name: "cy".into() };
    let text = Body::Text { sender: Arc::new(sender), to: UserId(2), at_ms: 0, text: "hi".into() };
    let bytes = text.object().len() as u64;
    let policy = Policy { box_bytes: bytes + 3, ..policy() };
    let mut harness = MainHarness::with(policy, CAPACITY, Disk::default());
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    // Has main look into the box, so that it counts on from there.
    harness.send_away(bob, Reason::PeerReset);
    harness.chat(ann, bob.user, "x");
    harness.settle(bob, vec![]);
    harness.finish_all();
    let bob = harness.enter(bob.user);
    harness.send_away(bob, Reason::PeerReset);
    harness.settle(bob, vec![Chat::accepted(text, None), accepted("xx")]);
    harness.finish_all();
    harness.forget();
    harness.chat_with_seq(ann, bob.user, "y", "1");
    harness.finish_all();
    let stored: usize = harness.disk.texts(bob.user).iter().map(String::len).sum();
    assert!(stored as u64 + 1 > bytes + 3, "{stored}");
    assert_eq!(
        harness.heard(ann.channel),
        [Summary::Through, Summary::Error(crate::protocol::errno::Errno::BoxFull)]
    );
}
