//! What a failed transaction leaves: nothing accepted in silence, nothing owed forgotten.

use crate::channel::{Reason, Stage};
use crate::ids::{GroupId, UserId};
use crate::main_loop::transaction::LATER_US;
use crate::message::event::{ControlAsk, Event, StaleOnlineFault, StaleOnlineName};
use crate::message::request::Ask;
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::store::DepartureId;
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::{Departed, Fault};
use crate::testing::words::{HASH, SECOND_US, Said, accepted, asker, login};

const NOT_STORED: Said = Said::Error(Errno::NotStored);

/// Two members of a group, the second one offline and settled.
fn group_with_an_absent_member(desk: &mut Desk) -> (Online, Online, GroupId) {
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    let group = desk.group(ann);
    desk.join(bob, group);
    desk.send_away(bob, Reason::Kicked);
    desk.settle(bob, vec![]);
    desk.finish_all();
    desk.forget();
    (ann, bob, group)
}

#[test]
fn a_chat_that_could_not_be_kept_is_one_error_and_not_in_the_box() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    desk.chat(ann, bob, "without seq");
    desk.chat_with_seq(ann, bob, "with seq", "1");
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    assert_eq!(desk.heard(ann.channel), [NOT_STORED, Said::Through, NOT_STORED]);
    assert_eq!(desk.disk.texts(bob), [""; 0]);
    // The same `seq` again is a new attempt, for the first one failed.
    desk.chat_with_seq(ann, bob, "with seq", "1");
    desk.finish();
    assert_eq!(desk.heard(ann.channel), [Said::Through, Said::Done]);
    assert_eq!(desk.disk.texts(bob), ["with seq"]);
}

#[test]
fn a_chat_that_waited_for_a_settlement_is_kept_although_the_first_commit_fails() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.send_away(bob, Reason::Kicked);
    desk.chat(ann, bob.user, "without seq");
    desk.chat_with_seq(ann, bob.user, "with seq", "1");
    desk.finish();
    assert_eq!(desk.heard(ann.channel), [Said::Through, Said::Through]);
    // Their sender has gone on long since: whatever becomes of this transaction, they are not given up.
    desk.settle(bob, vec![accepted("unsent")]);
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    assert_eq!(desk.heard(ann.channel), [], "not before it is committed");
    desk.finish_all();
    assert_eq!(desk.heard(ann.channel), [Said::Done]);
    assert_eq!(desk.disk.texts(bob.user), ["unsent", "without seq", "with seq"]);
}

#[test]
fn a_group_chat_without_seq_tells_its_sender_once_that_the_commit_failed() {
    let mut desk = Desk::new();
    let (ann, bob, group) = group_with_an_absent_member(&mut desk);
    let cy = desk.user("cy");
    let cy = desk.enter(cy);
    desk.join(cy, group);
    desk.send_away(cy, Reason::Kicked);
    desk.settle(cy, vec![]);
    desk.finish_all();
    desk.group_chat(ann, group, "hello", None);
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    assert_eq!(desk.heard(ann.channel), [NOT_STORED]);
    assert_eq!(desk.disk.texts(bob.user), [""; 0]);
    // The same when a write fails in the middle of it.
    desk.disk.fail_after(1, Fault::Write);
    desk.group_chat(ann, group, "hello", None);
    desk.finish();
    assert_eq!(desk.heard(ann.channel), [NOT_STORED]);
}

#[test]
fn a_group_chat_whose_members_are_all_online_does_not_rest_on_the_store() {
    let mut desk = Desk::new();
    let (ann, bob, group) = group_with_an_absent_member(&mut desk);
    let bob = desk.enter(bob.user);
    let dee = desk.user("dee");
    desk.group_chat(ann, group, "warm up", None);
    desk.finish();
    desk.forget();
    // Somebody else's message cannot be kept; this one has nothing to do with that.
    desk.disk.set_full(true);
    desk.chat(ann, dee, "lost");
    desk.group_chat(ann, group, "without seq", None);
    desk.group_chat(ann, group, "with seq", Some("1"));
    desk.finish();
    let commands = desk.letters.take(Some(bob.channel));
    let said: Vec<Said> = commands.iter().map(|command| Said::of(command).1).collect();
    assert_eq!(said, [Said::chat("without seq"), Said::chat("with seq")]);
    let heard = desk.heard(ann.channel);
    assert_eq!(
        heard.iter().filter(|said| **said == NOT_STORED).count(),
        1,
        "only for the lost one: {heard:?}"
    );
    desk.take_over(commands);
    assert_eq!(desk.heard(ann.channel), [Said::Done]);
}

