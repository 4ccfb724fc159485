//! What a failed transaction leaves: nothing accepted in silence, nothing owed forgotten.

use crate::channel::{Reason, Stage};
use crate::ids::{GroupId, UserId};
use crate::main_loop::transaction::LATER_US;
use crate::message::event::{ControlAsk, Event, StaleOnlineFault, StaleOnlineName};
use crate::message::request::Ask;
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::store::DepartureId;
use crate::testing::builders::{HASH, SECOND_US, Summary, accepted, login, reply_to};
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::{Departed, Fault};

const NOT_STORED: Summary = Summary::Error(Errno::NotStored);

/// Two members of a group, the second one offline and settled.
fn group_with_an_absent_member(harness: &mut MainHarness) -> (Online, Online, GroupId) {
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    let group = harness.group(ann);
    harness.join(bob, group);
    harness.send_away(bob, Reason::Kicked);
    harness.settle(bob, vec![]);
    harness.finish_all();
    harness.forget();
    (ann, bob, group)
}

#[test]
fn a_chat_that_could_not_be_kept_is_one_error_and_not_in_the_box() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    harness.chat(ann, bob, "without seq");
    harness.chat_with_seq(ann, bob, "with seq", "1");
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    assert_eq!(harness.heard(ann.channel), [NOT_STORED, Summary::Through, NOT_STORED]);
    assert_eq!(harness.disk.texts(bob), [""; 0]);
    // The same `seq` again is a new attempt, for the first one failed.
    harness.chat_with_seq(ann, bob, "with seq", "1");
    harness.finish();
    assert_eq!(harness.heard(ann.channel), [Summary::Through, Summary::Done]);
    assert_eq!(harness.disk.texts(bob), ["with seq"]);
}

#[test]
fn a_chat_that_waited_for_a_settlement_is_kept_although_the_first_commit_fails() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.send_away(bob, Reason::Kicked);
    harness.chat(ann, bob.user, "without seq");
    harness.chat_with_seq(ann, bob.user, "with seq", "1");
    harness.finish();
    assert_eq!(harness.heard(ann.channel), [Summary::Through, Summary::Through]);
    // Their sender has gone on long since: whatever becomes of this transaction, they are not given up.
    harness.settle(bob, vec![accepted("unsent")]);
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    assert_eq!(harness.heard(ann.channel), [], "not before it is committed");
    harness.finish_all();
    assert_eq!(harness.heard(ann.channel), [Summary::Done]);
    assert_eq!(harness.disk.texts(bob.user), ["unsent", "without seq", "with seq"]);
}

#[test]
fn a_group_chat_without_seq_tells_its_sender_once_that_the_commit_failed() {
    let mut harness = MainHarness::new();
    let (ann, bob, group) = group_with_an_absent_member(&mut harness);
    let cy = harness.user("cy");
    let cy = harness.enter(cy);
    harness.join(cy, group);
    harness.send_away(cy, Reason::Kicked);
    harness.settle(cy, vec![]);
    harness.finish_all();
    harness.group_chat(ann, group, "hello", None);
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    assert_eq!(harness.heard(ann.channel), [NOT_STORED]);
    assert_eq!(harness.disk.texts(bob.user), [""; 0]);
    // The same when a write fails in the middle of it.
    harness.disk.fail_after(1, Fault::Write);
    harness.group_chat(ann, group, "hello", None);
    harness.finish();
    assert_eq!(harness.heard(ann.channel), [NOT_STORED]);
}

#[test]
fn a_group_chat_whose_members_are_all_online_does_not_rest_on_the_store() {
    let mut harness = MainHarness::new();
    let (ann, bob, group) = group_with_an_absent_member(&mut harness);
    let bob = harness.enter(bob.user);
    let dee = harness.user("dee");
    harness.group_chat(ann, group, "warm up", None);
    harness.finish();
    harness.forget();
    // Somebody else's message cannot be kept; this one has nothing to do with that.
    harness.disk.set_full(true);
    harness.chat(ann, dee, "lost");
    harness.group_chat(ann, group, "without seq", None);
    harness.group_chat(ann, group, "with seq", Some("1"));
    harness.finish();
    let commands = harness.mailboxes.take(Some(bob.channel));
    let said: Vec<Summary> = commands.iter().map(|command| Summary::of(command).1).collect();
    assert_eq!(said, [Summary::chat("without seq"), Summary::chat("with seq")]);
    let heard = harness.heard(ann.channel);
    assert_eq!(
        heard.iter().filter(|said| **said == NOT_STORED).count(),
        1,
        "only for the lost one: {heard:?}"
    );
    harness.take_over(commands);
    assert_eq!(harness.heard(ann.channel), [Summary::Done]);
}

