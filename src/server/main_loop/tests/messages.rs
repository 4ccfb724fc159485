//! Where a message goes when its receiver comes and goes.

use crate::channel::Reason;
use crate::ids::UserId;
use crate::message::command::WorkerCommand;
use crate::message::event::Event;
use crate::message::reply::Answer;
use crate::protocol::errno::Errno;
use crate::testing::commons::BOX_MESSAGES;
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::Fault;
use crate::testing::words::{SECOND_US, Said, accepted};

/// The box of a user, as the next login brings it.
fn next_login_brings(desk: &mut Desk, user: UserId) -> Vec<String> {
    let channel = desk.connect();
    desk.log_in(user, channel);
    desk.finish_all();
    match desk.heard(channel).first() {
        Some(Said::Welcome(who, texts)) if *who == user => texts.clone(),
        other => panic!("no login answer but {other:?}"),
    }
}

fn count(heard: &[Said], what: &Said) -> usize {
    heard.iter().filter(|said| *said == what).count()
}

#[test]
fn a_departure_in_the_middle_of_a_batch_does_not_turn_the_order_round() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.chat(ann, bob.user, "first");
    // The command with the first still waits in this transaction when its receiver leaves.
    desk.send_away(bob, Reason::Kicked);
    desk.chat(ann, bob.user, "second");
    desk.finish();
    desk.settle(bob, vec![]);
    desk.finish_all();
    assert_eq!(next_login_brings(&mut desk, bob.user), ["first", "second"]);
}

#[test]
fn what_was_under_way_to_a_channel_goes_to_the_box_before_anything_newer() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.send_away(bob, Reason::PeerReset);
    desk.chat(ann, bob.user, "newer");
    desk.finish();
    assert_eq!(desk.disk.texts(bob.user), [""; 0], "it waits for the report");
    desk.settle(bob, vec![accepted("one"), accepted("two")]);
    desk.finish_all();
    assert_eq!(next_login_brings(&mut desk, bob.user), ["one", "two", "newer"]);
}

#[test]
fn messages_that_come_back_to_a_full_box_are_errors_and_not_lost_in_silence() {
    const TOO_MANY: usize = 2;
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    let fitting = BOX_MESSAGES as usize;
    for number in 0..fitting + TOO_MANY {
        desk.chat_with_seq(ann, bob.user, "hello", &number.to_string());
    }
    desk.chat(ann, bob.user, "without seq");
    // They are commands of a transaction that is not over: at its end nobody is there any more, and all come back.
    assert!(desk.kicker.kick(bob.channel, Reason::Kicked));
    desk.finish();
    desk.take_queued();
    desk.settle(bob, vec![]);
    desk.finish_all();
    let heard = desk.heard(ann.channel);
    assert_eq!(count(&heard, &Said::Done), fitting);
    assert_eq!(count(&heard, &Said::Error(Errno::BoxFull)), TOO_MANY + 1);
    assert_eq!(desk.disk.texts(bob.user).len(), fitting);
}

#[test]
fn a_group_chat_with_seq_lists_the_members_whose_box_is_full() {
    let mut desk = Desk::new();
    let (ann, bob, cy) = (desk.online("ann"), desk.online("bob"), desk.online("cy"));
    let group = desk.group(ann);
    desk.join(bob, group);
    desk.join(cy, group);
    desk.send_away(bob, Reason::Kicked);
    desk.settle(bob, vec![accepted("waiting"); BOX_MESSAGES as usize]);
    desk.finish_all();
    desk.forget();
    desk.group_chat(ann, group, "hello", Some("1"));
    desk.finish();
    let safe: Vec<_> = desk.letters.take(Some(cy.channel));
    assert!(matches!(&safe[..], [WorkerCommand::Chat { .. }]), "{safe:?}");
    assert_eq!(desk.heard(ann.channel), [Said::Through], "not before every copy is safe");
    desk.take_over(safe);
    assert_eq!(desk.heard(ann.channel), [Said::DoneBut(vec![bob.user])]);
    desk.group_chat(ann, group, "hello", Some("1"));
    desk.finish();
    let again = desk.heard(ann.channel);
    assert!(again.contains(&Said::DoneBut(vec![bob.user])), "the same answer again: {again:?}");
}

#[test]
fn the_same_seq_again_is_answered_again_and_delivered_once() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    desk.chat_with_seq(ann, bob, "hello", "1");
    desk.chat_with_seq(ann, bob, "hello", "1");
    desk.finish();
    desk.chat_with_seq(ann, bob, "hello", "1");
    desk.chat_with_seq(ann, bob, "other", "1");
    desk.finish();
    assert_eq!(count(&desk.heard(ann.channel), &Said::Done), 4);
    assert_eq!(desk.disk.texts(bob), ["hello", "other"]);
}

#[test]
fn a_worker_that_is_full_refuses_chats_with_errno_18() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    let group = desk.group(ann);
    desk.join(bob, group);
    desk.finish();
    desk.forget();
    desk.letters.set_full(true);
    desk.chat(ann, bob.user, "one");
    desk.chat_with_seq(ann, bob.user, "two", "1");
    desk.group_chat(ann, group, "three", None);
    desk.group_chat(ann, group, "four", Some("2"));
    desk.finish();
    let heard = desk.heard(ann.channel);
    assert_eq!(count(&heard, &Said::Error(Errno::Busy)), 4, "{heard:?}");
    // Each request comes back once: three of them without a word of their own, one with its error.
    assert_eq!(count(&heard, &Said::Through), 3, "{heard:?}");
    assert_eq!(desk.heard(bob.channel), []);
    desk.letters.set_full(false);
    desk.chat(ann, bob.user, "five");
    desk.finish();
    assert_eq!(desk.heard(bob.channel), [Said::chat("five")]);
}

/// Two users whose boxes hold more than a login answer does, online and waiting for the rest.
fn with_long_boxes(desk: &mut Desk) -> [Online; 2] {
    let ann = desk.online("ann");
    let users = [desk.user("bob"), desk.user("cy")];
    let long = "x".repeat(60_000);
    for user in users {
        for _ in 0..8 {
            desk.chat(ann, user, &long);
        }
    }
    desk.finish();
    let online = users.map(|user| {
        let channel = desk.connect();
        desk.log_in(user, channel);
        desk.finish();
        let commands = desk.letters.take(Some(channel));
        let [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] = &commands[..] else {
            panic!("{commands:?}");
        };
        assert!(!login.open, "there is more in the box");
        let (session, upto) = (login.session.unwrap(), login.upto.unwrap());
        (Online { user, channel, session }, upto)
    });
    for (Online { user, channel, session }, upto) in online {
        desk.take(Event::TakenOver { user, channel, session, upto });
    }
    desk.forget();
    online.map(|(online, _)| online)
}

#[test]
fn everybody_gets_the_rest_of_the_box_although_the_store_was_locked_in_between() {
    let mut desk = Desk::new();
    let both = with_long_boxes(&mut desk);
    // The transaction is under way and will be committed; another process takes the lock before more of the boxes is read.
    desk.disk.fail_next(Fault::Begin);
    desk.finish();
    assert!(desk.all_heard().is_empty(), "nobody gets anything yet");
    for _ in 0..2 {
        assert!(desk.drain.timeout_us().is_some_and(|us| us <= SECOND_US / 10), "it is tried again soon");
        desk.finish();
    }
    for online in both {
        assert!(matches!(desk.heard(online.channel)[..], [Said::Chat(_), ..]), "nothing for {online:?}");
    }
}
