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
use crate::testing::builders::Summary;
use crate::testing::fixtures::{GRACE_US, policy};
use crate::testing::main_harness::{MainHarness, Online};
use crate::testing::memory::{Disk, Fault};

/// Steps after which a difference that lasts is believed.
const STEPS: u64 = SURE_US / STEP_US + 2;

/// Steps are taken; the worker settles what leaves, and says that it holds every channel but `lost`, and `extra`
/// besides.
fn steps(harness: &mut MainHarness, count: u64, lost: &[ChannelId], extra: &[ChannelId]) {
    for _ in 0..count {
        harness.fixtures.clock.advance(STEP_US);
        harness.finish_all();
        for command in harness.mailboxes.take_those(|command| matches!(command, WorkerCommand::Audit { .. }))
        {
            let WorkerCommand::Audit { from, to } = command else { continue };
            let mut held: Vec<ChannelId> = harness.fixtures.table.occupants().collect();
            held.extend(extra);
            held.retain(|channel| (from..to).contains(&channel.slot) && !lost.contains(channel));
            held.sort();
            harness.take(Event::Audited { worker: 0, held });
        }
        harness.finish_all();
        for command in harness.mailboxes.take_those(|command| matches!(command, WorkerCommand::Leave { .. }))
        {
            if let WorkerCommand::Leave { channel, session, .. } = command {
                harness.take(Event::DeliveryReport(DeliveryReport {
                    channel,
                    session,
                    unsent: Vec::new(),
                    delivered: 0,
                }));
            }
            harness.mailboxes.post(0, &mut vec![command], &mut Vec::new());
        }
    }
}

fn look(harness: &mut MainHarness) {
    steps(harness, STEPS, &[], &[]);
}

fn count(harness: &MainHarness) -> u64 {
    harness.fixtures.metrics.reconciled.value()
}

/// Somebody is online, and all agrees.
fn agreed() -> (MainHarness, Online) {
    let mut harness = MainHarness::new();
    let ann = harness.online("ann");
    harness.user("bob");
    look(&mut harness);
    assert_eq!(count(&harness), 0);
    harness.forget();
    (harness, ann)
}

/// Something is spoilt: not believed at once, then found, and never again.
fn spoilt(spoil: impl FnOnce(&mut MainHarness, Online)) -> (MainHarness, Online) {
    let (mut harness, ann) = agreed();
    spoil(&mut harness, ann);
    steps(&mut harness, 2, &[], &[]);
    assert_eq!(count(&harness), 0, "it may be under way");
    look(&mut harness);
    assert_eq!(count(&harness), 1);
    look(&mut harness);
    assert_eq!(count(&harness), 1, "it is repaired");
    (harness, ann)
}

fn is_registered(harness: &MainHarness, who: Online) -> bool {
    let registry = &harness.fixtures.registry;
    let entry = registry.find(who.user);
    entry.is_some_and(|entry| (entry.channel, entry.session) == (who.channel, who.session))
        && registry.named("ann") == Some(who.user)
}

#[test]
fn a_session_that_the_registry_lacks_is_entered_again_and_opened() {
    let (harness, ann) =
        spoilt(|harness, ann| harness.fixtures.registry.remove(ann.user, ann.channel, ann.session));
    assert!(is_registered(&harness, ann));
    assert_eq!(harness.heard(ann.channel), [Summary::Open]);
}

#[test]
fn an_entry_of_the_registry_that_says_something_else_is_set_right() {
    let (harness, ann) = spoilt(|harness, ann| {
        let registry = &harness.fixtures.registry;
        let entry = registry.find(ann.user).unwrap();
        registry.remove(ann.user, ann.channel, ann.session);
        registry.enter(ann.user, Entered { session: SessionNo(9), ..entry });
    });
    assert!(is_registered(&harness, ann));
}

#[test]
fn an_entry_of_the_registry_without_a_session_is_taken_out() {
    let (harness, ann) = spoilt(|harness, ann| {
        let entry = harness.fixtures.registry.find(ann.user).unwrap();
        let sender = Arc::new(Sender { id: UserId(2), name: "bob".into() });
        harness.fixtures.registry.enter(UserId(2), Entered { sender, ..entry });
    });
    assert_eq!(
        (harness.fixtures.registry.find(UserId(2)), harness.fixtures.registry.named("bob")),
        (None, None)
    );
    assert!(is_registered(&harness, ann));
}

