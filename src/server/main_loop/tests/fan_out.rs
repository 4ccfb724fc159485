//! How a chat to a large group is handed out. A turn's share is three copies here.

use crate::channel::Reason;
use crate::ids::{GroupId, UserId};
use crate::message::request::Ask;
use crate::protocol::errno::Errno;
use crate::store::{COPY_BYTES, OfflineBox};
use crate::testing::commons::policy;
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::{Disk, Fault};
use crate::testing::words::{Said, login};

/// Members besides the sender: many times what a turn hands out.
const MEMBERS: usize = 20;
/// Turns in which each of these tests has to come to its end.
const TURNS_MAX: usize = 200;

/// Ann, a group of hers, and its other members, who are away.
fn with_large_group(desk: &mut Desk) -> (Online, GroupId, Vec<UserId>) {
    let ann = desk.online("ann");
    let group = desk.group(ann);
    let members = (0..MEMBERS).map(|number| {
        let member = desk.online(&format!("member {number}"));
        desk.join(member, group);
        desk.finish();
        desk.send_away(member, Reason::Kicked);
        desk.settle(member, vec![]);
        desk.finish_all();
        member.user
    });
    let members = members.collect();
    desk.forget();
    (ann, group, members)
}

fn boxes(desk: &Desk, members: &[UserId]) -> Vec<Vec<String>> {
    members.iter().map(|member| desk.disk.texts(*member)).collect()
}

fn copies(desk: &Desk, members: &[UserId]) -> usize {
    boxes(desk, members).iter().map(Vec::len).sum()
}

#[test]
fn a_turn_hands_out_a_few_copies_and_the_sender_is_answered_after_the_last() {
    let mut desk = Desk::new();
    let (ann, group, members) = with_large_group(&mut desk);
    desk.group_chat(ann, group, "hello", Some("1"));
    let (mut before, mut turns) = (0, 0);
    while desk.heard(ann.channel).iter().all(|said| *said != Said::Done) {
        desk.finish();
        let now = copies(&desk, &members);
        // Those of the chats that come, and those of the chats under way.
        assert!(now - before <= 6, "{} copies in one turn", now - before);
        before = now;
        turns += 1;
        assert!(turns < TURNS_MAX, "the sender is never answered");
    }
    assert_eq!(boxes(&desk, &members), vec![["hello"]; MEMBERS]);
    assert!(turns > 3, "all in {turns} turns");
}

#[test]
fn what_a_sender_says_next_to_anybody_waits_for_the_chat_under_way() {
    let mut desk = Desk::new();
    let (ann, group, members) = with_large_group(&mut desk);
    let last = *members.last().unwrap();
    desk.group_chat(ann, group, "first", None);
    desk.chat(ann, last, "second");
    desk.finish();
    assert_eq!(desk.disk.texts(last), [""; 0]);
    desk.finish_all();
    assert_eq!(desk.disk.texts(last), ["first", "second"]);
}

#[test]
fn a_sender_who_comes_back_is_let_in_when_all_that_was_said_before_is_on_its_way() {
    let mut desk = Desk::new();
    let (ann, group, members) = with_large_group(&mut desk);
    desk.group_chat(ann, group, "hello", None);
    desk.finish();
    desk.send_away(ann, Reason::PeerReset);
    desk.settle(ann, vec![]);
    let channel = desk.connect();
    desk.log_in(ann.user, channel);
    for _ in 0..TURNS_MAX {
        desk.finish();
        if desk.heard(channel).contains(&Said::Welcome(ann.user, vec![])) {
            assert_eq!(boxes(&desk, &members), vec![["hello"]; MEMBERS]);
            return;
        }
    }
    panic!("never let in");
}

