//! A worker's core: its channels and what one turn does with them. No poller, no clock, no thread of its own.
//!
//! Owned by one worker thread. It never waits, and holds no lock while it reads or writes a socket.

use super::close_log::CloseLog;
use super::connection::{Connection, Eof};
use super::ip_limit::IpLimit;
use super::limits::Limits;
use super::mailbox::Mailbox;
use super::output_buffer::{BufferPool, Written};
use super::timer_wheel::TimerWheel;
use super::unauthenticated::Unauthenticated;
use crate::auth::login_limiter::Attempts;
use crate::auth::pool::Auth;
use crate::channel::{ChannelId, ChannelTable, Reason, SessionNo};
use crate::clock::Now;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::disconnect::CloseInfo;
use crate::message::event::Event;
use crate::message::request::Ask;
use crate::metrics::Metrics;
use crate::net::transport::Transport;
use crate::offline_queue::closer::Kicker;
use crate::offline_queue::queue::OfflineQueue;
use crate::registry::Registry;
use crate::shrink::Shrink;
use crate::sync::Arc;
use std::collections::VecDeque;
use std::io;

/// How much is read from one channel a turn, in bytes, so that one firehose starves nobody.
pub const READ_BUDGET: usize = 65_536;
/// Bytes of input that may wait behind a login or behind requests in main; past it the channel is not read.
pub const WAITING_INPUT_MAX: usize = 65_536;
/// Ends that one turn takes in: each costs a farewell, and who has more to say waits behind them.
pub(super) const EOFS_MAX: usize = 64;
/// Reads that are still done on a connection that takes no more output, for what was asked before.
const LAST_READS: usize = 16;

/// What a worker shares with the rest of the server. `S` is a client's socket as main gets it back.
pub struct Shared<S> {
    /// Every channel's gate.
    pub table: Arc<ChannelTable>,
    /// Who is online.
    pub registry: Arc<Registry>,
    /// Main's queue.
    pub queue: Arc<OfflineQueue<S>>,
    /// The other workers.
    pub outlet: Arc<dyn WorkerSender>,
    /// Where passwords go.
    pub auth: Arc<Auth>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Limits.
    pub limits: Limits,
    /// Failed logins.
    pub attempts: Arc<Attempts>,
    /// Channels of each address.
    pub addresses: IpLimit,
    /// Channels that have had nobody logged in for long.
    pub unauthenticated: Unauthenticated,
    /// Sends channels away.
    pub kicker: Kicker<S>,
}

/// One worker's channels.
pub struct WorkerState<T: Transport> {
    pub(super) index: usize,
    pub(super) shared: Arc<Shared<T::Socket>>,
    pub(super) mailbox: Arc<Mailbox>,
    /// By slot of the channel table.
    pub(super) channels: Vec<Option<Box<Connection<T>>>>,
    pub(super) now: Now,
    /// What to tell main at the end of the turn, in order.
    pub(super) to_main: Vec<Event<T::Socket>>,
    /// Sessions that this worker has ended itself in this turn, and channels that have left behind one of theirs. It
    /// settles with them in the next turn, when it has taken all that others had sent to them out of its mailbox.
    reports_due: Vec<(ChannelId, Option<SessionNo>)>,
    /// What to tell the other workers at the end of the turn, by worker.
    pub(super) to_workers: Vec<Vec<WorkerCommand>>,
    /// Channels with something to write.
    pub(super) dirty: Vec<ChannelId>,
    /// Channels that may go on with the input that has waited.
    pub(super) unblocked: Vec<ChannelId>,
    pub(super) wheel: TimerWheel,
    /// What the log has said of those whom nobody knew.
    pub(super) close_log: CloseLog,
    pub(super) scratch: Box<[u8]>,
    /// Room for a chat's object while it is written. Empty between two.
    pub(super) draft: Vec<u8>,
    /// Room for output, for the next channel that needs some.
    pool: BufferPool,
    /// True exactly while the listeners are watched.
    pub(super) accepting: bool,
    /// True exactly when the server stops: nobody new is accepted after those who are queued.
    pub(super) stopping: bool,
    /// True exactly when the thread is to end.
    pub(super) exiting: bool,
    /// Ends taken in in this turn.
    eofs: usize,
    /// Ends that wait for a turn to take them in, oldest first. They are not watched meanwhile, or the poller would tell
    /// of all of them in every turn.
    deferred_eofs: VecDeque<ChannelId>,
    commands: Vec<WorkerCommand>,
    due: Vec<ChannelId>,
}

