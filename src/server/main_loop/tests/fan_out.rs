//! How a chat to a large group is handed out. A turn's share is three copies here.

use crate::channel::Reason;
use crate::ids::{GroupId, UserId};
use crate::message::request::Ask;
use crate::protocol::errno::Errno;
use crate::store::{COPY_BYTES, OfflineBox};
use crate::testing::builders::{Summary, login};
use crate::testing::fixtures::policy;
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::{Disk, Fault};

/// Members besides the sender: many times what a turn hands out.
const MEMBERS: usize = 20;
/// Turns in which each of these tests has to come to its end.
const TURNS_MAX: usize = 200;

/// Ann, a group of hers, and its other members, who are away.
fn with_large_group(harness: &mut MainHarness) -> (Online, GroupId, Vec<UserId>) {
    let ann = harness.online("ann");
    let group = harness.group(ann);
    let members = (0..MEMBERS).map(|number| {
        let member = harness.online(&format!("member {number}"));
        harness.join(member, group);
        harness.finish();
        harness.send_away(member, Reason::Kicked);
        harness.settle(member, vec![]);
        harness.finish_all();
        member.user
    });
    let members = members.collect();
    harness.forget();
    (ann, group, members)
}

fn boxes(harness: &MainHarness, members: &[UserId]) -> Vec<Vec<String>> {
    members.iter().map(|member| harness.disk.texts(*member)).collect()
}

fn copies(harness: &MainHarness, members: &[UserId]) -> usize {
    boxes(harness, members).iter().map(Vec::len).sum()
}

#[test]
fn a_turn_hands_out_a_few_copies_and_the_sender_is_answered_after_the_last() {
    let mut harness = MainHarness::new();
    let (ann, group, members) = with_large_group(&mut harness);
    harness.group_chat(ann, group, "hello", Some("1"));
    let (mut before, mut turns) = (0, 0);
    while harness.heard(ann.channel).iter().all(|said| *said != Summary::Done) {
        harness.finish();
        let now = copies(&harness, &members);
        // Those of the chats that come, and those of the chats under way.
        assert!(now - before <= 6, "{} copies in one turn", now - before);
        before = now;
        turns += 1;
        assert!(turns < TURNS_MAX, "the sender is never answered");
    }
    assert_eq!(boxes(&harness, &members), vec![["hello"]; MEMBERS]);
    assert!(turns > 3, "all in {turns} turns");
}

#[test]
fn what_a_sender_says_next_to_anybody_waits_for_the_chat_under_way() {
    let mut harness = MainHarness::new();
    let (ann, group, members) = with_large_group(&mut harness);
    let last = *members.last().unwrap();
    harness.group_chat(ann, group, "first", None);
    harness.chat(ann, last, "second");
    harness.finish();
    assert_eq!(harness.disk.texts(last), [""; 0]);
    harness.finish_all();
    assert_eq!(harness.disk.texts(last), ["first", "second"]);
}

#[test]
fn a_sender_who_comes_back_is_let_in_when_all_that_was_said_before_is_on_its_way() {
    let mut harness = MainHarness::new();
    let (ann, group, members) = with_large_group(&mut harness);
    harness.group_chat(ann, group, "hello", None);
    harness.finish();
    harness.send_away(ann, Reason::PeerReset);
    harness.settle(ann, vec![]);
    let channel = harness.connect();
    harness.log_in(ann.user, channel);
    for _ in 0..TURNS_MAX {
        harness.finish();
        if harness.heard(channel).contains(&Summary::Welcome(ann.user, vec![])) {
            assert_eq!(boxes(&harness, &members), vec![["hello"]; MEMBERS]);
            return;
        }
    }
    panic!("never let in");
}

