//! Logging in and registering: who may, what becomes of the session before, what a login brings.
//!
//! On main.

use super::ack_window::numbered_kept;
use super::session_map::SessionKey;
use super::state::{MainLoop, refusal};
use super::transaction::AfterCommit;
use super::users::Session;
use crate::auth::login_limiter::{Account, Failure, TOO_MANY_REGISTRATIONS, Tried};
use crate::auth::pool::{Job, Task};
use crate::channel::{ChannelId, Reason, SessionNo, Stage};
use crate::ids::{Mid, UserId};
use crate::ip_block::IpBlock;
use crate::message::chat::Sender;
use crate::message::command::WorkerCommand;
use crate::message::disconnect::{CloseInfo, Departure};
use crate::message::reply::{Answer, LoggedIn};
use crate::message::reply_to::Completes;
use crate::message::reply_to::ReplyTo;
use crate::message::request::{Ask, Login};
use crate::message::request::{HashTag, Who};
use crate::protocol::errno::Errno;
use crate::protocol::name::of_new_user;
use crate::protocol::request::Caps;
use crate::registry::SessionEntry;
use crate::store::TokenRow;
use crate::store::{Storage, StoredMessage, UserRow};
use crate::sync::Arc;
use std::net::SocketAddr;

/// What one login answer, or one refill after it, takes out of the box at most, in bytes of bodies.
pub(crate) const HANDOVER_BYTES: usize = 256 * 1024;
/// The same in messages.
pub(crate) const HANDOVER_COUNT: usize = 4096;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// A login by password, which is verified, or by token: now, or when the session before it has settled, or not at all.
    pub(crate) fn log_in(&mut self, login: Login) {
        self.log_in_knowing(login, None);
    }

    /// The same. `token` is the row of the token that it goes by, if that was read just now.
    pub(crate) fn log_in_knowing(&mut self, mut login: Login, token: Option<TokenRow>) {
        let channel = login.asker.channel;
        if self.around.table.has_left(channel) || self.turn_away(channel) {
            return;
        }
        if self.fan_outs.is_under_way(login.user) {
            self.wait_in_line(login.user, Ask::Login(Box::new(login)));
            return;
        }
        let Ok(found) = self.person(login.user) else { return self.refuse(&login.asker, Errno::NotStored) };
        if found.is_none() {
            return self.refuse_wrong(&login);
        }
        while !self.read_lists(login.user) {
            // Another session may have been ended for a login that is proven: nobody else may take the place first.
            if !login.proven {
                return self.log_in_later(login);
            }
        }
        self.note_logout_under_way(login.user, channel);
        if let Some(person) = self.people.find(login.user)
            && person.holds_messages()
        {
            person.park(login);
            return;
        }
        // Before all that follows, so that a login that is kept out takes nobody's place.
        let mut owner = None;
        if let Some(presented) = login.token {
            let Some(row) = self.owner_of(presented.hash, token, &mut login) else { return };
            owner = Some(row);
        }
        if self.keeps_out(&login) {
            return;
        }
        let Some(person) = self.people.find(login.user) else { return };
        let present = person.session.as_ref().map(|session| (session.channel, session.number));
        if self.around.table.has_ended(channel) {
            return self.greet_without_session(&login);
        }
        if let Some(present) = present
            && present.0 != channel
        {
            return self.meet_duplicate(login, present);
        }
        self.log_in_here(login, owner);
    }

    /// The login goes to the end of the queue. So others have their turns while all is read that its answer lists.
    fn log_in_later(&mut self, login: Login) {
        if let Err(ask) = self.around.queue.ask(Ask::Login(Box::new(login))) {
            self.refuse(ask.asker(), Errno::Busy);
        }
    }

    /// A password may be verified before the worker's turn is over in which the same client has logged out: then the
    /// end is on its way, and what comes for the user waits for it.
    fn note_logout_under_way(&mut self, user: UserId, channel: ChannelId) {
        let table = &self.around.table;
        let session = self.people.find(user).and_then(|person| person.session.as_mut());
        if let Some(session) = session
            && session.channel == channel
            && !table.is_live(channel, session.number)
        {
            session.gone = true;
            self.recall_letters(user);
        }
    }

    /// A line without a password: a guest, unless the name is registered.
    pub(crate) fn log_in_guest(&mut self, asker: ReplyTo, peer: SocketAddr, name: &str) {
        if self.around.table.has_left(asker.channel) {
            return;
        }
        let Some(found) = self.batch.attempt(|store| store.user_called(name)) else {
            return self.refuse(&asker, Errno::NotStored);
        };
        let user = match found {
            Some(row) if row.password.is_none() => row.id,
            Some(_) => {
                let failure = Failure { channel: asker.channel, peer, tried: Tried::Guest(name) };
                self.around.attempts.fail(&failure, self.now.mono_us);
                return self.refuse(&asker, Errno::Refused);
            }
            None => match self.add_guest(&asker, peer, name) {
                Some(user) => user,
                None => return,
            },
        };
        self.log_in(Login {
            asker,
            peer,
            user,
            token: None,
            verified: None,
            renewed: None,
            again: None,
            caps: Caps::default(),
            lines: true,
            proven: false,
        });
    }

    /// A guest is a new user, with the limits of one; else that is answered.
    fn add_guest(&mut self, asker: &ReplyTo, peer: SocketAddr, name: &str) -> Option<UserId> {
        let name = of_new_user(name).map_err(|rule| self.refuse_saying(asker, 2, rule)).ok()?;
        if self.keeps_newcomer_out(asker, peer, 2) {
            return None;
        }
        if !self.around.attempts.register(IpBlock::of(peer.ip()), self.now.mono_us) {
            self.refuse_newcomer(asker, peer, 2);
            return None;
        }
        let Some(added) = self.batch.attempt(|store| store.add_user(&name, None)) else {
            self.refuse(asker, Errno::NotStored);
            return None;
        };
        added.map_err(|taken| self.refuse_saying(asker, 2, taken.text())).ok()
    }

    /// The user is online elsewhere.
    fn meet_duplicate(&mut self, login: Login, present: (ChannelId, SessionNo)) {
        let (user, (other, number)) = (login.user, present);
        let worker = self.around.table.worker(other);
        if !self.policy.reject_duplicates {
            let Some(login) = self.prove(login, user) else { return };
            let Some(person) = self.people.find(user) else { return };
            person.park(login);
            if let Some(session) = person.session.as_mut() {
                // Nobody may write to it any more; what comes for the user waits for the settlement.
                session.gone = true;
            }
            self.recall_letters(user);
            self.batch.then(AfterCommit::Replace { key: (other, number) });
            return;
        }
        // The client may be gone without the worker having read so: then its place is free.
        let Some(person) = self.people.find(user) else { return };
        if person.wait_for_look(login) {
            self.batch
                .then(AfterCommit::Post { worker, letter: WorkerCommand::Probe { channel: other, user } });
        }
    }

    /// A channel that stood in the way has been looked at. It may have gone meanwhile; of the session that has come after
    /// it that says nothing.
    pub(crate) fn looked_at(&mut self, user: UserId, channel: ChannelId) {
        let session = self.people.find(user).and_then(|person| person.session.as_ref());
        if session.is_none_or(|session| session.channel == channel) {
            self.probed(user);
        }
    }

    /// The present session's client has been looked at, or the session has ended.
    pub(crate) fn probed(&mut self, user: UserId) {
        let Some(person) = self.people.find(user) else { return };
        let waiting = person.take_probing();
        let table = &self.around.table;
        let stays = person
            .session
            .as_ref()
            .is_some_and(|session| !session.gone && table.is_live(session.channel, session.number));
        if let Some(session) = person.session.as_mut()
            && !stays
        {
            session.gone = true;
            self.recall_letters(user);
        }
        for login in waiting {
            if stays {
                self.refuse(&login.asker, Errno::AlreadyOnline);
            } else if let Some(person) = self.people.find(user) {
                person.park(login);
            }
        }
        if self.people.find(user).is_some_and(|person| !person.holds_messages()) {
            self.release(user);
        }
    }

    /// Logs in on a channel that may have a session of its own, which ends first. `row` is the user's, if it was checked
    /// just now.
    fn log_in_here(&mut self, mut login: Login, row: Option<UserRow>) {
        let channel = login.asker.channel;
        let Some(row) = row.or_else(|| self.check_again(&login)) else { return };
        if let Stage::LoggedIn(number) = self.around.table.stage(channel) {
            if let Some(user) = self.sessions.get((channel, number)).copied() {
                let Some(proven) = self.prove(login, user) else { return };
                login = proven;
            }
            if !self.around.table.end_session(channel, number) {
                return;
            }
            self.end_previous(channel, number);
            if self.people.find(login.user).is_some_and(|person| person.holds_messages()) {
                if let Some(person) = self.people.find(login.user) {
                    person.park_first(login);
                }
                return;
            }
        }
        self.begin_session(&login, &row);
    }

    /// A login that fails changes nothing. So before the session of `user` is ended for one, the store has to take
    /// a commit; the login comes back when it has.
    fn prove(&mut self, login: Login, user: UserId) -> Option<Login> {
        if login.proven {
            return Some(login);
        }
        let epoch = self.people.find(user).and_then(|person| person.session.as_ref()).map(|s| s.epoch);
        if let Some(epoch) = epoch {
            // It says what the row says already, but it has to be written.
            self.batch.attempt(|store| store.set_online(user, epoch));
        }
        self.batch.then(AfterCommit::Proven { login: Box::new(login) });
        None
    }

    fn end_previous(&mut self, channel: ChannelId, number: SessionNo) {
        let Some(user) = self.sessions.get((channel, number)).copied() else { return };
        let parting = CloseInfo::new(Reason::ClientQuit);
        self.around.metrics.left.add(parting.reason, 1);
        self.end_session(
            user,
            &Departure {
                channel,
                session: Some(number),
                stays: true,
                noticed_us: self.now.mono_us,
                queued_us: self.now.mono_us,
                at_ms: self.now.unix_ms,
                parting,
            },
        );
        self.settle_later(channel, number);
    }

    /// The user's row, if its password still is the one that was verified.
    pub(crate) fn check_again(&mut self, login: &Login) -> Option<UserRow> {
        let row = self.batch.attempt(|store| store.user(login.user));
        let Some(row) = row else {
            self.refuse(&login.asker, Errno::NotStored);
            return None;
        };
        let Some(row) = row else {
            self.refuse_wrong(login);
            return None;
        };
        if row.password.as_deref().map(HashTag::of) == login.verified {
            return Some(row);
        }
        let Some((who, password)) = login.again.as_ref().filter(|_| row.password.is_some()) else {
            self.refuse_wrong(login);
            return None;
        };
        // Another process has changed the password, or a renewed hash was written just now.
        self.around.auth.forget(who, password);
        let (peer, caps, lines) = (login.peer, login.caps, login.lines);
        let task = Task::Login { peer, who: who.clone(), password: password.clone(), caps, lines };
        if self.around.auth.submit(Job { asker: login.asker.clone(), task }).is_err() {
            self.refuse(&login.asker, Errno::Busy);
        }
        None
    }

    fn begin_session(&mut self, login: &Login, row: &UserRow) {
        let (channel, user) = (login.asker.channel, login.user);
        let Some(number) = self.around.table.begin_session(channel, user) else { return };
        let worker = self.around.table.worker(channel);
        let person = self.people.meet(row);
        let epoch = person.begin_epoch(self.now.unix_ms);
        let sender = Arc::clone(&person.sender);
        person.session = Some(Session {
            channel,
            number,
            epoch,
            peer: login.peer.into(),
            lines: login.lines,
            confirms: login.caps.ack,
            resumes: login.caps.resume,
            since_ms: self.now.unix_ms,
            backlog: None,
            gone: false,
            addressed: None,
        });
        let key = (channel, number);
        self.sessions.insert(key, user);
        let online = SessionEntry {
            channel,
            session: number,
            worker: worker as u16,
            direct: false,
            sender: Arc::clone(&sender),
        };
        self.around.registry.enter(user, online);
        self.batch.attempt(|store| store.set_online(user, epoch));
        if let (Some(old), Some(new)) = (&row.password, &login.renewed) {
            self.batch.attempt(|store| store.renew_password(user, old, new));
        }
        let token = self.exchange_token(login, row, epoch);
        let (offline, more) = self.open_box(user);
        let last = offline.last().map(|kept| kept.mid);
        if let Some(session) = self.people.find(user).and_then(|person| person.session.as_mut()) {
            session.backlog = more.then(|| Box::new(last.unwrap_or(Mid(0))));
        }
        let confirms = login.caps.ack;
        if confirms {
            self.begin_confirming(user, key, &offline);
        }
        let (friends, more_friends) = self.friends_now(user);
        let (groups, more_groups) = self.groups_now(user);
        let logged_in = LoggedIn {
            sender,
            session: Some(number),
            epoch,
            caps: login.caps,
            offline: if confirms {
                offline.into_iter().map(numbered_kept).collect()
            } else {
                self.chats_of(offline, login.lines)
            },
            upto: last.filter(|_| !confirms),
            open: !more && !confirms,
            friends,
            groups,
            more: more_friends || more_groups,
            token,
            seq: login.asker.seq.clone(),
        };
        if login.caps.presence {
            self.watch_friends(user, key, worker, &logged_in.friends);
        }
        self.around.metrics.logins.add(1);
        tracing::info!(channel = %channel, user = %user, name = &*logged_in.sender.name, peer = %login.peer, "online");
        let letter = greeting(channel, logged_in);
        self.batch.then(AfterCommit::LoggedIn {
            worker,
            letter: Box::new(letter),
            user,
            key,
            asker: login.asker.clone(),
        });
    }

    /// The oldest messages of a box, and whether there are more.
    fn open_box(&mut self, user: UserId) -> (Vec<StoredMessage>, bool) {
        let Some(usage) = self.usage(user) else { return (Vec::new(), false) };
        if usage.count == 0 {
            return (Vec::new(), false);
        }
        let kept = self.batch.attempt(|store| store.kept(user, Mid(0), HANDOVER_COUNT, HANDOVER_BYTES));
        let kept = kept.unwrap_or_default();
        if kept.first().is_some_and(|kept| kept.body.len() > HANDOVER_BYTES) {
            // It has no place in an answer, and follows.
            return (Vec::new(), true);
        }
        // Others may have taken rows out; then there is nothing to wait for.
        let more = !kept.is_empty() && (kept.len() as u64) < usage.count;
        (kept, more)
    }

    /// True exactly when a session has begun whose box is not empty, and whose answer held nothing of it.
    pub(crate) fn has_had_none_of_its_box(&self, user: UserId) -> bool {
        let session = self.people.look(user).and_then(|person| person.session.as_ref());
        session.is_some_and(|session| session.backlog.as_deref() == Some(&Mid(0)))
    }

    /// The client has ended its side: it is answered, but nobody is online, nobody is sent away for it, and the
    /// box stays as it is. So does a token: it is not used up, and no other is given.
    fn greet_without_session(&mut self, login: &Login) {
        let Some(row) = self.check_again(login) else { return };
        let (user, channel) = (login.user, login.asker.channel);
        if let Stage::LoggedIn(number) = self.around.table.stage(channel)
            && self.around.table.end_session(channel, number)
        {
            self.end_previous(channel, number);
        }
        let (friends, more_friends) = self.friends_now(user);
        let (groups, more_groups) = self.groups_now(user);
        let logged_in = LoggedIn {
            sender: Arc::new(Sender { id: user, name: row.name.as_str().into() }),
            session: None,
            epoch: row.epoch,
            caps: login.caps,
            offline: Vec::new(),
            upto: None,
            open: false,
            friends,
            groups,
            more: more_friends || more_groups,
            token: None,
            seq: login.asker.seq.clone(),
        };
        self.post(login.asker.channel, greeting(login.asker.channel, logged_in));
    }

    /// The login's batch failed: the session never was. Its end, if it had one, is forgotten already.
    pub(crate) fn undo_login(&mut self, user: UserId, key: SessionKey) {
        self.sessions.remove(key);
        self.around.registry.remove(user, key.0, key.1);
        self.presence.end_session(user, key);
        if self.around.table.end_session(key.0, key.1) {
            self.around.table.forget_user(key.0);
        }
        if let Some(person) = self.people.find(user) {
            person.session.take_if(|session| (session.channel, session.number) == key);
            person.forget_numbers();
            let epoch = person.epoch;
            self.batch.keep_epoch(user, epoch);
            self.hold_unconfirmed(user);
            self.release(user);
        }
    }

    /// Registers a name.
    pub(crate) fn register(&mut self, asker: &ReplyTo, peer: SocketAddr, name: &str, password: &str) {
        if self.around.table.has_left(asker.channel) || self.keeps_newcomer_out(asker, peer, 5) {
            return;
        }
        let Some(added) = self.batch.attempt(|store| store.add_user(name, Some(password))) else {
            return self.refuse(asker, Errno::NotStored);
        };
        let id = match added {
            Ok(id) => id,
            Err(taken) => return self.refuse_saying(asker, 5, taken.text()),
        };
        self.around.metrics.registrations.add(1);
        let answer = Answer::Registered { id, seq: asker.seq.clone() };
        let worker = self.around.table.worker(asker.channel);
        self.batch.then(AfterCommit::Commit {
            worker,
            letter: login_letter(asker.channel, answer),
            otherwise: Box::new(refusal(asker, Errno::NotStored)),
        });
    }

    /// There have been too many new users. A ban is told first, for it ends the channel.
    pub(crate) fn refuse_newcomer(&mut self, asker: &ReplyTo, peer: SocketAddr, msgid: i64) {
        if self.keeps_newcomer_out(asker, peer, msgid) {
            return;
        }
        self.around.metrics.registrations_refused.add(1);
        let (errno, text) = (Errno::TooMany, TOO_MANY_REGISTRATIONS.into());
        let answer = Answer::Refused { msgid, errno, text, seq: asker.seq.clone() };
        self.post(asker.channel, login_letter(asker.channel, answer));
    }

    /// A login that was good a moment ago names nobody any more, or somebody with another password.
    fn refuse_wrong(&mut self, login: &Login) {
        let tried = match (&login.again, login.token) {
            (Some((who, _)), _) => Tried::Password { who, account: Some(Account::User(login.user)) },
            (None, Some(_)) => Tried::Token,
            (None, None) => Tried::Password { who: &Who::Id(login.user), account: None },
        };
        let failure = Failure { channel: login.asker.channel, peer: login.peer, tried };
        self.around.attempts.fail(&failure, self.now.mono_us);
        self.refuse(&login.asker, Errno::Refused);
    }

    /// A login or registration is refused for a reason of its own; `msgid` is that of the answer.
    fn refuse_saying(&mut self, asker: &ReplyTo, msgid: i64, text: &str) {
        let answer = Answer::Refused {
            msgid,
            errno: Errno::Refused,
            text: text.to_owned().into(),
            seq: asker.seq.clone(),
        };
        self.post(asker.channel, login_letter(asker.channel, answer));
    }

    fn refuse(&mut self, asker: &ReplyTo, errno: Errno) {
        self.post(asker.channel, refusal(asker, errno));
    }
}

fn greeting(channel: ChannelId, logged_in: LoggedIn) -> WorkerCommand {
    login_letter(channel, Answer::LoggedIn(Box::new(logged_in)))
}

fn login_letter(channel: ChannelId, answer: Answer) -> WorkerCommand {
    WorkerCommand::Answer { channel, settles: Completes::Login, answer: Some(answer) }
}
