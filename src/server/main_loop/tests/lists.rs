//! What logins list of friends and groups, and how many of them there may be.

use super::logins::let_them_leave;
use crate::channel::Reason;
use crate::ids::{GroupId, UserId};
use crate::main_loop::context::Policy;
use crate::main_loop::lists::LIST_ROWS;
use crate::message::command::WorkerCommand;
use crate::message::reply::Answer;
use crate::message::request::Ask;
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::store::{FriendsGroups, Transactions, Users};
use crate::testing::builders::{SECOND_US, Summary, reply_to};
use crate::testing::fixtures::{CAPACITY, policy};
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::{Disk, Fault};

#[test]
fn a_login_that_lists_thousands_goes_behind_others_between_its_looks_at_the_store() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.user("ann"), harness.user("bob"));
    let mut store = harness.disk.beside();
    store.begin().unwrap();
    for n in 0..=2 * LIST_ROWS {
        let friend = store.add_user(&format!("friend {n}"), None).unwrap().unwrap();
        store.add_friend(ann, friend).unwrap();
    }
    store.commit().unwrap();
    harness.forget();
    let (long, short) = (harness.connect(), harness.connect());
    harness.log_in(ann, long);
    harness.log_in(bob, short);
    harness.finish();
    assert_eq!(harness.heard(short), [Summary::welcome(bob, &[])]);
    assert_eq!(harness.heard(long), []);
    harness.take_queued();
    harness.finish();
    assert_eq!(harness.heard(long), [], "two thirds are read");
    harness.finish_all();
    let commands = harness.mailboxes.take(Some(long));
    let [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!((login.friends.len(), login.more), (2 * LIST_ROWS + 1, false));
    // What is remembered needs no look, and a new friend is not missed.
    harness.ask(Ask::AddFriend { reply_to: reply_to(long, Msgid::AddFriend, None), user: ann, friend: bob });
    harness.finish_all();
    let again = harness.connect();
    harness.log_in(ann, again);
    let_them_leave(&mut harness);
    assert!(harness.is_online(ann));
    assert_eq!(harness.fixtures.registry.find(ann).map(|online| online.channel), Some(again));
}

#[test]
fn nothing_is_read_for_a_login_whose_channel_has_left() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let channel = harness.connect();
    assert!(harness.kicker.kick(channel, Reason::Kicked));
    // Any look at the store would fail, and be logged as a commit that failed.
    harness.disk.fail_next(Fault::Read);
    harness.log_in(user, channel);
    harness.finish();
    assert_eq!(harness.fixtures.metrics.commit_failures.value(), 0);
    harness.disk.heal();
}

#[test]
fn friends_and_groups_have_a_limit_and_those_that_are_there_are_no_more_for_being_named_again() {
    let mut harness =
        MainHarness::with(Policy { friends_max: 2, groups_max: 2, ..policy() }, CAPACITY, Disk::default());
    let others = [harness.user("bob"), harness.user("cy"), harness.user("dan")];
    let dan = harness.enter(others[2]);
    let ann = harness.online("ann");
    harness.forget();
    let group = |harness: &mut MainHarness, who: Online| {
        let reply_to = reply_to(who.channel, Msgid::CreateGroup, Some("1"));
        harness.ask(Ask::CreateGroup { reply_to, user: who.user, name: "g".into(), desc: "d".into() });
        harness.finish_all();
        harness.heard(who.channel)
    };
    let join = |harness: &mut MainHarness, group: i64| {
        let reply_to = reply_to(ann.channel, Msgid::JoinGroup, Some("1"));
        harness.ask(Ask::JoinGroup { reply_to, user: ann.user, group: GroupId(group) });
        harness.finish_all();
        harness.heard(ann.channel)
    };
    let add = |harness: &mut MainHarness, friend: UserId| {
        let reply_to = reply_to(ann.channel, Msgid::AddFriend, Some("1"));
        harness.ask(Ask::AddFriend { reply_to, user: ann.user, friend });
        harness.finish_all();
        harness.heard(ann.channel)
    };
    for _ in 0..2 {
        assert_eq!(add(&mut harness, others[0]), [Summary::Done]);
        assert_eq!(add(&mut harness, others[1]), [Summary::Done]);
    }
    assert_eq!(add(&mut harness, others[2]), [Summary::Error(Errno::BoxFull)]);
    assert_eq!(add(&mut harness, others[0]), [Summary::Done]);
    assert_eq!(group(&mut harness, dan), [Summary::Created(GroupId(1))]);
    assert_eq!(group(&mut harness, dan), [Summary::Created(GroupId(2))]);
    assert_eq!(group(&mut harness, dan), [Summary::Error(Errno::BoxFull)]);
    assert_eq!(group(&mut harness, ann), [Summary::Created(GroupId(3))]);
    for _ in 0..2 {
        assert_eq!(join(&mut harness, 1), [Summary::Done]);
        assert_eq!(join(&mut harness, 3), [Summary::Done]);
    }
    assert_eq!(join(&mut harness, 2), [Summary::Error(Errno::BoxFull)]);
    assert_eq!(group(&mut harness, ann), [Summary::Error(Errno::BoxFull)]);
    assert_eq!(join(&mut harness, 9), [Summary::Error(Errno::NoSuchGroup)]);
}

#[test]
fn nothing_is_remembered_for_long_of_users_without_friends_and_groups_either() {
    let mut harness = MainHarness::new();
    for number in 0..3 {
        harness.online(&format!("user {number}"));
    }
    assert!(harness.main.lists.held() > 0);
    harness.pass_us(11 * SECOND_US);
    assert_eq!(harness.main.lists.held(), 0);
}