#[test]
fn one_sender_of_much_does_not_hold_up_another() {
    let mut harness = MainHarness::new();
    let (ann, group, members) = with_large_group(&mut harness);
    let bob = harness.online("bob");
    let first = members[0];
    for number in 0..10 {
        harness.group_chat(ann, group, "flood", Some(&number.to_string()));
    }
    harness.finish();
    harness.chat_with_seq(bob, first, "hello", "1");
    harness.finish();
    assert!(harness.heard(bob.channel).contains(&Summary::Done));
    assert!(copies(&harness, &members) < MEMBERS, "the flood is still on its way");
    harness.finish_all();
    assert_eq!(copies(&harness, &members), 10 * MEMBERS + 1);
}

#[test]
fn a_part_that_is_not_committed_is_handed_out_again_and_nobody_gets_two() {
    let mut harness = MainHarness::new();
    let (ann, group, members) = with_large_group(&mut harness);
    harness.group_chat(ann, group, "hello", Some("1"));
    harness.finish();
    for fault in [Fault::Commit, Fault::Write, Fault::Begin, Fault::Read] {
        harness.disk.fail_next(fault);
        harness.finish();
        harness.disk.heal();
        harness.finish();
    }
    harness.finish_all();
    assert_eq!(boxes(&harness, &members), vec![["hello"]; MEMBERS]);
    assert!(harness.heard(ann.channel).contains(&Summary::Done));
}

#[test]
fn a_chat_of_which_nothing_is_committed_fails_as_a_whole() {
    for seq in [None, Some("1")] {
        let mut harness = MainHarness::new();
        let (ann, group, members) = with_large_group(&mut harness);
        harness.disk.fail_next(Fault::Commit);
        harness.group_chat(ann, group, "hello", seq);
        harness.finish_all();
        assert_eq!(copies(&harness, &members), 0);
        let heard = harness.heard(ann.channel);
        assert!(heard.contains(&Summary::Error(Errno::NotStored)), "{heard:?}");
    }
}

#[test]
fn a_chat_to_many_counts_once_and_past_the_bound_of_all_boxes_it_is_errno_20() {
    let mut disk = MainHarness::new();
    let (ann, group, members) = with_large_group(&mut disk);
    let long = "x".repeat(10_000);
    disk.group_chat(ann, group, &long, Some("1"));
    disk.finish_all();
    let kept = disk.disk.beside().kept_bytes().unwrap();
    assert!(kept < MEMBERS as u64 * 10_000, "{kept} bytes");

    let all_full = kept + COPY_BYTES + 5_000;
    let mut harness = MainHarness::with(
        crate::main_loop::context::Policy { box_total: all_full, ..policy() },
        64,
        disk.disk,
    );
    let ann = harness.enter(ann.user);
    harness.chat_with_seq(ann, members[0], &long, "2");
    harness.group_chat(ann, group, &long, Some("3"));
    harness.finish_all();
    let heard = harness.heard(ann.channel);
    assert!(heard.contains(&Summary::Error(Errno::BoxFull)), "{heard:?}");
    assert!(heard.contains(&Summary::DoneBut(members.clone())), "{heard:?}");
    harness.chat_with_seq(ann, members[0], "short", "4");
    harness.finish_all();
    assert!(harness.heard(ann.channel).contains(&Summary::Done));
}

#[test]
fn a_turn_ends_when_it_has_much_to_store() {
    let mut harness = MainHarness::with(
        crate::main_loop::context::Policy { box_total: 1 << 30, ..policy() },
        64,
        Disk::default(),
    );
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    let long = "x".repeat(60_000);
    let mut chats = 0;
    while !harness.main.is_full() {
        harness.chat(ann, bob, &long);
        chats += 1;
        assert!(chats <= 20, "{chats} long chats in one turn");
    }
    harness.finish();
    assert!(!harness.main.is_full(), "the next turn begins anew");
}

