//! One turn's transaction: what must be written sooner or later, what is asked for now, and what is said once
//! it is committed.
//!
//! Owned by main. Owed writes (an end, its messages) outlive a failed commit and are tried again first. What was
//! asked (a login, a message to keep) fails with its transaction, and whoever asked is told. [`poison_write`](super::poison_write) says what
//! happens to an owed write that can never succeed.

use super::poison_write::RetryBudget;
use super::session_map::{SessionKey, SessionMap};
use crate::ids::{Epoch, Mid, UserId};
use crate::message::chat::{Body, Chat, OtherCopy};
use crate::message::command::WorkerCommand;
use crate::message::delivery::{Accepted, DeliveryTracker};
use crate::message::event::{BanFault, StaleOnline, StaleOnlineFault};
use crate::message::reply_to::ReplyTo;
use crate::message::request::Login;
use crate::protocol::errno::Errno;
use crate::shrink::{ROOM_KEPT, Shrink};
use crate::store::{
    Ban, BanSubject, DedupRecord, DepartureId, DepartureRow, DepartureUpdate, Storage, StorageError, Stored,
};
use crate::sync::Arc;
use crossbeam_channel::Sender;
use std::collections::VecDeque;
use std::num::NonZeroU64;

/// How long main sleeps at most while writes are owed, in microseconds.
pub(crate) const RETRY_US: u64 = 100_000;
/// How long a completion waits for another write to be committed with, in microseconds. A storm of ends then syncs the
/// disk half as often; `offline_us` and `closed_us` come that much later.
pub(crate) const LATER_US: u64 = 20_000;

// Each effect is copied twice: what is large and rare is boxed.
const _: () = assert!(size_of::<AfterCommit>() <= 192);

/// Owed writes of one transaction from which on it should end: some 10 ms.
const WRITES_MAX: usize = 4_096;
/// Bytes of messages that one transaction stores from which on it should end: some 10 ms.
const STORED_BYTES_MAX: usize = 1024 * 1024;

/// A write that must happen, however often it takes.
#[derive(Debug)]
pub(crate) enum PendingWrite {
    /// The user is offline.
    Offline { user: UserId, epoch: Epoch },
    /// A departure gets its row in the history.
    Departure { key: SessionKey, row: DepartureRow },
    /// The session's token begins to run out.
    EndTokens { user: UserId, upto: Epoch, expires_ms: i64 },
    /// All tokens of a banned user end.
    DropTokens { user: UserId },
    /// What became known of a departure later completes its row; after the last completion no more follows.
    DepartureUpdate { key: SessionKey, completion: DepartureUpdate, last: bool },
    /// Somebody may not log in for a while.
    Ban(Ban),
    /// Somebody may log in again.
    Unban(BanSubject),
    /// The numbers of a user's box go on in a new epoch.
    Epoch { user: UserId, epoch: Epoch },
    /// An accepted message goes to the box.
    Keep(Box<BoxWrite>),
    /// Messages of the box were taken over by the client's connection, or confirmed by the client.
    DropKept { user: UserId, upto: Mid },
}

/// An accepted message on its way to the box.
#[derive(Debug)]
pub(crate) struct BoxWrite {
    pub(crate) user: UserId,
    pub(crate) mid: Mid,
    pub(crate) at_ms: i64,
    pub(crate) body: Body,
    /// True exactly when it was sent to a client that has not confirmed it.
    pub(crate) sent: bool,
    /// Counts the message off once it is in the box.
    pub(crate) tracker: Option<Arc<DeliveryTracker>>,
    /// Stored with the message, where this is the last copy of a chat with `seq`: the chat was accepted.
    pub(crate) accepted: Option<Accepted>,
    /// Stored with the message, where other copies of the chat are under way: the chat has reached this user.
    pub(crate) reaches: Option<DedupRecord>,
}