#[test]
fn unsent_messages_are_kept_sooner_or_later_and_answered_only_then() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.chat_with_seq(ann, bob.user, "hello", "1");
    desk.finish();
    let unsent = desk.unsent(bob.channel);
    assert_eq!(desk.heard(ann.channel), [Said::Through]);
    desk.send_away(bob, Reason::PeerReset);
    desk.settle(bob, unsent);
    for _ in 0..3 {
        desk.disk.fail_next(Fault::Commit);
        desk.finish();
        assert!(!desk.drain.is_settled());
        assert!(desk.drain.timeout_us().is_some_and(|us| us <= SECOND_US / 10), "it is tried again soon");
        assert_eq!(desk.heard(ann.channel), [], "neither stored nor given up");
        assert!(desk.is_online(bob.user), "not committed");
    }
    desk.finish_all();
    assert!(desk.drain.is_settled());
    assert_eq!(desk.heard(ann.channel), [Said::Done]);
    assert_eq!(desk.disk.texts(bob.user), ["hello"]);
    assert!(!desk.is_online(bob.user));
    assert_eq!(desk.disk.ends(bob.user), [Reason::PeerReset], "one row, however often it was tried");
    desk.pass_us(LATER_US);
    let departed = desk.disk.departures().pop().unwrap();
    assert_eq!(departed.completion.map(|known| known.saved), Some(1));
}

#[test]
fn an_end_is_written_when_a_full_disk_has_room_again() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.disk.set_full(true);
    desk.log_out(ann);
    desk.settle(ann, vec![accepted("one")]);
    desk.send_away(bob, Reason::PeerClosed);
    desk.settle(bob, vec![accepted("two")]);
    desk.finish();
    desk.finish();
    assert!(desk.is_online(ann.user) && desk.is_online(bob.user));
    desk.disk.set_full(false);
    desk.finish_all();
    assert!(!desk.is_online(ann.user) && !desk.is_online(bob.user));
    assert_eq!(desk.disk.ends(ann.user), [Reason::ClientQuit]);
    assert_eq!(desk.disk.ends(bob.user), [Reason::PeerClosed]);
    assert_eq!(
        (desk.disk.texts(ann.user), desk.disk.texts(bob.user)),
        (vec!["one".into()], vec!["two".into()])
    );
}

#[test]
fn what_the_database_refuses_for_good_is_given_up_in_the_end_and_all_behind_it_is_written() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.disk.set_refusing_history(true);
    desk.send_away(bob, Reason::PeerReset);
    desk.settle(bob, vec![accepted("unsent")]);
    let given_up = |desk: &Desk| desk.commons.metrics.writes_set_aside.value();
    for _ in 0..10 {
        desk.finish();
        assert!(desk.is_online(bob.user) && given_up(&desk) == 0, "somebody may mend it yet");
        desk.commons.clock.advance(SECOND_US);
    }
    for _ in 0..2 {
        desk.finish();
        desk.commons.clock.advance(SECOND_US);
    }
    desk.finish_all();
    assert!(!desk.is_online(bob.user) && desk.drain.is_settled());
    assert_eq!((given_up(&desk), desk.disk.ends(bob.user)), (1, vec![]), "only the row of the history");
    assert_eq!(desk.disk.texts(bob.user), ["unsent"]);
    desk.disk.set_refusing_history(false);
    desk.send_away(ann, Reason::PeerClosed);
    desk.settle(ann, vec![]);
    desk.finish_all();
    assert_eq!(desk.disk.ends(ann.user), [Reason::PeerClosed]);
}

#[test]
fn of_completions_that_share_a_write_only_the_one_that_is_refused_is_given_up() {
    let mut desk = Desk::new();
    let all = ["ann", "bob", "cat", "dan"].map(|name| desk.online(name));
    for who in all {
        desk.send_away(who, Reason::PeerReset);
        desk.settle(who, vec![]);
    }
    desk.disk.refuse_to_complete(DepartureId(3));
    let given_up = |desk: &Desk| desk.commons.metrics.writes_set_aside.value();
    let mut seconds = 0;
    while given_up(&desk) == 0 {
        assert!(seconds < 15, "one patience is enough");
        desk.finish();
        desk.commons.clock.advance(SECOND_US);
        seconds += 1;
    }
    desk.finish_all();
    let completed = |departed: &Departed| departed.completion.is_some();
    assert_eq!(desk.disk.departures().iter().map(completed).collect::<Vec<_>>(), [true, true, false, true]);
    assert_eq!(given_up(&desk), 1);
}