#[test]
fn a_repetition_after_a_crash_in_the_middle_goes_on_where_the_chat_stopped() {
    // Behind the sixth every copy is stored, and that the chat is accepted is not.
    for turns in 1..=6 {
        let mut harness = MainHarness::new();
        let (ann, group, members) = with_large_group(&mut harness);
        harness.group_chat(ann, group, "hello", Some("1"));
        for _ in 0..turns {
            harness.finish();
        }
        let before = copies(&harness, &members);
        assert!((1..=MEMBERS).contains(&before), "{before} copies after {turns} turns");
        let mut harness = harness.restarted();
        let ann = harness.enter(ann.user);
        harness.group_chat(ann, group, "hello", Some("1"));
        harness.finish_all();
        assert!(harness.heard(ann.channel).contains(&Summary::Done));
        assert_eq!(boxes(&harness, &members), vec![["hello"]; MEMBERS], "killed after {turns} turns");
        assert_eq!(harness.disk.chats(0)[1], [], "nothing is noted once the chat is accepted");
    }
}

#[test]
fn a_repetition_after_a_crash_passes_over_whose_copies_were_stored_before_the_last_members() {
    let mut harness = MainHarness::new();
    let (ann, bob, cy) = (harness.online("ann"), harness.online("bob"), harness.online("cy"));
    let group = harness.group(ann);
    for member in [bob, cy] {
        harness.join(member, group);
        harness.finish_all();
        harness.send_away(member, Reason::Kicked);
    }
    harness.settle(bob, vec![]);
    harness.finish_all();
    // What cy's last session has left unsent is not known yet, so that cy's copy waits.
    harness.group_chat(ann, group, "hello", Some("1"));
    harness.finish_all();
    assert_eq!(boxes(&harness, &[bob.user, cy.user]), [vec!["hello"], vec![]]);
    let mut harness = harness.restarted();
    let ann = harness.enter(ann.user);
    harness.group_chat(ann, group, "hello", Some("1"));
    harness.finish_all();
    assert_eq!(boxes(&harness, &[bob.user, cy.user]), [["hello"], ["hello"]]);
    assert!(harness.heard(ann.channel).contains(&Summary::Done));
}

#[test]
fn a_copy_that_waited_is_noted_with_its_transaction_when_others_still_wait() {
    let mut harness = MainHarness::new();
    let (ann, bob, cy) = (harness.online("ann"), harness.online("bob"), harness.online("cy"));
    let group = harness.group(ann);
    for member in [bob, cy] {
        harness.join(member, group);
        harness.finish_all();
        harness.send_away(member, Reason::Kicked);
    }
    harness.group_chat(ann, group, "hello", Some("1"));
    harness.finish_all();
    harness.settle(bob, vec![]);
    harness.finish_all();
    assert_eq!(boxes(&harness, &[bob.user, cy.user]), [vec!["hello"], vec![]]);
    let mut harness = harness.restarted();
    let ann = harness.enter(ann.user);
    harness.group_chat(ann, group, "hello", Some("1"));
    harness.finish_all();
    assert_eq!(boxes(&harness, &[bob.user, cy.user]), [["hello"], ["hello"]]);
}

#[test]
fn a_member_who_confirms_gets_a_part_that_could_not_be_stored_in_the_next_one() {
    for fault in [Fault::Begin, Fault::Write, Fault::Commit] {
        let mut harness = MainHarness::new();
        let (ann, group, members) = with_large_group(&mut harness);
        let last = *members.last().unwrap();
        let channel = harness.connect();
        let Ask::Login(mut confirming) = login(last, channel) else { unreachable!("a login") };
        confirming.caps.ack = true;
        harness.ask(Ask::Login(confirming));
        harness.finish_all();
        harness.group_chat(ann, group, "hello", Some("1"));
        harness.finish();
        // Whichever of the later parts the last member is in, each can be stored only the second time.
        for _ in 0..2 * MEMBERS {
            harness.disk.fail_next(fault);
            harness.finish();
            harness.disk.heal();
            harness.finish();
        }
        harness.finish_all();
        assert_eq!(boxes(&harness, &members), vec![["hello"]; MEMBERS], "{fault:?}");
        assert!(harness.heard(ann.channel).contains(&Summary::Done), "{fault:?}");
    }
}