/// What happens when the transaction is over.
#[derive(Debug)]
pub(crate) enum AfterCommit {
    /// Posts a command, whatever becomes of the transaction.
    Post { worker: usize, command: WorkerCommand },
    /// Posts a command if the transaction is committed, and another one if not.
    Commit { worker: usize, command: WorkerCommand, otherwise: Box<WorkerCommand> },
    /// Posts a chat that the transaction puts into the box of a client that confirms. If the transaction fails, the chat
    /// was never sent.
    Deliver { worker: usize, command: WorkerCommand, user: UserId, key: SessionKey, mid: Mid },
    /// Posts messages of the box that the transaction marks as sent to a client that confirms; then the box may have more to
    /// send. If the transaction fails, the message `sent` is still the last one that was sent.
    Refill { worker: usize, commands: Vec<WorkerCommand>, user: UserId, key: SessionKey, sent: Mid },
    /// Tells a worker that main has done a request of a channel, and errno 19 if the transaction fails.
    GoOn { reply_to: ReplyTo },
    /// Posts the answer to a login. If the transaction fails, the session never began.
    LoggedIn { worker: usize, command: Box<WorkerCommand>, user: UserId, key: SessionKey, reply_to: ReplyTo },
    /// The user's session watches a friend from now on, who was online or not when the friend was added. Nothing if the
    /// transaction fails.
    Befriended { user: UserId, friend: UserId, online: bool },
    /// A login goes on if the transaction is committed: another session ends for it only when the store takes commits.
    Proven { login: Box<Login> },
    /// Copies of a chat with `seq` are safe if the transaction is committed.
    Safe { tracker: Arc<DeliveryTracker>, copies: usize },
    /// The same for copies that are stored in a later transaction if this one fails.
    SafeOrAgain { tracker: Arc<DeliveryTracker>, copies: usize },
    /// Counts copies of a chat with `seq` off that nobody has to get, whatever becomes of the transaction.
    CountOff { tracker: Arc<DeliveryTracker>, copies: usize },
    /// A chat with `seq` failed, whatever becomes of the transaction.
    Failed { tracker: Arc<DeliveryTracker>, errno: Errno },
    /// A member's box was full, whatever becomes of the transaction.
    Full { tracker: Arc<DeliveryTracker>, user: UserId },
    /// Ends a session whose user logs in elsewhere, once all commands to it are posted.
    Replace { key: SessionKey },
    /// Answers the administrator that a user who was wrongly marked online is offline.
    StaleOnline {
        reply: Sender<Result<Option<StaleOnline>, StaleOnlineFault>>,
        ghost: StaleOnline,
        asked_us: u64,
    },
    /// Answers the administrator that bans are put or lifted.
    Bans { reply: Sender<Result<Vec<Ban>, BanFault>>, bans: Vec<Ban> },
}

/// The transaction under way, and what hangs on it.
#[derive(Debug)]
pub(crate) struct Transaction<St> {
    store: St,
    /// Writes that no commit has covered yet, oldest first.
    owed: VecDeque<PendingWrite>,
    /// How many of them are in the transaction under way.
    written: usize,
    /// Bytes of messages that the transaction under way stores.
    bytes: usize,
    /// Writes that nobody waits for, oldest first: owed as soon as something else is committed.
    later: VecDeque<PendingWrite>,
    /// When they are owed at the latest, on the monotonic clock; meaningless while there are none.
    later_until_us: u64,
    /// Rows of the history that wait for their completion.
    rows: SessionMap<DepartureId>,
    effects: Vec<AfterCommit>,
    open: bool,
    failed: Option<StorageError>,
    /// The owed write that made it fail, if one did.
    failed_at: Option<usize>,
    retry_budget: RetryBudget,
    /// True exactly from a refused write to the next commit. Each write is carried out by itself then, so that it is known
    /// which one is refused.
    singly: bool,
    /// Counts transactions, so that a session can tell whether commands to it still wait in this one.
    number: NonZeroU64,
}

/// How a transaction ended.
pub(crate) struct Outcome {
    pub(crate) effects: Vec<AfterCommit>,
    /// None when nothing had to be written.
    pub(crate) committed: Option<Result<(), StorageError>>,
    /// True exactly when a write was given up.
    pub(crate) set_aside: bool,
}

