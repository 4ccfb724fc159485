//! The life of one client: connect, log in, talk, lose the connection, wait, connect again, leave.
//!
//! Plain data without sockets, terminal and clock: whoever drives it reports what happened, with the time, and then
//! does what it asks for, in order. What typed lines mean is in [`super::typed`].

use std::time::Duration;

use super::ChatError;
use super::outbox::{Kind, Outbox, Request, WAITING_MAX};
use super::pauses::Pauses;
use super::people::{People, Target};
use super::wire::{self, Advice, Answer, Chat, Goodbye, Heard, LoggedIn, Presence, Refusal};

/// How long an answer to a login may take, in milliseconds: passwords of many may be hashed first.
const LOGIN_MS: u64 = 60_000;

/// Without input for this long, in milliseconds, the server is asked whether it is there.
const SILENCE_MS: u64 = 40_000;

/// How long it may take to answer that, in milliseconds.
const PONG_MS: u64 = 15_000;

/// How long the server may take to end its side after we have ended ours, in milliseconds.
const FAREWELL_MS: u64 = 2_000;

/// `errno` of a server that is too busy, and of one that cannot store anything now.
const PASSING: [i64; 2] = [18, 19];

/// `errno` of a login whose password or token is not good.
const WRONG: i64 = 1;

/// `errno` of a user who has a session already, where the server keeps the old one.
const ALREADY_ONLINE: i64 = 2;

/// Who logs in, and how.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// A name, or a number.
    pub(super) who: String,
    pub(super) password: String,
    /// Register the name first.
    pub(super) register: bool,
}

/// How a session behaves at the end of its input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// How long to wait for answers, in milliseconds.
    pub(super) patience_ms: u64,
    /// True exactly when a line that failed makes the whole run a failure.
    pub(super) strict: bool,
}

/// What the driver has to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Act {
    /// Connect.
    Dial,
    /// Send one object.
    Send(String),
    /// End our side of the connection, and still listen.
    EndSide,
    /// Drop the connection.
    HangUp,
    /// Show that.
    Show(Show),
}

/// Something to show. Names and texts are as they came: making them harmless is up to the view.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Show {
    /// Somebody has written.
    Chat { from: String, group: Option<String>, text: String, kept_at: Option<String> },
    /// What a command answers.
    Answer(String),
    /// What happens around.
    Event(String),
    /// What went wrong.
    Trouble(String),
}

#[derive(Debug)]
enum State {
    /// Waiting for a connection.
    Dialing,
    /// Waiting for the answer to a registration or login.
    Entering { until_ms: u64 },
    /// True exactly between a granted login and the end of its connection.
    Online { since_ms: u64, heard_ms: u64, asked: bool },
    /// No connection until then.
    Pausing { until_ms: u64 },
    /// Our side has ended.
    Leaving { until_ms: u64 },
    /// There is nothing more to do.
    Over,
}

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    account: Account,
    manners: Manners,
    state: State,
    pub(super) people: People,
    pub(super) outbox: Outbox,
    /// To whom plain lines go.
    pub(super) target: Option<Target>,
    /// What the next login goes by instead of the password, until the server has refused or replaced it.
    token: Option<String>,
    pauses: Pauses,
    goodbye: Option<Goodbye>,
    been_online: bool,
    /// When the input ended.
    input_ended_ms: Option<u64>,
    /// The highest number of a chat that was shown.
    shown_mid: i64,
    failed: usize,
    acts: Vec<Act>,
    outcome: Option<Result<(), ChatError>>,
}

impl Session {
    /// `seed` is random: it makes pauses differ and `seq` unique.
    pub(super) fn new(account: Account, manners: Manners, seed: u64) -> Session {
        Session {
            account,
            manners,
            state: State::Dialing,
            people: People::default(),
            outbox: Outbox::new(seed),
            target: None,
            token: None,
            pauses: Pauses::new(seed),
            goodbye: None,
            been_online: false,
            input_ended_ms: None,
            shown_mid: 0,
            failed: 0,
            acts: vec![Act::Dial],
            outcome: None,
        }
    }

