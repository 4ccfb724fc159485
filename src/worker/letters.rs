//! What each letter in a worker's mailbox means.

use super::connection::User;
use super::core::Core;
use super::socket::Transport;
use crate::channel::Reason;
use crate::channel::{ChannelId, SessionNo};
use crate::offline::{ChannelReport, Entry, Mail, Parting, Settles};
use crate::protocol::answer::{self, FriendState, GroupState, LoginAnswer, MemberState};
use crate::protocol::errno::Errno;
use crate::service::answer::{Answer, LoggedIn};
use crate::service::chat::Chat;
use crate::service::ticket::Owed;

/// Refused logins at which a channel leaves with `auth_failed`.
pub(super) const REFUSED_LOGINS_MAX: u32 = 10;

impl<T: Transport> Core<T> {
    pub(super) fn open_letter(&mut self, letter: Mail) {
        match letter {
            Mail::Chat { to, session, chat, .. } => self.take_chat(to, session, chat),
            Mail::Answer { channel, settles, answer } => self.take_answer(channel, settles, answer),
            Mail::Open { channel, session } => self.open_to_others(channel, session),
            Mail::Leave { channel, session, parting } => {
                self.part(channel, session, parting);
                self.settle(channel, session);
            }
            Mail::Settle { channel, session } => {
                // Main ends a session when the channel logs in anew; then the worker learns of it here.
                if self.connection(channel).is_some_and(|c| c.session() == Some(session)) {
                    self.end_session_here(channel, session);
                }
                self.settle(channel, Some(session));
            }
            Mail::Close { channel } => self.hand_back(channel),
            Mail::Probe { channel, user } => {
                self.probe(channel);
                self.to_main.push(Entry::Probed { user });
            }
            Mail::Report(reply) => {
                // Whoever asked may have given up.
                let _ = reply.send(self.report());
            }
            Mail::Accept => self.accepting = true,
            Mail::Shutdown => self.stopping = true,
            Mail::Exit => self.exiting = true,
        }
    }