impl<T: Transport> WorkerState<T> {
    /// A worker without channels.
    pub fn new(index: usize, shared: Arc<Shared<T::Socket>>, mailbox: Arc<Mailbox>, now: Now) -> Self {
        let workers = shared.outlet.workers().max(index + 1);
        // Room for all: what is not used is not resident, and a list that grows leaves holes behind.
        let channels = Vec::with_capacity(shared.table.capacity());
        WorkerState {
            index,
            shared,
            mailbox,
            channels,
            now,
            to_main: Vec::new(),
            reports_due: Vec::new(),
            to_workers: (0..workers).map(|_| Vec::new()).collect(),
            dirty: Vec::new(),
            unblocked: Vec::new(),
            wheel: TimerWheel::new(now.mono_us),
            close_log: CloseLog::new(now.mono_us),
            scratch: vec![0; READ_BUDGET].into_boxed_slice(),
            draft: Vec::new(),
            pool: BufferPool::default(),
            accepting: true,
            stopping: false,
            exiting: false,
            eofs: 0,
            deferred_eofs: VecDeque::new(),
            commands: Vec::new(),
            due: Vec::new(),
        }
    }

    /// Begins a turn: the time, the mailbox, and ends that have waited.
    pub fn begin(&mut self, now: Now) {
        self.now = now;
        self.eofs = 0;
        let mut ended = std::mem::take(&mut self.reports_due);
        let mut commands = std::mem::take(&mut self.commands);
        self.mailbox.take(&mut commands);
        for command in commands.drain(..) {
            self.handle_command(command);
        }
        for (id, session) in ended.drain(..) {
            self.report_delivery(id, session);
        }
        // What a flood has needed is not kept for the next one.
        commands.shrink();
        self.commands = commands;
        ended.append(&mut self.reports_due);
        ended.shrink();
        self.reports_due = ended;
        for _ in 0..EOFS_MAX {
            let Some(id) = self.deferred_eofs.pop_front() else { break };
            self.take_deferred_eof(id);
        }
        self.deferred_eofs.shrink();
    }

    /// The poller says that a channel can be read or written.
    pub fn ready(&mut self, slot: usize, readable: bool, writable: bool) {
        let Some(Some(connection)) = self.channels.get_mut(slot) else { return };
        let id = connection.id;
        if writable && connection.blocked {
            connection.blocked = false;
            self.mark_dirty(id);
        }
        if readable
            && self.read(id)
            && self.connection(id).is_some_and(|connection| connection.is_logging_in() && !connection.ended)
        {
            // A client that has ended its side behind a login takes nobody's place: main has to know of it first, and
            // the poller would tell of the end a turn later.
            self.read(id);
        }
    }

    /// The poller says that both sides of a channel have ended, or that it is broken. A read would take the error away,
    /// so it waits for the turn that takes the end in.
    pub fn over(&mut self, slot: usize) {
        let Some(Some(connection)) = self.channels.get(slot) else { return };
        let id = connection.id;
        if self.may_take_eof() { self.ready(slot, true, true) } else { self.defer_eof(id, Eof::Told) }
    }

    /// Counts an end in; false when the turn has taken in enough of them.
    fn may_take_eof(&mut self) -> bool {
        self.eofs += 1;
        self.eofs <= EOFS_MAX
    }

    /// Ends a turn: what has waited goes on, time limits are looked at, everything is written and told.
    ///
    /// `heard_us` is up to when everything is read that clients had sent; time limits are judged as of then. `clock` is
    /// read only where an end is told, for the stages of the offline queue.
    pub fn finish(&mut self, horizon_us: u64, clock: &dyn Fn() -> Now) {
        self.turn_wheel(horizon_us);
        self.log_suppressed();
        // Telling may refuse what was asked, and that is written too.
        while self.has_work() {
            let mut unblocked = std::mem::take(&mut self.unblocked);
            unblocked.drain(..).for_each(|id| self.resume_input(id));
            // The list is kept for its room; what came in meanwhile is on another.
            unblocked.append(&mut self.unblocked);
            unblocked.shrink();
            self.unblocked = unblocked;
            let mut dirty = std::mem::take(&mut self.dirty);
            for id in dirty.drain(..) {
                self.flush(id);
                self.return_buffer(id);
            }
            dirty.append(&mut self.dirty);
            dirty.shrink();
            self.dirty = dirty;
            if self.unblocked.is_empty() && self.dirty.is_empty() {
                self.send_events(clock);
            }
        }
    }

    /// No more channels than that are watched.
    pub fn places(&self) -> usize {
        self.channels.len()
    }

