//! The wall clock is set while the server runs, or wrong when it starts: nothing that is stored gets older or younger.

use crate::channel::Reason;
use crate::ids::UserId;
use crate::message::event::ControlAsk;
use crate::message::event::Event;
use crate::message::event::{BanName, BanRequest};
use crate::protocol::errno::Errno;
use crate::store::Ban;
use crate::testing::desk::{Desk, Online};
use crate::testing::words::{SECOND_US, Said};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// The ways in which a clock can be wrong, by so much.
const STEPS_MS: [i64; 4] = [-30 * DAY_MS, -365 * DAY_MS, 30 * DAY_MS, 20_000 * DAY_MS];
/// A little more than the time between two looks for what is old.
const NEXT_LOOK_US: u64 = 61 * SECOND_US;

/// Somebody who writes, and somebody who is away, has a message waiting, an end in the history, and is banned for a minute.
fn peopled() -> (Desk, Online, UserId) {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.send_away(bob, Reason::PeerClosed);
    desk.settle(bob, vec![]);
    desk.chat_with_seq(ann, bob.user, "for later", "1");
    desk.finish_all();
    let (reply, _answer) = crossbeam_channel::bounded(1);
    let ask = BanRequest { names: vec![BanName::Id(bob.user)], length_ms: 60_000, reason: None, reply };
    desk.take(Event::Control(ControlAsk::Ban(ask)));
    desk.finish_all();
    desk.forget();
    (desk, ann, bob.user)
}

fn told(desk: &mut Desk, user: UserId) -> Vec<Said> {
    let channel = desk.connect();
    desk.log_in(user, channel);
    desk.finish_all();
    desk.heard(channel)
}

fn bans(desk: &mut Desk) -> Vec<Ban> {
    let (reply, answer) = crossbeam_channel::bounded(1);
    desk.take(Event::Control(ControlAsk::Bans(reply)));
    answer.recv().unwrap()
}

/// Asserts that bob's message, his history, his ban and what is known of ann's chat are all there.
#[track_caller]
fn expect_all_there(desk: &mut Desk, ann: Online, bob: UserId) {
    assert_eq!(told(desk, bob), [Said::Refused(Errno::TooMany)], "the ban holds");
    assert_eq!(desk.disk.texts(bob), ["for later"]);
    assert_eq!(desk.disk.ends(bob), [Reason::PeerClosed]);
    desk.chat_with_seq(ann, bob, "for later", "1");
    desk.finish_all();
    assert_eq!(desk.disk.texts(bob), ["for later"], "the same chat again");
}

#[test]
fn a_step_of_the_wall_clock_empties_nothing_and_neither_ends_nor_prolongs_a_ban() {
    for step_ms in STEPS_MS {
        let (mut desk, ann, bob) = peopled();
        desk.commons.clock.set_wall_by(step_ms);
        desk.pass_us(50 * SECOND_US);
        expect_all_there(&mut desk, ann, bob);
        let [ban] = &bans(&mut desk)[..] else { panic!("one ban") };
        let left_ms = ban.until_ms - desk.commons.clock.now().unix_ms;
        assert!((1..=10_000).contains(&left_ms), "people are told when it ends: {left_ms}");
        desk.pass_us(11 * SECOND_US);
        assert_eq!(told(&mut desk, bob), [Said::welcome(bob, &["for later"])], "a minute is a minute");
    }
}

#[test]
fn a_start_with_a_wrong_clock_empties_nothing_and_neither_ends_nor_prolongs_a_ban() {
    for step_ms in STEPS_MS {
        let (desk, ann, bob) = peopled();
        let wall_ms = desk.commons.clock.now().unix_ms;
        let mut desk = desk.restarted_at((wall_ms + step_ms).max(0));
        let ann = desk.enter(ann.user);
        desk.pass_us(50 * SECOND_US);
        expect_all_there(&mut desk, ann, bob);
        desk.pass_us(11 * SECOND_US);
        assert_eq!(told(&mut desk, bob), [Said::welcome(bob, &["for later"])], "it was given for a minute");
    }
}

#[test]
fn a_clock_that_was_wrong_at_the_start_and_is_set_right_lets_ages_count_the_stop() {
    let (desk, _, bob) = peopled();
    let wall_ms = desk.commons.clock.now().unix_ms;
    let mut desk = desk.restarted_at(0);
    desk.pass_us(SECOND_US);
    assert_eq!(told(&mut desk, bob), [Said::Refused(Errno::TooMany)]);
    desk.commons.clock.set_wall_by(wall_ms + 2 * 3600 * 1000);
    desk.pass_us(NEXT_LOOK_US);
    assert!(bans(&mut desk).is_empty(), "the stop was two hours long");
    desk.pass_us(2 * NEXT_LOOK_US);
    assert!(desk.disk.texts(bob).is_empty(), "and boxes of this policy keep messages for one");
}
