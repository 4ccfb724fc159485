//! The senders, and the receivers that run in this process: their connections and messages. They report all chats to the
//! checker.
//!
//! Each client has two connections in the pool, so that it can log in a second time. A sender repeats what is not
//! answered on each new connection, in order, before anything newer. A receiver confirms a little late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::ChaosArgs;
use super::chat_key::{self, Key, Origin};
use super::checker::{Arrival, Checker};
use crate::client::{self, ReceivedChat, ServerMessage, errno};
use crate::client_pool::{ClientEvent, ClientPool, CloseMode, EventKind};
use crate::error::StressError;
use crate::login::{Names, told};
use crate::rng::Rng;

/// A repetition is the same chat only among the latest 1,024 of its sender; senders stay well within.
const SERIALS_AHEAD: u64 = 512;

/// The longest pause before a client comes back, in milliseconds.
const AWAY_MS: usize = 60;

/// A login or a chat is answered within this while its connection stands, else the server has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 15 });

/// Of so many receivers one confirms ten times as slowly as the others.
const SLOW_SHARE: usize = 4;

/// How many receivers a sender tries until it finds one with few chats under way.
const RECEIVER_TRIES: usize = 4;

/// Reasons of goodbyes that faults cause.
const PROVOKED: [&str; 2] = ["kicked", "replaced"];

/// The stage of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    /// Connecting or logging in, since then.
    Opening(Instant),
    Online,
}

/// One of the two connections of a client.
#[derive(Clone, Debug)]
struct Connection {
    stage: Stage,
    arrival: Arrival,
    /// True exactly when a fault may end it.
    end_is_expected: bool,
}

#[derive(Debug)]
struct Client {
    connections: [Connection; 2],
    /// The connection on which the latest login succeeded, while it stands.
    active: Option<usize>,
    /// True exactly when a connection was given up while its login was under way: the server may still carry that out, and
    /// the next connection is replaced then.
    login_abandoned: bool,
    back_at: Option<Instant>,
    reads_on_at: Option<Instant>,
    confirm_at: Option<Instant>,
    /// A sender's chats without an answer, each with the time at which it was sent last.
    unanswered: BTreeMap<u64, Instant>,
}

/// Problems other than those of chats.
#[derive(Debug, Default)]
pub(super) struct Problems {
    pub(super) errors: (u64, String),
    pub(super) refused_logins: (u64, String),
    pub(super) unprovoked: (u64, String),
    pub(super) unanswered_logins: usize,
    pub(super) goodbyes: BTreeMap<String, u64>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Clients {
    pool: ClientPool,
    names: Names,
    ids: Vec<i64>,
    run: String,
    senders: usize,
    all: Vec<Client>,
    pub(super) checker: Checker,
    pub(super) problems: Problems,
    rng: Rng,
    start: Instant,
    connections: u64,
    server_run: u32,
    /// True exactly while a server is there to connect to.
    is_up: bool,
    /// True exactly while senders send new chats.
    sends_new: bool,
    window: usize,
    backlog: usize,
    size: usize,
    slow_ms: usize,
    events: Vec<ClientEvent>,
}

impl Clients {
    /// Clients that are not online yet. `ids` are their users: senders, then all receivers.
    pub(super) fn new(
        args: &ChaosArgs,
        pool: ClientPool,
        names: &Names,
        ids: Vec<i64>,
        run: &str,
        checker: Checker,
    ) -> Self {
        let now = Instant::now();
        let idle = Connection {
            stage: Stage::Idle,
            arrival: Arrival { connection: 0, opened: 0, server_run: 0 },
            end_is_expected: false,
        };
        let person = || Client {
            connections: [idle.clone(), idle.clone()],
            active: None,
            login_abandoned: false,
            back_at: Some(now),
            reads_on_at: None,
            confirm_at: None,
            unanswered: BTreeMap::new(),
        };
        Self {
            all: (0..pool.size() / 2).map(|_| person()).collect(),
            pool,
            names: names.clone(),
            ids,
            run: run.to_owned(),
            senders: args.senders(),
            checker,
            problems: Problems::default(),
            rng: Rng(args.common.seed ^ 0x5eed),
            start: now,
            connections: 0,
            server_run: 1,
            is_up: true,
            sends_new: true,
            window: args.window.get(),
            backlog: args.backlog.get(),
            size: args.size,
            slow_ms: args.slow_ms,
            events: Vec::new(),
        }
    }

