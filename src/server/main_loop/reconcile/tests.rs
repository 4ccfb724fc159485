//! What differs is found, repaired and counted once; what is only under way is not.

mod busy;

use super::{STEP_US, SURE_US, round_us};
use crate::channel::{ChannelId, Reason, SessionNo, Stage};
use crate::ids::{Epoch, UserId};
use crate::message::chat::Sender;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::disconnect::DeliveryReport;
use crate::message::event::Event;
use crate::registry::SessionEntry as Entered;
use crate::store::UserRow;
use crate::sync::Arc;
use crate::testing::commons::{GRACE_US, policy};
use crate::testing::desk::{Desk, Online};
use crate::testing::memory::{Disk, Fault};
use crate::testing::words::Said;

/// Steps after which a difference that lasts is believed.
const STEPS: u64 = SURE_US / STEP_US + 2;

/// Steps are taken; the worker settles what leaves, and says that it holds every channel but `lost`, and `extra`
/// besides.
fn steps(desk: &mut Desk, count: u64, lost: &[ChannelId], extra: &[ChannelId]) {
    for _ in 0..count {
        desk.commons.clock.advance(STEP_US);
        desk.finish_all();
        for command in desk.letters.take_those(|command| matches!(command, WorkerCommand::Audit { .. })) {
            let WorkerCommand::Audit { from, to } = command else { continue };
            let mut held: Vec<ChannelId> = desk.commons.table.occupants().collect();
            held.extend(extra);
            held.retain(|channel| (from..to).contains(&channel.slot) && !lost.contains(channel));
            held.sort();
            desk.take(Event::Audited { worker: 0, held });
        }
        desk.finish_all();
        for command in desk.letters.take_those(|command| matches!(command, WorkerCommand::Leave { .. })) {
            if let WorkerCommand::Leave { channel, session, .. } = command {
                desk.take(Event::DeliveryReport(DeliveryReport {
                    channel,
                    session,
                    unsent: Vec::new(),
                    delivered: 0,
                }));
            }
            desk.letters.post(0, &mut vec![command], &mut Vec::new());
        }
    }
}

fn look(desk: &mut Desk) {
    steps(desk, STEPS, &[], &[]);
}

fn count(desk: &Desk) -> u64 {
    desk.commons.metrics.reconciled.value()
}

/// Somebody is online, and all agrees.
fn agreed() -> (Desk, Online) {
    let mut desk = Desk::new();
    let ann = desk.online("ann");
    desk.user("bob");
    look(&mut desk);
    assert_eq!(count(&desk), 0);
    desk.forget();
    (desk, ann)
}

/// Something is spoilt: not believed at once, then found, and never again.
fn spoilt(spoil: impl FnOnce(&mut Desk, Online)) -> (Desk, Online) {
    let (mut desk, ann) = agreed();
    spoil(&mut desk, ann);
    steps(&mut desk, 2, &[], &[]);
    assert_eq!(count(&desk), 0, "it may be under way");
    look(&mut desk);
    assert_eq!(count(&desk), 1);
    look(&mut desk);
    assert_eq!(count(&desk), 1, "it is repaired");
    (desk, ann)
}

fn is_registered(desk: &Desk, who: Online) -> bool {
    let registry = &desk.commons.registry;
    let entry = registry.find(who.user);
    entry.is_some_and(|entry| (entry.channel, entry.session) == (who.channel, who.session))
        && registry.named("ann") == Some(who.user)
}

#[test]
fn a_session_that_the_registry_lacks_is_entered_again_and_opened() {
    let (desk, ann) = spoilt(|desk, ann| desk.commons.registry.remove(ann.user, ann.channel, ann.session));
    assert!(is_registered(&desk, ann));
    assert_eq!(desk.heard(ann.channel), [Said::Open]);
}

#[test]
fn an_entry_of_the_registry_that_says_something_else_is_set_right() {
    let (desk, ann) = spoilt(|desk, ann| {
        let registry = &desk.commons.registry;
        let entry = registry.find(ann.user).unwrap();
        registry.remove(ann.user, ann.channel, ann.session);
        registry.enter(ann.user, Entered { session: SessionNo(9), ..entry });
    });
    assert!(is_registered(&desk, ann));
}