impl<St: Storage> Transaction<St> {
    /// Nothing yet; there will be so many channels at most.
    pub(crate) fn new(store: St, capacity: usize) -> Self {
        Transaction {
            store,
            owed: VecDeque::new(),
            written: 0,
            bytes: 0,
            later: VecDeque::new(),
            later_until_us: 0,
            rows: SessionMap::new(capacity),
            effects: Vec::new(),
            open: false,
            failed: None,
            failed_at: None,
            retry_budget: RetryBudget::default(),
            singly: false,
            number: NonZeroU64::MIN,
        }
    }

    /// True exactly when something waits for the transaction under way to be finished.
    pub(crate) fn is_under_way(&self) -> bool {
        self.open || !self.effects.is_empty()
    }

    /// True exactly when enough is written in the transaction under way.
    pub(crate) fn is_full(&self) -> bool {
        self.written >= WRITES_MAX || self.bytes >= STORED_BYTES_MAX
    }

    /// Counts bytes of a message that the transaction under way stores.
    pub(crate) fn count_bytes(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Which transaction is under way.
    pub(crate) fn number(&self) -> NonZeroU64 {
        self.number
    }

    /// Takes back the chats to a session that are not posted yet, oldest first. Those that somebody else has too are
    /// only not sent.
    pub(crate) fn take_back(&mut self, key: SessionKey) -> Vec<Chat> {
        let mut taken = Vec::new();
        self.effects.retain_mut(|effect| match effect {
            AfterCommit::Post { command: WorkerCommand::Chat { to, session, chat, .. }, .. }
                if (*to, *session) == key =>
            {
                if chat.other_copy == OtherCopy::Here {
                    taken.push(chat.clone());
                }
                false
            }
            AfterCommit::Deliver { key: other, .. } | AfterCommit::Refill { key: other, .. } => *other != key,
            _ => true,
        });
        taken
    }

    /// True exactly when writes wait for a commit that works.
    pub(crate) fn is_in_debt(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Reads, or writes what was asked for. `None` when the transaction has failed; then its asks fail.
    pub(crate) fn attempt<R>(&mut self, act: impl FnOnce(&mut St) -> Stored<R>) -> Option<R> {
        self.catch_up();
        self.guarded(act)
    }

    /// Reads without beginning a transaction: no writer is held up, and a failure fails nobody.
    pub(crate) fn look<R>(&mut self, read: impl FnOnce(&mut St) -> Stored<R>) -> Stored<R> {
        read(&mut self.store)
    }

    /// Writes what must be written, now or in a later transaction.
    pub(crate) fn enqueue(&mut self, write: PendingWrite) {
        if let PendingWrite::Keep(keeping) = &write {
            self.bytes += keeping.body.size();
        }
        self.owed.push_back(write);
        self.catch_up();
    }

    /// Writes what must be written with the next commit, or after [`LATER_US`].
    pub(crate) fn enqueue_later(&mut self, write: PendingWrite, now_us: u64) {
        if self.later.is_empty() {
            self.later_until_us = now_us + LATER_US;
        }
        self.later.push_back(write);
    }

    /// When what waits for another commit is owed at the latest, on the monotonic clock.
    pub(crate) fn later_until_us(&self) -> Option<u64> {
        (!self.later.is_empty()).then_some(self.later_until_us)
    }

    /// A login was not committed, and its epoch with it. Messages that were given numbers of that epoch are still owed:
    /// the row follows with them, so that nothing else gets the same numbers.
    pub(crate) fn keep_epoch(&mut self, user: UserId, epoch: Epoch) {
        let is_theirs =
            |write: &PendingWrite| matches!(write, PendingWrite::Keep(keeping) if keeping.user == user);
        if self.owed.iter().any(is_theirs) {
            self.owed.push_back(PendingWrite::Epoch { user, epoch });
        }
    }

    /// The end of a session that never was: its transaction has failed, and with it the login.
    pub(crate) fn forget_departure(&mut self, of: SessionKey) {
        debug_assert_eq!(self.written, 0, "only after a transaction that failed");
        self.owed.retain(|write| !matches!(write, PendingWrite::Departure { key, .. } if *key == of));
        self.rows.remove(of);
    }

    /// Says something when the transaction is over.
    pub(crate) fn then(&mut self, effect: AfterCommit) {
        self.effects.push(effect);
    }

    /// Takes the list of a transaction's effects back for its room: they have been carried out.
    pub(crate) fn reuse(&mut self, mut effects: Vec<AfterCommit>) {
        effects.clear();
        if self.effects.is_empty() && effects.capacity() <= ROOM_KEPT {
            self.effects = effects;
        }
    }

    /// Writes for which there is room.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.owed.capacity().max(self.later.capacity())
    }

    pub(crate) fn into_store(self) -> St {
        self.store
    }

    /// Commits what is open. The effects still have to be carried out.
    pub(crate) fn finish(&mut self, now_us: u64) -> Outcome {
        self.catch_up();
        if self.open || self.later_until_us().is_some_and(|until_us| until_us <= now_us) {
            self.enqueue_what_waits();
            self.catch_up();
        }
        self.number = self.number.saturating_add(1);
        self.bytes = 0;
        let mut effects = std::mem::take(&mut self.effects);
        if !self.open && self.failed.is_none() {
            return Outcome { effects, committed: None, set_aside: false };
        }
        let result = match self.failed.take() {
            Some(error) => Err(error),
            None => self.store.commit(),
        };
        let mut set_aside = false;
        match &result {
            Ok(()) => {
                self.retry_budget = RetryBudget::default();
                self.singly = false;
                for write in self.owed.drain(..self.written) {
                    match write {
                        PendingWrite::DepartureUpdate { key, last: true, .. } => drop(self.rows.remove(key)),
                        PendingWrite::Keep(keeping) => {
                            effects.extend(
                                keeping.tracker.map(|tracker| AfterCommit::Safe { tracker, copies: 1 }),
                            );
                        }
                        _ => {}
                    }
                }
            }
            Err(error) => {
                self.store.rollback();
                set_aside = self.set_aside(error, now_us, &mut effects);
            }
        }
        self.owed.shrink();
        self.written = 0;
        self.open = false;
        Outcome { effects, committed: Some(result), set_aside }
    }

    /// Gives the write up that the transaction has failed for, if it has been refused for long enough.
    fn set_aside(&mut self, error: &StorageError, now_us: u64, effects: &mut Vec<AfterCommit>) -> bool {
        let Some((place, write)) = self.failed_at.take().and_then(|at| Some((at, self.owed.get(at)?))) else {
            return false;
        };
        if !error.refused || !write.can_be_set_aside() || !self.retry_budget.ends(place, now_us) {
            return false;
        }
        let Some(write) = self.owed.remove(place) else { return false };
        tracing::error!(%error, ?write, "a write was refused again and again, and is given up");
        match write {
            PendingWrite::Keep(keeping) => {
                effects.extend(
                    keeping.tracker.map(|tracker| AfterCommit::Failed { tracker, errno: Errno::NotStored }),
                );
            }
            // There is no row, or nothing to say of it any more.
            PendingWrite::Departure { key, .. } | PendingWrite::DepartureUpdate { key, last: true, .. } => {
                self.rows.remove(key);
            }
            _ => {}
        }
        true
    }

    fn guarded<R>(&mut self, act: impl FnOnce(&mut St) -> Stored<R>) -> Option<R> {
        if self.failed.is_some() {
            return None;
        }
        let begun = if self.open { Ok(()) } else { self.store.begin() };
        self.open |= begun.is_ok();
        match begun.and_then(|()| act(&mut self.store)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed = Some(error);
                None
            }
        }
    }

