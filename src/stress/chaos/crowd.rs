//! The senders, and the receivers that are no processes: their connections, what they say, and what they note in the
//! ledger.
//!
//! Each person has two places in the fleet, so that it can log in a second time. A sender repeats what is not
//! answered on each new connection, in order, before anything newer. A receiver confirms a little late.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::ChaosArgs;
use super::ledger::{Hearing, Ledger};
use super::text::{self, Key, Told};
use crate::client::{self, Heard, Letter, errno};
use crate::fault::StressError;
use crate::fleet::{Fleet, Leave, News, What};
use crate::login::{Names, told};
use crate::seed::Seed;

/// A repetition is the same chat only among the latest 1,024 of its sender; senders stay well within.
const SERIALS_AHEAD: u64 = 512;

/// The longest pause before somebody comes back, in milliseconds.
const AWAY_MS: usize = 60;

/// A login or a chat is answered within this while its connection stands, else the server has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 15 });

/// Of so many receivers one confirms ten times as slowly as the others.
const SLOW_SHARE: usize = 4;

/// How often a sender looks for a receiver that does not wait for too much.
const LOOKS: usize = 4;

/// Goodbyes that the hand brings about.
const PROVOKED: [&str; 2] = ["kicked", "replaced"];

/// Where one connection of a person is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Idle,
    /// Connecting or logging in, since then.
    Opening(Instant),
    Online,
}

/// One of the two connections of a person.
#[derive(Clone, Debug)]
struct Place {
    stage: Stage,
    heard: Hearing,
    /// True exactly when its end is no surprise.
    struck: bool,
}

#[derive(Debug)]
struct Person {
    places: [Place; 2],
    /// The connection on which the latest login succeeded, while it stands.
    active: Option<usize>,
    /// True exactly when a connection was given up while its login was under way: the server may still carry that out, and
    /// the next connection is replaced then.
    left_a_login: bool,
    back_at: Option<Instant>,
    reads_on_at: Option<Instant>,
    confirm_at: Option<Instant>,
    /// A sender's chats without an answer, each with when it was sent last.
    open: BTreeMap<u64, Instant>,
}

/// What went wrong beside the chats.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    pub(super) errors: (u64, String),
    pub(super) refused_logins: (u64, String),
    pub(super) unprovoked: (u64, String),
    pub(super) unanswered_logins: usize,
    pub(super) goodbyes: BTreeMap<String, u64>,
}

/// Everybody.
#[derive(Debug)]
pub(super) struct Crowd {
    fleet: Fleet,
    names: Names,
    ids: Vec<i64>,
    run: String,
    senders: usize,
    people: Vec<Person>,
    pub(super) ledger: Ledger,
    pub(super) troubles: Troubles,
    seed: Seed,
    start: Instant,
    connections: u64,
    server_run: u32,
    /// True exactly while a server is there to connect to.
    is_up: bool,
    /// True exactly while senders have something new to say.
    talks: bool,
    window: usize,
    backlog: usize,
    size: usize,
    slow_ms: usize,
    news: Vec<News>,
}

impl Crowd {
    /// A crowd that is not online yet. `ids` are the users' by person: senders, then all receivers.
    pub(super) fn new(
        args: &ChaosArgs,
        fleet: Fleet,
        names: &Names,
        ids: Vec<i64>,
        run: &str,
        ledger: Ledger,
    ) -> Self {
        let now = Instant::now();
        let idle = Place {
            stage: Stage::Idle,
            heard: Hearing { connection: 0, opened: 0, server_run: 0 },
            struck: false,
        };
        let person = || Person {
            places: [idle.clone(), idle.clone()],
            active: None,
            left_a_login: false,
            back_at: Some(now),
            reads_on_at: None,
            confirm_at: None,
            open: BTreeMap::new(),
        };
        Self {
            people: (0..fleet.size() / 2).map(|_| person()).collect(),
            fleet,
            names: names.clone(),
            ids,
            run: run.to_owned(),
            senders: args.senders(),
            ledger,
            troubles: Troubles::default(),
            seed: Seed(args.common.seed ^ 0x5eed),
            start: now,
            connections: 0,
            server_run: 1,
            is_up: true,
            talks: true,
            window: args.window.get(),
            backlog: args.backlog.get(),
            size: args.size,
            slow_ms: args.slow_ms,
            news: Vec::new(),
        }
    }