#[test]
fn an_entry_of_the_registry_without_a_session_is_taken_out() {
    let (desk, ann) = spoilt(|desk, ann| {
        let entry = desk.commons.registry.find(ann.user).unwrap();
        let sender = Arc::new(Sender { id: UserId(2), name: "bob".into() });
        desk.commons.registry.enter(UserId(2), Entered { sender, ..entry });
    });
    assert_eq!((desk.commons.registry.find(UserId(2)), desk.commons.registry.named("bob")), (None, None));
    assert!(is_registered(&desk, ann));
}

#[test]
fn a_name_that_leads_to_somebody_who_has_another_is_taken_out() {
    let (desk, ann) = spoilt(|desk, ann| {
        let registry = &desk.commons.registry;
        let entry = registry.find(ann.user).unwrap();
        let sender = Arc::new(Sender { id: ann.user, name: "anna".into() });
        registry.enter(ann.user, Entered { sender, ..entry.clone() });
        registry.enter(ann.user, entry);
    });
    assert_eq!(desk.commons.registry.named("anna"), None);
    assert!(is_registered(&desk, ann));
}

#[test]
fn the_map_of_sessions_gets_back_what_it_lost() {
    let (mut desk, ann) = spoilt(|desk, ann| {
        assert!(desk.drain.sessions.remove((ann.channel, ann.session)).is_some());
    });
    desk.log_out(ann);
    desk.finish();
    assert!(!desk.is_online(ann.user), "its end is known as that of a session");
}

#[test]
fn the_map_of_sessions_loses_what_is_nobodys() {
    let nobodys = (ChannelId { slot: 7, generation: 3 }, SessionNo(2));
    let (desk, _) = spoilt(|desk, ann| {
        assert_eq!(desk.drain.sessions.insert(nobodys, ann.user), None);
    });
    assert!(desk.drain.sessions.get(nobodys).is_none());
}

#[test]
fn the_row_of_a_session_is_written_again() {
    let spoils: [fn(&mut UserRow); 3] =
        [|row| row.online = false, |row| row.epoch = Epoch(99), |row| row.epoch = Epoch(0)];
    for spoil in spoils {
        let (mut desk, ann) = spoilt(|desk, ann| desk.disk.change_user(ann.user, spoil));
        let row = desk.disk.user(ann.user).unwrap();
        assert!(row.online && row.epoch == Epoch(1), "{row:?}");
        desk.log_out(ann);
        desk.finish();
        assert!(!desk.is_online(ann.user), "its end is still that of the row's epoch");
    }
}

#[test]
fn a_user_who_is_marked_online_without_a_session_is_set_offline() {
    let (desk, ann) = spoilt(|desk, _| desk.disk.change_user(UserId(2), |row| row.online = true));
    assert!(!desk.is_online(UserId(2)) && desk.is_online(ann.user));
    assert_eq!(desk.disk.ends(UserId(2)), [], "no session has ended");
}

#[test]
fn a_session_whose_row_is_gone_is_sent_away() {
    let (desk, ann) = spoilt(|desk, ann| desk.disk.delete_user(ann.user));
    assert_eq!(desk.heard(ann.channel), [Said::Leave(Reason::InternalError)]);
    assert_eq!(desk.disk.ends(ann.user), [Reason::InternalError]);
    assert_eq!(desk.commons.registry.len(), 0);
}

#[test]
fn a_channel_without_a_connection_is_sent_away() {
    let (mut desk, ann) = agreed();
    steps(&mut desk, 2, &[ann.channel], &[]);
    assert_eq!(count(&desk), 0, "it may be under way");
    steps(&mut desk, STEPS, &[ann.channel], &[]);
    assert_eq!(count(&desk), 1);
    assert_eq!(desk.disk.ends(ann.user), [Reason::InternalError]);
    desk.commons.clock.advance(GRACE_US);
    steps(&mut desk, 1, &[ann.channel], &[]);
    assert!(desk.heard(ann.channel).contains(&Said::Close), "it goes the way of all channels");
}

#[test]
fn a_channel_that_has_left_needs_no_connection() {
    let (mut desk, ann) = agreed();
    assert!(desk.kicker.kick(ann.channel, Reason::Kicked));
    desk.take_queued();
    desk.settle(ann, Vec::new());
    steps(&mut desk, STEPS, &[ann.channel], &[]);
    assert_eq!(count(&desk), 0);
}

