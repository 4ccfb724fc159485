//! Main: the only one that drains the offline queue, and so decides who is online.
//!
//! Owned by the main thread. It writes the database, frees channel ids and closes clients' fds; it never reads
//! or writes a live socket, and never waits for anything but its queue and its own commits.
//!
//! What it does with each event stands in the other files of this folder, each called after its part.

use super::bans::Bans;
use super::dedup::Repetitions;
use super::disconnect::OpenDeparture;
use super::fan_out::FanOuts;
use super::friends_groups::GroupCache;
use super::latency::Stages;
use super::lingering::Lingering;
use super::lists::Lists;
use super::presence::Presence;
use super::reconcile::Reconciler;
use super::retention::Expiry;
use super::session_map::SessionKey;
use super::session_map::SessionMap;
use super::shutdown::{LOOK_US, Shutdown};
use super::transaction::{AfterCommit, Batch};
use super::users::{UserState, UserTable};
use crate::auth::login_limiter::Attempts;
use crate::auth::pool::Auth;
use crate::channel::{ChannelId, ChannelTable, Reason};
use crate::clock::{Now, TrustedClock};
use crate::ids::UserId;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::delivery::PendingReply;
use crate::message::disconnect::CloseInfo;
use crate::message::event::{
    BanFault, ControlAsk, Event, QueueReport, StaleOnline, StaleOnlineFault, StaleOnlineName,
};
use crate::message::reply::Answer;
use crate::message::reply_to::{Completes, ReplyTo};
use crate::message::request::Ask;
use crate::metrics::Metrics;
use crate::offline_queue::closer::Kicker;
use crate::offline_queue::queue::OfflineQueue;
use crate::protocol::errno::Errno;
use crate::registry::Registry;
use crate::store::{Storage, StorageError, Stored, UserRow};
use crate::sync::Arc;
use std::time::Duration;

/// How long a batch collects entries at most, in microseconds.
pub const BATCH_US: u64 = 5_000;
/// How long main rests after a turn in which it has taken many ends and nothing else, unless a request comes or
/// [`BATCH_MAX`](crate::offline_queue::queue::BATCH_MAX) entries wait. In a storm of lost clients more of them share a commit; each is offline that much later.
pub const REST: Duration = Duration::from_millis(4);
/// Entries of ends in a turn from which on they are many. The reports of a few ends, and the logins that may wait for
/// them, have no rest to wait for.
const MANY_ENDS: usize = 16;
/// How long main sleeps at most while writes are owed, in microseconds.
pub(crate) const RETRY_US: u64 = 100_000;
/// The share of all names from which on lingering channels close early, in percent.
const EARLY_CLOSE_PERCENT: usize = 90;

/// How long main rests after a turn in which it has taken so many entries, of which some may be pressing
/// ([`Event::is_pressing`]).
pub fn rest_after(taken: usize, presses: bool) -> Duration {
    if taken >= MANY_ENDS && !presses { REST } else { Duration::ZERO }
}

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
    /// Bytes of messages that all boxes take together, as [`Storage::kept_bytes`] counts them.
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

/// What main shares with the rest of the server.
pub struct Handles<S> {
    /// Every channel's gate.
    pub table: Arc<ChannelTable>,
    /// Who is online, for others to read.
    pub registry: Arc<Registry>,
    /// Main's own queue.
    pub queue: Arc<OfflineQueue<S>>,
    /// The workers.
    pub outlet: Arc<dyn WorkerSender>,
    /// Where passwords go.
    pub auth: Arc<Auth>,
    /// Failed logins, and who registers.
    pub attempts: Arc<Attempts>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Sends channels away.
    pub kicker: Kicker<S>,
}

