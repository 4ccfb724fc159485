//! The wall clock is set while the server runs, or wrong when it starts: nothing that is stored gets older or younger.

use crate::channel::Reason;
use crate::ids::UserId;
use crate::message::event::ControlAsk;
use crate::message::event::Event;
use crate::message::event::{BanName, BanRequest};
use crate::protocol::errno::Errno;
use crate::store::Ban;
use crate::testing::builders::{SECOND_US, Summary};
use crate::testing::main_harness::{MainHarness, Online};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// The ways in which a clock can be wrong, by so much.
const STEPS_MS: [i64; 4] = [-30 * DAY_MS, -365 * DAY_MS, 30 * DAY_MS, 20_000 * DAY_MS];
/// A little more than the time between two looks for what is old.
const NEXT_LOOK_US: u64 = 61 * SECOND_US;

/// Somebody who writes, and somebody who is away, has a message waiting, an end in the history, and is banned for a minute.
fn peopled() -> (MainHarness, Online, UserId) {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.send_away(bob, Reason::PeerClosed);
    harness.settle(bob, vec![]);
    harness.chat_with_seq(ann, bob.user, "for later", "1");
    harness.finish_all();
    let (reply, _answer) = crossbeam_channel::bounded(1);
    let ask = BanRequest { names: vec![BanName::Id(bob.user)], length_ms: 60_000, reason: None, reply };
    harness.take(Event::Control(ControlAsk::Ban(ask)));
    harness.finish_all();
    harness.forget();
    (harness, ann, bob.user)
}

fn told(harness: &mut MainHarness, user: UserId) -> Vec<Summary> {
    let channel = harness.connect();
    harness.log_in(user, channel);
    harness.finish_all();
    harness.heard(channel)
}

fn bans(harness: &mut MainHarness) -> Vec<Ban> {
    let (reply, answer) = crossbeam_channel::bounded(1);
    harness.take(Event::Control(ControlAsk::Bans(reply)));
    answer.recv().unwrap()
}

/// Asserts that bob's message, his history, his ban and what is known of ann's chat are all there.
#[track_caller]
fn expect_all_there(harness: &mut MainHarness, ann: Online, bob: UserId) {
    assert_eq!(told(harness, bob), [Summary::Refused(Errno::TooMany)], "the ban holds");
    assert_eq!(harness.disk.texts(bob), ["for later"]);
    assert_eq!(harness.disk.ends(bob), [Reason::PeerClosed]);
    harness.chat_with_seq(ann, bob, "for later", "1");
    harness.finish_all();
    assert_eq!(harness.disk.texts(bob), ["for later"], "the same chat again");
}

#[test]
fn a_step_of_the_wall_clock_empties_nothing_and_neither_ends_nor_prolongs_a_ban() {
    for step_ms in STEPS_MS {
        let (mut harness, ann, bob) = peopled();
        harness.fixtures.clock.set_wall_by(step_ms);
        harness.pass_us(50 * SECOND_US);
        expect_all_there(&mut harness, ann, bob);
        let [ban] = &bans(&mut harness)[..] else { panic!("one ban") };
        let left_ms = ban.until_ms - harness.fixtures.clock.now().unix_ms;
        assert!((1..=10_000).contains(&left_ms), "people are told when it ends: {left_ms}");
        harness.pass_us(11 * SECOND_US);
        assert_eq!(told(&mut harness, bob), [Summary::welcome(bob, &["for later"])], "a minute is a minute");
    }
}

#[test]
fn a_start_with_a_wrong_clock_empties_nothing_and_neither_ends_nor_prolongs_a_ban() {
    for step_ms in STEPS_MS {
        let (harness, ann, bob) = peopled();
        let wall_ms = harness.fixtures.clock.now().unix_ms;
        let mut harness = harness.restarted_at((wall_ms + step_ms).max(0));
        let ann = harness.enter(ann.user);
        harness.pass_us(50 * SECOND_US);
        expect_all_there(&mut harness, ann, bob);
        harness.pass_us(11 * SECOND_US);
        assert_eq!(
            told(&mut harness, bob),
            [Summary::welcome(bob, &["for later"])],
            "it was given for a minute"
        );
    }
}

#[test]
fn a_clock_that_was_wrong_at_the_start_and_is_set_right_lets_ages_count_the_stop() {
    let (harness, _, bob) = peopled();
    let wall_ms = harness.fixtures.clock.now().unix_ms;
    let mut harness = harness.restarted_at(0);
    harness.pass_us(SECOND_US);
    assert_eq!(told(&mut harness, bob), [Summary::Refused(Errno::TooMany)]);
    harness.fixtures.clock.set_wall_by(wall_ms + 2 * 3600 * 1000);
    harness.pass_us(NEXT_LOOK_US);
    assert!(bans(&mut harness).is_empty(), "the stop was two hours long");
    harness.pass_us(2 * NEXT_LOOK_US);
    assert!(harness.disk.texts(bob).is_empty(), "and boxes of this policy keep messages for one");
}