#[test]
fn one_sender_of_much_does_not_hold_up_another() {
    let mut desk = Desk::new();
    let (ann, group, members) = with_large_group(&mut desk);
    let bob = desk.online("bob");
    let first = members[0];
    for number in 0..10 {
        desk.group_chat(ann, group, "flood", Some(&number.to_string()));
    }
    desk.finish();
    desk.chat_with_seq(bob, first, "hello", "1");
    desk.finish();
    assert!(desk.heard(bob.channel).contains(&Said::Done));
    assert!(copies(&desk, &members) < MEMBERS, "the flood is still on its way");
    desk.finish_all();
    assert_eq!(copies(&desk, &members), 10 * MEMBERS + 1);
}

#[test]
fn a_part_that_is_not_committed_is_handed_out_again_and_nobody_gets_two() {
    let mut desk = Desk::new();
    let (ann, group, members) = with_large_group(&mut desk);
    desk.group_chat(ann, group, "hello", Some("1"));
    desk.finish();
    for fault in [Fault::Commit, Fault::Write, Fault::Begin, Fault::Read] {
        desk.disk.fail_next(fault);
        desk.finish();
        desk.disk.heal();
        desk.finish();
    }
    desk.finish_all();
    assert_eq!(boxes(&desk, &members), vec![["hello"]; MEMBERS]);
    assert!(desk.heard(ann.channel).contains(&Said::Done));
}

#[test]
fn a_chat_of_which_nothing_is_committed_fails_as_a_whole() {
    for seq in [None, Some("1")] {
        let mut desk = Desk::new();
        let (ann, group, members) = with_large_group(&mut desk);
        desk.disk.fail_next(Fault::Commit);
        desk.group_chat(ann, group, "hello", seq);
        desk.finish_all();
        assert_eq!(copies(&desk, &members), 0);
        let heard = desk.heard(ann.channel);
        assert!(heard.contains(&Said::Error(Errno::NotStored)), "{heard:?}");
    }
}

#[test]
fn a_chat_to_many_counts_once_and_past_the_bound_of_all_boxes_it_is_errno_20() {
    let mut disk = Desk::new();
    let (ann, group, members) = with_large_group(&mut disk);
    let long = "x".repeat(10_000);
    disk.group_chat(ann, group, &long, Some("1"));
    disk.finish_all();
    let kept = disk.disk.beside().kept_bytes().unwrap();
    assert!(kept < MEMBERS as u64 * 10_000, "{kept} bytes");

    let all_full = kept + COPY_BYTES + 5_000;
    let mut desk =
        Desk::with(crate::main_loop::context::Policy { box_total: all_full, ..policy() }, 64, disk.disk);
    let ann = desk.enter(ann.user);
    desk.chat_with_seq(ann, members[0], &long, "2");
    desk.group_chat(ann, group, &long, Some("3"));
    desk.finish_all();
    let heard = desk.heard(ann.channel);
    assert!(heard.contains(&Said::Error(Errno::BoxFull)), "{heard:?}");
    assert!(heard.contains(&Said::DoneBut(members.clone())), "{heard:?}");
    desk.chat_with_seq(ann, members[0], "short", "4");
    desk.finish_all();
    assert!(desk.heard(ann.channel).contains(&Said::Done));
}

#[test]
fn a_turn_ends_when_it_has_much_to_store() {
    let mut desk =
        Desk::with(crate::main_loop::context::Policy { box_total: 1 << 30, ..policy() }, 64, Disk::default());
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    let long = "x".repeat(60_000);
    let mut chats = 0;
    while !desk.drain.is_full() {
        desk.chat(ann, bob, &long);
        chats += 1;
        assert!(chats <= 20, "{chats} long chats in one turn");
    }
    desk.finish();
    assert!(!desk.drain.is_full(), "the next turn begins anew");
}