#[test]
fn unsent_messages_are_kept_sooner_or_later_and_answered_only_then() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.chat_with_seq(ann, bob.user, "hello", "1");
    harness.finish();
    let unsent = harness.unsent(bob.channel);
    assert_eq!(harness.heard(ann.channel), [Summary::Through]);
    harness.send_away(bob, Reason::PeerReset);
    harness.settle(bob, unsent);
    for _ in 0..3 {
        harness.disk.fail_next(Fault::Commit);
        harness.finish();
        assert!(!harness.main.is_settled());
        assert!(harness.main.timeout_us().is_some_and(|us| us <= SECOND_US / 10), "it is tried again soon");
        assert_eq!(harness.heard(ann.channel), [], "neither stored nor given up");
        assert!(harness.is_online(bob.user), "not committed");
    }
    harness.finish_all();
    assert!(harness.main.is_settled());
    assert_eq!(harness.heard(ann.channel), [Summary::Done]);
    assert_eq!(harness.disk.texts(bob.user), ["hello"]);
    assert!(!harness.is_online(bob.user));
    assert_eq!(harness.disk.ends(bob.user), [Reason::PeerReset], "one row, however often it was tried");
    harness.pass_us(LATER_US);
    let departed = harness.disk.departures().pop().unwrap();
    assert_eq!(departed.completion.map(|known| known.saved), Some(1));
}

#[test]
fn an_end_is_written_when_a_full_disk_has_room_again() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.disk.set_full(true);
    harness.log_out(ann);
    harness.settle(ann, vec![accepted("one")]);
    harness.send_away(bob, Reason::PeerClosed);
    harness.settle(bob, vec![accepted("two")]);
    harness.finish();
    harness.finish();
    assert!(harness.is_online(ann.user) && harness.is_online(bob.user));
    harness.disk.set_full(false);
    harness.finish_all();
    assert!(!harness.is_online(ann.user) && !harness.is_online(bob.user));
    assert_eq!(harness.disk.ends(ann.user), [Reason::ClientQuit]);
    assert_eq!(harness.disk.ends(bob.user), [Reason::PeerClosed]);
    assert_eq!(
        (harness.disk.texts(ann.user), harness.disk.texts(bob.user)),
        (vec!["one".into()], vec!["two".into()])
    );
}

#[test]
fn what_the_database_refuses_for_good_is_given_up_in_the_end_and_all_behind_it_is_written() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.disk.set_refusing_history(true);
    harness.send_away(bob, Reason::PeerReset);
    harness.settle(bob, vec![accepted("unsent")]);
    let given_up = |harness: &MainHarness| harness.fixtures.metrics.writes_set_aside.value();
    for _ in 0..10 {
        harness.finish();
        assert!(harness.is_online(bob.user) && given_up(&harness) == 0, "somebody may mend it yet");
        harness.fixtures.clock.advance(SECOND_US);
    }
    for _ in 0..2 {
        harness.finish();
        harness.fixtures.clock.advance(SECOND_US);
    }
    harness.finish_all();
    assert!(!harness.is_online(bob.user) && harness.main.is_settled());
    assert_eq!((given_up(&harness), harness.disk.ends(bob.user)), (1, vec![]), "only the row of the history");
    assert_eq!(harness.disk.texts(bob.user), ["unsent"]);
    harness.disk.set_refusing_history(false);
    harness.send_away(ann, Reason::PeerClosed);
    harness.settle(ann, vec![]);
    harness.finish_all();
    assert_eq!(harness.disk.ends(ann.user), [Reason::PeerClosed]);
}

#[test]
fn of_completions_that_share_a_write_only_the_one_that_is_refused_is_given_up() {
    let mut harness = MainHarness::new();
    let all = ["ann", "bob", "cat", "dan"].map(|name| harness.online(name));
    for who in all {
        harness.send_away(who, Reason::PeerReset);
        harness.settle(who, vec![]);
    }
    harness.disk.refuse_to_complete(DepartureId(3));
    let given_up = |harness: &MainHarness| harness.fixtures.metrics.writes_set_aside.value();
    let mut seconds = 0;
    while given_up(&harness) == 0 {
        assert!(seconds < 15, "one patience is enough");
        harness.finish();
        harness.fixtures.clock.advance(SECOND_US);
        seconds += 1;
    }
    harness.finish_all();
    let completed = |departed: &Departed| departed.completion.is_some();
    assert_eq!(
        harness.disk.departures().iter().map(completed).collect::<Vec<_>>(),
        [true, true, false, true]
    );
    assert_eq!(given_up(&harness), 1);
}

