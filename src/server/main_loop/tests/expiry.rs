//! What is removed for its age, and how fast.

use crate::channel::Reason;
use crate::clock::Now;
use crate::ids::UserId;
use crate::main_loop::context::Policy;
use crate::message::chat::{Body, Chat, Sender};
use crate::sync::Arc;
use crate::testing::commons::{BOX_AGE_MS, BOX_MESSAGES, CAPACITY, policy};
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::{Disk, Fault};
use crate::testing::words::{SECOND_US, Said, accepted};

const BOX_AGE_US: u64 = BOX_AGE_MS * 1000;
/// A little more than the time between two looks.
const NEXT_LOOK_US: u64 = 61 * SECOND_US;

/// Somebody who is away with that many messages in the box, and another who can write.
fn boxed(desk: &mut Desk, messages: u64) -> (Online, UserId) {
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    for number in 0..messages {
        desk.chat(ann, bob, &number.to_string());
    }
    desk.finish_all();
    (ann, bob)
}

fn pass(desk: &mut Desk, us: u64) {
    desk.commons.clock.advance(us);
    let now: Now = desk.commons.clock.now();
    desk.drain.cx.now = now;
    desk.finish_all();
}

fn expired(desk: &Desk) -> u64 {
    desk.commons.metrics.chats_expired.value()
}

#[test]
fn a_message_older_than_the_age_of_boxes_goes_and_is_counted_and_a_younger_one_stays() {
    let mut desk = Desk::new();
    let (ann, bob) = boxed(&mut desk, 1);
    pass(&mut desk, BOX_AGE_US - 10 * SECOND_US);
    desk.chat(ann, bob, "younger");
    desk.finish_all();
    assert_eq!((desk.disk.texts(bob).len(), expired(&desk)), (2, 0));
    pass(&mut desk, NEXT_LOOK_US);
    assert_eq!((desk.disk.texts(bob), expired(&desk)), (vec!["younger".to_owned()], 1));
}

#[test]
fn a_box_that_was_full_takes_messages_again_when_the_old_ones_have_expired() {
    let mut desk = Desk::new();
    let (ann, bob) = boxed(&mut desk, BOX_MESSAGES);
    desk.chat_with_seq(ann, bob, "too much", "1");
    desk.finish_all();
    assert!(desk.heard(ann.channel).contains(&Said::Error(crate::protocol::errno::Errno::BoxFull)));
    pass(&mut desk, BOX_AGE_US + SECOND_US);
    desk.chat_with_seq(ann, bob, "fits", "2");
    desk.finish_all();
    assert!(desk.heard(ann.channel).contains(&Said::Done));
    assert_eq!(desk.disk.texts(bob), ["fits"]);
}

#[test]
fn more_than_one_look_removes_goes_in_looks_that_follow_soon() {
    let messages = 600;
    let policy = Policy { box_messages: messages, ..policy() };
    let mut desk = Desk::with(policy, CAPACITY, Disk::default());
    let (_, bob) = boxed(&mut desk, messages);
    pass(&mut desk, BOX_AGE_US + SECOND_US);
    assert_eq!(expired(&desk), 256, "one turn stays short");
    assert!(desk.drain.timeout_us().unwrap() <= SECOND_US, "main comes back soon");
    for _ in 0..3 {
        pass(&mut desk, SECOND_US);
    }
    assert_eq!((desk.disk.texts(bob).len(), expired(&desk)), (0, messages));
    let rests_us = desk.drain.retention.due_us() - desk.commons.clock.now().mono_us;
    assert!(rests_us > SECOND_US, "and rests when all is done: {rests_us}");
}

#[test]
fn what_a_failed_commit_has_not_removed_is_not_counted_and_goes_later() {
    let mut desk = Desk::new();
    let (_, bob) = boxed(&mut desk, 3);
    desk.disk.fail_next(Fault::Commit);
    pass(&mut desk, BOX_AGE_US + SECOND_US);
    assert_eq!((desk.disk.texts(bob).len(), expired(&desk)), (3, 0));
    pass(&mut desk, NEXT_LOOK_US);
    assert_eq!((desk.disk.texts(bob).len(), expired(&desk)), (0, 3));
}

#[test]
fn the_history_keeps_as_many_rows_and_as_long_as_it_is_told() {
    let policy = Policy { history_rows: 2, history_age_ms: 3_600_000, ..policy() };
    let mut desk = Desk::with(policy, CAPACITY, Disk::default());
    let ann = desk.user("ann");
    for _ in 0..4 {
        let online = desk.enter(ann);
        desk.send_away(online, Reason::PeerClosed);
        desk.settle(online, vec![]);
        desk.finish_all();
    }
    assert_eq!(desk.disk.departures().len(), 4);
    pass(&mut desk, NEXT_LOOK_US);
    assert_eq!(desk.disk.departures().len(), 2, "the newest");
    pass(&mut desk, 3_600 * SECOND_US);
    assert_eq!(desk.disk.departures().len(), 0, "too old");
}

#[test]
fn a_line_that_comes_back_counts_with_the_bytes_that_it_takes_in_the_box() {
    let sender = Sender { id: UserId(9), name: "cy".into() };
    let text = Body::Text { sender: Arc::new(sender), to: UserId(2), at_ms: 0, text: "hi".into() };
    let bytes = text.object().len() as u64;
    let policy = Policy { box_bytes: bytes + 3, ..policy() };
    let mut desk = Desk::with(policy, CAPACITY, Disk::default());
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    // Has main look into the box, so that it counts on from there.
    desk.send_away(bob, Reason::PeerReset);
    desk.chat(ann, bob.user, "x");
    desk.settle(bob, vec![]);
    desk.finish_all();
    let bob = desk.enter(bob.user);
    desk.send_away(bob, Reason::PeerReset);
    desk.settle(bob, vec![Chat::accepted(text, None), accepted("xx")]);
    desk.finish_all();
    desk.forget();
    desk.chat_with_seq(ann, bob.user, "y", "1");
    desk.finish_all();
    let stored: usize = desk.disk.texts(bob.user).iter().map(String::len).sum();
    assert!(stored as u64 + 1 > bytes + 3, "{stored}");
    assert_eq!(desk.heard(ann.channel), [Said::Through, Said::Error(crate::protocol::errno::Errno::BoxFull)]);
}