#[test]
fn a_disk_that_stays_full_wears_no_patience_out() {
    let mut desk = Desk::new();
    let bob = desk.online("bob");
    desk.disk.set_full(true);
    desk.send_away(bob, Reason::PeerReset);
    desk.settle(bob, vec![accepted("unsent")]);
    for _ in 0..100 {
        desk.finish();
        desk.commons.clock.advance(SECOND_US);
    }
    desk.disk.set_full(false);
    desk.finish_all();
    assert_eq!(desk.disk.ends(bob.user), [Reason::PeerReset]);
    assert_eq!(desk.disk.texts(bob.user), ["unsent"]);
    assert_eq!(desk.commons.metrics.writes_set_aside.value(), 0);
}

#[test]
fn numbers_of_an_epoch_that_was_not_committed_are_not_given_out() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    desk.chat(ann, bob, "refused");
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    desk.chat(ann, bob, "kept");
    desk.finish();
    // The next run begins with the epoch that is on the disk, and must not meet a number of this one.
    let mut desk = desk.restarted();
    let bob = desk.enter(bob);
    desk.send_away(bob, Reason::PeerReset);
    desk.settle(bob, vec![accepted("unsent"); 3]);
    desk.finish_all();
    assert!(desk.drain.is_settled(), "the store is in debt for ever");
    assert_eq!(desk.disk.texts(bob.user), ["kept", "unsent", "unsent", "unsent"]);
}

#[test]
fn somebody_whose_joining_was_not_committed_is_no_member() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    let group = desk.group(ann);
    desk.join(bob, group);
    // The members are looked up, and remembered, within the transaction that fails.
    desk.group_chat(bob, group, "too early", Some("1"));
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    desk.forget();
    desk.group_chat(bob, group, "still not", Some("2"));
    desk.finish();
    assert_eq!(desk.heard(bob.channel), [Said::Through, Said::Error(Errno::NotMember)]);
}

#[test]
fn a_registration_is_answered_as_it_was_committed() {
    let mut desk = Desk::new();
    let channel = desk.connect();
    let register = |desk: &mut Desk| {
        let (name, password) = ("ann".into(), HASH.into());
        let peer = ([127, 0, 0, 1], 1).into();
        desk.ask(Ask::Register { asker: asker(channel, Msgid::Register, None), peer, name, password });
    };
    register(&mut desk);
    assert_eq!(desk.heard(channel), [], "not before the commit");
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    assert_eq!(desk.heard(channel), [Said::Refused(Errno::NotStored)]);
    register(&mut desk);
    desk.finish();
    assert!(matches!(desk.heard(channel)[..], [Said::Registered(_)]), "the name is still free");
}

#[test]
fn a_login_that_could_not_be_committed_never_was() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    let channel = desk.connect();
    desk.log_in(bob, channel);
    // It is addressed to a session that will not be.
    desk.chat_with_seq(ann, bob, "hello", "1");
    desk.disk.fail_next(Fault::Commit);
    desk.finish_all();
    assert_eq!(desk.heard(channel), [Said::Refused(Errno::NotStored)]);
    assert_eq!(desk.commons.table.stage(channel), Stage::Connected);
    assert_eq!(desk.commons.table.user(channel), None);
    assert!(desk.commons.registry.find(bob).is_none());
    assert_eq!(desk.disk.texts(bob), ["hello"]);
    assert_eq!(desk.heard(ann.channel), [Said::Through, Said::Done]);
    desk.log_in(bob, channel);
    desk.finish();
    assert_eq!(desk.heard(channel), [Said::welcome(bob, &["hello"])]);
}

#[test]
fn a_guest_whose_row_was_not_committed_is_nobody() {
    let mut desk = Desk::new();
    let ann = desk.online("ann");
    let channel = desk.connect();
    desk.ask(Ask::Guest {
        asker: asker(channel, Msgid::Login, None),
        peer: ([127, 0, 0, 1], 1).into(),
        name: "guest".into(),
    });
    let unborn = UserId(ann.user.0 + 1);
    desk.disk.fail_next(Fault::Commit);
    desk.finish_all();
    assert_eq!(desk.heard(channel), [Said::Refused(Errno::NotStored)]);
    desk.chat(ann, unborn, "hello");
    desk.finish();
    assert_eq!(desk.heard(ann.channel), [Said::Error(Errno::NoSuchUser)]);
    assert_eq!(desk.user("bob"), unborn, "the number is given to the next");
    assert_eq!(desk.disk.texts(unborn), [""; 0]);
}

#[test]
fn a_login_on_the_same_channel_that_could_not_be_committed_changes_nothing() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    desk.log_in(bob, ann.channel);
    desk.disk.fail_next(Fault::Commit);
    desk.finish_all();
    assert_eq!(desk.session(ann.channel), Some(ann.session));
}