    /// The user of a person.
    pub(super) fn id(&self, who: usize) -> i64 {
        self.ids[who]
    }

    /// Since the start.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// One turn: what is due is done, what waits is written, what came is heard.
    pub(super) fn turn(&mut self, wait: Duration) -> Result<(), StressError> {
        let now = Instant::now();
        for who in 0..self.people.len() {
            self.act(who, now)?;
        }
        let mut news = std::mem::take(&mut self.news);
        self.fleet.turn(wait, &mut news)?;
        for one in news.drain(..) {
            self.hear(one);
        }
        self.news = news;
        Ok(())
    }

    /// The server is gone: all connections with it.
    pub(super) fn server_is_down(&mut self) {
        self.is_up = false;
        for person in &mut self.people {
            person.places.iter_mut().for_each(|place| place.struck = true);
        }
    }

    /// A server is there again.
    pub(super) fn server_is_up(&mut self, target: std::net::SocketAddr) {
        self.is_up = true;
        self.server_run += 1;
        self.fleet.retarget(target);
    }

    /// In which run the server is.
    pub(super) fn server_run(&self) -> u32 {
        self.server_run
    }

    /// From now on nobody says anything new.
    pub(super) fn fall_silent(&mut self) {
        self.talks = false;
    }

    /// Nobody waits for an answer, and all that was accepted has been taken and confirmed.
    pub(super) fn is_done(&self) -> bool {
        let is_quiet = |person: &Person| person.open.is_empty() && person.confirm_at.is_none();
        self.people.iter().all(is_quiet) && self.ledger.missing() == 0
    }

    /// True exactly when everybody is online.
    pub(super) fn is_online(&self) -> bool {
        self.people.iter().all(|person| person.active.is_some())
    }

    /// Ends a person's connections; it comes back after `away`. False where there was none.
    pub(super) fn part(&mut self, who: usize, how: Leave, away: Duration) -> bool {
        let Some(active) = self.people[who].active else { return false };
        if how == Leave::HalfClose {
            // Its end comes when the server has ended its side.
            self.people[who].places[active].struck = true;
            self.people[who].active = None;
            self.fleet.leave(2 * who + active, how);
            return true;
        }
        for side in 0..2 {
            self.fleet.leave(2 * who + side, how);
        }
        let person = &mut self.people[who];
        for place in &mut person.places {
            person.left_a_login |= matches!(place.stage, Stage::Opening(_));
            place.stage = Stage::Idle;
        }
        person.active = None;
        person.confirm_at = None;
        person.back_at = Some(Instant::now() + away);
        true
    }

    /// Everybody goes by an ordinary close and comes back at once.
    pub(super) fn part_all(&mut self) {
        for who in 0..self.people.len() {
            self.part(who, Leave::Fin, Duration::ZERO);
        }
    }

    /// A person's connection may end now without that being a surprise. False where there is none.
    pub(super) fn expect_end(&mut self, who: usize) -> bool {
        let person = &mut self.people[who];
        person.places.iter_mut().for_each(|place| place.struck = true);
        person.active.is_some()
    }

    /// Logs in a second time. False where there is no first time, or a second already.
    pub(super) fn take_over(&mut self, who: usize) -> Result<bool, StressError> {
        let Some(active) = self.people[who].active else { return Ok(false) };
        if self.people[who].places[1 - active].stage != Stage::Idle || !self.is_up {
            return Ok(false);
        }
        self.people[who].places[active].struck = true;
        self.open(who, 1 - active)?;
        Ok(true)
    }

    /// Is reset, and comes back with two logins at once.
    pub(super) fn rivals(&mut self, who: usize) -> Result<bool, StressError> {
        if !self.is_up || !self.part(who, Leave::Rst, Duration::ZERO) {
            return Ok(false);
        }
        self.people[who].back_at = None;
        self.open(who, 0)?;
        self.open(who, 1)?;
        self.people[who].places.iter_mut().for_each(|place| place.struck = true);
        Ok(true)
    }