    fn take_chat(&mut self, to: ChannelId, session: SessionNo, chat: Chat) {
        let Some(connection) = self.connection(to) else { return };
        if let Some(settling) = &mut connection.settling
            && settling.session == session
        {
            // It still lies in the box if it came from there.
            if chat.kept.is_none() {
                settling.unsent.push(chat);
            }
            return;
        }
        let end = connection.terminator();
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&chat.body);
            out.push(end);
        };
        match chat.kept {
            Some(mid) => connection.out.kept(mid, 1, write),
            None => connection.out.live(chat.ticket, write),
        }
        self.mark_dirty(to);
    }

    fn take_answer(&mut self, id: ChannelId, settles: Settles, answer: Option<Answer>) {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        match settles {
            Settles::Login => {
                connection.logging_in = false;
                connection.nobody_since_us = now_us;
                self.unblocked.push(id);
            }
            Settles::Request => {
                connection.in_main = connection.in_main.saturating_sub(1);
                if !connection.input.is_empty() || connection.ended {
                    self.unblocked.push(id);
                }
            }
            Settles::Ticket => connection.tickets = connection.tickets.saturating_sub(1),
            Settles::Nothing => {}
        }
        if let Some(answer) = answer {
            self.tell_client(id, answer);
        }
        self.mark_dirty(id);
    }

    /// Puts an answer into the words of the channel's protocol.
    fn tell_client(&mut self, id: ChannelId, answer: Answer) {
        let Some(connection) = self.connection(id) else { return };
        if connection.leaving.as_ref().is_some_and(|leaving| leaving.broken || leaving.told) {
            return;
        }
        match answer {
            Answer::LoggedIn(login) => return self.greet(id, &login),
            Answer::Registered { id: user, seq } => {
                connection.say(|out| answer::registered(out, user, seq.as_deref()));
            }
            Answer::Refused { msgid, errno, text, seq } => {
                connection.say(|out| answer::refused(out, msgid, errno, &text, seq.as_deref()));
                self.shared.metrics.request_errors.add(1);
                if msgid == 2 && errno == Errno::Refused {
                    self.count_refused_login(id);
                }
            }
            Answer::Error { errno, text, re, seq } => {
                connection.say(|out| answer::error(out, errno, &text, re, seq.as_deref()));
                self.shared.metrics.request_errors.add(1);
            }
            Answer::Done { re, seq, id, full } => {
                connection.say(|out| answer::done(out, re, &seq, id.map(|group| group.0), &full));
            }
        }
    }

    fn count_refused_login(&mut self, id: ChannelId) {
        self.shared.metrics.logins_failed.add(1);
        let Some(connection) = self.connection(id) else { return };
        connection.refused_logins += 1;
        if connection.refused_logins >= REFUSED_LOGINS_MAX {
            self.step(id, Parting::new(Reason::AuthFailed));
        }
    }

    /// A login succeeded: the channel has a user from here on.
    fn greet(&mut self, id: ChannelId, login: &LoggedIn) {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        if connection.leaving.is_some() {
            // The channel left while main answered. What came from the box still lies there.
            return;
        }
        connection.user = Some(Box::new(User {
            id: login.user,
            name: login.name.clone(),
            name_json: answer::json_string(&login.name).into(),
            session: login.session,
            delivered: 0,
            since_us: now_us,
        }));
        let end = connection.terminator();
        let write = |out: &mut Vec<u8>| {
            write_login(out, login);
            out.push(end);
        };
        match login.upto {
            Some(upto) => connection.out.kept(upto, login.offline.len() as u64, write),
            None => connection.out.plain(write),
        }
        if let (true, Some(session)) = (login.open, login.session) {
            self.open_to_others(id, session);
        }
    }

    /// Everything older has been taken over, so others may write to the channel directly.
    fn open_to_others(&mut self, id: ChannelId, session: SessionNo) {
        let Some(connection) = self.connection(id) else { return };
        let user = connection.user.as_ref().filter(|user| user.session == Some(session));
        if let Some(user) = user.map(|user| user.id) {
            self.shared.registry.open(user, id, session);
        }
    }

    /// Sends the answers that a ticket owes to their channels' workers.
    pub(super) fn pay(&mut self, owed: Vec<Owed>) {
        for (asker, answer) in owed {
            let worker = self.shared.table.worker(asker.channel);
            let letter =
                Mail::Answer { channel: asker.channel, settles: Settles::Ticket, answer: Some(answer) };
            self.to_workers[worker].push(letter);
        }
    }

    fn report(&self) -> Vec<ChannelReport> {
        let now_us = self.now.mono_us;
        let since_ms = |then_us: u64| now_us.saturating_sub(then_us) / 1000;
        self.channels
            .iter()
            .flatten()
            .map(|c| ChannelReport {
                channel: c.id,
                state: match (&c.leaving, &c.user) {
                    (Some(_), _) => "lingering",
                    (None, Some(_)) => "live",
                    (None, None) => "new",
                },
                worker: self.index,
                user: c.user.as_ref().map(|user| (user.id, user.name.to_string())),
                peer: c.peer,
                bytes_in: c.bytes_in,
                bytes_out: c.bytes_out,
                queued: c.out.len(),
                age_ms: since_ms(c.since_us),
                idle_ms: since_ms(c.heard_us),
                session_ms: c.user.as_ref().map(|user| since_ms(user.since_us)),
            })
            .collect()
    }
}

/// The login answer in JSON.
fn write_login(out: &mut Vec<u8>, login: &LoggedIn) {
    let offline: Vec<&[u8]> = login.offline.iter().map(Vec::as_slice).collect();
    let friends: Vec<_> = login
        .friends
        .iter()
        .map(|friend| FriendState { id: friend.id, name: &friend.name, online: friend.online })
        .collect();
    let members: Vec<Vec<MemberState<'_>>> = login
        .groups
        .iter()
        .map(|group| {
            let members = group.members.iter();
            members
                .map(|m| MemberState { id: m.id, name: &m.name, online: m.online, role: &m.role })
                .collect()
        })
        .collect();
    let groups: Vec<_> = login
        .groups
        .iter()
        .zip(&members)
        .map(|(group, users)| GroupState { id: group.id, name: &group.name, desc: &group.desc, users })
        .collect();
    answer::logged_in(
        out,
        &LoginAnswer {
            id: login.user,
            name: &login.name,
            offline: &offline,
            friends: &friends,
            groups: &groups,
            seq: login.seq.as_deref(),
            token: None,
        },
    );
}