#[test]
fn a_connection_whose_name_is_not_its_own_is_closed() {
    let (mut desk, ann) = agreed();
    let stale = ChannelId { generation: ann.channel.generation + 1, ..ann.channel };
    steps(&mut desk, 2, &[], &[stale]);
    assert_eq!(count(&desk), 0);
    steps(&mut desk, STEPS, &[], &[stale]);
    assert_eq!((count(&desk), desk.heard(stale)), (1, vec![Said::Close]));
    desk.take(Event::HandBack { channel: stale, socket: None, torn: None });
    assert_eq!(desk.session(ann.channel), Some(ann.session), "its namesake is not touched");
}

#[test]
fn a_departure_that_was_lost_is_made_up() {
    let (mut desk, ann) = spoilt(|desk, ann| assert!(desk.commons.table.leave(ann.channel).is_some()));
    assert_eq!(desk.disk.ends(ann.user), [Reason::InternalError]);
    assert!(!desk.is_online(ann.user));
    assert_eq!(
        desk.heard(ann.channel),
        [Said::Leave(Reason::InternalError)],
        "the client may still be there"
    );
    let again = desk.enter(ann.user);
    assert!(desk.is_online(again.user), "nothing is waited for");
    desk.commons.clock.advance(GRACE_US);
    desk.finish_all();
    desk.hand_back(ann.channel);
    assert_eq!(desk.commons.table.stage(ann.channel), Stage::Free);
    look(&mut desk);
    assert_eq!(count(&desk), 1);
}

#[test]
fn the_lost_departure_of_a_channel_without_a_session_is_made_up_too() {
    let mut channel = None;
    let (desk, ann) = spoilt(|desk, _| {
        channel = Some(desk.connect());
        desk.commons.table.leave(channel.unwrap()).unwrap();
    });
    assert_eq!(desk.heard(channel.unwrap()), [Said::Leave(Reason::InternalError)]);
    assert!(desk.is_online(ann.user));
}

#[test]
fn a_logout_that_was_lost_ends_the_session() {
    let (desk, ann) = spoilt(|desk, ann| assert!(desk.commons.table.end_session(ann.channel, ann.session)));
    assert_eq!(desk.disk.ends(ann.user), [Reason::InternalError]);
    assert_eq!(desk.commons.table.stage(ann.channel), Stage::Connected, "the channel stays");
}

#[test]
fn a_session_that_main_does_not_know_is_sent_away() {
    let mut channel = None;
    let (desk, ann) = spoilt(|desk, _| {
        channel = Some(desk.connect());
        desk.commons.table.begin_session(channel.unwrap(), UserId(2)).unwrap();
    });
    assert_eq!(desk.heard(channel.unwrap())[0], Said::Leave(Reason::InternalError));
    assert!(desk.is_online(ann.user));
}

#[test]
fn a_seat_whose_channel_is_free_is_given_up() {
    let (desk, ann) = spoilt(|desk, ann| {
        desk.kicker.kick(ann.channel, Reason::Kicked);
        desk.take_queued();
        desk.settle(ann, Vec::new());
        desk.commons.table.free(ann.channel);
    });
    assert!(
        desk.disk.departures()[0].completion.is_some_and(|of| of.closed_us.is_some()),
        "nothing is awaited"
    );
    assert_eq!(desk.disk.ends(ann.user), [Reason::Kicked]);
}

#[test]
fn a_socket_that_nobody_has_asked_for_is_asked_for() {
    let (desk, ann) = spoilt(|desk, ann| {
        desk.kicker.kick(ann.channel, Reason::Kicked);
        desk.take_queued();
        desk.settle(ann, Vec::new());
        desk.drain.lingering.forget_order();
        desk.commons.clock.advance(GRACE_US + SURE_US);
    });
    assert!(desk.heard(ann.channel).contains(&Said::Close));
}

#[test]
fn a_settlement_that_never_comes_is_not_waited_for_for_ever() {
    let (mut desk, ann) = spoilt(|desk, ann| {
        desk.kicker.kick(ann.channel, Reason::Kicked);
        desk.take_queued();
        // The worker has lost the command.
        desk.forget();
    });
    let again = desk.enter(ann.user);
    assert!(desk.is_online(again.user));
}

#[test]
fn a_channel_that_has_changed_since_its_worker_was_asked_is_not_compared() {
    let (mut desk, ann) = agreed();
    // One look would be enough.
    desk.drain.look_around();
    desk.kicker.kick(ann.channel, Reason::Kicked);
    desk.take_queued();
    let others = desk.commons.table.present() as u64;
    desk.take(Event::Audited { worker: 0, held: Vec::new() });
    assert_eq!(count(&desk), others, "only those who are still there miss their connection");
}

