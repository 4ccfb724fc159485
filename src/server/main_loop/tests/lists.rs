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
use crate::testing::commons::{CAPACITY, policy};
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::{Disk, Fault};
use crate::testing::words::{SECOND_US, Said, asker};

#[test]
fn a_login_that_lists_thousands_goes_behind_others_between_its_looks_at_the_store() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.user("ann"), desk.user("bob"));
    let mut store = desk.disk.beside();
    store.begin().unwrap();
    for n in 0..=2 * LIST_ROWS {
        let friend = store.add_user(&format!("friend {n}"), None).unwrap().unwrap();
        store.add_friend(ann, friend).unwrap();
    }
    store.commit().unwrap();
    desk.forget();
    let (long, short) = (desk.connect(), desk.connect());
    desk.log_in(ann, long);
    desk.log_in(bob, short);
    desk.finish();
    assert_eq!(desk.heard(short), [Said::welcome(bob, &[])]);
    assert_eq!(desk.heard(long), []);
    desk.take_queued();
    desk.finish();
    assert_eq!(desk.heard(long), [], "two thirds are read");
    desk.finish_all();
    let commands = desk.letters.take(Some(long));
    let [WorkerCommand::Answer { answer: Some(Answer::LoggedIn(login)), .. }] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!((login.friends.len(), login.more), (2 * LIST_ROWS + 1, false));
    // What is remembered needs no look, and a new friend is not missed.
    desk.ask(Ask::AddFriend { asker: asker(long, Msgid::AddFriend, None), user: ann, friend: bob });
    desk.finish_all();
    let again = desk.connect();
    desk.log_in(ann, again);
    let_them_leave(&mut desk);
    assert!(desk.is_online(ann));
    assert_eq!(desk.commons.registry.find(ann).map(|online| online.channel), Some(again));
}

#[test]
fn nothing_is_read_for_a_login_whose_channel_has_left() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let channel = desk.connect();
    assert!(desk.kicker.kick(channel, Reason::Kicked));
    // Any look at the store would fail, and be logged as a commit that failed.
    desk.disk.fail_next(Fault::Read);
    desk.log_in(user, channel);
    desk.finish();
    assert_eq!(desk.commons.metrics.commit_failures.value(), 0);
    desk.disk.heal();
}

#[test]
fn friends_and_groups_have_a_limit_and_those_that_are_there_are_no_more_for_being_named_again() {
    let mut desk =
        Desk::with(Policy { friends_max: 2, groups_max: 2, ..policy() }, CAPACITY, Disk::default());
    let others = [desk.user("bob"), desk.user("cy"), desk.user("dan")];
    let dan = desk.enter(others[2]);
    let ann = desk.online("ann");
    desk.forget();
    let group = |desk: &mut Desk, who: Online| {
        let asker = asker(who.channel, Msgid::CreateGroup, Some("1"));
        desk.ask(Ask::CreateGroup { asker, user: who.user, name: "g".into(), desc: "d".into() });
        desk.finish_all();
        desk.heard(who.channel)
    };
    let join = |desk: &mut Desk, group: i64| {
        let asker = asker(ann.channel, Msgid::JoinGroup, Some("1"));
        desk.ask(Ask::JoinGroup { asker, user: ann.user, group: GroupId(group) });
        desk.finish_all();
        desk.heard(ann.channel)
    };
    let add = |desk: &mut Desk, friend: UserId| {
        let asker = asker(ann.channel, Msgid::AddFriend, Some("1"));
        desk.ask(Ask::AddFriend { asker, user: ann.user, friend });
        desk.finish_all();
        desk.heard(ann.channel)
    };
    for _ in 0..2 {
        assert_eq!(add(&mut desk, others[0]), [Said::Done]);
        assert_eq!(add(&mut desk, others[1]), [Said::Done]);
    }
    assert_eq!(add(&mut desk, others[2]), [Said::Error(Errno::BoxFull)]);
    assert_eq!(add(&mut desk, others[0]), [Said::Done]);
    assert_eq!(group(&mut desk, dan), [Said::Created(GroupId(1))]);
    assert_eq!(group(&mut desk, dan), [Said::Created(GroupId(2))]);
    assert_eq!(group(&mut desk, dan), [Said::Error(Errno::BoxFull)]);
    assert_eq!(group(&mut desk, ann), [Said::Created(GroupId(3))]);
    for _ in 0..2 {
        assert_eq!(join(&mut desk, 1), [Said::Done]);
        assert_eq!(join(&mut desk, 3), [Said::Done]);
    }
    assert_eq!(join(&mut desk, 2), [Said::Error(Errno::BoxFull)]);
    assert_eq!(group(&mut desk, ann), [Said::Error(Errno::BoxFull)]);
    assert_eq!(join(&mut desk, 9), [Said::Error(Errno::NoSuchGroup)]);
}

#[test]
fn nothing_is_remembered_for_long_of_users_without_friends_and_groups_either() {
    let mut desk = Desk::new();
    for number in 0..3 {
        desk.online(&format!("user {number}"));
    }
    assert!(desk.drain.lists.held() > 0);
    desk.pass_us(11 * SECOND_US);
    assert_eq!(desk.drain.lists.held(), 0);
}
