//! The state machine of one client: connect, log in, chat, lose the connection, wait, connect again, leave.
//!
//! Plain data without sockets, terminal or clock: the event loop passes events with the time, and carries out the actions
//! in their order. [`super::execute`] says what typed lines mean.

use std::time::Duration;

use super::ChatError;
use super::backoff::Backoff;
use super::contacts::{Contacts, Target};
use super::messages::{self, Advice, Answer, Chat, Goodbye, Incoming, LoggedIn, Presence, Refusal};
use super::outbox::{Kind, Outbox, Request, WAITING_MAX};

/// How long an answer to a login may take, in milliseconds: the server may have many passwords to hash first.
const LOGIN_MS: u64 = 60_000;

/// After this long without a message from the server, in milliseconds, the client sends a ping.
const SILENCE_MS: u64 = 40_000;

/// How long the server may take to answer a ping, in milliseconds.
const PONG_MS: u64 = 15_000;

/// How long the server may take to end its side after this client has ended its own, in milliseconds.
const CLOSE_MS: u64 = 2_000;

/// The `errno`s of a server that is too busy, or that cannot write to its store, for the moment.
const PASSING: [i64; 2] = [18, 19];

/// `errno` of a login whose password or token is not good.
const WRONG: i64 = 1;

/// `errno` of a user who has a session already, on a server that keeps the old one.
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
pub(super) struct ExitPolicy {
    /// How long to wait for answers, in milliseconds.
    pub(super) wait_ms: u64,
    /// True exactly when a line that failed makes the whole run a failure.
    pub(super) strict: bool,
}

/// What the event loop has to do next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    /// Connect.
    Connect,
    /// Send one object.
    Send(String),
    /// End our side of the connection, and still listen.
    HalfClose,
    /// Close the connection.
    Disconnect,
    /// Show this.
    Output(Output),
}

/// Something to show. Names and texts are as received; `render` makes them harmless.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Output {
    /// A chat.
    Chat { from: String, group: Option<String>, text: String, kept_at: Option<String> },
    /// The answer to a command.
    Answer(String),
    /// A change of the connection or of a friend.
    Notice(String),
    /// An error.
    Error(String),
}

#[derive(Debug)]
enum State {
    /// Waiting for a connection.
    Connecting,
    /// Waiting for the answer to a registration or login.
    LoggingIn { until_ms: u64 },
    /// True exactly between a granted login and the end of its connection.
    Online { since_ms: u64, received_ms: u64, pinged: bool },
    /// Waiting before the next connection.
    BackingOff { until_ms: u64 },
    /// This side of the connection has ended.
    Leaving { until_ms: u64 },
    /// The session has ended.
    Ended,
}

/// One client.
#[derive(Debug)]
pub(super) struct Session {
    account: Account,
    exit_policy: ExitPolicy,
    state: State,
    pub(super) contacts: Contacts,
    pub(super) outbox: Outbox,
    /// Who receives lines without a name in front.
    pub(super) target: Option<Target>,
    /// Used for the next login instead of the password, until the server refuses or replaces it.
    token: Option<String>,
    backoff: Backoff,
    goodbye: Option<Goodbye>,
    been_online: bool,
    /// When the input ended.
    input_ended_ms: Option<u64>,
    /// The highest number of a chat that was shown.
    shown_mid: i64,
    failed: usize,
    actions: Vec<Action>,
    outcome: Option<Result<(), ChatError>>,
}

impl Session {
    /// `seed` is random. It makes the backoff differ between clients, and `seq` unique.
    pub(super) fn new(account: Account, exit_policy: ExitPolicy, seed: u64) -> Session {
        Session {
            account,
            exit_policy,
            state: State::Connecting,
            contacts: Contacts::default(),
            outbox: Outbox::new(seed),
            target: None,
            token: None,
            backoff: Backoff::new(seed),
            goodbye: None,
            been_online: false,
            input_ended_ms: None,
            shown_mid: 0,
            failed: 0,
            actions: vec![Action::Connect],
            outcome: None,
        }
    }