#[test]
fn a_repetition_after_a_crash_in_the_middle_goes_on_where_the_chat_stopped() {
    // Behind the sixth every copy is stored, and that the chat is accepted is not.
    for turns in 1..=6 {
        let mut desk = Desk::new();
        let (ann, group, members) = with_large_group(&mut desk);
        desk.group_chat(ann, group, "hello", Some("1"));
        for _ in 0..turns {
            desk.finish();
        }
        let before = copies(&desk, &members);
        assert!((1..=MEMBERS).contains(&before), "{before} copies after {turns} turns");
        let mut desk = desk.restarted();
        let ann = desk.enter(ann.user);
        desk.group_chat(ann, group, "hello", Some("1"));
        desk.finish_all();
        assert!(desk.heard(ann.channel).contains(&Said::Done));
        assert_eq!(boxes(&desk, &members), vec![["hello"]; MEMBERS], "killed after {turns} turns");
        assert_eq!(desk.disk.chats(0)[1], [], "nothing is noted once the chat is accepted");
    }
}

#[test]
fn a_repetition_after_a_crash_passes_over_whose_copies_were_stored_before_the_last_members() {
    let mut desk = Desk::new();
    let (ann, bob, cy) = (desk.online("ann"), desk.online("bob"), desk.online("cy"));
    let group = desk.group(ann);
    for member in [bob, cy] {
        desk.join(member, group);
        desk.finish_all();
        desk.send_away(member, Reason::Kicked);
    }
    desk.settle(bob, vec![]);
    desk.finish_all();
    // What cy's last session has left unsent is not known yet, so that cy's copy waits.
    desk.group_chat(ann, group, "hello", Some("1"));
    desk.finish_all();
    assert_eq!(boxes(&desk, &[bob.user, cy.user]), [vec!["hello"], vec![]]);
    let mut desk = desk.restarted();
    let ann = desk.enter(ann.user);
    desk.group_chat(ann, group, "hello", Some("1"));
    desk.finish_all();
    assert_eq!(boxes(&desk, &[bob.user, cy.user]), [["hello"], ["hello"]]);
    assert!(desk.heard(ann.channel).contains(&Said::Done));
}

#[test]
fn a_copy_that_waited_is_noted_with_its_transaction_when_others_still_wait() {
    let mut desk = Desk::new();
    let (ann, bob, cy) = (desk.online("ann"), desk.online("bob"), desk.online("cy"));
    let group = desk.group(ann);
    for member in [bob, cy] {
        desk.join(member, group);
        desk.finish_all();
        desk.send_away(member, Reason::Kicked);
    }
    desk.group_chat(ann, group, "hello", Some("1"));
    desk.finish_all();
    desk.settle(bob, vec![]);
    desk.finish_all();
    assert_eq!(boxes(&desk, &[bob.user, cy.user]), [vec!["hello"], vec![]]);
    let mut desk = desk.restarted();
    let ann = desk.enter(ann.user);
    desk.group_chat(ann, group, "hello", Some("1"));
    desk.finish_all();
    assert_eq!(boxes(&desk, &[bob.user, cy.user]), [["hello"], ["hello"]]);
}

#[test]
fn a_member_who_confirms_gets_a_part_that_could_not_be_stored_in_the_next_one() {
    for fault in [Fault::Begin, Fault::Write, Fault::Commit] {
        let mut desk = Desk::new();
        let (ann, group, members) = with_large_group(&mut desk);
        let last = *members.last().unwrap();
        let channel = desk.connect();
        let Ask::Login(mut confirming) = login(last, channel) else { unreachable!("a login") };
        confirming.caps.ack = true;
        desk.ask(Ask::Login(confirming));
        desk.finish_all();
        desk.group_chat(ann, group, "hello", Some("1"));
        desk.finish();
        // Whichever of the later parts the last member is in, each can be stored only the second time.
        for _ in 0..2 * MEMBERS {
            desk.disk.fail_next(fault);
            desk.finish();
            desk.disk.heal();
            desk.finish();
        }
        desk.finish_all();
        assert_eq!(boxes(&desk, &members), vec![["hello"]; MEMBERS], "{fault:?}");
        assert!(desk.heard(ann.channel).contains(&Said::Done), "{fault:?}");
    }
}