/// Main's state. `St` keeps, `S` is a client's socket.
pub struct MainLoop<St, S> {
    pub(crate) around: Handles<S>,
    pub(crate) policy: Policy,
    pub(crate) batch: Batch<St>,
    pub(crate) people: UserTable,
    pub(crate) presence: Presence,
    pub(crate) bans: Bans,
    pub(crate) groups: GroupCache,
    pub(crate) lists: Lists,
    pub(crate) repetitions: Repetitions,
    pub(crate) fan_outs: FanOuts,
    pub(crate) now: Now,
    pub(crate) trusted: TrustedClock,
    /// Channels that have left and still have their fd.
    pub(super) lingering: Lingering,
    /// Whose session is on which channel.
    pub(crate) sessions: SessionMap<UserId>,
    /// Ends of which not all is known yet.
    pub(super) endings: SessionMap<OpenDeparture>,
    /// Ends that the batch under way commits.
    pub(super) committing: Vec<SessionKey>,
    /// Sessions that have taken over all they were sent of their box.
    pub(crate) refills: Vec<UserId>,
    /// Until then nobody is sent more of a box, because a commit has failed (monotonic, in microseconds).
    pub(crate) refill_at_us: u64,
    pub(super) drained: u64,
    pub(super) stages: Stages,
    /// Departures in the batch under way.
    pub(super) departures: u64,
    /// Workers that wait for room.
    pub(super) short: Vec<usize>,
    pub(super) expiry: Expiry,
    pub(crate) expire_accepted_at_us: u64,
    pub(super) stop: Option<Shutdown>,
    /// True exactly when the database is lost: nothing can be written any more, so nothing waits for it.
    pub(super) lost: bool,
    pub(super) reconciler: Reconciler,
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Main's state at the start.
    pub fn new(store: St, policy: Policy, around: Handles<S>) -> Self {
        let capacity = around.table.capacity();
        MainLoop {
            around,
            policy,
            batch: Batch::new(store, capacity),
            people: UserTable::default(),
            presence: Presence::default(),
            bans: Bans::default(),
            groups: GroupCache::default(),
            lists: Lists::default(),
            repetitions: Repetitions::default(),
            fan_outs: FanOuts::default(),
            now: Now::default(),
            trusted: TrustedClock::default(),
            lingering: Lingering::default(),
            sessions: SessionMap::new(capacity),
            endings: SessionMap::new(capacity),
            committing: Vec::new(),
            refills: Vec::new(),
            refill_at_us: 0,
            drained: 0,
            stages: Stages::default(),
            departures: 0,
            short: Vec::new(),
            expiry: Expiry::default(),
            expire_accepted_at_us: crate::main_loop::dedup::EXPIRY_US,
            stop: None,
            lost: false,
            reconciler: Reconciler::default(),
        }
    }

    /// Takes over the time by which ages are judged.
    #[must_use]
    pub fn with_trusted(mut self, trusted: TrustedClock) -> Self {
        self.trusted = trusted;
        self
    }

    /// The time by which ages are judged, in milliseconds.
    pub(crate) fn trusted_ms(&self) -> i64 {
        self.trusted.now_ms(self.now)
    }

    /// Notes what time it is, for the next run of the server.
    pub(crate) fn mark_time(&mut self) {
        let mark = self.trusted.mark(self.now);
        self.batch.attempt(|store| store.mark_time(mark));
    }

    /// Gives the store up, to be closed.
    pub fn into_store(self) -> St {
        self.batch.into_store()
    }

    /// Takes one entry.
    pub fn take(&mut self, entry: Event<S>, now: Now) {
        self.now = now;
        match entry {
            Event::Departure(departure) => self.depart(&departure),
            Event::DeliveryReport(settlement) => self.settle(settlement),
            Event::HandBack { channel, socket, torn } => {
                // The only place where a client's fd is closed.
                drop(socket);
                self.closed(channel, torn);
            }
            Event::Ask(ask) => self.answer(ask),
            Event::TakenOver { user, channel, session, upto } => {
                self.taken_over(user, (channel, session), upto);
            }
            Event::Confirmed { user, channel, session } => self.confirmed(user, (channel, session)),
            Event::Handed { ticket } => self.handed(ticket),
            Event::Probed { channel, user } => self.looked_at(user, channel),
            Event::Audited { worker, held } => self.audited(worker, &held),
            Event::Short { worker } => self.short.push(worker),
            Event::Control(ask) => self.control(ask),
            Event::Stop => self.stop_by_signal(),
            Event::DatabaseLost => self.stop_without_database(),
            Event::Quiet => self.stopped_listening(),
        }
    }