    fn has_work(&self) -> bool {
        !self.unblocked.is_empty()
            || !self.dirty.is_empty()
            || !self.to_main.is_empty()
            || self.to_workers.iter().any(|commands| !commands.is_empty())
    }

    /// How long the worker may sleep, in microseconds.
    pub fn timeout_us(&self, now_us: u64) -> Option<u64> {
        let suppressed = self.close_log.due_us().map(|due_us| due_us.saturating_sub(now_us));
        [self.wheel.timeout_us(now_us), suppressed].into_iter().flatten().min()
    }

    /// True exactly when there is more to do at once, so that the worker must not sleep: ends that wait, or sessions to
    /// settle with.
    pub fn has_more(&self) -> bool {
        !self.deferred_eofs.is_empty() || !self.reports_due.is_empty()
    }

    /// True exactly while new connections are wanted.
    pub fn is_accepting(&self) -> bool {
        self.accepting
    }

    /// True exactly when the server stops, and the listeners are to be emptied and closed.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// True exactly when the thread is to end.
    pub fn is_exiting(&self) -> bool {
        self.exiting
    }

    pub(super) fn connection(&mut self, id: ChannelId) -> Option<&mut Connection<T>> {
        let connection = self.channels.get_mut(id.slot as usize)?.as_deref_mut()?;
        (connection.id == id).then_some(connection)
    }

    pub(super) fn mark_dirty(&mut self, id: ChannelId) {
        if let Some(connection) = self.connection(id)
            && !connection.dirty
        {
            connection.dirty = true;
            self.dirty.push(id);
        }
    }

    /// A channel is about to get something to write.
    pub(super) fn lend_buffer(&mut self, id: ChannelId) {
        if let Some(Some(connection)) = self.channels.get_mut(id.slot as usize) {
            connection.out.borrow_buffer(&mut self.pool);
        }
    }

    fn return_buffer(&mut self, id: ChannelId) {
        if let Some(Some(connection)) = self.channels.get_mut(id.slot as usize) {
            connection.out.return_buffer(&mut self.pool);
        }
    }

    /// Settles in the next turn with a session that this worker has ended, or behind it with a channel that has left.
    pub(super) fn report_delivery_later(&mut self, id: ChannelId, session: Option<SessionNo>) {
        self.reports_due.push((id, session));
    }

    /// Tells main at the end of the turn.
    pub(super) fn ask(&mut self, ask: Ask) {
        self.to_main.push(Event::Ask(ask));
    }

