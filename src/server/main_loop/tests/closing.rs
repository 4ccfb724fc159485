//! When a channel's fd is asked for, and when its name is free again.

use crate::channel::{ChannelId, Reason, Stage};
use crate::main_loop::context::Policy;
use crate::main_loop::transaction::LATER_US;
use crate::main_loop::turn::{COALESCE_DELAY, rest_after};
use crate::shrink::ROOM_KEPT;
use crate::store::{DepartureUpdate, Departures, Transactions};
use crate::testing::builders::{Summary, accepted};
use crate::testing::fixtures::{CAPACITY, GRACE_US, policy};
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::{Departed, Disk, Fault};
use std::time::Duration;

fn with_grace(grace_us: u64, capacity: usize) -> MainHarness {
    MainHarness::with(Policy { grace_us, ..policy() }, capacity, Disk::default())
}

/// The channels whose sockets were asked for since the last look, in order.
fn asked_for(harness: &MainHarness) -> Vec<ChannelId> {
    let closes = |(channel, said)| (said == Summary::Close).then_some(channel);
    harness.all_heard().into_iter().filter_map(closes).collect()
}

fn leave(harness: &mut MainHarness, who: Online) {
    harness.send_away(who, Reason::Kicked);
    harness.settle(who, vec![]);
}

#[test]
fn a_channel_is_closed_when_its_grace_is_over_and_not_before() {
    let mut harness = MainHarness::new();
    let ann = harness.online("ann");
    leave(&mut harness, ann);
    harness.finish_all();
    assert!(!harness.is_online(ann.user), "offline at once");
    harness.fixtures.clock.advance(GRACE_US - 1);
    harness.finish_all();
    assert_eq!(asked_for(&harness), []);
    harness.fixtures.clock.advance(1);
    // The time is looked at with the next entry or the next wake-up.
    harness.settle_channel(ann.channel);
    harness.finish_all();
    assert_eq!(asked_for(&harness), [ann.channel]);
    assert_eq!(harness.fixtures.table.stage(ann.channel), Stage::Offline);
    harness.hand_back(ann.channel);
    harness.finish_all();
    assert_eq!(harness.fixtures.table.stage(ann.channel), Stage::Free);
    harness.pass_us(LATER_US);
    assert_eq!(completion(&harness).and_then(|known| known.closed_us), Some(GRACE_US as i64));
}

/// What is known of the last session that has ended.
fn completion(harness: &MainHarness) -> Option<DepartureUpdate> {
    harness.disk.departures().pop().and_then(|departed| departed.completion)
}

#[test]
fn room_for_the_writes_of_a_storm_is_given_back() {
    let mut harness = MainHarness::with(policy(), 8 * ROOM_KEPT, Disk::default());
    let all: Vec<Online> =
        (0..=2 * ROOM_KEPT).map(|number| harness.online(&format!("user{number}"))).collect();
    for who in all {
        leave(&mut harness, who);
    }
    assert!(harness.main.cx.transaction.room() > 2 * ROOM_KEPT);
    harness.finish_all();
    harness.pass_us(LATER_US);
    assert!(harness.main.cx.transaction.room() <= 2 * ROOM_KEPT, "{}", harness.main.cx.transaction.room());
}

#[test]
fn the_history_is_completed_with_the_next_commit_or_a_little_later_without_one() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    let commits = |harness: &MainHarness| harness.fixtures.metrics.commits.value();
    leave(&mut harness, ann);
    let before = commits(&harness);
    harness.finish_all();
    assert_eq!((commits(&harness) - before, completion(&harness)), (1, None), "no commit of its own");
    assert_eq!(harness.main.timeout_us(), Some(LATER_US), "main wakes for it");
    harness.chat(bob, ann.user, "kept");
    harness.finish_all();
    assert_eq!(commits(&harness) - before, 2);
    assert_eq!(completion(&harness).and_then(|known| known.offline_us), Some(0));

    leave(&mut harness, bob);
    harness.finish_all();
    harness.pass_us(LATER_US - 1);
    assert_eq!((commits(&harness) - before, completion(&harness)), (3, None));
    harness.pass_us(1);
    assert_eq!(commits(&harness) - before, 4);
    assert_eq!(completion(&harness).and_then(|known| known.offline_us), Some(0));
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
fn storm(harness: &mut MainHarness, count: usize) -> Vec<Online> {
    let all: Vec<Online> = (0..count).map(|number| harness.online(&format!("user{number}"))).collect();
    for who in &all {
        leave(harness, *who);
    }
    harness.finish_all();
    all
}

