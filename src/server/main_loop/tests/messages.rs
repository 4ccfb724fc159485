//! Where a message goes when its receiver comes and goes.

use crate::channel::Reason;
use crate::ids::UserId;
use crate::message::command::WorkerCommand;
use crate::message::event::Event;
use crate::message::reply::Answer;
use crate::protocol::errno::Errno;
use crate::testing::builders::{SECOND_US, Summary, accepted};
use crate::testing::fixtures::BOX_MESSAGES;
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::Fault;

/// The box of a user, as the next login brings it.
fn next_login_brings(harness: &mut MainHarness, user: UserId) -> Vec<String> {
    let channel = harness.connect();
    harness.log_in(user, channel);
    harness.finish_all();
    match harness.heard(channel).first() {
        Some(Summary::Welcome(who, texts)) if *who == user => texts.clone(),
        other => panic!("no login answer but {other:?}"),
    }
}

fn count(heard: &[Summary], what: &Summary) -> usize {
    heard.iter().filter(|said| *said == what).count()
}

#[test]
fn a_departure_in_the_middle_of_a_batch_does_not_turn_the_order_round() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.chat(ann, bob.user, "first");
    // The command with the first still waits in this transaction when its receiver leaves.
    harness.send_away(bob, Reason::Kicked);
    harness.chat(ann, bob.user, "second");
    harness.finish();
    harness.settle(bob, vec![]);
    harness.finish_all();
    assert_eq!(next_login_brings(&mut harness, bob.user), ["first", "second"]);
}

#[test]
fn what_was_under_way_to_a_channel_goes_to_the_box_before_anything_newer() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.send_away(bob, Reason::PeerReset);
    harness.chat(ann, bob.user, "newer");
    harness.finish();
    assert_eq!(harness.disk.texts(bob.user), [""; 0], "it waits for the report");
    harness.settle(bob, vec![accepted("one"), accepted("two")]);
    harness.finish_all();
    assert_eq!(next_login_brings(&mut harness, bob.user), ["one", "two", "newer"]);
}

#[test]
fn messages_that_come_back_to_a_full_box_are_errors_and_not_lost_in_silence() {
    const TOO_MANY: usize = 2;
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    let fitting = BOX_MESSAGES as usize;
    for number in 0..fitting + TOO_MANY {
        harness.chat_with_seq(ann, bob.user, "hello", &number.to_string());
    }
    harness.chat(ann, bob.user, "without seq");
    // They are commands of a transaction that is not over: at its end nobody is there any more, and all come back.
    assert!(harness.kicker.kick(bob.channel, Reason::Kicked));
    harness.finish();
    harness.take_queued();
    harness.settle(bob, vec![]);
    harness.finish_all();
    let heard = harness.heard(ann.channel);
    assert_eq!(count(&heard, &Summary::Done), fitting);
    assert_eq!(count(&heard, &Summary::Error(Errno::BoxFull)), TOO_MANY + 1);
    assert_eq!(harness.disk.texts(bob.user).len(), fitting);
}

#[test]
fn a_group_chat_with_seq_lists_the_members_whose_box_is_full() {
    let mut harness = MainHarness::new();
    let (ann, bob, cy) = (harness.online("ann"), harness.online("bob"), harness.online("cy"));
    let group = harness.group(ann);
    harness.join(bob, group);
    harness.join(cy, group);
    harness.send_away(bob, Reason::Kicked);
    harness.settle(bob, vec![accepted("waiting"); BOX_MESSAGES as usize]);
    harness.finish_all();
    harness.forget();
    harness.group_chat(ann, group, "hello", Some("1"));
    harness.finish();
    let safe: Vec<_> = harness.mailboxes.take(Some(cy.channel));
    assert!(matches!(&safe[..], [WorkerCommand::Chat { .. }]), "{safe:?}");
    assert_eq!(harness.heard(ann.channel), [Summary::Through], "not before every copy is safe");
    harness.take_over(safe);
    assert_eq!(harness.heard(ann.channel), [Summary::DoneBut(vec![bob.user])]);
    harness.group_chat(ann, group, "hello", Some("1"));
    harness.finish();
    let again = harness.heard(ann.channel);
    assert!(again.contains(&Summary::DoneBut(vec![bob.user])), "the same answer again: {again:?}");
}

#[test]
fn the_same_seq_again_is_answered_again_and_delivered_once() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    harness.chat_with_seq(ann, bob, "hello", "1");
    harness.chat_with_seq(ann, bob, "hello", "1");
    harness.finish();
    harness.chat_with_seq(ann, bob, "hello", "1");
    harness.chat_with_seq(ann, bob, "other", "1");
    harness.finish();
    assert_eq!(count(&harness.heard(ann.channel), &Summary::Done), 4);
    assert_eq!(harness.disk.texts(bob), ["hello", "other"]);
}

#[test]
fn a_worker_that_is_full_refuses_chats_with_errno_18() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    let group = harness.group(ann);
    harness.join(bob, group);
    harness.finish();
    harness.forget();
    harness.mailboxes.set_full(true);
    harness.chat(ann, bob.user, "one");
    harness.chat_with_seq(ann, bob.user, "two", "1");
    harness.group_chat(ann, group, "three", None);
    harness.group_chat(ann, group, "four", Some("2"));
    harness.finish();
    let heard = harness.heard(ann.channel);
    assert_eq!(count(&heard, &Summary::Error(Errno::Busy)), 4, "{heard:?}");
    // Each request comes back once: three of them without a word of their own, one with its error.
    assert_eq!(count(&heard, &Summary::Through), 3, "{heard:?}");
    assert_eq!(harness.heard(bob.channel), []);
    harness.mailboxes.set_full(false);
    harness.chat(ann, bob.user, "five");
    harness.finish();
    assert_eq!(harness.heard(bob.channel), [Summary::chat("five")]);
}

/// Two users whose boxes hold more than a login answer does, online and waiting for the rest.
fn with_long_boxes(harness: &mut MainHarness) -> [Online; 2] {
    let ann = harness.online("ann");
    let users = [harness.user("bob"), harness.user("cy")];
    let long = "x".repeat(60_000);
    for user in users {
        for _ in 0..8 {
            harness.chat(ann, user, &long);
        }
    }
    harness.finish();
    let online = users.map(|user| {
        let channel = harness.connect();
        harness.log_in(user, channel);
        harness.finish();
        let commands = harness.mailboxes.take(Some(channel));
        let [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert!(!login.open, "there is more in the box");
        let (session, upto) = (login.session.unwrap(), login.upto.unwrap());
        (Online { user, channel, session }, upto)
    });
    for (Online { user, channel, session }, upto) in online {
        harness.take(Event::TakenOver { user, channel, session, upto });
    }
    harness.forget();
    online.map(|(online, _)| online)
}

#[test]
fn everybody_gets_the_rest_of_the_box_although_the_store_was_locked_in_between() {
    let mut harness = MainHarness::new();
    let both = with_long_boxes(&mut harness);
    // The transaction is under way and will be committed; another process takes the lock before more of the boxes is read.
    harness.disk.fail_next(Fault::Begin);
    harness.finish();
    assert!(harness.all_heard().is_empty(), "nobody gets anything yet");
    for _ in 0..2 {
        assert!(harness.main.timeout_us().is_some_and(|us| us <= SECOND_US / 10), "it is tried again soon");
        harness.finish();
    }
    for online in both {
        assert!(
            matches!(harness.heard(online.channel)[..], [Summary::Chat(_), ..]),
            "nothing for {online:?}"
        );
    }
}
