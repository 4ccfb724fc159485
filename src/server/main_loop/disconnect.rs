//! Main's side of an end: the departure, what the worker reports, the commit.
//!
//! On main. What the history says of an end is in `open_departures`; who still has an fd, in `lingering`; the fd is closed in
//! `fd_close`.

use super::open_departures::Committed;
use super::state::{Followup, MainLoop};
use super::transaction::{AfterCommit, PendingWrite};
use crate::channel::Reason;
use crate::ids::UserId;
use crate::message::disconnect::{CloseStage, DeliveryReport, Departure};
use crate::store::{DepartureRow, Storage, TOKEN_LIFE_MS};

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// The first report of an end, the departure: routing has stopped, now the user goes offline.
    pub(super) fn depart(&mut self, departure: &Departure) {
        let Departure { channel, session, stays, noticed_us, close_info, .. } = departure;
        self.stages.note_departure(*noticed_us, departure.queued_us, self.cx.now.mono_us);
        if !stays {
            self.cx.handles.table.forget_user(*channel);
            let until_us = noticed_us + self.cx.policy.grace_us;
            self.lingering.begin((*channel, *session), *noticed_us, until_us, close_info.watcher.clone());
        }
        // A login that was undone leaves none.
        if let Some(user) = session.and_then(|number| self.sessions.get((*channel, number)).copied()) {
            return self.end_session(user, departure);
        }
        if session.is_some() && !stays {
            let (reason, errno) = (close_info.reason.word(), close_info.errno);
            tracing::info!(%channel, reason, errno, "left; the login was not committed");
        }
        if let Some(watcher) = &close_info.watcher {
            watcher.report(self.cx.now.mono_us, CloseStage::Offline);
        }
    }

    /// Ends a user's session: one row of history and `offline`, in one transaction.
    pub(super) fn end_session(&mut self, user: UserId, departure: &Departure) {
        let &Departure { channel, session: Some(number), stays, noticed_us, at_ms, ref close_info, .. } =
            departure
        else {
            return;
        };
        let key = (channel, number);
        self.sessions.remove(key);
        self.take_back_unposted(user);
        let Some(person) = self.users.find(user) else { return };
        let Some(session) = person.session.take_if(|s| (s.channel, s.number) == key) else { return };
        person.await_settlement(key);
        let name = person.sender.name.clone();
        tracing::info!(
            channel = %channel, user = %user, name = name.as_str(), peer = %session.peer.addr(),
            reason = close_info.reason.word(), errno = close_info.errno, "offline"
        );
        self.cx.handles.registry.remove(user, channel, number);
        self.presence.end_session(user, key);
        self.cx.handles.metrics.sessions_ended.add(1);
        self.open_departures.begin(key, (user, session.epoch), noticed_us, stays, close_info.watcher.clone());
        let trusted_ms = self.cx.trusted_ms();
        let row = DepartureRow {
            at_ms,
            trusted_ms,
            channel: Some(channel),
            user,
            name,
            peer: Some(session.peer.addr()),
            reason: close_info.reason,
            errno: close_info.errno,
            since_ms: Some(session.since_ms),
        };
        let expires_ms = trusted_ms.saturating_add(TOKEN_LIFE_MS);
        // One transaction, but each by itself: what the database refuses of it must not keep the user online.
        self.cx.enqueue(PendingWrite::Offline { user, epoch: session.epoch });
        self.cx.enqueue(PendingWrite::Departure { key, row });
        if close_info.reason == Reason::Banned {
            self.cx.enqueue(PendingWrite::DropTokens { user });
        } else if session.resumes {
            self.cx.enqueue(PendingWrite::EndTokens { user, upto: session.epoch, expires_ms });
        }
        // Whoever asked whether this client is still there knows now.
        self.followups.push_back(Followup::Probed(user));
    }

    /// The second report of an end, the delivery report: what was under way to that session is known, so what has waited may follow it.
    pub(super) fn settle(&mut self, report: DeliveryReport) {
        let DeliveryReport { channel, session, unsent, delivered } = report;
        self.lingering.settle(&mut self.cx, channel, session);
        let Some(key) = session.map(|number| (channel, number)) else { return };
        let Some(user) = self.open_departures.settle(key, delivered, unsent.len()) else { return };
        self.cx.handles.metrics.chats_saved.add(unsent.len() as u64);
        if let Some((confirmed, unconfirmed)) = self.keep_unconfirmed(user, key) {
            self.cx.handles.metrics.chats_saved.add(unconfirmed);
            self.open_departures.account(key, confirmed, unconfirmed);
        }
        for chat in unsent {
            self.keep_accepted(user, chat);
        }
        if let Some(person) = self.users.find(user)
            && person.end_settlement(key)
        {
            self.followups.push_back(Followup::Release(user));
        }
        self.open_departures.complete(&mut self.cx, key);
    }

    /// Every end of the transaction is committed.
    pub(super) fn note_committed(&mut self) {
        let now_us = self.cx.now.mono_us;
        for key in self.open_departures.take_committing() {
            if let Some(Committed { user, epoch, offline_us }) = self.open_departures.commit(key, now_us) {
                self.stages.committed.note(offline_us);
                self.presence.left(user, epoch, now_us + self.cx.policy.presence_delay_us);
            }
            self.open_departures.complete(&mut self.cx, key);
        }
    }

    /// The transaction has failed: no login of it ever was. Called before one is undone, which may have messages saved, for then
    /// the next transaction holds what is owed.
    pub(super) fn forget_ends(&mut self, effects: &[AfterCommit]) {
        for effect in effects {
            if let AfterCommit::LoggedIn { key, .. } = effect
                && self.open_departures.forget(*key, self.cx.now.mono_us)
            {
                self.cx.transaction.forget_departure(*key);
            }
        }
    }
}