#[test]
fn a_name_that_leads_to_somebody_who_has_another_is_taken_out() {
    let (harness, ann) = spoilt(|harness, ann| {
        let registry = &harness.fixtures.registry;
        let entry = registry.find(ann.user).unwrap();
        let sender = Arc::new(Sender { id: ann.user, name: "anna".into() });
        registry.enter(ann.user, Entered { sender, ..entry.clone() });
        registry.enter(ann.user, entry);
    });
    assert_eq!(harness.fixtures.registry.named("anna"), None);
    assert!(is_registered(&harness, ann));
}

#[test]
fn the_map_of_sessions_gets_back_what_it_lost() {
    let (mut harness, ann) = spoilt(|harness, ann| {
        assert!(harness.main.sessions.remove((ann.channel, ann.session)).is_some());
    });
    harness.log_out(ann);
    harness.finish();
    assert!(!harness.is_online(ann.user), "its end is known as that of a session");
}

#[test]
fn the_map_of_sessions_loses_what_is_nobodys() {
    let nobodys = (ChannelId { slot: 7, generation: 3 }, SessionNo(2));
    let (harness, _) = spoilt(|harness, ann| {
        assert_eq!(harness.main.sessions.insert(nobodys, ann.user), None);
    });
    assert!(harness.main.sessions.get(nobodys).is_none());
}

#[test]
fn the_row_of_a_session_is_written_again() {
    let spoils: [fn(&mut UserRow); 3] =
        [|row| row.online = false, |row| row.epoch = Epoch(99), |row| row.epoch = Epoch(0)];
    for spoil in spoils {
        let (mut harness, ann) = spoilt(|harness, ann| harness.disk.change_user(ann.user, spoil));
        let row = harness.disk.user(ann.user).unwrap();
        assert!(row.online && row.epoch == Epoch(1), "{row:?}");
        harness.log_out(ann);
        harness.finish();
        assert!(!harness.is_online(ann.user), "its end is still that of the row's epoch");
    }
}

#[test]
fn a_user_who_is_marked_online_without_a_session_is_set_offline() {
    let (harness, ann) = spoilt(|harness, _| harness.disk.change_user(UserId(2), |row| row.online = true));
    assert!(!harness.is_online(UserId(2)) && harness.is_online(ann.user));
    assert_eq!(harness.disk.ends(UserId(2)), [], "no session has ended");
}

#[test]
fn a_session_whose_row_is_gone_is_sent_away() {
    let (harness, ann) = spoilt(|harness, ann| harness.disk.delete_user(ann.user));
    assert_eq!(harness.heard(ann.channel), [Summary::Leave(Reason::InternalError)]);
    assert_eq!(harness.disk.ends(ann.user), [Reason::InternalError]);
    assert_eq!(harness.fixtures.registry.len(), 0);
}

#[test]
fn a_channel_without_a_connection_is_sent_away() {
    let (mut harness, ann) = agreed();
    steps(&mut harness, 2, &[ann.channel], &[]);
    assert_eq!(count(&harness), 0, "it may be under way");
    steps(&mut harness, STEPS, &[ann.channel], &[]);
    assert_eq!(count(&harness), 1);
    assert_eq!(harness.disk.ends(ann.user), [Reason::InternalError]);
    harness.fixtures.clock.advance(GRACE_US);
    steps(&mut harness, 1, &[ann.channel], &[]);
    assert!(harness.heard(ann.channel).contains(&Summary::Close), "it goes the way of all channels");
}

#[test]
fn a_channel_that_has_left_needs_no_connection() {
    let (mut harness, ann) = agreed();
    assert!(harness.kicker.kick(ann.channel, Reason::Kicked));
    harness.take_queued();
    harness.settle(ann, Vec::new());
    steps(&mut harness, STEPS, &[ann.channel], &[]);
    assert_eq!(count(&harness), 0);
}

