//! Who is online after logins that meet.

use crate::channel::{ChannelId, Reason, Stage};
use crate::ids::UserId;
use crate::message::command::WorkerCommand;
use crate::message::event::Event;
use crate::message::request::{Ask, Resume};
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::protocol::request::Caps;
use crate::store::Lookup;
use crate::store::TokenHash;
use crate::store::{Ban, BanSubject};
use crate::testing::builders::{HASH, Summary, accepted, reply_to};
use crate::testing::fixtures::REGISTRATIONS;
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::Fault;

/// Sends whoever was told to leave on the way, as workers do, until nobody is.
pub(super) fn let_them_leave(harness: &mut MainHarness) -> Vec<(ChannelId, Summary)> {
    let mut heard = Vec::new();
    loop {
        harness.finish_all();
        let commands = harness.mailboxes.take(None);
        let told: Vec<_> = commands.iter().map(Summary::of).collect();
        let leaving: Vec<Online> = commands.iter().filter_map(leaver).collect();
        heard.extend(told.into_iter().filter_map(|(channel, said)| Some((channel?, said))));
        if leaving.is_empty() {
            return heard;
        }
        for who in leaving {
            harness.settle(who, vec![]);
        }
    }
}

fn leaver(command: &WorkerCommand) -> Option<Online> {
    match command {
        WorkerCommand::Leave { channel, session: Some(session), .. } => {
            Some(Online { user: UserId(0), channel: *channel, session: *session })
        }
        _ => None,
    }
}

fn told(heard: &[(ChannelId, Summary)], channel: ChannelId) -> Vec<&Summary> {
    heard.iter().filter(|(who, _)| *who == channel).map(|(_, said)| said).collect()
}

#[test]
fn three_logins_in_one_batch_are_answered_once_each_and_leave_one_session() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let channels = [harness.connect(), harness.connect(), harness.connect()];
    for channel in channels {
        harness.log_in(user, channel);
    }
    let heard = let_them_leave(&mut harness);
    let (welcome, leave) = (&Summary::welcome(user, &[]), &Summary::Leave(Reason::Replaced));
    assert_eq!(told(&heard, channels[0]), [welcome, leave]);
    assert_eq!(told(&heard, channels[1]), [welcome, leave]);
    assert_eq!(told(&heard, channels[2]), [welcome]);
    assert_eq!(harness.fixtures.registry.len(), 1);
    assert_eq!(harness.fixtures.registry.find(user).map(|online| online.channel), Some(channels[2]));
    assert_eq!(harness.disk.ends(user), [Reason::Replaced, Reason::Replaced]);
    assert!(harness.is_online(user));
}

#[test]
fn a_chain_of_logins_that_could_not_be_committed_is_refused_and_leaves_nobody_online() {
    let mut harness = MainHarness::new();
    let user = harness.user("ann");
    let channels = [harness.connect(), harness.connect(), harness.connect()];
    for channel in channels {
        harness.log_in(user, channel);
    }
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    harness.finish_all();
    for channel in channels {
        assert_eq!(harness.heard(channel), [Summary::Refused(Errno::NotStored)], "answered once");
        assert_eq!(harness.fixtures.table.stage(channel), Stage::Connected);
    }
    assert!(!harness.is_online(user));
    assert_eq!(harness.disk.ends(user), [], "what never was does not end");
}

#[test]
fn a_takeover_hands_over_what_the_old_channel_had_not_sent() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.chat(ann, bob.user, "first");
    harness.finish();
    let unsent = harness.unsent(bob.channel);
    let new = harness.connect();
    harness.log_in(bob.user, new);
    harness.finish();
    harness.chat(ann, bob.user, "second");
    harness.take_queued();
    harness.chat(ann, bob.user, "third");
    harness.finish_all();
    assert_eq!(
        harness.heard(bob.channel),
        [Summary::Leave(Reason::Replaced)],
        "nothing more goes to the old one"
    );
    assert_eq!(harness.heard(new), [], "it waits for the report");
    harness.settle(bob, unsent);
    harness.finish_all();
    assert_eq!(harness.heard(new), [Summary::welcome(bob.user, &["first", "second", "third"])]);
}

#[test]
fn a_login_whose_channel_leaves_while_it_waits_leaves_its_place_to_the_next() {
    let mut harness = MainHarness::new();
    let ann = harness.online("ann");
    let (second, third) = (harness.connect(), harness.connect());
    harness.log_in(ann.user, second);
    harness.log_in(ann.user, third);
    harness.finish_all();
    assert!(harness.kicker.kick(second, Reason::PeerReset));
    harness.take_queued();
    harness.settle(ann, vec![]);
    harness.finish_all();
    assert_eq!(harness.heard(third), [Summary::welcome(ann.user, &[])]);
    assert_eq!(harness.session(second), None);
}

