//! The one step from live to offline: `channel::state`, `channel::table`, `offline_queue::closer`.

use super::{ANN, model, spawn, table_with_ann};
use crate::channel::{ChannelTable, Closed, Reason, Stage};
use crate::clock::Clock;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::disconnect::CloseInfo;
use crate::message::event::Event;
use crate::offline_queue::closer::Kicker;
use crate::offline_queue::queue::OfflineQueue;
use crate::sync::{Arc, Mutex};

/// A worker's door that keeps what it is given.
#[derive(Default)]
struct Door(Mutex<Vec<WorkerCommand>>);

impl WorkerSender for Door {
    fn post(&self, _worker: usize, mail: &mut Vec<WorkerCommand>, _refused: &mut Vec<WorkerCommand>) {
        self.0.lock().append(mail);
    }

    fn is_full(&self, _worker: usize) -> bool {
        false
    }

    fn workers(&self) -> usize {
        1
    }
}

/// Whoever wants a channel gone, at the same time as others, exactly one of them takes the step.
#[test]
fn one_of_all_who_want_a_channel_gone_takes_the_step() {
    model(|| {
        let (table, channel, session) = table_with_ann();
        let takers: Vec<_> = (0..2)
            .map(|_| {
                let table = Arc::clone(&table);
                spawn(move || table.leave(channel))
            })
            .collect();
        let own = table.leave(channel);
        let all = takers.into_iter().map(|taker| taker.join().unwrap()).chain([own]);
        let taken: Vec<Closed> = all.flatten().collect();
        assert_eq!(taken, [Closed { session: Some(session) }]);
        assert_eq!((table.stage(channel), table.present()), (Stage::Offline, 0));
    });
}

/// Of kicks from several threads one says yes, and it alone pushes a departure and tells the worker.
#[test]
fn a_channel_that_is_kicked_by_several_departs_once() {
    model(|| {
        let (table, channel, _) = table_with_ann();
        let queue: Arc<OfflineQueue<()>> = Arc::default();
        let door = Arc::new(Door::default());
        let worker_sender: Arc<dyn WorkerSender> = door.clone();
        let (clock, metrics) = (Clock::start(), Arc::default());
        let kicker = Kicker::new(table, Arc::clone(&queue), worker_sender, metrics, clock);
        let other = kicker.clone();
        let other = spawn(move || other.kick(channel, Reason::Kicked));
        let own = kicker.kick(channel, Reason::Banned);
        assert_ne!(own, other.join().unwrap(), "exactly one");
        let mut entries = Vec::new();
        queue.pop_batch(usize::MAX, &mut entries);
        assert!(matches!(entries[..], [Event::Departure(_)]), "{entries:?}");
        assert!(matches!(door.0.lock()[..], [WorkerCommand::Leave { .. }]));
    });
}

/// A login and an end at the same time: the departure names the session exactly when the login was granted.
#[test]
fn an_end_names_the_session_that_main_has_begun() {
    model(|| {
        let table = Arc::new(ChannelTable::new(1));
        let channel = table.open(0).unwrap();
        let worker = {
            let table = Arc::clone(&table);
            spawn(move || table.leave(channel).unwrap())
        };
        let begun = table.begin_session(channel, ANN);
        let left = worker.join().unwrap();
        assert_eq!(left.session, begun);
        assert_eq!(table.stage(channel), Stage::Offline);
    });
}

/// A logout, a takeover of that session and a kick at the same time: exactly one of them ends the session.
#[test]
fn a_session_ends_once_whoever_ends_it() {
    model(|| {
        let (table, channel, session) = table_with_ann();
        let worker = {
            let table = Arc::clone(&table);
            spawn(move || table.end_session(channel, session))
        };
        let control = {
            let table = Arc::clone(&table);
            spawn(move || table.leave(channel))
        };
        let replaced = table.leave_session(channel, session).is_some();
        let logged_out = worker.join().unwrap();
        let kicked = control.join().unwrap();
        let kicked_session = kicked.and_then(|left| left.session).is_some();
        let ends = [logged_out, replaced, kicked_session].iter().filter(|ended| **ended).count();
        assert_eq!(ends, 1, "logged out {logged_out}, replaced {replaced}, kicked {kicked:?}");
        assert_eq!(kicked.is_some(), !replaced, "the channel leaves once");
    });
}

/// A takeover that is late hits neither the channel that has logged out nor the session that came after.
#[test]
fn a_late_takeover_leaves_the_next_session_alone() {
    model(|| {
        let (table, channel, session) = table_with_ann();
        let late = {
            let table = Arc::clone(&table);
            spawn(move || table.leave_session(channel, session))
        };
        if table.end_session(channel, session) {
            let next = table.begin_session(channel, ANN).unwrap();
            assert_eq!(late.join().unwrap(), None);
            assert!(table.is_live(channel, next));
        } else {
            assert!(late.join().unwrap().is_some());
            assert_eq!(table.begin_session(channel, ANN), None);
        }
    });
}

/// The worker that finds a kick's command finds the step taken, and its own step too late.
#[test]
fn a_command_that_says_leave_comes_after_the_step() {
    model(|| {
        let (table, channel, session) = table_with_ann();
        let queue: Arc<OfflineQueue<()>> = Arc::default();
        let door = Arc::new(Door::default());
        let worker_sender: Arc<dyn WorkerSender> = door.clone();
        let (clock, metrics) = (Clock::start(), Arc::default());
        let kicker = Kicker::new(Arc::clone(&table), Arc::clone(&queue), worker_sender, metrics, clock);
        let control = spawn(move || kicker.kick_session(channel, session, CloseInfo::new(Reason::Replaced)));
        let told = !door.0.lock().is_empty();
        let departed = queue.departures().0;
        if told {
            assert_eq!((table.leave(channel), departed), (None, 1));
        }
        assert!(control.join().unwrap() || !told);
    });
}