#[test]
fn a_connection_whose_name_is_not_its_own_is_closed() {
    let (mut harness, ann) = agreed();
    let stale = ChannelId { generation: ann.channel.generation + 1, ..ann.channel };
    steps(&mut harness, 2, &[], &[stale]);
    assert_eq!(count(&harness), 0);
    steps(&mut harness, STEPS, &[], &[stale]);
    assert_eq!((count(&harness), harness.heard(stale)), (1, vec![Summary::Close]));
    harness.take(Event::HandBack { channel: stale, socket: None, partial: None });
    assert_eq!(harness.session(ann.channel), Some(ann.session), "its namesake is not touched");
}

#[test]
fn a_departure_that_was_lost_is_made_up() {
    let (mut harness, ann) =
        spoilt(|harness, ann| assert!(harness.fixtures.table.leave(ann.channel).is_some()));
    assert_eq!(harness.disk.ends(ann.user), [Reason::InternalError]);
    assert!(!harness.is_online(ann.user));
    assert_eq!(
        harness.heard(ann.channel),
        [Summary::Leave(Reason::InternalError)],
        "the client may still be there"
    );
    let again = harness.enter(ann.user);
    assert!(harness.is_online(again.user), "nothing is waited for");
    harness.fixtures.clock.advance(GRACE_US);
    harness.finish_all();
    harness.hand_back(ann.channel);
    assert_eq!(harness.fixtures.table.stage(ann.channel), Stage::Free);
    look(&mut harness);
    assert_eq!(count(&harness), 1);
}

#[test]
fn the_lost_departure_of_a_channel_without_a_session_is_made_up_too() {
    let mut channel = None;
    let (harness, ann) = spoilt(|harness, _| {
        channel = Some(harness.connect());
        harness.fixtures.table.leave(channel.unwrap()).unwrap();
    });
    assert_eq!(harness.heard(channel.unwrap()), [Summary::Leave(Reason::InternalError)]);
    assert!(harness.is_online(ann.user));
}

#[test]
fn a_logout_that_was_lost_ends_the_session() {
    let (harness, ann) =
        spoilt(|harness, ann| assert!(harness.fixtures.table.end_session(ann.channel, ann.session)));
    assert_eq!(harness.disk.ends(ann.user), [Reason::InternalError]);
    assert_eq!(harness.fixtures.table.stage(ann.channel), Stage::Connected, "the channel stays");
}

#[test]
fn a_session_that_main_does_not_know_is_sent_away() {
    let mut channel = None;
    let (harness, ann) = spoilt(|harness, _| {
        channel = Some(harness.connect());
        harness.fixtures.table.begin_session(channel.unwrap(), UserId(2)).unwrap();
    });
    assert_eq!(harness.heard(channel.unwrap())[0], Summary::Leave(Reason::InternalError));
    assert!(harness.is_online(ann.user));
}

#[test]
fn a_seat_whose_channel_is_free_is_given_up() {
    let (harness, ann) = spoilt(|harness, ann| {
        harness.kicker.kick(ann.channel, Reason::Kicked);
        harness.take_queued();
        harness.settle(ann, Vec::new());
        harness.fixtures.table.free(ann.channel);
    });
    assert!(
        harness.disk.departures()[0].completion.is_some_and(|of| of.closed_us.is_some()),
        "nothing is awaited"
    );
    assert_eq!(harness.disk.ends(ann.user), [Reason::Kicked]);
}

#[test]
fn a_socket_that_nobody_has_asked_for_is_asked_for() {
    let (harness, ann) = spoilt(|harness, ann| {
        harness.kicker.kick(ann.channel, Reason::Kicked);
        harness.take_queued();
        harness.settle(ann, Vec::new());
        harness.main.lingering.forget_order();
        harness.fixtures.clock.advance(GRACE_US + SURE_US);
    });
    assert!(harness.heard(ann.channel).contains(&Summary::Close));
}

#[test]
fn a_settlement_that_never_comes_is_not_waited_for_for_ever() {
    let (mut harness, ann) = spoilt(|harness, ann| {
        harness.kicker.kick(ann.channel, Reason::Kicked);
        harness.take_queued();
        // The worker has lost the command.
        harness.forget();
    });
    let again = harness.enter(ann.user);
    assert!(harness.is_online(again.user));
}