#[test]
fn a_second_login_is_refused_while_the_first_client_is_there() {
    let mut harness = MainHarness::rejecting();
    let ann = harness.online("ann");
    let others = [harness.connect(), harness.connect()];
    for other in others {
        harness.log_in(ann.user, other);
    }
    harness.finish();
    assert_eq!(harness.heard(ann.channel), [Summary::Probe], "its worker looks once for all who wait");
    assert_eq!(harness.heard(others[0]), []);
    harness.take(Event::Probed { channel: ann.channel, user: ann.user });
    harness.finish();
    for other in others {
        assert_eq!(harness.heard(other), [Summary::Refused(Errno::AlreadyOnline)]);
    }
    assert!(harness.is_online(ann.user));
}

#[test]
fn a_second_login_takes_the_place_of_a_client_that_is_found_gone() {
    let mut harness = MainHarness::rejecting();
    let ann = harness.online("ann");
    let other = harness.connect();
    harness.log_in(ann.user, other);
    harness.finish();
    // The worker reads the reset while it looks: its departure lies before its answer.
    harness.send_away(ann, Reason::PeerReset);
    harness.take(Event::Probed { channel: ann.channel, user: ann.user });
    harness.finish_all();
    assert_eq!(harness.heard(other), []);
    harness.settle(ann, vec![accepted("unsent")]);
    harness.finish_all();
    assert_eq!(harness.heard(other), [Summary::welcome(ann.user, &["unsent"])]);
    assert_eq!(harness.disk.ends(ann.user), [Reason::PeerReset]);
}

#[test]
fn of_two_logins_for_a_client_that_is_gone_one_is_granted_and_one_refused() {
    let mut harness = MainHarness::rejecting();
    let ann = harness.online("ann");
    let (first, second) = (harness.connect(), harness.connect());
    harness.log_in(ann.user, first);
    harness.log_in(ann.user, second);
    harness.finish();
    harness.send_away(ann, Reason::PeerReset);
    harness.take(Event::Probed { channel: ann.channel, user: ann.user });
    harness.settle(ann, vec![]);
    harness.finish_all();
    assert_eq!(harness.heard(first), [Summary::welcome(ann.user, &[]), Summary::Probe]);
    // A late look at the one before says nothing of this one.
    harness.take(Event::Probed { channel: ann.channel, user: ann.user });
    harness.finish_all();
    assert_eq!(harness.heard(second), []);
    harness.take(Event::Probed { channel: first, user: ann.user });
    harness.finish_all();
    assert_eq!(harness.heard(second), [Summary::Refused(Errno::AlreadyOnline)]);
}

#[test]
fn a_login_that_waits_for_a_look_is_answered_when_the_session_in_its_way_never_was() {
    let mut harness = MainHarness::rejecting();
    let user = harness.user("ann");
    let (first, second) = (harness.connect(), harness.connect());
    harness.log_in(user, first);
    harness.log_in(user, second);
    harness.disk.fail_next(Fault::Commit);
    harness.finish();
    assert_eq!(harness.heard(first), [Summary::Refused(Errno::NotStored), Summary::Probe]);
    harness.take(Event::Probed { channel: first, user });
    harness.finish_all();
    assert_eq!(harness.heard(second), [Summary::welcome(user, &[])]);
}

#[test]
fn a_login_as_another_user_ends_the_session_before_and_keeps_its_messages_apart() {
    let mut harness = MainHarness::new();
    let (ann, bob, cy) = (harness.online("ann"), harness.user("bob"), harness.online("cy"));
    harness.log_in(bob, ann.channel);
    harness.finish();
    harness.chat(cy, ann.user, "for ann");
    harness.take_queued();
    harness.chat(cy, ann.user, "for ann too");
    harness.finish();
    assert_eq!(harness.heard(ann.channel), [Summary::Settle(ann.session), Summary::welcome(bob, &[])]);
    assert!(!harness.is_online(ann.user) && harness.is_online(bob));
    harness.settle(ann, vec![accepted("unsent")]);
    harness.finish_all();
    assert_eq!(harness.disk.texts(ann.user), ["unsent", "for ann", "for ann too"]);
    assert_eq!(harness.disk.texts(bob), [""; 0]);
    assert_eq!(harness.disk.ends(ann.user), [Reason::ClientQuit]);
}

