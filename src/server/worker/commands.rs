//! What each command in a worker's mailbox does.

use super::connection::{Pings, User};
use super::state::WorkerState;
use crate::channel::{ChannelId, SessionNo};
use crate::message::chat::{Chat, OtherCopy};
use crate::message::command::{ChannelReport, WorkerCommand};
use crate::message::disconnect::CloseInfo;
use crate::message::event::Event;
use crate::message::reply::{Answer, LoggedIn};
use crate::message::reply_to::Completes;
use crate::net::transport::Transport;
use crate::protocol::msgid::Msgid;
use crate::sync::Arc;

impl<T: Transport> WorkerState<T> {
    pub(super) fn handle_command(&mut self, command: WorkerCommand) {
        match command {
            WorkerCommand::Chat { to, session, chat, .. } => self.deliver_chat(to, session, chat),
            WorkerCommand::Presence(bulletin) => self.queue_presence(bulletin),
            WorkerCommand::Answer { channel, settles, answer } => self.take_answer(channel, settles, answer),
            WorkerCommand::Open { channel, session } => self.open_to_others(channel, session),
            WorkerCommand::Leave { channel, session, close_info } => {
                self.start_close(channel, session, close_info);
                self.report_delivery(channel, session);
            }
            WorkerCommand::Settle { channel, session } => {
                // Main ends a session when its channel logs in again; the worker learns of it here.
                self.end_session_here(channel, session);
                self.report_delivery(channel, Some(session));
            }
            WorkerCommand::Close { channel } => self.return_socket(channel),
            WorkerCommand::Probe { channel, user } => {
                self.probe(channel);
                self.to_main.push(Event::Probed { channel, user });
            }
            WorkerCommand::Report(reply) => {
                // The thread that asked may have given up.
                let _ = reply.send(self.report());
            }
            WorkerCommand::Audit { from, to } => {
                let held = self.held(from, to);
                self.to_main.push(Event::Audited { worker: self.index, held });
            }
            WorkerCommand::Accept => self.accepting = true,
            WorkerCommand::CloseListeners => self.stopping = true,
            WorkerCommand::Exit => self.exiting = true,
        }
    }

    fn deliver_chat(&mut self, to: ChannelId, session: SessionNo, chat: Chat) {
        let Some(connection) = self.connection(to) else { return };
        if let Some(ended) = connection.ended_session(session) {
            if chat.other_copy == OtherCopy::Here {
                ended.unsent.push(chat);
            }
            return;
        }
        self.lend_buffer(to);
        if let Some(connection) = self.connection(to) {
            connection.write_chat(&chat);
        }
        self.mark_dirty(to);
    }

    fn take_answer(&mut self, id: ChannelId, settles: Completes, answer: Option<Answer>) {
        let Some(connection) = self.connection(id) else { return };
        if matches!(settles, Completes::Chat | Completes::RequestAndChat) {
            connection.trackers = connection.trackers.saturating_sub(1);
        }
        match settles {
            Completes::Login => {
                self.end_login(id);
                self.unblocked.push(id);
            }
            Completes::Request | Completes::RequestAndChat => {
                connection.in_main = connection.in_main.saturating_sub(1);
                if !connection.input.is_empty() || connection.ended {
                    self.unblocked.push(id);
                }
            }
            Completes::Chat | Completes::Nothing => {}
        }
        if let Some(answer) = answer {
            self.lend_buffer(id);
            self.write_answer(id, answer);
        }
        if settles == Completes::Login {
            // The login deadline has moved.
            self.arm(id);
        }
        if self.connection(id).and_then(|c| c.closing.as_ref()).is_some_and(|closing| closing.socket_wanted) {
            self.return_socket(id);
        }
        self.mark_dirty(id);
    }

    /// Writes an answer in the channel's protocol.
    fn write_answer(&mut self, id: ChannelId, answer: Answer) {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        if connection.closing.as_ref().is_some_and(|closing| closing.broken || closing.goodbye_sent) {
            return;
        }
        match answer {
            Answer::LoggedIn(login) => self.complete_login(id, &login),
            Answer::Registered { id: user, seq } => {
                connection.write_registered(user, seq.as_deref());
                if connection.user.is_none() {
                    connection.changed_us = now_us;
                }
            }
            Answer::Refused { re, errno, text, seq } => {
                self.refuse_login(id, re, errno, &text, seq.as_deref());
            }
            Answer::Banned { re, retry_after_ms, reason, seq } => {
                let close_info = CloseInfo::banned(retry_after_ms, reason.as_deref());
                self.refuse_banned(id, re, &close_info, seq.as_deref());
            }
            Answer::Error { errno, text, re, seq } => {
                connection.write_error(errno, &text, re.map(Msgid::number), seq.as_deref());
                self.handles.metrics.request_errors.add(1);
            }
            Answer::Done { re, seq, id, full } => connection.write_done(re, &seq, id, &full),
        }
    }

    /// A login succeeded: the channel has a user.
    fn complete_login(&mut self, id: ChannelId, login: &LoggedIn) {
        let now_us = self.now.mono_us;
        let Some(connection) = self.connection(id) else { return };
        if connection.closing.is_some() {
            // The channel left while main answered. The messages of this answer are still in the box.
            return;
        }
        let caps = login.caps;
        connection.user = Some(User {
            sender: Arc::clone(&login.sender),
            session: login.session,
            caps,
            delivered: 0,
            pings: caps.ping.then(|| Box::new(Pings { latest_us: now_us, first_us: None })),
        });
        connection.changed_us = now_us;
        connection.write_login_answer(login);
        self.arm(id);
        if let (true, Some(session)) = (login.open, login.session) {
            self.open_to_others(id, session);
        }
    }

    /// Everything older has been written, so others may write to the channel directly.
    fn open_to_others(&mut self, id: ChannelId, session: SessionNo) {
        let Some(connection) = self.connection(id) else { return };
        let user = connection.user.as_ref().filter(|user| user.session == Some(session));
        if let Some(user) = user.map(|user| user.sender.id) {
            self.handles.registry.open(user, id, session);
        }
    }

    /// The channels in those slots that have a connection with a socket.
    fn held(&self, from: u32, to: u32) -> Vec<ChannelId> {
        let to = (to as usize).min(self.channels.len());
        let slots = self.channels.get(from as usize..to).unwrap_or_default();
        slots.iter().flatten().filter(|connection| connection.io.has_socket()).map(|c| c.id).collect()
    }

    fn report(&self) -> Vec<ChannelReport> {
        let now_us = self.now.mono_us;
        let since_ms = |then_us: u64| now_us.saturating_sub(then_us) / 1000;
        self.channels
            .iter()
            .flatten()
            .map(|c| ChannelReport {
                channel: c.id,
                state: match (&c.closing, &c.user) {
                    (Some(_), _) => "lingering",
                    (None, Some(_)) => "live",
                    (None, None) => "new",
                },
                worker: self.index,
                user: c.user.as_ref().map(|user| (user.sender.id, user.sender.name.to_string())),
                peer: c.peer.addr(),
                bytes_in: c.bytes_in,
                bytes_out: c.bytes_out,
                queued: c.out.len(),
                age_ms: since_ms(c.since_us),
                idle_ms: since_ms(c.heard_us),
                session_ms: c.user.as_ref().map(|_| since_ms(c.changed_us)),
            })
            .collect()
    }
}