    /// The user of a client.
    pub(super) fn id(&self, who: usize) -> i64 {
        self.ids[who]
    }

    /// Since the start.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// One turn: does what is due, sends what waits, and handles what came.
    pub(super) fn turn(&mut self, wait: Duration) -> Result<(), StressError> {
        let now = Instant::now();
        for who in 0..self.all.len() {
            self.act(who, now)?;
        }
        let mut events = std::mem::take(&mut self.events);
        self.pool.turn(wait, &mut events)?;
        for one in events.drain(..) {
            self.handle(one);
        }
        self.events = events;
        Ok(())
    }

    /// The server is gone: all connections with it.
    pub(super) fn server_is_down(&mut self) {
        self.is_up = false;
        for person in &mut self.all {
            person.connections.iter_mut().for_each(|place| place.end_is_expected = true);
        }
    }

    /// A server is there again.
    pub(super) fn server_is_up(&mut self, target: std::net::SocketAddr) {
        self.is_up = true;
        self.server_run += 1;
        self.pool.set_target(target);
    }

    /// In which run the server is.
    pub(super) fn server_run(&self) -> u32 {
        self.server_run
    }

    /// Stops sending new chats.
    pub(super) fn stop_sending(&mut self) {
        self.sends_new = false;
    }

    /// True exactly when every chat is answered, and every accepted one is taken and confirmed.
    pub(super) fn is_done(&self) -> bool {
        let is_quiet = |person: &Client| person.unanswered.is_empty() && person.confirm_at.is_none();
        self.all.iter().all(is_quiet) && self.checker.missing() == 0
    }

    /// True exactly when all clients are online.
    pub(super) fn is_online(&self) -> bool {
        self.all.iter().all(|person| person.active.is_some())
    }

    /// Ends a client's connections; it comes back after `away`. False where there was none.
    pub(super) fn disconnect(&mut self, who: usize, how: CloseMode, away: Duration) -> bool {
        let Some(active) = self.all[who].active else { return false };
        if how == CloseMode::HalfClose {
            // Its end comes when the server has ended its side.
            self.all[who].connections[active].end_is_expected = true;
            self.all[who].active = None;
            self.pool.close(2 * who + active, how);
            return true;
        }
        for side in 0..2 {
            self.pool.close(2 * who + side, how);
        }
        let person = &mut self.all[who];
        for place in &mut person.connections {
            person.login_abandoned |= matches!(place.stage, Stage::Opening(_));
            place.stage = Stage::Idle;
        }
        person.active = None;
        person.confirm_at = None;
        person.back_at = Some(Instant::now() + away);
        true
    }

    /// Closes all connections; the clients come back at once.
    pub(super) fn disconnect_all(&mut self) {
        for who in 0..self.all.len() {
            self.disconnect(who, CloseMode::Fin, Duration::ZERO);
        }
    }

    /// Marks a client's connection as one that a fault may end. False where there is none.
    pub(super) fn expect_end(&mut self, who: usize) -> bool {
        let person = &mut self.all[who];
        person.connections.iter_mut().for_each(|place| place.end_is_expected = true);
        person.active.is_some()
    }

    /// Logs in a second time. False where there is no first time, or a second already.
    pub(super) fn take_over(&mut self, who: usize) -> Result<bool, StressError> {
        let Some(active) = self.all[who].active else { return Ok(false) };
        if self.all[who].connections[1 - active].stage != Stage::Idle || !self.is_up {
            return Ok(false);
        }
        self.all[who].connections[active].end_is_expected = true;
        self.open(who, 1 - active)?;
        Ok(true)
    }

    /// Resets the connection and logs in twice at once.
    pub(super) fn log_in_twice(&mut self, who: usize) -> Result<bool, StressError> {
        if !self.is_up || !self.disconnect(who, CloseMode::Rst, Duration::ZERO) {
            return Ok(false);
        }
        self.all[who].back_at = None;
        self.open(who, 0)?;
        self.open(who, 1)?;
        self.all[who].connections.iter_mut().for_each(|place| place.end_is_expected = true);
        Ok(true)
    }

    /// Stops reading for so long.
    pub(super) fn stop_reading(&mut self, who: usize, time: Duration) -> Result<bool, StressError> {
        let Some(active) = self.all[who].active else { return Ok(false) };
        self.all[who].reads_on_at = Some(Instant::now() + time);
        self.pool.set_reading(2 * who + active, false)?;
        Ok(true)
    }