    /// Stops reading for so long.
    pub(super) fn stop_reading(&mut self, who: usize, time: Duration) -> Result<bool, StressError> {
        let Some(active) = self.people[who].active else { return Ok(false) };
        self.people[who].reads_on_at = Some(Instant::now() + time);
        self.fleet.read_on(2 * who + active, false)?;
        Ok(true)
    }

    /// A sender that was killed has forgotten what was not answered.
    pub(super) fn forget_open(&mut self, who: usize) {
        for serial in std::mem::take(&mut self.people[who].open).into_keys() {
            self.ledger.give_up(who, serial);
        }
    }

    fn act(&mut self, who: usize, now: Instant) -> Result<(), StressError> {
        for side in 0..2 {
            if let Stage::Opening(since) = self.people[who].places[side].stage
                && now.saturating_duration_since(since) > ANSWER_WITHIN
            {
                self.troubles.unanswered_logins += usize::from(self.is_up);
                self.fleet.leave(2 * who + side, Leave::Rst);
                self.ended(who, side);
            }
        }
        let person = &mut self.people[who];
        if person.reads_on_at.take_if(|at| *at <= now).is_some() {
            for side in 0..2 {
                self.fleet.read_on(2 * who + side, true)?;
            }
        }
        if self.is_up && self.people[who].back_at.take_if(|at| *at <= now).is_some() {
            self.open(who, 0)?;
        }
        let Some(active) = self.people[who].active else { return Ok(()) };
        if who < self.senders {
            self.talk(who, active, now);
        } else if self.people[who].confirm_at.take_if(|at| *at <= now).is_some() {
            let last = self.ledger.last(who - self.senders);
            self.fleet.send(2 * who + active, &client::confirmation(last));
        }
        Ok(())
    }

    fn open(&mut self, who: usize, side: usize) -> Result<(), StressError> {
        self.connections += 1;
        let heard = Hearing { connection: self.connections, opened: 0, server_run: self.server_run };
        let stage = Stage::Opening(Instant::now());
        let struck = std::mem::take(&mut self.people[who].left_a_login);
        self.people[who].places[side] = Place { stage, heard, struck };
        let name = self.names.name(who);
        self.fleet.connect(2 * who + side)?;
        let login = if who < self.senders { client::login(&name) } else { client::login_confirming(&name) };
        self.fleet.send(2 * who + side, &login);
        Ok(())
    }

    /// Says as much as the window allows.
    fn talk(&mut self, who: usize, active: usize, now: Instant) {
        while self.talks && self.has_room(who) {
            let receivers = self.ids.len() - self.senders;
            let receiver = (0..LOOKS)
                .map(|_| self.seed.below(receivers))
                .find(|receiver| self.ledger.awaited(*receiver) < self.backlog);
            let Some(receiver) = receiver else { break };
            let key = self.ledger.send(who, receiver, self.start.elapsed());
            self.say(key, active, now);
        }
        let is_late = |sent: &Instant| now.saturating_duration_since(*sent) > ANSWER_WITHIN;
        if self.people[who].open.first_key_value().is_some_and(|(_, sent)| is_late(sent)) {
            note(&mut self.troubles.errors, || format!("no answer to a chat of {}", self.names.name(who)));
            self.part(who, Leave::Rst, Duration::ZERO);
        }
    }

    /// True exactly when a sender may say something new.
    fn has_room(&self, who: usize) -> bool {
        let open = &self.people[who].open;
        let ends = open.first_key_value().zip(open.last_key_value());
        open.len() < self.window
            && ends.is_none_or(|((oldest, _), (newest, _))| newest - oldest < SERIALS_AHEAD)
    }

    fn say(&mut self, key: Key, active: usize, now: Instant) {
        let msg = text::text(&self.run, key, self.size);
        let to = self.ids[self.senders + key.receiver];
        self.fleet.send(2 * key.sender + active, &client::chat_with_seq(to, &msg, key.serial));
        self.people[key.sender].open.insert(key.serial, now);
    }

