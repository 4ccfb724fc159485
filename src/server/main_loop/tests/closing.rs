//! When a channel's fd is asked for, and when its name is free again.

use crate::channel::{ChannelId, Reason, Stage};
use crate::main_loop::context::Policy;
use crate::main_loop::transaction::LATER_US;
use crate::main_loop::turn::{COALESCE_DELAY, rest_after};
use crate::shrink::ROOM_KEPT;
use crate::store::{DepartureUpdate, Departures, Transactions};
use crate::testing::commons::{CAPACITY, GRACE_US, policy};
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::{Departed, Disk, Fault};
use crate::testing::words::{Said, accepted};
use std::time::Duration;

fn with_grace(grace_us: u64, capacity: usize) -> Desk {
    Desk::with(Policy { grace_us, ..policy() }, capacity, Disk::default())
}

/// The channels whose sockets were asked for since the last look, in order.
fn asked_for(desk: &Desk) -> Vec<ChannelId> {
    let closes = |(channel, said)| (said == Said::Close).then_some(channel);
    desk.all_heard().into_iter().filter_map(closes).collect()
}

fn leave(desk: &mut Desk, who: Online) {
    desk.send_away(who, Reason::Kicked);
    desk.settle(who, vec![]);
}

#[test]
fn a_channel_is_closed_when_its_grace_is_over_and_not_before() {
    let mut desk = Desk::new();
    let ann = desk.online("ann");
    leave(&mut desk, ann);
    desk.finish_all();
    assert!(!desk.is_online(ann.user), "offline at once");
    desk.commons.clock.advance(GRACE_US - 1);
    desk.finish_all();
    assert_eq!(asked_for(&desk), []);
    desk.commons.clock.advance(1);
    // The time is looked at with the next entry or the next wake-up.
    desk.settle_channel(ann.channel);
    desk.finish_all();
    assert_eq!(asked_for(&desk), [ann.channel]);
    assert_eq!(desk.commons.table.stage(ann.channel), Stage::Offline);
    desk.hand_back(ann.channel);
    desk.finish_all();
    assert_eq!(desk.commons.table.stage(ann.channel), Stage::Free);
    desk.pass_us(LATER_US);
    assert_eq!(completion(&desk).and_then(|known| known.closed_us), Some(GRACE_US as i64));
}

/// What is known of the last session that has ended.
fn completion(desk: &Desk) -> Option<DepartureUpdate> {
    desk.disk.departures().pop().and_then(|departed| departed.completion)
}

#[test]
fn room_for_the_writes_of_a_storm_is_given_back() {
    let mut desk = Desk::with(policy(), 8 * ROOM_KEPT, Disk::default());
    let all: Vec<Online> = (0..=2 * ROOM_KEPT).map(|number| desk.online(&format!("user{number}"))).collect();
    for who in all {
        leave(&mut desk, who);
    }
    assert!(desk.drain.cx.transaction.room() > 2 * ROOM_KEPT);
    desk.finish_all();
    desk.pass_us(LATER_US);
    assert!(desk.drain.cx.transaction.room() <= 2 * ROOM_KEPT, "{}", desk.drain.cx.transaction.room());
}

#[test]
fn the_history_is_completed_with_the_next_commit_or_a_little_later_without_one() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    let commits = |desk: &Desk| desk.commons.metrics.commits.value();
    leave(&mut desk, ann);
    let before = commits(&desk);
    desk.finish_all();
    assert_eq!((commits(&desk) - before, completion(&desk)), (1, None), "no commit of its own");
    assert_eq!(desk.drain.timeout_us(), Some(LATER_US), "main wakes for it");
    desk.chat(bob, ann.user, "kept");
    desk.finish_all();
    assert_eq!(commits(&desk) - before, 2);
    assert_eq!(completion(&desk).and_then(|known| known.offline_us), Some(0));

    leave(&mut desk, bob);
    desk.finish_all();
    desk.pass_us(LATER_US - 1);
    assert_eq!((commits(&desk) - before, completion(&desk)), (3, None));
    desk.pass_us(1);
    assert_eq!(commits(&desk) - before, 4);
    assert_eq!(completion(&desk).and_then(|known| known.offline_us), Some(0));
}

#[test]
fn main_rests_after_many_ends_but_not_after_a_few_or_when_somebody_waits() {
    assert_eq!(rest_after(64, false), COALESCE_DELAY);
    assert_eq!(rest_after(64, true), Duration::ZERO, "somebody waits");
    assert_eq!(
        rest_after(2, false),
        Duration::ZERO,
        "both reports of an end, and perhaps a login behind them"
    );
    assert_eq!(rest_after(0, false), Duration::ZERO);
}