#[test]
fn what_differs_only_once_is_not_counted() {
    let (mut desk, ann) = agreed();
    for _ in 0..STEPS {
        desk.disk.change_user(ann.user, |row| row.online = false);
        steps(&mut desk, 1, &[], &[]);
        desk.disk.change_user(ann.user, |row| row.online = true);
        steps(&mut desk, 1, &[], &[]);
    }
    assert_eq!(count(&desk), 0);
}

#[test]
fn a_user_with_an_end_under_way_is_left_alone() {
    let (mut desk, ann) = agreed();
    desk.log_out(ann);
    desk.finish();
    desk.disk.change_user(ann.user, |row| row.online = true);
    look(&mut desk);
    assert_eq!(count(&desk), 0, "the report is awaited");
    desk.settle(ann, Vec::new());
    look(&mut desk);
    assert_eq!(count(&desk), 1);
    assert!(!desk.is_online(ann.user));
}

#[test]
fn nothing_is_compared_while_writes_are_owed() {
    let (mut desk, ann) = agreed();
    desk.disk.set_full(true);
    desk.log_out(ann);
    desk.settle(ann, Vec::new());
    for _ in 0..4 * STEPS {
        desk.commons.clock.advance(STEP_US);
        desk.finish();
    }
    assert!(desk.is_online(ann.user), "the row is behind");
    desk.disk.set_full(false);
    look(&mut desk);
    assert_eq!(count(&desk), 0);
    assert!(!desk.is_online(ann.user));
}

#[test]
fn rows_that_cannot_be_read_are_compared_later() {
    let (mut desk, ann) = agreed();
    desk.disk.change_user(ann.user, |row| row.online = false);
    desk.disk.fail_next(Fault::Read);
    look(&mut desk);
    look(&mut desk);
    assert_eq!(count(&desk), 1);
    assert!(desk.is_online(ann.user));
}

#[test]
fn a_server_that_stops_looks_a_last_time() {
    let (mut desk, ann) = agreed();
    desk.disk.change_user(UserId(2), |row| row.online = true);
    let clock = desk.commons.clock;
    desk.drain.look_last(&|| clock.now());
    assert_eq!(count(&desk), 0, "not while somebody is there");
    desk.log_out(ann);
    desk.settle(ann, Vec::new());
    for slot in 0..desk.commons.table.used() {
        let Some(channel) = desk.commons.table.occupant(slot) else { continue };
        desk.kicker.kick(channel, Reason::ServerShutdown);
        desk.take_queued();
        desk.settle_channel(channel);
        desk.hand_back(channel);
    }
    desk.finish_all();
    desk.drain.look_last(&|| clock.now());
    assert_eq!(count(&desk), 1);
    assert!(!desk.is_online(UserId(2)));
}

#[test]
fn a_round_is_as_long_as_the_slower_of_both_ways() {
    assert_eq!(round_us(0, 0), STEP_US);
    assert_eq!(round_us(64, 10), STEP_US);
    assert_eq!(round_us(20_000, 0), 40 * STEP_US);
    assert_eq!(round_us(20_000, 100_000), 196 * STEP_US);
}

#[test]
fn every_row_and_every_slot_has_its_turn() {
    let mut desk = Desk::with(policy(), 2400, Disk::default());
    // Each of them has registered on a channel of its own.
    let all: Vec<Online> = (0..1200).map(|n| desk.online(&format!("user{n}"))).collect();
    let used = u64::from(desk.commons.table.used());
    assert_eq!(used, 2400);
    let round = round_us(used, all.len() as u64) / STEP_US;
    steps(&mut desk, 2 * round, &[], &[]);
    let lost = [all[0].channel, all[700].channel, all[1199].channel];
    for who in [3, 600, 1197] {
        desk.disk.change_user(all[who].user, |row| row.online = false);
        desk.commons.registry.remove(all[who + 1].user, all[who + 1].channel, all[who + 1].session);
    }
    steps(&mut desk, 2 * round + 3, &lost, &[]);
    assert_eq!(count(&desk), 9);
    assert!(desk.commons.metrics.reconcile_rounds.value() >= 3);
}