    fn hear(&mut self, News { who: place, what, .. }: News) {
        let (who, side) = (place / 2, place % 2);
        match what {
            What::Connected | What::Heard(Heard::Other | Heard::Registered) => {}
            What::Heard(Heard::LoggedIn { kept, .. }) => {
                self.come_in(who, side);
                for letter in kept {
                    self.receive(who, side, &letter);
                }
            }
            What::Heard(Heard::Chat(letter)) => self.receive(who, side, &letter),
            What::Heard(Heard::Done { seq }) => self.answered(who, seq, true),
            What::Heard(Heard::Error { errno: errno::BUSY | errno::FULL, seq: Some(seq), .. }) => {
                self.answered(who, seq, false);
            }
            What::Heard(Heard::Goodbye { ref reason, .. }) => {
                let place = &mut self.people[who].places[side];
                let is_provoked = PROVOKED.contains(&reason.as_str());
                if !place.struck || !is_provoked {
                    place.struck = true;
                    note(&mut self.troubles.unprovoked, || told(&what));
                }
                *self.troubles.goodbyes.entry(reason.clone()).or_insert(0) += 1;
            }
            What::Heard(Heard::LoginRefused { errno: errno::BUSY | errno::ONLINE, .. }) => {
                self.fleet.leave(place, Leave::Fin);
                self.ended(who, side);
            }
            What::Heard(Heard::LoginRefused { .. }) => {
                note(&mut self.troubles.refused_logins, || told(&what));
                self.fleet.leave(place, Leave::Fin);
                self.ended(who, side);
            }
            What::Heard(_) => note(&mut self.troubles.errors, || told(&what)),
            What::Ended(_) => {
                if !self.people[who].places[side].struck {
                    note(&mut self.troubles.unprovoked, || {
                        format!("{}: {}", self.names.name(who), told(&what))
                    });
                }
                self.ended(who, side);
            }
        }
    }

    /// A login has succeeded. A sender repeats what is not answered, before anything newer.
    fn come_in(&mut self, who: usize, side: usize) {
        self.people[who].places[side].stage = Stage::Online;
        self.activate(who, side);
    }

    fn activate(&mut self, who: usize, side: usize) {
        self.people[who].active = Some(side);
        if who >= self.senders {
            return;
        }
        let now = Instant::now();
        let open: BTreeSet<u64> = self.people[who].open.keys().copied().collect();
        for serial in open {
            let key = self.ledger.repeat(who, serial);
            self.say(key, side, now);
        }
    }

    fn answered(&mut self, who: usize, serial: u64, accepted: bool) {
        self.people[who].open.remove(&serial);
        self.ledger.answer(who, serial, accepted, self.start.elapsed());
    }

    fn receive(&mut self, who: usize, side: usize, letter: &Letter) {
        let heard = Hearing { opened: self.connections, ..self.people[who].places[side].heard };
        let Some((receiver, mid)) = who.checked_sub(self.senders).zip(letter.mid) else {
            return note(&mut self.troubles.errors, || "a chat without a number, or to a sender".to_owned());
        };
        let told = text::read(&self.run, &letter.msg);
        self.take(receiver, told, (mid, letter.again), heard);
        // One in several is slow, so that the window is full and the box too.
        let slow_ms = if receiver % SLOW_SHARE == 0 { 10 * self.slow_ms } else { self.slow_ms };
        let pause = Duration::from_millis(self.seed.below(slow_ms + 1) as u64);
        self.people[who].confirm_at.get_or_insert(Instant::now() + pause);
    }

    /// A receiver has heard a chat.
    pub(super) fn take(&mut self, receiver: usize, told: Told, mark: (i64, bool), heard: Hearing) {
        let at = self.start.elapsed();
        match told {
            Told::Ours(key) => self.ledger.hear(receiver, Some(key), mark, heard, at),
            Told::Damaged => self.ledger.hear(receiver, None, mark, heard, at),
            Told::Foreign => self.ledger.pass_over(receiver, mark.0),
        }
    }

    /// A connection is over. With the other one the person goes on; without any it comes back.
    fn ended(&mut self, who: usize, side: usize) {
        let away = Duration::from_millis(self.seed.below(AWAY_MS) as u64);
        let person = &mut self.people[who];
        person.places[side].stage = Stage::Idle;
        let other = person.places[1 - side].stage;
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