#[test]
fn a_channel_that_has_changed_since_its_worker_was_asked_is_not_compared() {
    let (mut harness, ann) = agreed();
    // One look would be enough.
    harness.main.look_around();
    harness.kicker.kick(ann.channel, Reason::Kicked);
    harness.take_queued();
    let others = harness.fixtures.table.present() as u64;
    harness.take(Event::Audited { worker: 0, held: Vec::new() });
    assert_eq!(count(&harness), others, "only those who are still there miss their connection");
}

#[test]
fn what_differs_only_once_is_not_counted() {
    let (mut harness, ann) = agreed();
    for _ in 0..STEPS {
        harness.disk.change_user(ann.user, |row| row.online = false);
        steps(&mut harness, 1, &[], &[]);
        harness.disk.change_user(ann.user, |row| row.online = true);
        steps(&mut harness, 1, &[], &[]);
    }
    assert_eq!(count(&harness), 0);
}

#[test]
fn a_user_with_an_end_under_way_is_left_alone() {
    let (mut harness, ann) = agreed();
    harness.log_out(ann);
    harness.finish();
    harness.disk.change_user(ann.user, |row| row.online = true);
    look(&mut harness);
    assert_eq!(count(&harness), 0, "the report is awaited");
    harness.settle(ann, Vec::new());
    look(&mut harness);
    assert_eq!(count(&harness), 1);
    assert!(!harness.is_online(ann.user));
}

#[test]
fn nothing_is_compared_while_writes_are_owed() {
    let (mut harness, ann) = agreed();
    harness.disk.set_full(true);
    harness.log_out(ann);
    harness.settle(ann, Vec::new());
    for _ in 0..4 * STEPS {
        harness.fixtures.clock.advance(STEP_US);
        harness.finish();
    }
    assert!(harness.is_online(ann.user), "the row is behind");
    harness.disk.set_full(false);
    look(&mut harness);
    assert_eq!(count(&harness), 0);
    assert!(!harness.is_online(ann.user));
}

#[test]
fn rows_that_cannot_be_read_are_compared_later() {
    let (mut harness, ann) = agreed();
    harness.disk.change_user(ann.user, |row| row.online = false);
    harness.disk.fail_next(Fault::Read);
    look(&mut harness);
    look(&mut harness);
    assert_eq!(count(&harness), 1);
    assert!(harness.is_online(ann.user));
}

#[test]
fn a_server_that_stops_looks_a_last_time() {
    let (mut harness, ann) = agreed();
    harness.disk.change_user(UserId(2), |row| row.online = true);
    let clock = harness.fixtures.clock;
    harness.main.look_last(&|| clock.now());
    assert_eq!(count(&harness), 0, "not while somebody is there");
    harness.log_out(ann);
    harness.settle(ann, Vec::new());
    for slot in 0..harness.fixtures.table.used() {
        let Some(channel) = harness.fixtures.table.occupant(slot) else { continue };
        harness.kicker.kick(channel, Reason::ServerShutdown);
        harness.take_queued();
        harness.settle_channel(channel);
        harness.hand_back(channel);
    }
    harness.finish_all();
    harness.main.look_last(&|| clock.now());
    assert_eq!(count(&harness), 1);
    assert!(!harness.is_online(UserId(2)));
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
    let mut harness = MainHarness::with(policy(), 2400, Disk::default());
    // Each of them has registered on a channel of its own.
    let all: Vec<Online> = (0..1200).map(|n| harness.online(&format!("user{n}"))).collect();
    let used = u64::from(harness.fixtures.table.used());
    assert_eq!(used, 2400);
    let round = round_us(used, all.len() as u64) / STEP_US;
    steps(&mut harness, 2 * round, &[], &[]);
    let lost = [all[0].channel, all[700].channel, all[1199].channel];
    for who in [3, 600, 1197] {
        harness.disk.change_user(all[who].user, |row| row.online = false);
        harness.fixtures.registry.remove(all[who + 1].user, all[who + 1].channel, all[who + 1].session);
    }
    steps(&mut harness, 2 * round + 3, &lost, &[]);
    assert_eq!(count(&harness), 9);
    assert!(harness.fixtures.metrics.reconcile_rounds.value() >= 3);
}