    /// A sender that was killed has forgotten what was not answered.
    pub(super) fn forget_unanswered(&mut self, who: usize) {
        for serial in std::mem::take(&mut self.all[who].unanswered).into_keys() {
            self.checker.give_up(who, serial);
        }
    }

    fn act(&mut self, who: usize, now: Instant) -> Result<(), StressError> {
        for side in 0..2 {
            if let Stage::Opening(since) = self.all[who].connections[side].stage
                && now.saturating_duration_since(since) > ANSWER_WITHIN
            {
                self.problems.unanswered_logins += usize::from(self.is_up);
                self.pool.close(2 * who + side, CloseMode::Rst);
                self.ended(who, side);
            }
        }
        let person = &mut self.all[who];
        if person.reads_on_at.take_if(|at| *at <= now).is_some() {
            for side in 0..2 {
                self.pool.set_reading(2 * who + side, true)?;
            }
        }
        if self.is_up && self.all[who].back_at.take_if(|at| *at <= now).is_some() {
            self.open(who, 0)?;
        }
        let Some(active) = self.all[who].active else { return Ok(()) };
        if who < self.senders {
            self.send_new(who, active, now);
        } else if self.all[who].confirm_at.take_if(|at| *at <= now).is_some() {
            let last = self.checker.last(who - self.senders);
            self.pool.send(2 * who + active, &client::confirmation(last));
        }
        Ok(())
    }

    fn open(&mut self, who: usize, side: usize) -> Result<(), StressError> {
        self.connections += 1;
        let arrival = Arrival { connection: self.connections, opened: 0, server_run: self.server_run };
        let stage = Stage::Opening(Instant::now());
        let end_is_expected = std::mem::take(&mut self.all[who].login_abandoned);
        self.all[who].connections[side] = Connection { stage, arrival, end_is_expected };
        let name = self.names.name(who);
        self.pool.connect(2 * who + side)?;
        let login = if who < self.senders { client::login(&name) } else { client::login_confirming(&name) };
        self.pool.send(2 * who + side, &login);
        Ok(())
    }

    /// Sends new chats, as many as the window allows.
    fn send_new(&mut self, who: usize, active: usize, now: Instant) {
        while self.sends_new && self.has_room(who) {
            let receivers = self.ids.len() - self.senders;
            let receiver = (0..RECEIVER_TRIES)
                .map(|_| self.rng.below(receivers))
                .find(|receiver| self.checker.awaited(*receiver) < self.backlog);
            let Some(receiver) = receiver else { break };
            let key = self.checker.send(who, receiver, self.start.elapsed());
            self.send_chat(key, active, now);
        }
        let is_late = |sent: &Instant| now.saturating_duration_since(*sent) > ANSWER_WITHIN;
        if self.all[who].unanswered.first_key_value().is_some_and(|(_, sent)| is_late(sent)) {
            note(&mut self.problems.errors, || format!("no answer to a chat of {}", self.names.name(who)));
            self.disconnect(who, CloseMode::Rst, Duration::ZERO);
        }
    }

    /// True exactly when a sender may send a new chat.
    fn has_room(&self, who: usize) -> bool {
        let open = &self.all[who].unanswered;
        let ends = open.first_key_value().zip(open.last_key_value());
        open.len() < self.window
            && ends.is_none_or(|((oldest, _), (newest, _))| newest - oldest < SERIALS_AHEAD)
    }

    fn send_chat(&mut self, key: Key, active: usize, now: Instant) {
        let msg = chat_key::text(&self.run, key, self.size);
        let to = self.ids[self.senders + key.receiver];
        self.pool.send(2 * key.sender + active, &client::chat_with_seq(to, &msg, key.serial));
        self.all[key.sender].unanswered.insert(key.serial, now);
    }