    /// What waits for another commit has one.
    fn enqueue_what_waits(&mut self) {
        if self.owed.is_empty() {
            // The room changes hands: a storm's list would need as much again to be copied into.
            std::mem::swap(&mut self.owed, &mut self.later);
        } else {
            self.owed.append(&mut self.later);
        }
        self.later.shrink();
    }

    /// Brings the transaction up to the newest owed write, in order.
    fn catch_up(&mut self) {
        while self.written < self.owed.len() && self.failed.is_none() {
            // Borrowed apart, so that a failed write stays where it is.
            let (store, rows) = (&mut self.store, &mut self.rows);
            let begun = if self.open { Ok(()) } else { store.begin() };
            self.open |= begun.is_ok();
            let at_most = if self.singly { 1 } else { usize::MAX };
            let writes = self.owed.range(self.written..).take(at_most);
            match begun.and_then(|()| carry_out(store, rows, writes)) {
                Ok(count) => self.written += count,
                Err(error) => {
                    self.singly = error.refused;
                    self.failed = Some(error);
                    self.failed_at = Some(self.written);
                }
            }
        }
    }
}

/// Carries out the first of some writes, and those behind it that can be done with it; answers how many.
fn carry_out<'a, St: Storage>(
    store: &mut St,
    rows: &mut SessionMap<DepartureId>,
    mut writes: impl Iterator<Item = &'a PendingWrite> + Clone,
) -> Stored<usize> {
    let all = writes.clone();
    let Some(write) = writes.next() else { return Ok(0) };
    match write {
        PendingWrite::Offline { user, epoch } => store.set_offline(*user, *epoch)?,
        PendingWrite::Departure { key, row } => drop(rows.insert(*key, store.add_departure(row)?)),
        PendingWrite::EndTokens { user, upto, expires_ms } => store.end_tokens(*user, *upto, *expires_ms)?,
        PendingWrite::DropTokens { user } => store.drop_tokens(*user)?,
        PendingWrite::DepartureUpdate { .. } => return complete(store, rows, all),
        PendingWrite::Ban(ban) => store.put_ban(ban)?,
        PendingWrite::Unban(banned) => store.drop_ban(*banned)?,
        PendingWrite::Epoch { user, epoch } => store.set_epoch(*user, *epoch)?,
        PendingWrite::Keep(keeping) => {
            let BoxWrite { user, mid, at_ms, body, sent, accepted, reaches, .. } = &**keeping;
            store.keep(*user, *mid, *at_ms, &body.object(), *sent)?;
            if let Some(accepted) = accepted {
                accepted.write(store, *at_ms)?;
            }
            if let Some(chat) = reaches {
                store.note_reached(*chat, *at_ms, &[*user])?;
            }
        }
        PendingWrite::DropKept { user, upto } => {
            store.drop_kept(*user, *upto)?;
        }
    }
    Ok(1)
}