#[test]
fn a_login_from_elsewhere_while_the_disk_is_full_leaves_the_session_alone() {
    let mut desk = Desk::new();
    let ann = desk.online("ann");
    let elsewhere = desk.connect();
    desk.disk.set_full(true);
    desk.log_in(ann.user, elsewhere);
    desk.finish_all();
    assert_eq!(desk.heard(elsewhere), [Said::Refused(Errno::NotStored)]);
    assert_eq!(desk.session(ann.channel), Some(ann.session));
}

#[test]
fn a_login_on_the_same_channel_in_a_batch_that_has_failed_changes_nothing() {
    let mut desk = Desk::new();
    let (ann, bob, cy) = (desk.online("ann"), desk.user("bob"), desk.user("cy"));
    desk.disk.fail_next(Fault::Write);
    desk.chat(ann, cy, "fails");
    desk.forget();
    desk.log_in(bob, ann.channel);
    desk.finish_all();
    assert!(desk.heard(ann.channel).contains(&Said::Refused(Errno::NotStored)));
    assert_eq!(desk.session(ann.channel), Some(ann.session));
}

#[test]
fn what_is_kept_behind_a_login_that_is_not_committed_has_a_number_that_nothing_else_gets() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.user("ann"), desk.user("bob"));
    let mut desk = desk.restarted();
    let (ann, channel) = (desk.enter(ann), desk.connect());
    desk.log_in(bob, channel);
    let session = desk.session(channel).expect("the login is taken");
    let bob = Online { user: bob, channel, session };
    desk.send_away(bob, Reason::Kicked);
    desk.chat(ann, bob.user, "first");
    desk.settle(bob, vec![]);
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    desk.finish_all();
    desk.chat(ann, bob.user, "second");
    desk.finish_all();
    assert_eq!(desk.disk.texts(bob.user), ["first", "second"]);
    assert!(!desk.all_heard().contains(&(ann.channel, NOT_STORED)));
}

#[test]
fn of_two_logins_in_a_batch_that_fails_one_may_leave_a_message_and_the_other_be_over() {
    let mut desk = Desk::new();
    let (ann, bob, cy) = (desk.online("ann"), desk.user("bob"), desk.user("cy"));
    let (first, second) = (desk.connect(), desk.connect());
    let Ask::Login(mut confirming) = login(bob, first) else { unreachable!("it is one") };
    confirming.caps.ack = true;
    desk.ask(Ask::Login(confirming));
    desk.chat(ann, bob, "kept");
    desk.log_in(cy, second);
    let session = desk.session(second).expect("the login is taken");
    desk.send_away(Online { user: cy, channel: second, session }, Reason::Kicked);
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    desk.settle(Online { user: cy, channel: second, session }, vec![]);
    desk.finish_all();
    assert_eq!(desk.disk.texts(bob), ["kept"]);
    assert!(!desk.is_online(bob) && !desk.is_online(cy));
    assert_eq!(desk.disk.departures().len(), 0, "neither session ever was");
}

#[test]
fn a_kick_of_a_user_marked_online_without_a_channel_says_why_the_mark_stays() {
    let kick = |desk: &mut Desk, user: UserId| {
        let (reply, answer) = crossbeam_channel::bounded(1);
        desk.take(Event::Control(ControlAsk::StaleOnline { who: StaleOnlineName::Id(user), reply }));
        desk.finish();
        let ghost = answer.try_recv().expect("main answers in the same turn");
        ghost.map(|ghost| ghost.map(|ghost| ghost.user))
    };
    let mut desk = Desk::new();
    let (ghost, away, here) = (desk.user("ghost"), desk.user("away"), desk.online("here").user);
    desk.disk.change_user(ghost, |row| row.online = true);
    for fault in [Fault::Begin, Fault::Write, Fault::Commit] {
        desk.disk.fail_next(fault);
        let failed = kick(&mut desk, ghost);
        assert!(matches!(failed, Err(StaleOnlineFault::NotStored(_))), "{fault:?}: {failed:?}");
        assert!(desk.is_online(ghost), "{fault:?}");
    }
    desk.disk.fail_next(Fault::Read);
    let unread = kick(&mut desk, ghost);
    assert!(matches!(unread, Err(StaleOnlineFault::Unread(_))), "{unread:?}");
    // Another process holds the lock: nothing has to be written for these.
    desk.disk.fail_next(Fault::Begin);
    for user in [away, here] {
        assert_eq!(kick(&mut desk, user), Ok(None));
    }
    desk.disk.heal();
    assert_eq!(kick(&mut desk, ghost), Ok(Some(ghost)));
    assert!(!desk.is_online(ghost));
    assert_eq!(kick(&mut desk, ghost), Ok(None), "once");
}