    /// What to do now, in order.
    pub(super) fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// How it ended, once it has.
    pub(super) fn take_outcome(&mut self) -> Option<Result<(), ChatError>> {
        self.outcome.take()
    }

    /// True exactly when another line of input may come.
    pub(super) fn wants_input(&self) -> bool {
        self.been_online && self.input_ended_ms.is_none() && self.outbox.len() < WAITING_MAX
    }

    /// What stands in front of the input line.
    pub(super) fn prompt(&self) -> String {
        self.target.map(|target| self.people.target_name(target)).unwrap_or_default() + "> "
    }

    /// When [`Session::tick`] is due.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let own = match self.state {
            State::Dialing | State::Over => None,
            State::Entering { until_ms } | State::Pausing { until_ms } | State::Leaving { until_ms } => {
                Some(until_ms)
            }
            State::Online { heard_ms, asked, .. } => Some(heard_ms + silence_ms(asked)),
        };
        let patience = self.input_ended_ms.map(|ended_ms| ended_ms + self.manners.patience_ms);
        own.into_iter().chain(patience).min()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now_ms: u64) {
        let out_of_patience =
            self.input_ended_ms.is_some_and(|ended_ms| now_ms >= ended_ms + self.manners.patience_ms);
        match &mut self.state {
            State::Leaving { until_ms } if now_ms >= *until_ms => self.finish(),
            State::Leaving { .. } | State::Over => {}
            _ if out_of_patience => self.finish(),
            State::Pausing { until_ms } if now_ms >= *until_ms => {
                self.state = State::Dialing;
                self.acts.push(Act::Dial);
            }
            State::Entering { until_ms } if now_ms >= *until_ms => {
                self.lost("the server does not answer the login", now_ms);
            }
            State::Online { heard_ms, asked, .. } if now_ms >= *heard_ms + silence_ms(*asked) => {
                if *asked {
                    self.lost("the server does not answer", now_ms);
                } else {
                    *asked = true;
                    self.send(wire::ping());
                }
            }
            _ => {}
        }
    }

    /// There is a connection.
    pub(super) fn connected(&mut self, now_ms: u64) {
        self.state = State::Entering { until_ms: now_ms + LOGIN_MS };
        let Account { who, password, register } = &self.account;
        let request = match &self.token {
            Some(token) => wire::resume(token),
            None if *register => wire::register(who, password),
            None => wire::login(who, password),
        };
        self.send(request);
    }

    /// There is no connection any more, or it could not be made.
    pub(super) fn lost(&mut self, why: &str, now_ms: u64) {
        let goodbye = self.goodbye.take();
        match self.state {
            State::Over => return,
            State::Leaving { .. } => return self.finish(),
            State::Online { since_ms, .. } => self.pauses.held(now_ms.saturating_sub(since_ms)),
            _ => {}
        }
        self.acts.push(Act::HangUp);
        for request in self.outbox.connection_lost() {
            self.fail(&request, "the connection was lost before the answer; it may have been done");
        }
        match &goodbye {
            Some(bye) if bye.advice == Advice::Stop => {
                let (reason, text) = (bye.reason.clone(), bye.text.clone());
                return self.end(Err(ChatError::SentAway { reason, text }));
            }
            Some(bye) if bye.reason == "frame_too_large" => {
                // Sent again it would end every connection that follows.
                if let Some(request) = self.outbox.take_largest() {
                    self.fail(&request, "it is larger than the server takes");
                }
            }
            None if !self.been_online => return self.end(Err(ChatError::NotReached(why.to_owned()))),
            _ => {}
        }
        let pause_ms = match &goodbye {
            Some(bye) if bye.advice == Advice::RetryAfter => self.pauses.next_after(bye.retry_after_ms),
            _ => self.pauses.next(),
        };
        self.pause(why, pause_ms, now_ms);
    }

    /// The server has sent one object.
    pub(super) fn heard(&mut self, object: &[u8], now_ms: u64) {
        if let State::Online { heard_ms, asked, .. } = &mut self.state {
            (*heard_ms, *asked) = (now_ms, false);
        }
        match wire::read(object) {
            Heard::Registered => {
                self.account.register = false;
                self.acts.push(Act::Show(Show::Event(format!("registered {}", self.account.who))));
                self.connected(now_ms);
            }
            Heard::RegisterRefused(refusal) | Heard::LoginRefused(refusal) => self.refused(refusal, now_ms),
            Heard::LoggedIn(login) => self.logged_in(&login, now_ms),
            Heard::Chat(chat) => self.chat(chat, false),
            Heard::Presence(presence) => self.presence(&presence),
            Heard::Ping => self.send(wire::ping()),
            Heard::Goodbye(goodbye) => {
                // With the advice to stop, the outcome says it.
                if goodbye.advice != Advice::Stop {
                    let what = format!("sent away: {}: {}", goodbye.reason, goodbye.text);
                    self.acts.push(Act::Show(Show::Trouble(what)));
                }
                self.goodbye = Some(goodbye);
            }
            Heard::Answer(answer) => self.answered(&answer, now_ms),
            Heard::Pong | Heard::Other => {}
        }
    }

    /// There will be no more input: leaves as soon as all is answered.
    pub(super) fn input_ended(&mut self, now_ms: u64) {
        self.input_ended_ms.get_or_insert(now_ms);
        self.leave_if_done(now_ms);
    }

    /// Leaves now, whatever is unanswered.
    pub(super) fn stop(&mut self, now_ms: u64) {
        self.input_ended_ms.get_or_insert(now_ms);
        if matches!(self.state, State::Online { .. }) { self.leave(now_ms) } else { self.finish() }
    }

    /// Puts a request into the outbox, and sends it if there is a session to send it on.
    pub(super) fn ask(&mut self, kind: Kind) {
        if let Err(too_long) = self.outbox.push(kind) {
            return self.trouble(too_long.to_string());
        }
        match self.state {
            State::Online { .. } => self.send_waiting(),
            _ => self.event("not connected; this will be sent later".into()),
        }
    }

    /// Shows what a command answers.
    pub(super) fn answer(&mut self, text: String) {
        self.acts.push(Act::Show(Show::Answer(text)));
    }

    /// Shows that a line of input has failed.
    pub(super) fn trouble(&mut self, text: String) {
        self.failed += 1;
        self.acts.push(Act::Show(Show::Trouble(text)));
    }

    fn event(&mut self, text: String) {
        self.acts.push(Act::Show(Show::Event(text)));
    }

    fn send(&mut self, object: String) {
        self.acts.push(Act::Send(object));
    }

    fn send_waiting(&mut self) {
        self.acts.extend(self.outbox.send_next().map(|body| Act::Send(body.to_owned())));
    }

    fn pause(&mut self, why: &str, pause_ms: u64, now_ms: u64) {
        self.state = State::Pausing { until_ms: now_ms.saturating_add(pause_ms) };
        self.acts.push(Act::Show(Show::Trouble(format!("{why}; trying again in {}", pretty(pause_ms)))));
        self.leave_if_done(now_ms);
    }

    fn refused(&mut self, refusal: Refusal, now_ms: u64) {
        if refusal.errno == WRONG && self.token.take().is_some() {
            // It is used or over; the password still counts.
            return self.connected(now_ms);
        }
        let passes = PASSING.contains(&refusal.errno)
            // After a lost connection the server may still have the old session.
            || (refusal.errno == ALREADY_ONLINE && self.been_online);
        if !passes {
            return self.end(Err(ChatError::Refused(refusal.text)));
        }
        self.acts.push(Act::HangUp);
        let pause_ms = self.pauses.next();
        self.pause(&refusal.text, pause_ms, now_ms);
    }

    fn logged_in(&mut self, login: &LoggedIn, now_ms: u64) {
        self.state = State::Online { since_ms: now_ms, heard_ms: now_ms, asked: false };
        self.people.logged_in(login);
        self.token.clone_from(&login.token);
        let again = if self.been_online { "again " } else { "" };
        self.event(format!("logged in {again}as {} ({})", login.name, login.id));
        self.been_online = true;
        for line in self.people.summary() {
            self.event(line);
        }
        for chat in &login.offline {
            self.chat(chat.clone(), true);
        }
        self.send_waiting();
        self.leave_if_done(now_ms);
    }

    fn chat(&mut self, chat: Chat, kept: bool) {
        self.people.met(chat.id, &chat.name);
        let seen = chat.mid.is_some_and(|mid| mid <= self.shown_mid);
        if !seen {
            self.acts.push(Act::Show(Show::Chat {
                from: chat.name,
                group: chat.group.map(|group| self.people.group_name(group)),
                text: chat.msg,
                kept_at: chat.time.filter(|_| kept),
            }));
        }
        if let Some(mid) = chat.mid {
            self.shown_mid = self.shown_mid.max(mid);
            self.send(wire::confirm(self.shown_mid));
        }
    }

    fn presence(&mut self, presence: &Presence) {
        if self.people.presence(presence) {
            let state = if presence.online { "online" } else { "offline" };
            self.event(format!("{} is {state}", presence.name));
        }
    }

    fn answered(&mut self, answer: &Answer, now_ms: u64) {
        let Some(seq) = &answer.seq else {
            self.event(format!("the server says: {} (errno {})", answer.text, answer.errno));
            return;
        };
        let Some(request) = self.outbox.answered(seq) else { return };
        if answer.errno == 0 {
            self.done(&request, answer);
        } else {
            self.fail(&request, &answer.text);
        }
        self.leave_if_done(now_ms);
    }

    fn done(&mut self, request: &Request, answer: &Answer) {
        match &request.kind {
            Kind::ToUser { .. } => {}
            Kind::ToGroup { .. } => {
                for id in &answer.full {
                    let name = self.people.name(*id);
                    self.trouble(format!("not delivered to {name}: the box is full"));
                }
            }
            Kind::Add(id) => {
                self.people.add_friend(*id);
                self.answer(format!("{} is a friend now", self.people.name(*id)));
            }
            Kind::Join(id) => {
                self.people.add_group(*id, &id.to_string());
                self.answer(format!("joined group {id}; /group {id} writes to it"));
            }
            Kind::Create(name) => {
                let id = answer.id.unwrap_or_default();
                self.people.add_group(id, name);
                self.answer(format!("created group {name} ({id}); others get in with /join {id}"));
            }
        }
    }

    fn fail(&mut self, request: &Request, why: &str) {
        let what = match &request.kind {
            Kind::ToUser { id, .. } => format!("not delivered to {}", self.people.name(*id)),
            Kind::ToGroup { id, .. } => format!("not delivered to group {}", self.people.group_name(*id)),
            Kind::Add(id) => format!("{} was not added", self.people.name(*id)),
            Kind::Join(id) => format!("group {id} was not joined"),
            Kind::Create(name) => format!("group {name} was not created"),
        };
        self.trouble(format!("{what}: {why}"));
    }

    /// Leaves if the input has ended and nothing is unanswered. Nobody who has not been online yet is done.
    fn leave_if_done(&mut self, now_ms: u64) {
        if self.input_ended_ms.is_some() && self.outbox.len() == 0 && self.been_online {
            self.stop(now_ms);
        }
    }

    /// Ends our side. What the server has sent meanwhile is still read: it counts as delivered there.
    fn leave(&mut self, now_ms: u64) {
        self.state = State::Leaving { until_ms: now_ms + FAREWELL_MS };
        self.acts.push(Act::EndSide);
    }

    fn finish(&mut self) {
        let outcome = match (self.outbox.len(), self.failed) {
            (1.., _) => Err(ChatError::Unanswered(self.outbox.len())),
            (_, 1..) if self.manners.strict => Err(ChatError::LinesFailed(self.failed)),
            _ => Ok(()),
        };
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<(), ChatError>) {
        self.state = State::Over;
        self.acts.push(Act::HangUp);
        self.outcome = Some(outcome);
    }
}

fn silence_ms(asked: bool) -> u64 {
    if asked { SILENCE_MS + PONG_MS } else { SILENCE_MS }
}

/// A length of time as people read it.
fn pretty(ms: u64) -> String {
    if ms < 10_000 {
        return format!("{}.{} s", ms / 1_000, ms % 1_000 / 100);
    }
    let seconds = jiff::SignedDuration::from_secs(Duration::from_millis(ms).as_secs() as i64);
    format!("{seconds:#}")
}