#[test]
fn rows_of_the_history_that_have_the_same_to_say_are_completed_in_one_write() {
    let mut harness = MainHarness::new();
    storm(&mut harness, 3);
    harness.disk.fail_after(1, Fault::Write);
    harness.pass_us(LATER_US);
    assert_eq!(harness.fixtures.metrics.commit_failures.value(), 0, "the first write was the only one");
    let all = harness.disk.departures();
    assert_eq!(all.iter().filter(|departed| departed.completion.is_some()).count(), 3);
}

#[test]
fn rows_of_the_history_that_differ_or_lie_apart_are_completed_each_by_itself() {
    let mut harness = MainHarness::new();
    let [ann, bob, cat, dan] = ["ann", "bob", "cat", "dan"].map(|name| harness.online(name));
    leave(&mut harness, ann);
    // Another program's row lies between.
    harness.finish_all();
    let mut beside = harness.disk.beside();
    let row = harness.disk.departures()[0].row.clone();
    beside.begin().and_then(|()| beside.add_departure(&row)).and_then(|_| beside.commit()).unwrap();
    leave(&mut harness, bob);
    harness.send_away(cat, Reason::Kicked);
    harness.settle(cat, vec![accepted("unsent")]);
    leave(&mut harness, dan);
    harness.finish_all();
    harness.pass_us(LATER_US);
    let saved = |departed: &Departed| departed.completion.map(|known| known.saved);
    let all: Vec<_> = harness.disk.departures().iter().map(saved).collect();
    assert_eq!(all, [Some(0), None, Some(0), Some(1), Some(0)]);
}

#[test]
fn no_grace_still_waits_for_the_settlement_and_for_what_was_asked_before() {
    let mut harness = with_grace(0, CAPACITY);
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    harness.chat_with_seq(ann, bob, "last words", "1");
    harness.send_away(ann, Reason::PeerClosed);
    harness.finish_all();
    assert_eq!(
        harness.heard(ann.channel)[1..],
        [Summary::Through, Summary::Done],
        "behind the word to leave"
    );
    harness.settle(ann, vec![accepted("unsent")]);
    harness.chat_with_seq(ann, bob, "in the same transaction", "2");
    harness.finish_all();
    assert_eq!(
        harness.heard(ann.channel),
        [Summary::Through, Summary::Done, Summary::Close],
        "the socket comes last"
    );
    assert_eq!(harness.disk.texts(ann.user), ["unsent"]);
    assert_eq!(harness.disk.texts(bob), ["last words", "in the same transaction"]);
}

#[test]
fn when_places_run_short_the_oldest_close_first_and_no_more_than_needed() {
    // From the tenth of ten places on, one more than nine of ten are taken.
    let mut harness = with_grace(GRACE_US, 10);
    let names: Vec<String> = (0..3).map(|number| format!("user {number}")).collect();
    // Each registers on a connection of its own, which stays.
    let online: Vec<Online> = names.iter().map(|name| harness.online(name)).collect();
    for who in &online {
        harness.fixtures.clock.advance(1);
        leave(&mut harness, *who);
    }
    harness.finish_all();
    assert_eq!(asked_for(&harness), [], "six of ten are taken");
    while harness.fixtures.table.taken() < 10 {
        harness.connect();
    }
    harness.finish_all();
    assert_eq!(asked_for(&harness), [online[0].channel]);
    harness.finish_all();
    assert_eq!(asked_for(&harness), [], "one is on its way");
    harness.hand_back(online[0].channel);
    harness.connect();
    harness.finish_all();
    assert_eq!(asked_for(&harness), [online[1].channel]);
    assert_eq!(harness.fixtures.metrics.closed_early.value(), 2);
}

#[test]
fn a_channel_that_has_not_settled_counts_as_one_that_closes() {
    let mut harness = with_grace(GRACE_US, 10);
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.send_away(ann, Reason::Kicked);
    leave(&mut harness, bob);
    while harness.fixtures.table.taken() < 10 {
        harness.connect();
    }
    for _ in 0..3 {
        harness.finish_all();
        assert_eq!(asked_for(&harness), [], "the oldest goes first, as soon as it has settled");
    }
    harness.settle(ann, vec![]);
    harness.finish_all();
    assert_eq!(asked_for(&harness), [ann.channel]);
}
