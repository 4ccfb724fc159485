//! New users: by registration, and as guests of the line protocol.
//!
//! On main.

use super::replies::{login_answer, refusal};
use super::state::MainLoop;
use super::transaction::AfterCommit;
use crate::auth::login_limiter::{Failure, TOO_MANY_REGISTRATIONS, Tried};
use crate::ids::UserId;
use crate::ip_block::IpBlock;
use crate::message::reply::Answer;
use crate::message::reply_to::ReplyTo;
use crate::message::request::Login;
use crate::protocol::errno::Errno;
use crate::protocol::name::of_new_user;
use crate::protocol::request::Caps;
use crate::store::Storage;
use core::net::SocketAddr;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Registers a name.
    pub(super) fn register(&mut self, reply_to: &ReplyTo, peer: SocketAddr, name: &str, password: &str) {
        if self.cx.handles.table.has_left(reply_to.channel)
            || self.bans.keeps_newcomer_out(&mut self.cx, reply_to, peer)
        {
            return;
        }
        let Some(added) = self.cx.attempt(|store| store.add_user(name, Some(password))) else {
            return self.cx.refuse_login(reply_to, Errno::NotStored);
        };
        let id = match added {
            Ok(id) => id,
            Err(taken) => return self.cx.refuse_login_saying(reply_to, Errno::Refused, taken.text()),
        };
        self.cx.handles.metrics.registrations.add(1);
        let answer = Answer::Registered { id, seq: reply_to.seq.clone() };
        let worker = self.cx.handles.table.worker(reply_to.channel);
        self.cx.then(AfterCommit::Commit {
            worker,
            command: login_answer(reply_to.channel, answer),
            otherwise: Box::new(refusal(reply_to, Errno::NotStored)),
        });
    }

    /// A line without a password: a guest, unless the name is registered.
    pub(super) fn log_in_guest(&mut self, reply_to: ReplyTo, peer: SocketAddr, name: &str) {
        if self.cx.handles.table.has_left(reply_to.channel) {
            return;
        }
        let Some(found) = self.cx.attempt(|store| store.user_called(name)) else {
            return self.cx.refuse_login(&reply_to, Errno::NotStored);
        };
        let user = match found {
            Some(row) if row.password.is_none() => row.id,
            Some(_) => {
                let failure = Failure { channel: reply_to.channel, peer, tried: Tried::Guest(name) };
                self.cx.handles.attempts.fail(&failure, self.cx.now.mono_us);
                return self.cx.refuse_login(&reply_to, Errno::Refused);
            }
            None => match self.add_guest(&reply_to, peer, name) {
                Some(user) => user,
                None => return,
            },
        };
        self.log_in(Login {
            reply_to,
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
    fn add_guest(&mut self, reply_to: &ReplyTo, peer: SocketAddr, name: &str) -> Option<UserId> {
        let name = of_new_user(name)
            .map_err(|rule| self.cx.refuse_login_saying(reply_to, Errno::Refused, rule))
            .ok()?;
        if self.bans.keeps_newcomer_out(&mut self.cx, reply_to, peer) {
            return None;
        }
        if !self.cx.handles.attempts.register(IpBlock::of(peer.ip()), self.cx.now.mono_us) {
            self.refuse_newcomer(reply_to, peer);
            return None;
        }
        let Some(added) = self.cx.attempt(|store| store.add_user(&name, None)) else {
            self.cx.refuse_login(reply_to, Errno::NotStored);
            return None;
        };
        added.map_err(|taken| self.cx.refuse_login_saying(reply_to, Errno::Refused, taken.text())).ok()
    }

    /// There have been too many new users. A ban is told first, for it ends the channel.
    pub(super) fn refuse_newcomer(&mut self, reply_to: &ReplyTo, peer: SocketAddr) {
        if self.bans.keeps_newcomer_out(&mut self.cx, reply_to, peer) {
            return;
        }
        self.cx.handles.metrics.registrations_refused.add(1);
        self.cx.refuse_login_saying(reply_to, Errno::TooMany, TOO_MANY_REGISTRATIONS);
    }
}