#[test]
fn a_disk_that_stays_full_wears_no_patience_out() {
    let mut harness = MainHarness::new();
    let bob = harness.online("bob");
    harness.disk.set_full(true);
    harness.send_away(bob, Reason::PeerReset);
    harness.settle(bob, vec![accepted("unsent")]);
    for _ in 0..100 {
        harness.finish();
        harness.fixtures.clock.advance(SECOND_US);
    }
    harness.disk.set_full(false);
    harness.finish_all();
    assert_eq!(harness.disk.ends(bob.user), [Reason::PeerReset]);
    assert_eq!(harness.disk.texts(bob.user), ["unsent"]);
    assert_eq!(harness.fixtures.metrics.writes_set_aside.value(), 0);
}

#[test]
fn numbers_of_an_epoch_that_was_not_committed_are_not_given_out() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    harness.chat(ann, bob, "refused");
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    harness.chat(ann, bob, "kept");
    harness.finish();
    // The next run begins with the epoch that is on the disk, and must not meet a number of this one.
    let mut harness = harness.restarted();
    let bob = harness.enter(bob);
    harness.send_away(bob, Reason::PeerReset);
    harness.settle(bob, vec![accepted("unsent"); 3]);
    harness.finish_all();
    assert!(harness.main.is_settled(), "the store is in debt for ever");
    assert_eq!(harness.disk.texts(bob.user), ["kept", "unsent", "unsent", "unsent"]);
}

#[test]
fn somebody_whose_joining_was_not_committed_is_no_member() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    let group = harness.group(ann);
    harness.join(bob, group);
    // The members are looked up, and remembered, within the transaction that fails.
    harness.group_chat(bob, group, "too early", Some("1"));
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    harness.forget();
    harness.group_chat(bob, group, "still not", Some("2"));
    harness.finish();
    assert_eq!(harness.heard(bob.channel), [Summary::Through, Summary::Error(Errno::NotMember)]);
}

#[test]
fn a_registration_is_answered_as_it_was_committed() {
    let mut harness = MainHarness::new();
    let channel = harness.connect();
    let register = |harness: &mut MainHarness| {
        let (name, password) = ("ann".into(), HASH.into());
        let peer = ([127, 0, 0, 1], 1).into();
        harness.ask(Ask::Register {
            reply_to: reply_to(channel, Msgid::Register, None),
            peer,
            name,
            password,
        });
    };
    register(&mut harness);
    assert_eq!(harness.heard(channel), [], "not before the commit");
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    assert_eq!(harness.heard(channel), [Summary::Refused(Errno::NotStored)]);
    register(&mut harness);
    harness.finish();
    assert!(matches!(harness.heard(channel)[..], [Summary::Registered(_)]), "the name is still free");
}

#[test]
fn a_login_that_could_not_be_committed_never_was() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    let channel = harness.connect();
    harness.log_in(bob, channel);
    // It is addressed to a session that will not be.
    harness.chat_with_seq(ann, bob, "hello", "1");
    harness.disk.fail_next(Fault::Commit);
    harness.finish_all();
    assert_eq!(harness.heard(channel), [Summary::Refused(Errno::NotStored)]);
    assert_eq!(harness.fixtures.table.stage(channel), Stage::Connected);
    assert_eq!(harness.fixtures.table.user(channel), None);
    assert!(harness.fixtures.registry.find(bob).is_none());
    assert_eq!(harness.disk.texts(bob), ["hello"]);
    assert_eq!(harness.heard(ann.channel), [Summary::Through, Summary::Done]);
    harness.log_in(bob, channel);
    harness.finish();
    assert_eq!(harness.heard(channel), [Summary::welcome(bob, &["hello"])]);
}

#[test]
fn a_guest_whose_row_was_not_committed_is_nobody() {
    let mut harness = MainHarness::new();
    let ann = harness.online("ann");
    let channel = harness.connect();
    harness.ask(Ask::Guest {
        reply_to: reply_to(channel, Msgid::Login, None),
        peer: ([127, 0, 0, 1], 1).into(),
        name: "guest".into(),
    });
    let unborn = UserId(ann.user.0 + 1);
    harness.disk.fail_next(Fault::Commit);
    harness.finish_all();
    assert_eq!(harness.heard(channel), [Summary::Refused(Errno::NotStored)]);
    harness.chat(ann, unborn, "hello");
    harness.finish();
    assert_eq!(harness.heard(ann.channel), [Summary::Error(Errno::NoSuchUser)]);
    assert_eq!(harness.user("bob"), unborn, "the number is given to the next");
    assert_eq!(harness.disk.texts(unborn), [""; 0]);
}

#[test]
fn a_login_on_the_same_channel_that_could_not_be_committed_changes_nothing() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    harness.log_in(bob, ann.channel);
    harness.disk.fail_next(Fault::Commit);
    harness.finish_all();
    assert_eq!(harness.session(ann.channel), Some(ann.session));
}

