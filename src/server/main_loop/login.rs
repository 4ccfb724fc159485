//! Logging in: who may, and in what order.
//!
//! On main.

use super::bans::answer_banned;
use super::state::MainLoop;
use crate::auth::login_limiter::{Account, Failure, Tried};
use crate::auth::pool::{Job, Task};
use crate::channel::{ChannelId, Stage};
use crate::ids::UserId;
use crate::message::request::{Ask, HashTag, Login, Presented, Resume, Who};
use crate::protocol::errno::Errno;
use crate::store::{Storage, TokenRow, UserRow};

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// A login by password, which is verified, or by token: now, or when the session before it has settled, or not at all.
    pub(super) fn log_in(&mut self, login: Login) {
        self.log_in_knowing(login, None);
    }

    /// The same. `token` is the row of the token that it goes by, if that was read just now.
    fn log_in_knowing(&mut self, mut login: Login, token: Option<TokenRow>) {
        let channel = login.reply_to.channel;
        if self.cx.handles.table.has_left(channel) || self.shutdown.turn_away(&self.cx, channel) {
            return;
        }
        if self.fan_outs.is_under_way(login.user) {
            let _ = self.fan_outs.wait_in_line(login.user, Ask::Login(Box::new(login)));
            return;
        }
        let Ok(found) = self.users.find_or_load(&mut self.cx, login.user) else {
            return self.cx.refuse_login(&login.reply_to, Errno::NotStored);
        };
        if found.is_none() {
            return self.refuse_wrong(&login);
        }
        while !self.lists.read_on(&mut self.cx, login.user) {
            // Another session may have been ended for a login that is proven: nobody else may take the place first.
            if !login.proven {
                return self.log_in_later(login);
            }
        }
        self.note_logout_under_way(login.user, channel);
        if let Some(person) = self.users.find(login.user)
            && person.holds_messages()
        {
            person.park(login);
            return;
        }
        // Before all that follows, so that a login that is kept out takes nobody's place.
        let mut owner = None;
        if let Some(presented) = login.token {
            let Some(row) = self.cx.owner_of(presented.hash, token, &mut login) else { return };
            owner = Some(row);
        }
        if self.keeps_out(&login) {
            return;
        }
        let Some(person) = self.users.find(login.user) else { return };
        let present = person.session.as_ref().map(|session| (session.channel, session.number));
        if self.cx.handles.table.has_ended(channel) {
            if let Some(row) = self.check_again(&login) {
                self.greet_without_session(&login, &row);
            }
            return;
        }
        if let Some(present) = present
            && present.0 != channel
        {
            return self.meet_present_session(login, present);
        }
        self.log_in_here(login, owner);
    }

    /// The login goes to the end of the queue. So others have their turns while all is read that its answer lists.
    fn log_in_later(&mut self, login: Login) {
        if let Err(ask) = self.cx.handles.queue.ask(Ask::Login(Box::new(login))) {
            self.cx.refuse_login(ask.reply_to(), Errno::Busy);
        }
    }

    /// A password may be verified before the worker's turn is over in which the same client has logged out: then the
    /// end is on its way, and what comes for the user waits for it.
    fn note_logout_under_way(&mut self, user: UserId, channel: ChannelId) {
        let table = &self.cx.handles.table;
        let session = self.users.find(user).and_then(|person| person.session.as_mut());
        if let Some(session) = session
            && session.channel == channel
            && !table.is_live(channel, session.number)
        {
            session.gone = true;
            self.take_back_unposted(user);
        }
    }

    /// A login by token.
    pub(super) fn resume(&mut self, resume: Resume) {
        let Resume { reply_to, peer, token, caps } = resume;
        let found = self.cx.attempt(|store| store.token(&token));
        let Some(Some(row)) = found else { return self.cx.refuse_token(&reply_to, peer, found.is_some()) };
        let login = Login {
            reply_to,
            peer,
            user: row.user,
            token: Some(Presented { hash: token, mark: row.mark }),
            verified: None,
            renewed: None,
            again: None,
            caps,
            lines: false,
            proven: false,
        };
        self.log_in_knowing(login, Some(row));
    }

    /// Logs in on a channel that may have a session of its own, which ends first. `row` is the user's, if it was checked
    /// just now.
    fn log_in_here(&mut self, mut login: Login, row: Option<UserRow>) {
        let channel = login.reply_to.channel;
        let Some(row) = row.or_else(|| self.check_again(&login)) else { return };
        if let Stage::LoggedIn(number) = self.cx.handles.table.stage(channel) {
            if let Some(user) = self.sessions.get((channel, number)).copied() {
                let Some(proven) = self.prove(login, user) else { return };
                login = proven;
            }
            if !self.cx.handles.table.end_session(channel, number) {
                return;
            }
            self.end_previous(channel, number);
            if self.users.find(login.user).is_some_and(|person| person.holds_messages()) {
                if let Some(person) = self.users.find(login.user) {
                    person.park_first(login);
                }
                return;
            }
        }
        self.begin_session(&login, &row);
    }

    /// What was held for a user goes where it belongs now, and whoever waited to be that user logs in.
    pub(super) fn release(&mut self, user: UserId) {
        let Some(person) = self.users.find(user).filter(|person| person.has_waiting()) else { return };
        for chat in person.take_held() {
            self.deliver_held(user, chat);
        }
        while let Some(person) = self.users.find(user)
            && person.session.is_none()
            && !person.is_leaving()
            && let Some(login) = person.take_first_parked()
        {
            self.log_in(login);
        }
        // With a new session, those behind it meet the policy.
        if let Some(person) = self.users.find(user)
            && person.session.is_some()
        {
            for login in person.take_parked() {
                self.log_in(login);
            }
        }
    }

    /// True exactly when a ban keeps that login out; then it is answered. Only who has the password hears of it.
    fn keeps_out(&mut self, login: &Login) -> bool {
        let Some(ban) = self.bans.find_for(&self.cx, login.user, login.peer) else { return false };
        if self.check_again(login).is_some() {
            self.cx.handles.metrics.logins_banned.add(1);
            if self.cx.handles.attempts.may_log(self.cx.now.mono_us) {
                let (channel, user, peer) = (login.reply_to.channel, login.user, login.peer);
                tracing::info!(%channel, %user, %peer, "a banned login was refused");
            }
            answer_banned(&mut self.cx, &login.reply_to, ban);
        }
        true
    }

    /// The user's row, if its password still is the one that was verified.
    fn check_again(&mut self, login: &Login) -> Option<UserRow> {
        let row = self.cx.attempt(|store| store.user(login.user));
        let Some(row) = row else {
            self.cx.refuse_login(&login.reply_to, Errno::NotStored);
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
        self.cx.handles.auth.forget(who, password);
        let (peer, caps, lines) = (login.peer, login.caps, login.lines);
        let task = Task::Login { peer, who: who.clone(), password: password.clone(), caps, lines };
        if self.cx.handles.auth.submit(Job { reply_to: login.reply_to.clone(), task }).is_err() {
            self.cx.refuse_login(&login.reply_to, Errno::Busy);
        }
        None
    }

    /// A login that was good a moment ago names nobody any more, or somebody with another password.
    fn refuse_wrong(&mut self, login: &Login) {
        let tried = match (&login.again, login.token) {
            (Some((who, _)), _) => Tried::Password { who, account: Some(Account::User(login.user)) },
            (None, Some(_)) => Tried::Token,
            (None, None) => Tried::Password { who: &Who::Id(login.user), account: None },
        };
        let failure = Failure { channel: login.reply_to.channel, peer: login.peer, tried };
        self.cx.handles.attempts.fail(&failure, self.cx.now.mono_us);
        self.cx.refuse_login(&login.reply_to, Errno::Refused);
    }
}
