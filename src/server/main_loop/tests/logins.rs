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
use crate::testing::commons::REGISTRATIONS;
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::Fault;
use crate::testing::words::{HASH, Said, accepted, asker};

/// Sends whoever was told to leave on the way, as workers do, until nobody is.
pub(super) fn let_them_leave(desk: &mut Desk) -> Vec<(ChannelId, Said)> {
    let mut heard = Vec::new();
    loop {
        desk.finish_all();
        let commands = desk.letters.take(None);
        let told: Vec<_> = commands.iter().map(Said::of).collect();
        let leaving: Vec<Online> = commands.iter().filter_map(leaver).collect();
        heard.extend(told.into_iter().filter_map(|(channel, said)| Some((channel?, said))));
        if leaving.is_empty() {
            return heard;
        }
        for who in leaving {
            desk.settle(who, vec![]);
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

fn told(heard: &[(ChannelId, Said)], channel: ChannelId) -> Vec<&Said> {
    heard.iter().filter(|(who, _)| *who == channel).map(|(_, said)| said).collect()
}

#[test]
fn three_logins_in_one_batch_are_answered_once_each_and_leave_one_session() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let channels = [desk.connect(), desk.connect(), desk.connect()];
    for channel in channels {
        desk.log_in(user, channel);
    }
    let heard = let_them_leave(&mut desk);
    let (welcome, leave) = (&Said::welcome(user, &[]), &Said::Leave(Reason::Replaced));
    assert_eq!(told(&heard, channels[0]), [welcome, leave]);
    assert_eq!(told(&heard, channels[1]), [welcome, leave]);
    assert_eq!(told(&heard, channels[2]), [welcome]);
    assert_eq!(desk.commons.registry.len(), 1);
    assert_eq!(desk.commons.registry.find(user).map(|online| online.channel), Some(channels[2]));
    assert_eq!(desk.disk.ends(user), [Reason::Replaced, Reason::Replaced]);
    assert!(desk.is_online(user));
}

#[test]
fn a_chain_of_logins_that_could_not_be_committed_is_refused_and_leaves_nobody_online() {
    let mut desk = Desk::new();
    let user = desk.user("ann");
    let channels = [desk.connect(), desk.connect(), desk.connect()];
    for channel in channels {
        desk.log_in(user, channel);
    }
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    desk.finish_all();
    for channel in channels {
        assert_eq!(desk.heard(channel), [Said::Refused(Errno::NotStored)], "answered once");
        assert_eq!(desk.commons.table.stage(channel), Stage::Connected);
    }
    assert!(!desk.is_online(user));
    assert_eq!(desk.disk.ends(user), [], "what never was does not end");
}

#[test]
fn a_takeover_hands_over_what_the_old_channel_had_not_sent() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.chat(ann, bob.user, "first");
    desk.finish();
    let unsent = desk.unsent(bob.channel);
    let new = desk.connect();
    desk.log_in(bob.user, new);
    desk.finish();
    desk.chat(ann, bob.user, "second");
    desk.take_queued();
    desk.chat(ann, bob.user, "third");
    desk.finish_all();
    assert_eq!(desk.heard(bob.channel), [Said::Leave(Reason::Replaced)], "nothing more goes to the old one");
    assert_eq!(desk.heard(new), [], "it waits for the report");
    desk.settle(bob, unsent);
    desk.finish_all();
    assert_eq!(desk.heard(new), [Said::welcome(bob.user, &["first", "second", "third"])]);
}

#[test]
fn a_login_whose_channel_leaves_while_it_waits_leaves_its_place_to_the_next() {
    let mut desk = Desk::new();
    let ann = desk.online("ann");
    let (second, third) = (desk.connect(), desk.connect());
    desk.log_in(ann.user, second);
    desk.log_in(ann.user, third);
    desk.finish_all();
    assert!(desk.kicker.kick(second, Reason::PeerReset));
    desk.take_queued();
    desk.settle(ann, vec![]);
    desk.finish_all();
    assert_eq!(desk.heard(third), [Said::welcome(ann.user, &[])]);
    assert_eq!(desk.session(second), None);
}

#[test]
fn a_second_login_is_refused_while_the_first_client_is_there() {
    let mut desk = Desk::rejecting();
    let ann = desk.online("ann");
    let others = [desk.connect(), desk.connect()];
    for other in others {
        desk.log_in(ann.user, other);
    }
    desk.finish();
    assert_eq!(desk.heard(ann.channel), [Said::Probe], "its worker looks once for all who wait");
    assert_eq!(desk.heard(others[0]), []);
    desk.take(Event::Probed { channel: ann.channel, user: ann.user });
    desk.finish();
    for other in others {
        assert_eq!(desk.heard(other), [Said::Refused(Errno::AlreadyOnline)]);
    }
    assert!(desk.is_online(ann.user));
}

#[test]
fn a_second_login_takes_the_place_of_a_client_that_is_found_gone() {
    let mut desk = Desk::rejecting();
    let ann = desk.online("ann");
    let other = desk.connect();
    desk.log_in(ann.user, other);
    desk.finish();
    // The worker reads the reset while it looks: its departure lies before its answer.
    desk.send_away(ann, Reason::PeerReset);
    desk.take(Event::Probed { channel: ann.channel, user: ann.user });
    desk.finish_all();
    assert_eq!(desk.heard(other), []);
    desk.settle(ann, vec![accepted("unsent")]);
    desk.finish_all();
    assert_eq!(desk.heard(other), [Said::welcome(ann.user, &["unsent"])]);
    assert_eq!(desk.disk.ends(ann.user), [Reason::PeerReset]);
}

#[test]
fn of_two_logins_for_a_client_that_is_gone_one_is_granted_and_one_refused() {
    let mut desk = Desk::rejecting();
    let ann = desk.online("ann");
    let (first, second) = (desk.connect(), desk.connect());
    desk.log_in(ann.user, first);
    desk.log_in(ann.user, second);
    desk.finish();
    desk.send_away(ann, Reason::PeerReset);
    desk.take(Event::Probed { channel: ann.channel, user: ann.user });
    desk.settle(ann, vec![]);
    desk.finish_all();
    assert_eq!(desk.heard(first), [Said::welcome(ann.user, &[]), Said::Probe]);
    // A late look at the one before says nothing of this one.
    desk.take(Event::Probed { channel: ann.channel, user: ann.user });
    desk.finish_all();
    assert_eq!(desk.heard(second), []);
    desk.take(Event::Probed { channel: first, user: ann.user });
    desk.finish_all();
    assert_eq!(desk.heard(second), [Said::Refused(Errno::AlreadyOnline)]);
}

#[test]
fn a_login_that_waits_for_a_look_is_answered_when_the_session_in_its_way_never_was() {
    let mut desk = Desk::rejecting();
    let user = desk.user("ann");
    let (first, second) = (desk.connect(), desk.connect());
    desk.log_in(user, first);
    desk.log_in(user, second);
    desk.disk.fail_next(Fault::Commit);
    desk.finish();
    assert_eq!(desk.heard(first), [Said::Refused(Errno::NotStored), Said::Probe]);
    desk.take(Event::Probed { channel: first, user });
    desk.finish_all();
    assert_eq!(desk.heard(second), [Said::welcome(user, &[])]);
}

#[test]
fn a_login_as_another_user_ends_the_session_before_and_keeps_its_messages_apart() {
    let mut desk = Desk::new();
    let (ann, bob, cy) = (desk.online("ann"), desk.user("bob"), desk.online("cy"));
    desk.log_in(bob, ann.channel);
    desk.finish();
    desk.chat(cy, ann.user, "for ann");
    desk.take_queued();
    desk.chat(cy, ann.user, "for ann too");
    desk.finish();
    assert_eq!(desk.heard(ann.channel), [Said::Settle(ann.session), Said::welcome(bob, &[])]);
    assert!(!desk.is_online(ann.user) && desk.is_online(bob));
    desk.settle(ann, vec![accepted("unsent")]);
    desk.finish_all();
    assert_eq!(desk.disk.texts(ann.user), ["unsent", "for ann", "for ann too"]);
    assert_eq!(desk.disk.texts(bob), [""; 0]);
    assert_eq!(desk.disk.ends(ann.user), [Reason::ClientQuit]);
}

#[test]
fn a_login_as_the_same_user_waits_for_what_the_session_before_left() {
    let mut desk = Desk::new();
    let ann = desk.online("ann");
    desk.log_in(ann.user, ann.channel);
    desk.finish_all();
    assert_eq!(desk.heard(ann.channel), [Said::Settle(ann.session)]);
    desk.settle(ann, vec![accepted("unsent")]);
    desk.finish_all();
    assert_eq!(desk.heard(ann.channel), [Said::welcome(ann.user, &["unsent"])]);
    assert!(desk.session(ann.channel).is_some_and(|session| session != ann.session));
}

#[test]
fn a_login_on_the_same_channel_keeps_its_place_from_those_who_wait_for_a_look() {
    let mut desk = Desk::rejecting();
    let ann = desk.online("ann");
    let other = desk.connect();
    desk.log_in(ann.user, other);
    desk.log_in(ann.user, ann.channel);
    desk.finish_all();
    desk.settle(ann, vec![]);
    desk.finish_all();
    assert!(desk.heard(ann.channel).contains(&Said::welcome(ann.user, &[])));
    assert_eq!(desk.heard(other), []);
    desk.take(Event::Probed { channel: ann.channel, user: ann.user });
    desk.finish_all();
    assert_eq!(desk.heard(other), [Said::Refused(Errno::AlreadyOnline)]);
}

#[test]
fn a_client_that_has_ended_its_side_is_greeted_without_a_session_and_sends_nobody_away() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.online("bob"));
    desk.chat(ann, bob.user, "hello");
    let half_closed = desk.connect();
    desk.commons.table.mark_ended(half_closed);
    desk.log_in(bob.user, half_closed);
    desk.finish_all();
    assert_eq!(desk.heard(half_closed), [Said::Greeting(bob.user)]);
    assert_eq!(desk.session(half_closed), None);
    assert_eq!(desk.session(bob.channel), Some(bob.session));
    assert_eq!(desk.heard(bob.channel), [Said::chat("hello")]);
    assert_eq!(desk.disk.ends(bob.user), []);
}