    fn handle(&mut self, ClientEvent { who: place, kind, .. }: ClientEvent) {
        let (who, side) = (place / 2, place % 2);
        match kind {
            EventKind::Connected | EventKind::Message(ServerMessage::Other | ServerMessage::Registered) => {}
            EventKind::Message(ServerMessage::LoggedIn { kept, .. }) => {
                self.logged_in(who, side);
                for letter in kept {
                    self.receive(who, side, &letter);
                }
            }
            EventKind::Message(ServerMessage::Chat(letter)) => self.receive(who, side, &letter),
            EventKind::Message(ServerMessage::Done { seq }) => self.answered(who, seq, true),
            EventKind::Message(ServerMessage::Error {
                errno: errno::BUSY | errno::FULL,
                seq: Some(seq),
                ..
            }) => {
                self.answered(who, seq, false);
            }
            EventKind::Message(ServerMessage::Goodbye { ref reason, .. }) => {
                let place = &mut self.all[who].connections[side];
                let is_provoked = PROVOKED.contains(&reason.as_str());
                if !place.end_is_expected || !is_provoked {
                    place.end_is_expected = true;
                    note(&mut self.problems.unprovoked, || told(&kind));
                }
                *self.problems.goodbyes.entry(reason.clone()).or_insert(0) += 1;
            }
            EventKind::Message(ServerMessage::LoginRefused {
                errno: errno::BUSY | errno::ONLINE, ..
            }) => {
                self.pool.close(place, CloseMode::Fin);
                self.ended(who, side);
            }
            EventKind::Message(ServerMessage::LoginRefused { .. }) => {
                note(&mut self.problems.refused_logins, || told(&kind));
                self.pool.close(place, CloseMode::Fin);
                self.ended(who, side);
            }
            EventKind::Message(_) => note(&mut self.problems.errors, || told(&kind)),
            EventKind::Closed(_) => {
                if !self.all[who].connections[side].end_is_expected {
                    note(&mut self.problems.unprovoked, || {
                        format!("{}: {}", self.names.name(who), told(&kind))
                    });
                }
                self.ended(who, side);
            }
        }
    }

    /// A login has succeeded. A sender repeats what is not answered, before anything newer.
    fn logged_in(&mut self, who: usize, side: usize) {
        self.all[who].connections[side].stage = Stage::Online;
        self.activate(who, side);
    }

    fn activate(&mut self, who: usize, side: usize) {
        self.all[who].active = Some(side);
        if who >= self.senders {
            return;
        }
        let now = Instant::now();
        let open: BTreeSet<u64> = self.all[who].unanswered.keys().copied().collect();
        for serial in open {
            let key = self.checker.repeat(who, serial);
            self.send_chat(key, side, now);
        }
    }

    fn answered(&mut self, who: usize, serial: u64, accepted: bool) {
        self.all[who].unanswered.remove(&serial);
        self.checker.answer(who, serial, accepted, self.start.elapsed());
    }

    fn receive(&mut self, who: usize, side: usize, letter: &ReceivedChat) {
        let arrival = Arrival { opened: self.connections, ..self.all[who].connections[side].arrival };
        let Some((receiver, mid)) = who.checked_sub(self.senders).zip(letter.mid) else {
            return note(&mut self.problems.errors, || "a chat without a number, or to a sender".to_owned());
        };
        let origin = chat_key::read(&self.run, &letter.msg);
        self.record(receiver, origin, (mid, letter.again), arrival);
        // One in several is slow, so that the window is full and the box too.
        let slow_ms = if receiver % SLOW_SHARE == 0 { 10 * self.slow_ms } else { self.slow_ms };
        let pause = Duration::from_millis(self.rng.below(slow_ms + 1) as u64);
        self.all[who].confirm_at.get_or_insert(Instant::now() + pause);
    }

    /// A receiver has received a chat.
    pub(super) fn record(&mut self, receiver: usize, origin: Origin, mark: (i64, bool), arrival: Arrival) {
        let at = self.start.elapsed();
        match origin {
            Origin::Ours(key) => self.checker.receive(receiver, Some(key), mark, arrival, at),
            Origin::Damaged => self.checker.receive(receiver, None, mark, arrival, at),
            Origin::Foreign => self.checker.skip_foreign(receiver, mark.0),
        }
    }

    /// A connection is over. The client goes on with the other one; without any it connects again.
    fn ended(&mut self, who: usize, side: usize) {
        let away = Duration::from_millis(self.rng.below(AWAY_MS) as u64);
        let person = &mut self.all[who];
        person.connections[side].stage = Stage::Idle;
        let other = person.connections[1 - side].stage;
        if other == Stage::Online && person.active == Some(side) {
            self.activate(who, 1 - side);
        } else if other == Stage::Idle {
            person.active = None;
            person.confirm_at = None;
            person.back_at = Some(Instant::now() + away);
        } else if person.active == Some(side) {
            person.active = None;
        }
    }
}

fn note(trouble: &mut (u64, String), example: impl FnOnce() -> String) {
    trouble.0 += 1;
    if trouble.1.is_empty() {
        trouble.1 = example();
    }
}
