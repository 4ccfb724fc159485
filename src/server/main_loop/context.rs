//! What every part of main works with: the transaction of this turn, the time, the policy, and what other threads share.
//!
//! Owned by the main thread. A part takes an event and adds what has to be written, and what follows from the commit, to
//! the transaction here. It never changes another part.

use super::transaction::{AfterCommit, PendingWrite, Transaction};
use crate::channel::ChannelId;
use crate::clock::{Now, TrustedClock};
use crate::handles::Handles;
use crate::message::command::WorkerCommand;
use crate::store::{Storage, Stored};
use crate::sync::Arc;

/// How a server treats its users.
#[derive(Clone, Debug)]
pub struct Policy {
    /// From a departure to the fd being closed, in microseconds.
    pub grace_us: u64,
    /// How long an orderly stop waits for goodbyes to arrive, in microseconds.
    pub stop_drain_us: u64,
    /// Messages that a box takes.
    pub box_messages: u64,
    /// Bytes of messages that a box takes.
    pub box_bytes: u64,
    /// Bytes of messages that all boxes take together, as `OfflineBox::kept_bytes` counts them.
    pub box_total: u64,
    /// Messages that are under way to a client that confirms them.
    pub ack_window: usize,
    /// How long a box keeps a message, in milliseconds.
    pub box_age_ms: u64,
    /// How long the history is kept, in milliseconds.
    pub history_age_ms: u64,
    /// Rows of the history that are kept.
    pub history_rows: u64,
    /// How long nobody is told that a user has gone, in microseconds.
    pub presence_delay_us: u64,
    /// Friends that a user may add.
    pub friends_max: usize,
    /// Groups that a user may be in.
    pub groups_max: usize,
    /// True exactly when a login for a user who is online is refused rather than taking over.
    pub reject_duplicates: bool,
}

/// What every part of main works with. `St` keeps, `S` is a client's socket.
pub struct Context<St, S> {
    pub(crate) handles: Arc<Handles<S>>,
    pub(crate) policy: Policy,
    /// When this turn began, or its commit ended.
    pub(crate) now: Now,
    pub(super) trusted: TrustedClock,
    pub(crate) transaction: Transaction<St>,
}

impl<St: Storage, S: Send + 'static> Context<St, S> {
    /// A context whose transaction is empty.
    pub(super) fn new(store: St, policy: Policy, handles: Arc<Handles<S>>) -> Self {
        let transaction = Transaction::new(store, handles.table.capacity());
        Context { handles, policy, now: Now::default(), trusted: TrustedClock::default(), transaction }
    }

    /// The time by which ages are judged, in milliseconds.
    pub(super) fn trusted_ms(&self) -> i64 {
        self.trusted.now_ms(self.now)
    }

    /// Notes what time it is, for the next run of the server.
    pub(super) fn mark_time(&mut self) {
        let mark = self.trusted.mark(self.now);
        self.attempt(|store| store.mark_time(mark));
    }

    /// Reads, or writes what was asked for. `None` when the transaction has failed; then what was asked in it fails.
    pub(super) fn attempt<R>(&mut self, act: impl FnOnce(&mut St) -> Stored<R>) -> Option<R> {
        self.transaction.attempt(act)
    }

    /// Reads without beginning a transaction: no writer is held up, and a failure fails nobody.
    pub(super) fn look<R>(&mut self, read: impl FnOnce(&mut St) -> Stored<R>) -> Stored<R> {
        self.transaction.look(read)
    }

    /// Writes what must be written, now or in a later transaction.
    pub(super) fn enqueue(&mut self, write: PendingWrite) {
        self.transaction.enqueue(write);
    }

    /// Has something happen when the transaction is over.
    pub(super) fn then(&mut self, effect: AfterCommit) {
        self.transaction.then(effect);
    }

    /// Sends a command to the worker of a channel, whatever becomes of the transaction.
    pub(super) fn post(&mut self, channel: ChannelId, command: WorkerCommand) {
        let worker = self.handles.table.worker(channel);
        self.then(AfterCommit::Post { worker, command });
    }

    /// True exactly when the mailbox of some worker is so full that the worker should get no new chats.
    pub(super) fn is_a_worker_full(&self) -> bool {
        let worker_sender = &self.handles.worker_sender;
        (0..worker_sender.workers()).any(|worker| worker_sender.is_full(worker))
    }
}