/// So many users who leave at the same moment, each settled.
fn storm(desk: &mut Desk, count: usize) -> Vec<Online> {
    let all: Vec<Online> = (0..count).map(|number| desk.online(&format!("user{number}"))).collect();
    for who in &all {
        leave(desk, *who);
    }
    desk.finish_all();
    all
}

#[test]
fn rows_of_the_history_that_have_the_same_to_say_are_completed_in_one_write() {
    let mut desk = Desk::new();
    storm(&mut desk, 3);
    desk.disk.fail_after(1, Fault::Write);
    desk.pass_us(LATER_US);
    assert_eq!(desk.commons.metrics.commit_failures.value(), 0, "the first write was the only one");
    let all = desk.disk.departures();
    assert_eq!(all.iter().filter(|departed| departed.completion.is_some()).count(), 3);
}

#[test]
fn rows_of_the_history_that_differ_or_lie_apart_are_completed_each_by_itself() {
    let mut desk = Desk::new();
    let [ann, bob, cat, dan] = ["ann", "bob", "cat", "dan"].map(|name| desk.online(name));
    leave(&mut desk, ann);
    // Another program's row lies between.
    desk.finish_all();
    let mut beside = desk.disk.beside();
    let row = desk.disk.departures()[0].row.clone();
    beside.begin().and_then(|()| beside.add_departure(&row)).and_then(|_| beside.commit()).unwrap();
    leave(&mut desk, bob);
    desk.send_away(cat, Reason::Kicked);
    desk.settle(cat, vec![accepted("unsent")]);
    leave(&mut desk, dan);
    desk.finish_all();
    desk.pass_us(LATER_US);
    let saved = |departed: &Departed| departed.completion.map(|known| known.saved);
    let all: Vec<_> = desk.disk.departures().iter().map(saved).collect();
    assert_eq!(all, [Some(0), None, Some(0), Some(1), Some(0)]);
}

#[test]
fn no_grace_still_waits_for_the_settlement_and_for_what_was_asked_before() {
    let mut desk = with_grace(0, CAPACITY);
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    desk.chat_with_seq(ann, bob, "last words", "1");
    desk.send_away(ann, Reason::PeerClosed);
    desk.finish_all();
    assert_eq!(desk.heard(ann.channel)[1..], [Said::Through, Said::Done], "behind the word to leave");
    desk.settle(ann, vec![accepted("unsent")]);
    desk.chat_with_seq(ann, bob, "in the same transaction", "2");
    desk.finish_all();
    assert_eq!(desk.heard(ann.channel), [Said::Through, Said::Done, Said::Close], "the socket comes last");
    assert_eq!(desk.disk.texts(ann.user), ["unsent"]);
    assert_eq!(desk.disk.texts(bob), ["last words", "in the same transaction"]);
}

#[test]
fn when_places_run_short_the_oldest_close_first_and_no_more_than_needed() {
    // From the tenth of ten places on, one more than nine of ten are taken.
    let mut desk = with_grace(GRACE_US, 10);
    let names: Vec<String> = (0..3).map(|number| format!("user {number}")).collect();
    // Each registers on a connection of its own, which stays.
    let online: Vec<Online> = names.iter().map(|name| desk.online(name)).collect();
    for who in &online {
        desk.commons.clock.advance(1);
        leave(&mut desk, *who);
    }
    desk.finish_all();
    assert_eq!(asked_for(&desk), [], "six of ten are taken");
    while desk.commons.table.taken() < 10 {
        desk.connect();
    }
    desk.finish_all();
    assert_eq!(asked_for(&desk), [online[0].channel]);
    desk.finish_all();
    assert_eq!(asked_for(&desk), [], "one is on its way");
    desk.hand_back(online[0].channel);
    desk.connect();
    desk.finish_all();
    assert_eq!(asked_for(&desk), [online[1].channel]);
    assert_eq!(desk.commons.metrics.closed_early.value(), 2);
}

#[test]
fn a_channel_that_has_not_settled_counts_as_one_that_closes() {
    let mut desk = with_grace(GRACE_US, 10);
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.send_away(ann, Reason::Kicked);
    leave(&mut desk, bob);
    while desk.commons.table.taken() < 10 {
        desk.connect();
    }
    for _ in 0..3 {
        desk.finish_all();
        assert_eq!(asked_for(&desk), [], "the oldest goes first, as soon as it has settled");
    }
    desk.settle(ann, vec![]);
    desk.finish_all();
    assert_eq!(asked_for(&desk), [ann.channel]);
}
