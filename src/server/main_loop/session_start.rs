//! A login that is good: its session begins, its answer is made; or it never was, because the commit failed.
//!
//! On main.

use super::ack_delivery::numbered_kept;
use super::replies::login_answer;
use super::session_map::SessionKey;
use super::state::{Followup, MainLoop};
use super::transaction::AfterCommit;
use super::users::Session;
use crate::channel::{ChannelId, Reason, SessionNo, Stage};
use crate::ids::{Mid, UserId};
use crate::message::chat::Sender;
use crate::message::command::WorkerCommand;
use crate::message::disconnect::{CloseInfo, Departure};
use crate::message::reply::{Answer, LoggedIn};
use crate::message::request::Login;
use crate::registry::SessionEntry;
use crate::store::{Storage, UserRow};
use crate::sync::Arc;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Begins the session of a login that is good.
    pub(super) fn begin_session(&mut self, login: &Login, row: &UserRow) {
        let (channel, user) = (login.reply_to.channel, login.user);
        let Some(number) = self.cx.handles.table.begin_session(channel, user) else { return };
        let worker = self.cx.handles.table.worker(channel);
        let person = self.users.load(row);
        let epoch = person.begin_epoch(self.cx.now.unix_ms);
        let sender = Arc::clone(&person.sender);
        person.session = Some(Session {
            channel,
            number,
            epoch,
            peer: login.peer.into(),
            lines: login.lines,
            confirms: login.caps.ack,
            resumes: login.caps.resume,
            since_ms: self.cx.now.unix_ms,
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
        self.cx.handles.registry.enter(user, online);
        self.cx.attempt(|store| store.set_online(user, epoch));
        if let (Some(old), Some(new)) = (&row.password, &login.renewed) {
            self.cx.attempt(|store| store.renew_password(user, old, new));
        }
        let token = self.cx.exchange_token(login, row, epoch);
        let (offline, more) = self.open_box(user);
        let last = offline.last().map(|kept| kept.mid);
        if let Some(session) = self.users.find(user).and_then(|person| person.session.as_mut()) {
            session.backlog = more.then(|| Box::new(last.unwrap_or(Mid(0))));
        }
        let confirms = login.caps.ack;
        if confirms {
            self.begin_confirming(user, key, &offline);
        }
        let (friends, more_friends) = self.lists.friends_now(user, |id| self.users.is_online(id));
        let (groups, more_groups) = self.lists.groups_now(user, |id| self.users.is_online(id));
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
            seq: login.reply_to.seq.clone(),
        };
        if login.caps.presence {
            self.presence.watch_friends(&self.users, (user, key), worker, &logged_in.friends);
        }
        self.cx.handles.metrics.logins.add(1);
        tracing::info!(channel = %channel, user = %user, name = &*logged_in.sender.name, peer = %login.peer, "online");
        let command = login_answer(channel, Answer::LoggedIn(Box::new(logged_in)));
        self.cx.then(AfterCommit::LoggedIn {
            worker,
            command: Box::new(command),
            user,
            key,
            reply_to: login.reply_to.clone(),
        });
    }

    /// The client has ended its side: it is answered, but nobody is online, nobody is sent away for it, and the
    /// box stays as it is. So does a token: it is not used up, and no other is given.
    pub(super) fn greet_without_session(&mut self, login: &Login, row: &UserRow) {
        let (user, channel) = (login.user, login.reply_to.channel);
        if let Stage::LoggedIn(number) = self.cx.handles.table.stage(channel)
            && self.cx.handles.table.end_session(channel, number)
        {
            self.end_previous(channel, number);
        }
        let (friends, more_friends) = self.lists.friends_now(user, |id| self.users.is_online(id));
        let (groups, more_groups) = self.lists.groups_now(user, |id| self.users.is_online(id));
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
            seq: login.reply_to.seq.clone(),
        };
        self.cx.post(
            login.reply_to.channel,
            login_answer(login.reply_to.channel, Answer::LoggedIn(Box::new(logged_in))),
        );
    }

    /// Ends the session that the channel has had.
    pub(super) fn end_previous(&mut self, channel: ChannelId, number: SessionNo) {
        let Some(user) = self.sessions.get((channel, number)).copied() else { return };
        let close_info = CloseInfo::new(Reason::ClientQuit);
        self.cx.handles.metrics.left.add(close_info.reason, 1);
        self.end_session(
            user,
            &Departure {
                channel,
                session: Some(number),
                stays: true,
                noticed_us: self.cx.now.mono_us,
                queued_us: self.cx.now.mono_us,
                at_ms: self.cx.now.unix_ms,
                close_info,
            },
        );
        self.cx.post(channel, WorkerCommand::Settle { channel, session: number });
    }

    /// The login's transaction failed: the session never was. Its end, if it had one, is forgotten already.
    pub(super) fn undo_login(&mut self, user: UserId, key: SessionKey) {
        self.sessions.remove(key);
        self.cx.handles.registry.remove(user, key.0, key.1);
        self.presence.end_session(user, key);
        if self.cx.handles.table.end_session(key.0, key.1) {
            self.cx.handles.table.forget_user(key.0);
        }
        if let Some(person) = self.users.find(user) {
            person.session.take_if(|session| (session.channel, session.number) == key);
            person.forget_numbers();
            let epoch = person.epoch;
            self.cx.transaction.keep_epoch(user, epoch);
            self.hold_unconfirmed(user);
            self.followups.push_back(Followup::Release(user));
        }
    }
}