#[test]
fn a_half_closed_login_as_another_user_leaves_nobody_online() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    desk.commons.table.mark_ended(ann.channel);
    desk.log_in(bob, ann.channel);
    desk.finish_all();
    assert_eq!(desk.heard(ann.channel), [Said::Settle(ann.session), Said::Greeting(bob)]);
    assert!(!desk.is_online(ann.user) && !desk.is_online(bob));
    assert_eq!(desk.commons.registry.len(), 0);
}

#[test]
fn a_login_of_a_channel_that_has_left_meanwhile_sends_nobody_away() {
    let mut desk = Desk::new();
    let ann = desk.online("ann");
    let gone = desk.connect();
    assert!(desk.kicker.kick(gone, Reason::PeerReset));
    desk.log_in(ann.user, gone);
    desk.finish_all();
    assert_eq!(desk.session(ann.channel), Some(ann.session));
    assert_eq!(desk.heard(ann.channel), []);
}

#[test]
fn a_kick_before_the_login_is_committed_ends_the_session_it_finds() {
    let mut desk = Desk::new();
    let (ann, bob) = (desk.online("ann"), desk.user("bob"));
    let channel = desk.connect();
    desk.log_in(bob, channel);
    desk.chat_with_seq(ann, bob, "hello", "1");
    let session = desk.session(channel).unwrap();
    assert!(desk.kicker.kick(channel, Reason::Kicked));
    desk.finish();
    desk.take_queued();
    desk.settle(Online { user: bob, channel, session }, vec![]);
    desk.finish_all();
    assert!(!desk.is_online(bob));
    assert_eq!(desk.disk.ends(bob), [Reason::Kicked]);
    assert_eq!(desk.disk.texts(bob), ["hello"]);
    assert_eq!(desk.heard(ann.channel), [Said::Through, Said::Done]);
}