    /// Ends a batch: commits, says what hangs on it, closes what is due. `clock` is read after the commit.
    pub fn finish(&mut self, clock: &dyn Fn() -> Now) {
        if self.departures > 0 {
            self.stages.batch.note(std::mem::take(&mut self.departures));
        }
        self.go_on_handing_out();
        self.expire();
        self.expire_accepted();
        self.around.attempts.tidy(self.now.mono_us);
        self.close_due();
        let outcome = self.batch.finish(self.now.mono_us);
        self.around.metrics.writes_set_aside.add(u64::from(outcome.set_aside));
        self.now = clock();
        let failure = match outcome.committed {
            None => None,
            Some(Ok(())) => {
                self.around.metrics.commits.add(1);
                None
            }
            Some(Err(error)) => {
                self.around.metrics.commit_failures.add(1);
                tracing::error!(%error, "a transaction failed; what was asked is refused, ends are tried again");
                self.people.doubt();
                self.groups.forget_all();
                self.lists.clear();
                Some(error)
            }
        };
        let committed = failure.is_none();
        self.count_expired(committed);
        if committed {
            self.note_committed();
        }
        let met = self.people.take_met();
        if !committed {
            self.forget_ends(&outcome.effects);
        }
        self.carry_out(outcome.effects, failure.as_ref());
        if !committed {
            self.people.unmeet(&met);
        }
        // Nothing to commit is nothing that has failed.
        self.end_parts(committed);
        if committed {
            self.refill();
        }
        if !self.batch.is_in_debt() {
            self.people.tidy(self.around.registry.len());
        }
        self.lists.tidy(self.now.mono_us);
        self.tell_watchers();
        self.stop_further();
        self.reconcile();
    }

    /// How long main may sleep, in microseconds.
    pub fn timeout_us(&self) -> Option<u64> {
        let until = |at_us: u64| at_us.saturating_sub(self.now.mono_us);
        if self.batch.is_under_way() {
            return Some(0);
        }
        let grace = self.lingering.next_us().map(until);
        let retry = (self.batch.is_in_debt() || !self.refills.is_empty()).then_some(RETRY_US);
        let later = self.batch.later_until_us().map(until);
        let stop = self.stop.is_some().then_some(LOOK_US);
        let expiry = self.expiry.due_us().min(self.expire_accepted_at_us).min(self.reconciler.due_us());
        let presence = self.presence.timeout_us(self.now.mono_us);
        let fan_out = self.fan_outs.timeout_us();
        [grace, retry, later, stop, presence, fan_out, Some(until(expiry))].into_iter().flatten().min()
    }

    /// True exactly when the batch under way has so many writes that it should end before another entry is taken: the
    /// messages that a slow reader left unsent are one entry.
    pub fn is_full(&self) -> bool {
        self.batch.is_full()
    }

    /// True exactly when everything that had to be written is written, but for what only completes the history.
    pub fn is_settled(&self) -> bool {
        !self.batch.is_in_debt()
    }

    /// What is still remembered of channels and ends; nothing when everybody has gone and the grace is over.
    #[cfg(test)]
    pub(crate) fn left_over(&self) -> Vec<(&'static str, usize)> {
        let counts = [
            ("sessions", self.sessions.len()),
            ("endings", self.endings.len()),
            ("committing", self.committing.len()),
            ("refills", self.refills.len()),
            ("people not at rest", self.people.count_busy()),
            ("batch", usize::from(self.batch.is_under_way() || self.batch.is_in_debt())),
            ("fan-outs", self.fan_outs.len()),
            ("queue", self.around.queue.len()),
            ("registry", self.around.registry.len()),
            ("table", self.around.table.taken()),
        ];
        counts.into_iter().chain(self.lingering.left_over()).filter(|(_, count)| *count > 0).collect()
    }

    /// Does what a request asks, unless it has to wait for an earlier one of the same user.
    pub(crate) fn answer(&mut self, ask: Ask) {
        let ask = match ask.user() {
            Some(user) => self.wait_in_line(user, ask),
            None => Some(ask),
        };
        let Some(ask) = ask else { return };
        match ask {
            Ask::Login(login) => self.log_in(*login),
            Ask::Resume(resume) => self.resume(resume),
            Ask::Guest { asker, peer, name } => self.log_in_guest(asker, peer, &name),
            Ask::Register { asker, peer, name, password } => self.register(&asker, peer, &name, &password),
            Ask::RefuseNewcomer { asker, peer } => self.refuse_newcomer(&asker, peer, 5),
            Ask::Chat(message) => self.chat(&message),
            Ask::AddFriend { asker, user, friend } => self.add_friend(&asker, user, friend),
            Ask::CreateGroup { asker, user, name, desc } => self.create_group(&asker, user, &name, &desc),
            Ask::JoinGroup { asker, user, group } => self.join_group(&asker, user, group),
            Ask::Fence { asker } => self.grant(&asker, None),
        }
    }

    /// A user by number, with the row read if need be. `Ok(None)` for nobody, `Err` when the batch has failed.
    pub(crate) fn person(&mut self, user: UserId) -> Result<Option<&mut UserState>, BatchFailed> {
        if self.people.find(user).is_none() {
            let row = self.batch.attempt(|store| store.user(user)).ok_or(BatchFailed)?;
            match row {
                Some(row) => drop(self.people.meet(&row)),
                None => return Ok(None),
            }
        }
        Ok(self.people.find(user))
    }

