//! A login for a user who is online elsewhere: the session there is sent away, or its client looked at first.
//!
//! On main.

use super::state::{Followup, MainLoop};
use super::transaction::AfterCommit;
use crate::channel::{ChannelId, SessionNo};
use crate::ids::UserId;
use crate::message::command::WorkerCommand;
use crate::message::request::Login;
use crate::protocol::errno::Errno;
use crate::store::Storage;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// The user is online elsewhere.
    pub(super) fn meet_present_session(&mut self, login: Login, present: (ChannelId, SessionNo)) {
        let (user, (other, number)) = (login.user, present);
        if !self.cx.policy.reject_duplicates {
            let Some(login) = self.prove(login, user) else { return };
            let Some(person) = self.users.find(user) else { return };
            person.park(login);
            if let Some(session) = person.session.as_mut() {
                // Nobody may write to it any more; what comes for the user waits for the delivery report.
                session.gone = true;
            }
            self.take_back_unposted(user);
            self.cx.then(AfterCommit::Replace { key: (other, number) });
            return;
        }
        // The client may be gone without the worker having read so: then its place is free.
        let Some(person) = self.users.find(user) else { return };
        if person.wait_for_look(login) {
            self.cx.post(other, WorkerCommand::Probe { channel: other, user });
        }
    }

    /// A channel that stood in the way has been looked at. It may have gone meanwhile; of the session that has come after
    /// it that says nothing.
    pub(super) fn looked_at(&mut self, user: UserId, channel: ChannelId) {
        let session = self.users.find(user).and_then(|person| person.session.as_ref());
        if session.is_none_or(|session| session.channel == channel) {
            self.followups.push_back(Followup::Probed(user));
        }
    }

    /// The present session's client has been looked at, or the session has ended.
    pub(super) fn probed(&mut self, user: UserId) {
        let Some(person) = self.users.find(user) else { return };
        let waiting = person.take_probing();
        let table = &self.cx.handles.table;
        let stays = person
            .session
            .as_ref()
            .is_some_and(|session| !session.gone && table.is_live(session.channel, session.number));
        if let Some(session) = person.session.as_mut()
            && !stays
        {
            session.gone = true;
            self.take_back_unposted(user);
        }
        for login in waiting {
            if stays {
                self.cx.refuse_login(&login.reply_to, Errno::AlreadyOnline);
            } else if let Some(person) = self.users.find(user) {
                person.park(login);
            }
        }
        if self.users.find(user).is_some_and(|person| !person.holds_messages()) {
            self.followups.push_back(Followup::Release(user));
        }
    }

    /// A login that fails changes nothing. So before the session of `user` is ended for one, the store has to take
    /// a commit; the login comes back when it has.
    pub(super) fn prove(&mut self, login: Login, user: UserId) -> Option<Login> {
        if login.proven {
            return Some(login);
        }
        let epoch = self.users.find(user).and_then(|person| person.session.as_ref()).map(|s| s.epoch);
        if let Some(epoch) = epoch {
            // It says what the row says already, but it has to be written.
            self.cx.attempt(|store| store.set_online(user, epoch));
        }
        self.cx.then(AfterCommit::Proven { login: Box::new(login) });
        None
    }
}