#[test]
fn a_kick_that_races_a_logout_ends_the_session_once_and_the_channel_once() {
    for kicked_first in [false, true] {
        let mut desk = Desk::new();
        let ann = desk.online("ann");
        // The session is over at once; whose report reaches main first is chance.
        if kicked_first {
            assert!(desk.commons.table.end_session(ann.channel, ann.session));
            desk.send_away(ann, Reason::Kicked);
            desk.report_logout(ann);
        } else {
            desk.log_out(ann);
            desk.send_away(ann, Reason::Kicked);
        }
        desk.settle(ann, vec![accepted("unsent")]);
        desk.settle_channel(ann.channel);
        desk.finish_all();
        assert!(!desk.is_online(ann.user));
        assert_eq!(desk.disk.ends(ann.user), [Reason::ClientQuit]);
        assert_eq!(desk.disk.texts(ann.user), ["unsent"]);
        assert!(!desk.kicker.kick(ann.channel, Reason::Kicked), "it has left");
    }
}

const FAR: &str = "192.0.2.1:4";

/// Somebody comes from that address with a name alone, and hears that.
fn guest(desk: &mut Desk, peer: &str, name: &str) -> Vec<Said> {
    let channel = desk.connect();
    ask_as_guest(desk, channel, peer, name);
    desk.heard(channel)
}