/// Completes rows of the history that lie side by side and have the same to say, as those of one turn of a worker often
/// do in a storm: all of them in one statement. Answers how many of the writes that were.
fn complete<'a, St: Storage>(
    store: &mut St,
    rows: &SessionMap<DepartureId>,
    writes: impl Iterator<Item = &'a PendingWrite>,
) -> Stored<usize> {
    let (mut count, mut found) = (0, None);
    for write in writes {
        let PendingWrite::DepartureUpdate { key, completion, .. } = write else { break };
        match (rows.get(*key), &mut found) {
            // The row was given up.
            (None, _) => {}
            (Some(row), None) => found = Some((*row..=*row, completion)),
            (Some(row), Some((range, alike))) if row.0 == range.end().0 + 1 && completion == *alike => {
                *range = *range.start()..=*row;
            }
            _ => break,
        }
        count += 1;
    }
    if let Some((range, completion)) = found {
        store.complete_departures(range, completion)?;
    }
    Ok(count)
}

impl Accepted {
    /// Writes it into the transaction under way.
    pub(crate) fn write(self, store: &mut impl Storage, at_ms: i64) -> Stored<()> {
        if self.has_notes {
            store.forget_reached(self.chat)?;
        }
        store.accept(self.chat, at_ms)
    }
}

/// The transaction has failed: what was asked in it is refused when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TransactionFailed;

impl PendingWrite {
    pub(super) fn can_be_set_aside(&self) -> bool {
        !matches!(self, PendingWrite::Offline { .. } | PendingWrite::Epoch { .. })
    }
}