    /// Takes the actions, in their order.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Takes the outcome, once the session has ended.
    pub(super) fn take_outcome(&mut self) -> Option<Result<(), ChatError>> {
        self.outcome.take()
    }

    /// True exactly when another line of input may come.
    pub(super) fn wants_input(&self) -> bool {
        self.been_online && self.input_ended_ms.is_none() && self.outbox.len() < WAITING_MAX
    }

    /// The prompt of the input line.
    pub(super) fn prompt(&self) -> String {
        self.target.map(|target| self.contacts.target_name(target)).unwrap_or_default() + "> "
    }

    /// When [`Session::tick`] is due.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let own = match self.state {
            State::Connecting | State::Ended => None,
            State::LoggingIn { until_ms } | State::BackingOff { until_ms } | State::Leaving { until_ms } => {
                Some(until_ms)
            }
            State::Online { received_ms, pinged, .. } => Some(received_ms + silence_ms(pinged)),
        };
        let exit_due_ms = self.input_ended_ms.map(|ended_ms| ended_ms + self.exit_policy.wait_ms);
        own.into_iter().chain(exit_due_ms).min()
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now_ms: u64) {
        let exit_is_due =
            self.input_ended_ms.is_some_and(|ended_ms| now_ms >= ended_ms + self.exit_policy.wait_ms);
        match &mut self.state {
            State::Leaving { until_ms } if now_ms >= *until_ms => self.finish(),
            State::Leaving { .. } | State::Ended => {}
            _ if exit_is_due => self.finish(),
            State::BackingOff { until_ms } if now_ms >= *until_ms => {
                self.state = State::Connecting;
                self.actions.push(Action::Connect);
            }
            State::LoggingIn { until_ms } if now_ms >= *until_ms => {
                self.lost("the server does not answer the login", now_ms);
            }
            State::Online { received_ms, pinged, .. } if now_ms >= *received_ms + silence_ms(*pinged) => {
                if *pinged {
                    self.lost("the server does not answer", now_ms);
                } else {
                    *pinged = true;
                    self.send(messages::ping());
                }
            }
            _ => {}
        }
    }

    /// A connection was made.
    pub(super) fn connected(&mut self, now_ms: u64) {
        self.state = State::LoggingIn { until_ms: now_ms + LOGIN_MS };
        let Account { who, password, register } = &self.account;
        let request = match &self.token {
            Some(token) => messages::resume(token),
            None if *register => messages::register(who, password),
            None => messages::login(who, password),
        };
        self.send(request);
    }

    /// The connection was lost, or could not be made.
    pub(super) fn lost(&mut self, why: &str, now_ms: u64) {
        let goodbye = self.goodbye.take();
        match self.state {
            State::Ended => return,
            State::Leaving { .. } => return self.finish(),
            State::Online { since_ms, .. } => self.backoff.session_ended(now_ms.saturating_sub(since_ms)),
            _ => {}
        }
        self.actions.push(Action::Disconnect);
        for request in self.outbox.connection_lost() {
            self.fail(&request, "the connection was lost before the answer; it may have been done");
        }
        match &goodbye {
            Some(bye) if bye.advice == Advice::Stop => {
                let (reason, text) = (bye.reason.clone(), bye.text.clone());
                return self.end(Err(ChatError::SentAway { reason, text }));
            }
            Some(bye) if bye.reason == "frame_too_large" => {
                // Sent again, it would end every later connection too.
                if let Some(request) = self.outbox.take_largest() {
                    self.fail(&request, "it is larger than the server takes");
                }
            }
            None if !self.been_online => return self.end(Err(ChatError::NotReached(why.to_owned()))),
            _ => {}
        }
        let pause_ms = match &goodbye {
            Some(bye) if bye.advice == Advice::RetryAfter => self.backoff.next_after(bye.retry_after_ms),
            _ => self.backoff.next(),
        };
        self.back_off(why, pause_ms, now_ms);
    }

    /// The server has sent one object.
    pub(super) fn received(&mut self, object: &[u8], now_ms: u64) {
        if let State::Online { received_ms, pinged, .. } = &mut self.state {
            (*received_ms, *pinged) = (now_ms, false);
        }
        match messages::read(object) {
            Incoming::Registered => {
                self.account.register = false;
                self.actions.push(Action::Output(Output::Notice(format!("registered {}", self.account.who))));
                self.connected(now_ms);
            }
            Incoming::RegisterRefused(refusal) | Incoming::LoginRefused(refusal) => {
                self.refused(refusal, now_ms);
            }
            Incoming::LoggedIn(login) => self.logged_in(&login, now_ms),
            Incoming::Chat(chat) => self.chat(chat, false),
            Incoming::Presence(presence) => self.presence(&presence),
            Incoming::Ping => self.send(messages::ping()),
            Incoming::Goodbye(goodbye) => {
                // With the advice to stop, it is the outcome and shown as that.
                if goodbye.advice != Advice::Stop {
                    let what = format!("sent away: {}: {}", goodbye.reason, goodbye.text);
                    self.actions.push(Action::Output(Output::Error(what)));
                }
                self.goodbye = Some(goodbye);
            }
            Incoming::Answer(answer) => self.answered(&answer, now_ms),
            Incoming::Pong | Incoming::Other => {}
        }
    }

    /// The input has ended: leaves as soon as every request is answered.
    pub(super) fn input_ended(&mut self, now_ms: u64) {
        self.input_ended_ms.get_or_insert(now_ms);
        self.leave_if_done(now_ms);
    }

    /// Leaves at once, even with unanswered requests.
    pub(super) fn stop(&mut self, now_ms: u64) {
        self.input_ended_ms.get_or_insert(now_ms);
        if matches!(self.state, State::Online { .. }) { self.leave(now_ms) } else { self.finish() }
    }

    /// Puts a request into the outbox, and sends it if the client is logged in.
    pub(super) fn request(&mut self, kind: Kind) {
        if let Err(too_long) = self.outbox.push(kind) {
            return self.show_error(too_long.to_string());
        }
        match self.state {
            State::Online { .. } => self.send_waiting(),
            _ => self.show_notice("not connected; this will be sent later".into()),
        }
    }

    /// Shows what a command answers.
    pub(super) fn show_answer(&mut self, text: String) {
        self.actions.push(Action::Output(Output::Answer(text)));
    }

    /// Shows that a line of input has failed.
    pub(super) fn show_error(&mut self, text: String) {
        self.failed += 1;
        self.actions.push(Action::Output(Output::Error(text)));
    }

    fn show_notice(&mut self, text: String) {
        self.actions.push(Action::Output(Output::Notice(text)));
    }

    fn send(&mut self, object: String) {
        self.actions.push(Action::Send(object));
    }

    fn send_waiting(&mut self) {
        self.actions.extend(self.outbox.send_next().map(|body| Action::Send(body.to_owned())));
    }

    fn back_off(&mut self, why: &str, pause_ms: u64, now_ms: u64) {
        self.state = State::BackingOff { until_ms: now_ms.saturating_add(pause_ms) };
        self.actions
            .push(Action::Output(Output::Error(format!("{why}; trying again in {}", pretty(pause_ms)))));
        self.leave_if_done(now_ms);
    }

    fn refused(&mut self, refusal: Refusal, now_ms: u64) {
        if refusal.errno == WRONG && self.token.take().is_some() {
            // The token was used or has expired; the password is still good.
            return self.connected(now_ms);
        }
        let passes = PASSING.contains(&refusal.errno)
            // After a lost connection the server may still have the old session.
            || (refusal.errno == ALREADY_ONLINE && self.been_online);
        if !passes {
            return self.end(Err(ChatError::Refused(refusal.text)));
        }
        self.actions.push(Action::Disconnect);
        let pause_ms = self.backoff.next();
        self.back_off(&refusal.text, pause_ms, now_ms);
    }

    fn logged_in(&mut self, login: &LoggedIn, now_ms: u64) {
        self.state = State::Online { since_ms: now_ms, received_ms: now_ms, pinged: false };
        self.contacts.logged_in(login);
        self.token.clone_from(&login.token);
        let again = if self.been_online { "again " } else { "" };
        self.show_notice(format!("logged in {again}as {} ({})", login.name, login.id));
        self.been_online = true;
        for line in self.contacts.summary() {
            self.show_notice(line);
        }
        for chat in &login.offline {
            self.chat(chat.clone(), true);
        }
        self.send_waiting();
        self.leave_if_done(now_ms);
    }

    fn chat(&mut self, chat: Chat, kept: bool) {
        self.contacts.learn_name(chat.id, &chat.name);
        let seen = chat.mid.is_some_and(|mid| mid <= self.shown_mid);
        if !seen {
            self.actions.push(Action::Output(Output::Chat {
                from: chat.name,
                group: chat.group.map(|group| self.contacts.group_name(group)),
                text: chat.msg,
                kept_at: chat.time.filter(|_| kept),
            }));
        }
        if let Some(mid) = chat.mid {
            self.shown_mid = self.shown_mid.max(mid);
            self.send(messages::confirm(self.shown_mid));
        }
    }

    fn presence(&mut self, presence: &Presence) {
        if self.contacts.presence(presence) {
            let state = if presence.online { "online" } else { "offline" };
            self.show_notice(format!("{} is {state}", presence.name));
        }
    }

    fn answered(&mut self, answer: &Answer, now_ms: u64) {
        let Some(seq) = &answer.seq else {
            self.show_notice(format!("the server says: {} (errno {})", answer.text, answer.errno));
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
                    let name = self.contacts.name(*id);
                    self.show_error(format!("not delivered to {name}: the box is full"));
                }
            }
            Kind::Add(id) => {
                self.contacts.add_friend(*id);
                self.show_answer(format!("{} is a friend now", self.contacts.name(*id)));
            }
            Kind::Join(id) => {
                self.contacts.add_group(*id, &id.to_string());
                self.show_answer(format!("joined group {id}; /group {id} writes to it"));
            }
            Kind::Create(name) => {
                let id = answer.id.unwrap_or_default();
                self.contacts.add_group(id, name);
                self.show_answer(format!("created group {name} ({id}); others get in with /join {id}"));
            }
        }
    }

    fn fail(&mut self, request: &Request, why: &str) {
        let what = match &request.kind {
            Kind::ToUser { id, .. } => format!("not delivered to {}", self.contacts.name(*id)),
            Kind::ToGroup { id, .. } => format!("not delivered to group {}", self.contacts.group_name(*id)),
            Kind::Add(id) => format!("{} was not added", self.contacts.name(*id)),
            Kind::Join(id) => format!("group {id} was not joined"),
            Kind::Create(name) => format!("group {name} was not created"),
        };
        self.show_error(format!("{what}: {why}"));
    }

    /// Leaves if the input has ended, every request is answered and the client has been logged in once.
    fn leave_if_done(&mut self, now_ms: u64) {
        if self.input_ended_ms.is_some() && self.outbox.len() == 0 && self.been_online {
            self.stop(now_ms);
        }
    }

    /// Ends this side. Input is still read, because the server counts what it has sent as delivered.
    fn leave(&mut self, now_ms: u64) {
        self.state = State::Leaving { until_ms: now_ms + CLOSE_MS };
        self.actions.push(Action::HalfClose);
    }

    fn finish(&mut self) {
        let outcome = match (self.outbox.len(), self.failed) {
            (1.., _) => Err(ChatError::Unanswered(self.outbox.len())),
            (_, 1..) if self.exit_policy.strict => Err(ChatError::LinesFailed(self.failed)),
            _ => Ok(()),
        };
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<(), ChatError>) {
        self.state = State::Ended;
        self.actions.push(Action::Disconnect);
        self.outcome = Some(outcome);
    }
}

fn silence_ms(pinged: bool) -> u64 {
    if pinged { SILENCE_MS + PONG_MS } else { SILENCE_MS }
}

/// A duration as people read it.
fn pretty(ms: u64) -> String {
    if ms < 10_000 {
        return format!("{}.{} s", ms / 1_000, ms % 1_000 / 100);
    }
    let seconds = jiff::SignedDuration::from_secs(Duration::from_millis(ms).as_secs() as i64);
    format!("{seconds:#}")
}