    /// A letter, whatever becomes of the batch.
    pub(crate) fn post(&mut self, channel: ChannelId, letter: WorkerCommand) {
        let worker = self.around.table.worker(channel);
        self.batch.then(AfterCommit::Post { worker, letter });
    }

    /// Carries out what hangs on a batch. Letters that bring messages go before those that let senders go on,
    /// to every worker: a sender that goes on may write to the receiver's worker directly. Sockets are asked for
    /// last, when everything for them is on its way.
    fn carry_out(&mut self, mut effects: Vec<AfterCommit>, failure: Option<&StorageError>) {
        let committed = failure.is_none();
        let workers = self.around.outlet.workers();
        let mut first: Vec<Vec<WorkerCommand>> = (0..workers).map(|_| Vec::new()).collect();
        let mut second: Vec<Vec<WorkerCommand>> = (0..workers).map(|_| Vec::new()).collect();
        let mut third: Vec<Vec<WorkerCommand>> = (0..workers).map(|_| Vec::new()).collect();
        let mut put = |worker: usize, letter: WorkerCommand| {
            let pile = match &letter {
                WorkerCommand::Answer { settles: Completes::Login, .. } => &mut first,
                WorkerCommand::Answer { .. } => &mut second,
                WorkerCommand::Close { .. } => &mut third,
                _ => &mut first,
            };
            if let Some(pile) = pile.get_mut(worker) {
                pile.push(letter);
            }
        };
        let mut answers: Vec<PendingReply> = Vec::new();
        let mut replaced: Vec<SessionKey> = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                AfterCommit::Replace { key } => replaced.push(key),
                AfterCommit::Post { worker, letter } => put(worker, letter),
                AfterCommit::Commit { worker, letter, otherwise } => {
                    put(worker, if committed { letter } else { *otherwise });
                }
                AfterCommit::Deliver { worker, letter, .. } if committed => put(worker, letter),
                AfterCommit::Deliver { user, key, mid, .. } => self.unsend(user, key, mid),
                AfterCommit::Refill { worker, letters, user, .. } if committed => {
                    for letter in letters {
                        put(worker, letter);
                    }
                    self.refills.push(user);
                }
                AfterCommit::Refill { user, key, sent, .. } => self.unsend_kept(user, key, sent),
                AfterCommit::GoOn { asker } => {
                    let worker = self.around.table.worker(asker.channel);
                    put(worker, through(&asker, (!committed).then_some(Errno::NotStored)));
                }
                AfterCommit::LoggedIn { worker, letter, user, .. } if committed => {
                    self.show_online(user);
                    put(worker, *letter);
                    if self.has_had_none_of_its_box(user) {
                        self.refills.push(user);
                    }
                }
                AfterCommit::LoggedIn { worker, user, key, asker, .. } => {
                    self.undo_login(user, key);
                    put(worker, refusal(&asker, Errno::NotStored));
                }
                AfterCommit::Befriended { user, friend, online } => {
                    if committed {
                        self.watch_added(user, friend, online);
                    }
                }
                AfterCommit::Proven { mut login } => {
                    login.proven = true;
                    let asker = login.asker.clone();
                    let fault = if committed {
                        self.around.queue.ask(Ask::Login(login)).err().map(|_| Errno::Busy)
                    } else {
                        Some(Errno::NotStored)
                    };
                    if let Some(errno) = fault {
                        put(self.around.table.worker(asker.channel), refusal(&asker, errno));
                    }
                }
                AfterCommit::CountOff { ticket, copies } => answers.extend(ticket.safe(copies)),
                AfterCommit::Safe { ticket, copies } | AfterCommit::SafeOrAgain { ticket, copies }
                    if committed =>
                {
                    answers.extend(ticket.safe(copies));
                }
                AfterCommit::Safe { ticket, copies } => {
                    answers.extend(ticket.failed(copies, Errno::NotStored));
                }
                AfterCommit::SafeOrAgain { .. } => {}
                AfterCommit::Failed { ticket, errno } => answers.extend(ticket.failed(1, errno)),
                AfterCommit::Full { ticket, user } => answers.extend(ticket.full(user)),
                AfterCommit::StaleOnline { reply, mut ghost, asked_us } => {
                    ghost.offline_us = self.now.mono_us.saturating_sub(asked_us);
                    // Whoever asked may have given up.
                    let _ = reply.send(match failure {
                        None => Ok(Some(ghost)),
                        Some(error) => Err(StaleOnlineFault::NotStored(error.clone())),
                    });
                }
                AfterCommit::Bans { reply, bans } => {
                    let _ = reply.send(if committed { Ok(bans) } else { Err(BanFault::NotStored) });
                }
            }
        }
        for PendingReply { asker, settles, outcome } in answers {
            let channel = asker.channel;
            let answer = Answer::of_chat(asker, outcome);
            put(self.around.table.worker(channel), WorkerCommand::Answer { channel, settles, answer });
        }
        self.batch.reuse(effects);
        self.post_all([first, second, third].into_iter().flat_map(|pile| pile.into_iter().enumerate()));
        for (channel, session) in replaced {
            self.around.kicker.kick_session(channel, session, CloseInfo::new(Reason::Replaced));
        }
    }

    /// Posts letters, each list to its worker, in order.
    fn post_all(&mut self, lists: impl Iterator<Item = (usize, Vec<WorkerCommand>)>) {
        let mut refused = Vec::new();
        for (worker, mut letters) in lists {
            self.around.outlet.post(worker, &mut letters, &mut refused);
        }
        for letter in refused {
            self.came_back(letter);
        }
    }

    fn control(&mut self, ask: ControlAsk) {
        match ask {
            ControlAsk::Drain(ask) => self.begin_drain(ask),
            ControlAsk::Queue(reply) => {
                let report = QueueReport {
                    lingering: self.lingering.len(),
                    drained: self.drained,
                    stages: self.stages.rows(),
                };
                // Whoever asked may have given up.
                let _ = reply.send(report);
            }
            ControlAsk::StaleOnline { who, reply } => match self.find_ghost(&who) {
                Ok(Some(UserRow { id: user, name, epoch, .. })) => {
                    // Should it fail, the batch has failed, and says so.
                    self.batch.attempt(|store| store.set_offline(user, epoch));
                    let (ghost, asked_us) = (StaleOnline { user, name, offline_us: 0 }, self.now.mono_us);
                    self.batch.then(AfterCommit::StaleOnline { reply, ghost, asked_us });
                }
                Ok(None) => drop(reply.send(Ok(None))),
                Err(error) => drop(reply.send(Err(StaleOnlineFault::Unread(error)))),
            },
            ControlAsk::Ban(ask) => self.ban(ask),
            ControlAsk::Bans(reply) => {
                let _ = reply.send(self.list_bans());
            }
            ControlAsk::Unban { names, reply } => self.unban(&names, reply),
        }
    }

    /// A user who is marked online and has no session. Looked up without a transaction, for most are none, and that is
    /// known also while nothing can be written.
    fn find_ghost(&mut self, who: &StaleOnlineName) -> Stored<Option<UserRow>> {
        let row = self.batch.look(|store| match who {
            StaleOnlineName::Id(user) => store.user(*user),
            StaleOnlineName::Name(name) => store.user_called(name),
        })?;
        Ok(row.filter(|row| row.online && !self.people.is_online(row.id)))
    }

    /// Lets workers accept again once there is room, and closes lingering channels early when there is little.
    fn close_due(&mut self) {
        self.close_lingering();
        let limit = self.around.table.capacity() * EARLY_CLOSE_PERCENT / 100;
        self.close_early(limit);
        // Told too early, a worker and main would go on asking each other.
        let has_names = self.around.table.taken() < self.around.table.capacity();
        if has_names {
            for worker in std::mem::take(&mut self.short) {
                self.batch.then(AfterCommit::Post { worker, letter: WorkerCommand::Accept });
            }
        }
    }
}

/// The batch has failed: what was asked in it is refused when it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchFailed;

/// A request is through main, with an error or without a word.
pub(crate) fn through(asker: &ReplyTo, errno: Option<Errno>) -> WorkerCommand {
    let answer = errno.map(|errno| Answer::Error {
        errno,
        text: errno.text().into(),
        re: Some(asker.re),
        seq: asker.seq.clone(),
    });
    WorkerCommand::Answer { channel: asker.channel, settles: Completes::Request, answer }
}

/// A login or registration that is refused.
pub(crate) fn refusal(asker: &ReplyTo, errno: Errno) -> WorkerCommand {
    let msgid = if asker.re == 4 { 5 } else { 2 };
    WorkerCommand::Answer {
        channel: asker.channel,
        settles: Completes::Login,
        answer: Some(Answer::Refused { msgid, errno, text: errno.text().into(), seq: asker.seq.clone() }),
    }
}