#[test]
fn a_login_as_the_same_user_waits_for_what_the_session_before_left() {
    let mut harness = MainHarness::new();
    let ann = harness.online("ann");
    harness.log_in(ann.user, ann.channel);
    harness.finish_all();
    assert_eq!(harness.heard(ann.channel), [Summary::Settle(ann.session)]);
    harness.settle(ann, vec![accepted("unsent")]);
    harness.finish_all();
    assert_eq!(harness.heard(ann.channel), [Summary::welcome(ann.user, &["unsent"])]);
    assert!(harness.session(ann.channel).is_some_and(|session| session != ann.session));
}

#[test]
fn a_login_on_the_same_channel_keeps_its_place_from_those_who_wait_for_a_look() {
    let mut harness = MainHarness::rejecting();
    let ann = harness.online("ann");
    let other = harness.connect();
    harness.log_in(ann.user, other);
    harness.log_in(ann.user, ann.channel);
    harness.finish_all();
    harness.settle(ann, vec![]);
    harness.finish_all();
    assert!(harness.heard(ann.channel).contains(&Summary::welcome(ann.user, &[])));
    assert_eq!(harness.heard(other), []);
    harness.take(Event::Probed { channel: ann.channel, user: ann.user });
    harness.finish_all();
    assert_eq!(harness.heard(other), [Summary::Refused(Errno::AlreadyOnline)]);
}

#[test]
fn a_client_that_has_ended_its_side_is_greeted_without_a_session_and_sends_nobody_away() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.online("bob"));
    harness.chat(ann, bob.user, "hello");
    let half_closed = harness.connect();
    harness.fixtures.table.mark_ended(half_closed);
    harness.log_in(bob.user, half_closed);
    harness.finish_all();
    assert_eq!(harness.heard(half_closed), [Summary::Greeting(bob.user)]);
    assert_eq!(harness.session(half_closed), None);
    assert_eq!(harness.session(bob.channel), Some(bob.session));
    assert_eq!(harness.heard(bob.channel), [Summary::chat("hello")]);
    assert_eq!(harness.disk.ends(bob.user), []);
}

#[test]
fn a_half_closed_login_as_another_user_leaves_nobody_online() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    harness.fixtures.table.mark_ended(ann.channel);
    harness.log_in(bob, ann.channel);
    harness.finish_all();
    assert_eq!(harness.heard(ann.channel), [Summary::Settle(ann.session), Summary::Greeting(bob)]);
    assert!(!harness.is_online(ann.user) && !harness.is_online(bob));
    assert_eq!(harness.fixtures.registry.len(), 0);
}

#[test]
fn a_login_of_a_channel_that_has_left_meanwhile_sends_nobody_away() {
    let mut harness = MainHarness::new();
    let ann = harness.online("ann");
    let gone = harness.connect();
    assert!(harness.kicker.kick(gone, Reason::PeerReset));
    harness.log_in(ann.user, gone);
    harness.finish_all();
    assert_eq!(harness.session(ann.channel), Some(ann.session));
    assert_eq!(harness.heard(ann.channel), []);
}

#[test]
fn a_kick_before_the_login_is_committed_ends_the_session_it_finds() {
    let mut harness = MainHarness::new();
    let (ann, bob) = (harness.online("ann"), harness.user("bob"));
    let channel = harness.connect();
    harness.log_in(bob, channel);
    harness.chat_with_seq(ann, bob, "hello", "1");
    let session = harness.session(channel).unwrap();
    assert!(harness.kicker.kick(channel, Reason::Kicked));
    harness.finish();
    harness.take_queued();
    harness.settle(Online { user: bob, channel, session }, vec![]);
    harness.finish_all();
    assert!(!harness.is_online(bob));
    assert_eq!(harness.disk.ends(bob), [Reason::Kicked]);
    assert_eq!(harness.disk.texts(bob), ["hello"]);
    assert_eq!(harness.heard(ann.channel), [Summary::Through, Summary::Done]);
}

#[test]
fn a_kick_that_races_a_logout_ends_the_session_once_and_the_channel_once() {
    for kicked_first in [false, true] {
        let mut harness = MainHarness::new();
        let ann = harness.online("ann");
        // The session is over at once; whose report reaches main first is chance.
        if kicked_first {
            assert!(harness.fixtures.table.end_session(ann.channel, ann.session));
            harness.send_away(ann, Reason::Kicked);
            harness.report_logout(ann);
        } else {
            harness.log_out(ann);
            harness.send_away(ann, Reason::Kicked);
        }
        harness.settle(ann, vec![accepted("unsent")]);
        harness.settle_channel(ann.channel);
        harness.finish_all();
        assert!(!harness.is_online(ann.user));
        assert_eq!(harness.disk.ends(ann.user), [Reason::ClientQuit]);
        assert_eq!(harness.disk.texts(ann.user), ["unsent"]);
        assert!(!harness.kicker.kick(ann.channel, Reason::Kicked), "it has left");
    }
}