#[test]
fn a_login_from_elsewhere_while_the_disk_is_full_leaves_the_session_alone() {
    let mut harness = MainHarness::new();
    let ann = harness.online("ann");
    let elsewhere = harness.connect();
    harness.disk.set_full(true);
    harness.log_in(ann.user, elsewhere);
    harness.finish_all();
    assert_eq!(harness.heard(elsewhere), [Summary::Refused(Errno::NotStored)]);
    assert_eq!(harness.session(ann.channel), Some(ann.session));
}

#[test]
fn a_login_on_the_same_channel_in_a_batch_that_has_failed_changes_nothing() {
    let mut harness = MainHarness::new();
    let (ann, bob, cy) = (harness.online("ann"), harness.user("bob"), harness.user("cy"));
    harness.disk.fail_next(Fault::Write);
    harness.chat(ann, cy, "fails");
    harness.forget();
    harness.log_in(bob, ann.channel);
    harness.finish_all();
    assert!(harness.heard(ann.channel).contains(&Summary::Refused(Errno::NotStored)));
    assert_eq!(harness.session(ann.channel), Some(ann.session));
}

#[test]
fn what_is_kept_behind_a_login_that_is_not_committed_has_a_number_that_nothing_else_gets() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.user("ann"), harness.user("bob"));
    let mut harness = harness.restarted();
    let (ann, channel) = (harness.enter(ann), harness.connect());
    harness.log_in(bob, channel);
    let session = harness.session(channel).expect("the login is taken");
    let bob = Online { user: bob, channel, session };
    harness.send_away(bob, Reason::Kicked);
    harness.chat(ann, bob.user, "first");
    harness.settle(bob, vec![]);
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    harness.finish_all();
    harness.chat(ann, bob.user, "second");
    harness.finish_all();
    assert_eq!(harness.disk.texts(bob.user), ["first", "second"]);
    assert!(!harness.all_heard().contains(&(ann.channel, NOT_STORED)));
}

#[test]
fn of_two_logins_in_a_batch_that_fails_one_may_leave_a_message_and_the_other_be_over() {
    let mut harness = MainHarness::new();
    let (ann, bob, cy) = (harness.online("ann"), harness.user("bob"), harness.user("cy"));
    let (first, second) = (harness.connect(), harness.connect());
    let Ask::Login(mut confirming) = login(bob, first) else { unreachable!("it is one") };
    confirming.caps.ack = true;
    harness.ask(Ask::Login(confirming));
    harness.chat(ann, bob, "kept");
    harness.log_in(cy, second);
    let session = harness.session(second).expect("the login is taken");
    harness.send_away(Online { user: cy, channel: second, session }, Reason::Kicked);
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    harness.settle(Online { user: cy, channel: second, session }, vec![]);
    harness.finish_all();
    assert_eq!(harness.disk.texts(bob), ["kept"]);
    assert!(!harness.is_online(bob) && !harness.is_online(cy));
    assert_eq!(harness.disk.departures().len(), 0, "neither session ever was");
}

#[test]
fn a_kick_of_a_user_marked_online_without_a_channel_says_why_the_mark_stays() {
    let kick = |harness: &mut MainHarness, user: UserId| {
        let (reply, answer) = crossbeam_channel::bounded(1);
        harness.take(Event::Control(ControlAsk::StaleOnline { who: StaleOnlineName::Id(user), reply }));
        harness.finish();
        let ghost = answer.try_recv().expect("main answers in the same turn");
        ghost.map(|ghost| ghost.map(|ghost| ghost.user))
    };
    let mut harness = MainHarness::new();
    let (ghost, away, here) = (harness.user("ghost"), harness.user("away"), harness.online("here").user);
    harness.disk.change_user(ghost, |row| row.online = true);
    for fault in [Fault::Begin, Fault::Write, Fault::Commit] {
        harness.disk.fail_next(fault);
        let failed = kick(&mut harness, ghost);
        assert!(matches!(failed, Err(StaleOnlineFault::NotStored(_))), "{fault:?}: {failed:?}");
        assert!(harness.is_online(ghost), "{fault:?}");
    }
    harness.disk.fail_next(Fault::Read);
    let unread = kick(&mut harness, ghost);
    assert!(matches!(unread, Err(StaleOnlineFault::Unread(_))), "{unread:?}");
    // Another process holds the lock: nothing has to be written for these.
    harness.disk.fail_next(Fault::Begin);
    for user in [away, here] {
        assert_eq!(kick(&mut harness, user), Ok(None));
    }
    harness.disk.heal();
    assert_eq!(kick(&mut harness, ghost), Ok(Some(ghost)));
    assert!(!harness.is_online(ghost));
    assert_eq!(kick(&mut harness, ghost), Ok(None), "once");
}
