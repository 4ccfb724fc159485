//! Mailboxes and their wake-up: `worker::mailbox`.

use super::{ANN, model, spawn, table_with_ann};
use crate::channel::{ChannelId, ChannelTable, Reason, SessionNo};
use crate::clock::Clock;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::offline_queue::closer::Kicker;
use crate::offline_queue::queue::OfflineQueue;
use crate::sync::{Arc, Condvar, Mutex};
use crate::testing::builders::accepted;
use crate::worker::{Mailbox, Mailboxes, Wake};
use std::sync::PoisonError;
use std::time::Duration;

/// See the same in `queue`.
const PATIENCE: Duration = Duration::from_mins(1);

/// A poller: a wake makes the present or the next wait return, once.
#[derive(Clone, Default)]
struct Poller(Arc<(Mutex<bool>, Condvar)>);

impl Poller {
    fn wait(&self) {
        let (woken, changed) = &*self.0;
        let mut woken = woken.lock();
        while !*woken {
            let waited = changed.wait_timeout(woken, PATIENCE);
            let (again, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            assert!(!waited.timed_out(), "nobody has woken the worker");
            woken = again;
        }
        *woken = false;
    }
}

impl Wake for Poller {
    fn wake(&self) {
        let (woken, changed) = &*self.0;
        *woken.lock() = true;
        changed.notify_one();
    }
}

/// A worker as the mailbox knows it.
struct Worker {
    poller: Poller,
    mailbox: Arc<Mailbox>,
}

impl Worker {
    fn new() -> Self {
        let poller = Poller::default();
        let mailbox = Arc::new(Mailbox::new(Box::new(poller.clone())));
        Worker { poller, mailbox }
    }

    /// Empties the mailbox as a turn does.
    fn take(&self) -> Vec<WorkerCommand> {
        let mut commands = Vec::new();
        self.mailbox.take(&mut commands);
        commands
    }
}

fn chat(to: ChannelId, session: SessionNo) -> WorkerCommand {
    WorkerCommand::Chat { to, session, user: ANN, chat: accepted("{}"), origin: None }
}

/// Pushes a chat from another thread; true when it comes back.
fn push_chat(mailbox: &Mailbox, table: &ChannelTable, channel: ChannelId, session: SessionNo) -> bool {
    let mut refused = Vec::new();
    mailbox.push(table, &mut vec![chat(channel, session)], &mut refused);
    !refused.is_empty()
}

/// A worker takes the step and then empties its mailbox: every chat for that session is there or has come back to its
/// sender; none comes later.
#[test]
fn after_the_step_one_look_into_the_mailbox_is_enough() {
    model(|| {
        let (table, channel, session) = table_with_ann();
        let worker = Worker::new();
        let sender = {
            let (table, mailbox) = (Arc::clone(&table), Arc::clone(&worker.mailbox));
            spawn(move || push_chat(&mailbox, &table, channel, session))
        };
        table.leave(channel).unwrap();
        let seen = worker.take();
        let came_back = sender.join().unwrap();
        assert_eq!(seen.len() + usize::from(came_back), 1, "in one place, exactly once");
        assert!(worker.take().is_empty(), "nothing comes behind the step");
    });
}

/// The same for a logout, where the channel stays and has its next session at once.
#[test]
fn a_chat_for_a_session_that_ended_comes_back_though_the_channel_lives_on() {
    model(|| {
        let (table, channel, session) = table_with_ann();
        let worker = Worker::new();
        let sender = {
            let (table, mailbox) = (Arc::clone(&table), Arc::clone(&worker.mailbox));
            spawn(move || push_chat(&mailbox, &table, channel, session))
        };
        assert!(table.end_session(channel, session));
        let seen = worker.take();
        table.begin_session(channel, ANN).unwrap();
        let came_back = sender.join().unwrap();
        assert_eq!(seen.len() + usize::from(came_back), 1);
        assert!(worker.take().is_empty(), "nothing of the old session reaches the next");
    });
}

/// Somebody else kicks: in the mailbox, no chat for the session lies behind the command that says so.
#[test]
fn nothing_for_a_session_lies_behind_the_command_that_it_has_left() {
    model(|| {
        let (table, channel, session) = table_with_ann();
        let worker = Worker::new();
        let boxes: Arc<dyn WorkerSender> =
            Arc::new(Mailboxes::new(Arc::clone(&table), vec![Arc::clone(&worker.mailbox)]));
        let queue: Arc<OfflineQueue<()>> = Arc::default();
        let (clock, metrics) = (Clock::start(), Arc::default());
        let kicker = Kicker::new(Arc::clone(&table), queue, boxes, metrics, clock);
        let control = spawn(move || assert!(kicker.kick(channel, Reason::Kicked)));
        let sender = {
            let (table, mailbox) = (table, Arc::clone(&worker.mailbox));
            spawn(move || push_chat(&mailbox, &table, channel, session))
        };
        let mut commands = worker.take();
        control.join().unwrap();
        let came_back = sender.join().unwrap();
        commands.extend(worker.take());
        let left =
            commands.iter().position(|command| matches!(command, WorkerCommand::Leave { .. })).unwrap();
        assert_eq!(left + 1, commands.len(), "{commands:?}");
        assert_eq!(left + usize::from(came_back), 1);
    });
}

/// A worker that sleeps in its poller is woken for every command, and finds it when it wakes.
#[test]
fn no_command_lies_in_the_mailbox_of_a_worker_that_sleeps() {
    model(|| {
        let table = Arc::new(ChannelTable::new(1));
        let worker = Worker::new();
        let senders: Vec<_> = (0..2)
            .map(|_| {
                let (table, mailbox) = (Arc::clone(&table), Arc::clone(&worker.mailbox));
                spawn(move || mailbox.push(&table, &mut vec![WorkerCommand::Accept], &mut Vec::new()))
            })
            .collect();
        let mut commands = 0;
        while commands < 2 {
            worker.poller.wait();
            commands += worker.take().len();
        }
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

/// Letters of one push stay in order and side by side, and each is taken once.
#[test]
fn commands_of_one_push_stay_together() {
    model(|| {
        let table = Arc::new(ChannelTable::new(1));
        let worker = Worker::new();
        let pushers: Vec<_> = (0..2)
            .map(|slot| {
                let (table, mailbox) = (Arc::clone(&table), Arc::clone(&worker.mailbox));
                spawn(move || {
                    let close = |generation| WorkerCommand::Close { channel: ChannelId { slot, generation } };
                    mailbox.push(&table, &mut vec![close(1), close(2)], &mut Vec::new());
                })
            })
            .collect();
        let mut commands = worker.take();
        for pusher in pushers {
            pusher.join().unwrap();
        }
        commands.extend(worker.take());
        let names: Vec<_> = commands
            .iter()
            .map(|command| match command {
                WorkerCommand::Close { channel } => (channel.slot, channel.generation),
                other => panic!("nobody pushed {other:?}"),
            })
            .collect();
        assert!(names == [(0, 1), (0, 2), (1, 1), (1, 2)] || names == [(1, 1), (1, 2), (0, 1), (0, 2)]);
    });
}