const FAR: &str = "192.0.2.1:4";

/// Somebody comes from that address with a name alone, and hears that.
fn guest(harness: &mut MainHarness, peer: &str, name: &str) -> Vec<Summary> {
    let channel = harness.connect();
    ask_as_guest(harness, channel, peer, name);
    harness.heard(channel)
}

/// Who has that name, as far as it is stored.
fn named(harness: &MainHarness, name: &str) -> Option<UserId> {
    harness.disk.lookup().user_named(name).unwrap().map(|row| row.id)
}

fn ask_as_guest(harness: &mut MainHarness, channel: ChannelId, peer: &str, name: &str) {
    harness.ask(Ask::Guest {
        reply_to: reply_to(channel, Msgid::Login, None),
        peer: peer.parse().unwrap(),
        name: name.into(),
    });
    harness.finish_all();
}

#[test]
fn a_new_guest_is_a_new_user_of_its_address_and_a_known_one_is_not() {
    let mut harness = MainHarness::new();
    for n in 0..REGISTRATIONS {
        let said = guest(&mut harness, FAR, &format!("guest{n}"));
        assert!(matches!(said[..], [Summary::Welcome(..)]), "{said:?}");
    }
    assert_eq!(guest(&mut harness, FAR, "late"), [Summary::Refused(Errno::TooMany)]);
    assert_eq!(named(&harness, "late"), None, "nothing is stored");
    assert_ne!(guest(&mut harness, FAR, "guest0"), [Summary::Refused(Errno::TooMany)]);
    let elsewhere = guest(&mut harness, "192.0.2.2:4", "late");
    assert!(matches!(elsewhere[..], [Summary::Welcome(..)]), "{elsewhere:?}");
    assert_eq!(harness.fixtures.metrics.registrations_refused.value(), 1);
}

#[test]
fn nobody_new_comes_from_a_banned_address() {
    let mut harness = MainHarness::new();
    let banned = BanSubject::Block(FAR.split(':').next().unwrap().parse().unwrap());
    let ban = Ban { banned, name: None, until_ms: i64::MAX, reason: None };
    harness.main.bans.put(ban).unwrap();
    assert_eq!(guest(&mut harness, FAR, "new"), [Summary::Refused(Errno::TooMany)]);
    let channel = harness.connect();
    let (peer, password) = (FAR.parse().unwrap(), HASH.into());
    harness.ask(Ask::Register {
        reply_to: reply_to(channel, Msgid::Register, None),
        peer,
        name: "new".into(),
        password,
    });
    harness.finish_all();
    assert_eq!(harness.heard(channel), [Summary::Refused(Errno::TooMany)]);
    assert_eq!(named(&harness, "new"), None);
    let elsewhere = guest(&mut harness, "192.0.2.2:4", "new");
    assert!(matches!(elsewhere[..], [Summary::Welcome(..)]), "{elsewhere:?}");
}

#[test]
fn a_guest_or_a_new_user_whose_channel_has_left_is_not_stored() {
    let mut harness = MainHarness::new();
    let channel = harness.connect();
    harness.fixtures.table.leave(channel).unwrap();
    ask_as_guest(&mut harness, channel, FAR, "gone");
    let (peer, password) = (FAR.parse().unwrap(), HASH.into());
    harness.ask(Ask::Register {
        reply_to: reply_to(channel, Msgid::Register, None),
        peer,
        name: "gone".into(),
        password,
    });
    harness.finish_all();
    assert_eq!(named(&harness, "gone"), None);
}

#[test]
fn a_token_that_is_not_good_is_a_failed_login_although_nobody_waits_for_the_answer() {
    let mut harness = MainHarness::new();
    let channel = harness.connect();
    let (peer, token) = (FAR.parse().unwrap(), TokenHash::of("made up"));
    harness.fixtures.table.leave(channel).unwrap();
    harness.ask(Ask::Resume(Resume {
        reply_to: reply_to(channel, Msgid::Login, None),
        peer,
        token,
        caps: Caps::default(),
    }));
    harness.finish_all();
    assert_eq!(harness.fixtures.metrics.logins_failed.value(), 1);
}