/// Who has that name, as far as it is stored.
fn named(desk: &Desk, name: &str) -> Option<UserId> {
    desk.disk.lookup().user_named(name).unwrap().map(|row| row.id)
}

fn ask_as_guest(desk: &mut Desk, channel: ChannelId, peer: &str, name: &str) {
    desk.ask(Ask::Guest {
        asker: asker(channel, Msgid::Login, None),
        peer: peer.parse().unwrap(),
        name: name.into(),
    });
    desk.finish_all();
}

#[test]
fn a_new_guest_is_a_new_user_of_its_address_and_a_known_one_is_not() {
    let mut desk = Desk::new();
    for n in 0..REGISTRATIONS {
        let said = guest(&mut desk, FAR, &format!("guest{n}"));
        assert!(matches!(said[..], [Said::Welcome(..)]), "{said:?}");
    }
    assert_eq!(guest(&mut desk, FAR, "late"), [Said::Refused(Errno::TooMany)]);
    assert_eq!(named(&desk, "late"), None, "nothing is stored");
    assert_ne!(guest(&mut desk, FAR, "guest0"), [Said::Refused(Errno::TooMany)]);
    let elsewhere = guest(&mut desk, "192.0.2.2:4", "late");
    assert!(matches!(elsewhere[..], [Said::Welcome(..)]), "{elsewhere:?}");
    assert_eq!(desk.commons.metrics.registrations_refused.value(), 1);
}

#[test]
fn nobody_new_comes_from_a_banned_address() {
    let mut desk = Desk::new();
    let banned = BanSubject::Block(FAR.split(':').next().unwrap().parse().unwrap());
    let ban = Ban { banned, name: None, until_ms: i64::MAX, reason: None };
    desk.drain.bans.put(ban).unwrap();
    assert_eq!(guest(&mut desk, FAR, "new"), [Said::Refused(Errno::TooMany)]);
    let channel = desk.connect();
    let (peer, password) = (FAR.parse().unwrap(), HASH.into());
    desk.ask(Ask::Register {
        asker: asker(channel, Msgid::Register, None),
        peer,
        name: "new".into(),
        password,
    });
    desk.finish_all();
    assert_eq!(desk.heard(channel), [Said::Refused(Errno::TooMany)]);
    assert_eq!(named(&desk, "new"), None);
    let elsewhere = guest(&mut desk, "192.0.2.2:4", "new");
    assert!(matches!(elsewhere[..], [Said::Welcome(..)]), "{elsewhere:?}");
}

#[test]
fn a_guest_or_a_new_user_whose_channel_has_left_is_not_stored() {
    let mut desk = Desk::new();
    let channel = desk.connect();
    desk.commons.table.leave(channel).unwrap();
    ask_as_guest(&mut desk, channel, FAR, "gone");
    let (peer, password) = (FAR.parse().unwrap(), HASH.into());
    desk.ask(Ask::Register {
        asker: asker(channel, Msgid::Register, None),
        peer,
        name: "gone".into(),
        password,
    });
    desk.finish_all();
    assert_eq!(named(&desk, "gone"), None);
}

#[test]
fn a_token_that_is_not_good_is_a_failed_login_although_nobody_waits_for_the_answer() {
    let mut desk = Desk::new();
    let channel = desk.connect();
    let (peer, token) = (FAR.parse().unwrap(), TokenHash::of("made up"));
    desk.commons.table.leave(channel).unwrap();
    desk.ask(Ask::Resume(Resume {
        asker: asker(channel, Msgid::Login, None),
        peer,
        token,
        caps: Caps::default(),
    }));
    desk.finish_all();
    assert_eq!(desk.commons.metrics.logins_failed.value(), 1);
}