    /// Reads once. True exactly when that brought something.
    fn read(&mut self, id: ChannelId) -> bool {
        let now_us = self.now.mono_us;
        if self.connection(id).is_some_and(|connection| connection.deferred_eof.is_some()) {
            return false;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let Some(connection) = self.connection(id) else {
            self.scratch = scratch;
            return false;
        };
        let outcome = connection.io.read(&mut scratch);
        if let Ok(count) = outcome {
            connection.bytes_in += count as u64;
            if count > 0 {
                connection.heard_us = now_us;
            }
            self.shared.metrics.bytes_in.add(count as u64);
        }
        match &outcome {
            Ok(0) if !self.may_take_eof() => self.defer_eof(id, Eof::Read),
            Ok(0) => self.input_ended(id),
            Ok(count) => self.take_input(id, &scratch[..*count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => self.fail(id, error, Reason::ReadError),
        }
        self.scratch = scratch;
        self.adjust_interest(id);
        matches!(outcome, Ok(count) if count > 0)
    }

    /// Has an end wait for a later turn.
    fn defer_eof(&mut self, id: ChannelId, eof: Eof) {
        let Some(connection) = self.connection(id) else { return };
        if connection.deferred_eof.is_none() {
            connection.deferred_eof = Some(eof);
            self.deferred_eofs.push_back(id);
        }
        self.adjust_interest(id);
    }

    /// Takes an end in that has waited, unless its channel has gone meanwhile.
    pub(super) fn take_deferred_eof(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        match connection.deferred_eof.take() {
            None => {}
            Some(Eof::Told) => self.ready(id.slot as usize, true, true),
            Some(Eof::Read) => {
                self.eofs += 1;
                self.input_ended(id);
                self.adjust_interest(id);
            }
        }
    }

    /// Reads only while there is room for what is read, writes only while the kernel has refused some.
    pub(super) fn adjust_interest(&mut self, id: ChannelId) {
        let Some(connection) = self.connection(id) else { return };
        let held_up = connection.is_held_up();
        let wants_input = match &connection.closing {
            _ if connection.deferred_eof.is_some() => false,
            None => !(connection.ended || held_up && connection.input.len() >= WAITING_INPUT_MAX),
            Some(closing) => !(closing.gone || closing.broken || connection.ended),
        };
        let gone = connection.closing.as_ref().is_some_and(|closing| closing.gone);
        let news = gone && !std::mem::replace(&mut connection.counted_gone, gone);
        let wanted = (wants_input, connection.blocked && !connection.out.is_empty());
        if connection.io.watching() == wanted {
            // The usual case costs no system call.
        } else if let Err(error) = connection.io.watch(wanted.0, wanted.1) {
            self.go_unwatched(id, &error);
        }
        if news {
            self.shared.table.note_gone();
        }
    }

    /// Writes what waits, once.
    pub(super) fn flush(&mut self, id: ChannelId) {
        let now_us = self.now.mono_us;
        self.write_presence(id);
        let Some(connection) = self.connection(id) else { return };
        connection.dirty = false;
        if connection.out.is_empty() || connection.blocked {
            self.check_out_limit(id);
            self.send_goodbye(id);
            self.adjust_interest(id);
            return;
        }
        let offered = connection.out.len();
        match connection.io.write(connection.out.unsent()) {
            Ok(count) => {
                connection.bytes_out += count as u64;
                connection.blocked = count < offered;
                connection.moved_us = now_us;
                let mut written = Written::default();
                connection.out.advance(count, &mut written);
                self.shared.metrics.bytes_out.add(count as u64);
                self.note_written(id, written);
                self.set_short_user_timeout(id);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => connection.blocked = true,
            Err(error) => {
                self.drain_before_failing(id);
                self.fail(id, &error, Reason::WriteError);
                return self.adjust_interest(id);
            }
        }
        self.mark_waiting_presence(id);
        self.check_out_limit(id);
        self.arm_if_blocked(id);
        self.send_goodbye(id);
        self.adjust_interest(id);
    }

    pub(super) fn note_written(&mut self, id: ChannelId, written: Written) {
        let Some(connection) = self.connection(id) else { return };
        let session = connection.session();
        if let Some(user) = &mut connection.user {
            user.delivered += written.delivered;
        }
        let user = connection.user.as_ref().map(|user| user.sender.id);
        if let (Some(upto), Some(session), Some(user)) = (written.taken_over, session, user) {
            self.to_main.push(Event::TakenOver { user, channel: id, session, upto });
        }
        self.shared.metrics.chats_delivered.add(written.delivered);
        self.to_main.extend(written.tickets.into_iter().map(|ticket| Event::Handed { ticket }));
    }

    fn check_out_limit(&mut self, id: ChannelId) {
        let limit = self.shared.limits.out_limit;
        let Some(connection) = self.connection(id) else { return };
        if connection.out.is_over(limit) && connection.closing.is_none() {
            self.step(id, CloseInfo::new(Reason::SlowConsumer));
        }
    }

    /// Reads what a client asked before its connection broke.
    fn drain_before_failing(&mut self, id: ChannelId) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for _ in 0..LAST_READS {
            let Some(connection) = self.connection(id) else { break };
            if connection.closing.is_some() {
                break;
            }
            match connection.io.read(&mut scratch) {
                Ok(count) if count > 0 => self.take_input(id, &scratch[..count]),
                _ => break,
            }
        }
        self.scratch = scratch;
    }

    /// Tells main and the other workers what this turn has brought.
    fn send_events(&mut self, clock: &dyn Fn() -> Now) {
        let mut refused = Vec::new();
        for (worker, mail) in self.to_workers.iter_mut().enumerate().filter(|(_, mail)| !mail.is_empty()) {
            self.shared.outlet.post(worker, mail, &mut refused);
            mail.shrink();
        }
        if !refused.is_empty() {
            // What comes back goes before what its sender has asked of main since.
            let asked = std::mem::take(&mut self.to_main);
            for command in refused {
                self.redirect(command);
            }
            self.to_main.extend(asked);
        }
        let mut queued_us = None;
        for entry in &mut self.to_main {
            if let Event::Departure(departure) = entry {
                departure.queued_us = *queued_us.get_or_insert_with(|| clock().mono_us);
            }
        }
        let mut refused = Vec::new();
        self.shared.queue.push_all(&mut self.to_main, &mut refused);
        self.to_main.shrink();
        for ask in refused {
            self.refuse(&ask);
        }
    }

    fn turn_wheel(&mut self, horizon_us: u64) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.turn(horizon_us, &mut due);
        for id in due.drain(..) {
            self.check_time_limits(id, horizon_us);
        }
        due.shrink();
        self.due = due;
    }
}
