//! Main's side of an end: departure, settlement, the grace, the close, and what the history says of it.

use super::session_map::SessionKey;
use super::state::MainLoop;
use super::transaction::{AfterCommit, BoxWrite, PendingWrite};
use crate::channel::{ChannelId, Reason, SessionNo};
use crate::ids::{Epoch, UserId};
use crate::message::chat::{Body, Chat, OtherCopy};
use crate::message::command::WorkerCommand;
use crate::message::disconnect::{CloseStage, CloseWatcher, DeliveryReport, Departure, PartialWrite};
use crate::store::TOKEN_LIFE_MS;
use crate::store::{DepartureRow, DepartureUpdate, Storage};
use crate::sync::Arc;

/// Lingering channels that one turn closes early at most.
const EARLY_CLOSES_MAX: usize = 4096;

/// What becomes known of a session's end bit by bit.
#[derive(Debug)]
pub(super) struct OpenDeparture {
    user: UserId,
    epoch: Epoch,
    noticed_us: u64,
    stays: bool,
    settled: bool,
    /// True exactly when the row says all that is known before the fd is closed.
    completed: bool,
    receipt: Option<Arc<CloseWatcher>>,
    completion: DepartureUpdate,
}

const _: () = assert!(size_of::<OpenDeparture>() <= 96);

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// The first report: routing has stopped, now the user goes offline.
    pub(super) fn depart(&mut self, departure: &Departure) {
        let Departure { channel, session, stays, noticed_us, parting, .. } = departure;
        self.drained += 1;
        self.departures += 1;
        self.stages.queued.note(departure.queued_us.saturating_sub(*noticed_us));
        self.stages.drained.note(self.now.mono_us.saturating_sub(*noticed_us));
        if !stays {
            self.around.table.forget_user(*channel);
            let until_us = noticed_us + self.policy.grace_us;
            self.lingering.begin((*channel, *session), *noticed_us, until_us, parting.receipt.clone());
        }
        // A login that was undone leaves none.
        if let Some(user) = session.and_then(|number| self.sessions.get((*channel, number)).copied()) {
            return self.end_session(user, departure);
        }
        if session.is_some() && !stays {
            let (reason, errno) = (parting.reason.word(), parting.errno);
            tracing::info!(%channel, reason, errno, "left; the login was not committed");
        }
        if let Some(receipt) = &parting.receipt {
            receipt.report(self.now.mono_us, CloseStage::Offline);
        }
    }

    /// Ends a user's session: one row of history and `offline`, in one transaction.
    pub(crate) fn end_session(&mut self, user: UserId, departure: &Departure) {
        let &Departure { channel, session: Some(number), stays, noticed_us, at_ms, ref parting, .. } =
            departure
        else {
            return;
        };
        let key = (channel, number);
        self.sessions.remove(key);
        self.recall_letters(user);
        let Some(person) = self.people.find(user) else { return };
        let Some(session) = person.session.take_if(|s| (s.channel, s.number) == key) else { return };
        person.await_settlement(key);
        let name = person.sender.name.clone();
        tracing::info!(
            channel = %channel, user = %user, name = name.as_str(), peer = %session.peer.addr(),
            reason = parting.reason.word(), errno = parting.errno, "offline"
        );
        self.around.registry.remove(user, channel, number);
        self.presence.end_session(user, key);
        self.around.metrics.sessions_ended.add(1);
        self.endings.insert(
            key,
            OpenDeparture {
                user,
                epoch: session.epoch,
                noticed_us,
                stays,
                settled: false,
                completed: false,
                receipt: parting.receipt.clone(),
                completion: DepartureUpdate::default(),
            },
        );
        self.committing.push(key);
        let trusted_ms = self.trusted_ms();
        let row = DepartureRow {
            at_ms,
            trusted_ms,
            channel: Some(channel),
            user,
            name,
            peer: Some(session.peer.addr()),
            reason: parting.reason,
            errno: parting.errno,
            since_ms: Some(session.since_ms),
        };
        let expires_ms = trusted_ms.saturating_add(TOKEN_LIFE_MS);
        // One transaction, but each by itself: what the database refuses of it must not keep the user online.
        self.batch.owe(PendingWrite::Offline { user, epoch: session.epoch });
        self.batch.owe(PendingWrite::Departure { key, row });
        if parting.reason == Reason::Banned {
            self.batch.owe(PendingWrite::DropTokens { user });
        } else if session.resumes {
            self.batch.owe(PendingWrite::EndTokens { user, upto: session.epoch, expires_ms });
        }
        // Whoever asked whether this client is still there knows now.
        self.probed(user);
    }

    /// The second report: what was under way to that session is known, so what has waited may follow it.
    pub(super) fn settle(&mut self, settlement: DeliveryReport) {
        let DeliveryReport { channel, session, unsent, delivered } = settlement;
        if self.lingering.settle(channel, session) {
            self.ask_for_socket(channel);
        }
        let Some(key) = session.map(|number| (channel, number)) else { return };
        let Some(ending) = self.endings.get_mut(key) else { return };
        let user = ending.user;
        ending.settled = true;
        ending.completion.delivered = delivered as i64;
        ending.completion.saved = unsent.len() as i64;
        self.around.metrics.chats_saved.add(unsent.len() as u64);
        if let Some((confirmed, unconfirmed)) = self.keep_unconfirmed(user, key) {
            self.account(key, confirmed, unconfirmed);
        }
        for chat in unsent {
            self.save(user, chat);
        }
        if let Some(person) = self.people.find(user)
            && person.end_settlement(key)
        {
            self.release(user);
        }
        self.complete(key);
    }

    /// What became of the messages to a client that confirms.
    fn account(&mut self, key: SessionKey, confirmed: u64, unconfirmed: u64) {
        self.around.metrics.chats_saved.add(unconfirmed);
        if let Some(ending) = self.endings.get_mut(key) {
            ending.completion.delivered = confirmed as i64;
            ending.completion.saved += unconfirmed as i64;
        }
    }

    /// What was held for a user goes where it belongs now, and whoever waited to be that user logs in.
    pub(crate) fn release(&mut self, user: UserId) {
        let Some(person) = self.people.find(user).filter(|person| person.has_waiting()) else { return };
        for chat in person.take_held() {
            self.place_held(user, chat);
        }
        while let Some(person) = self.people.find(user)
            && person.session.is_none()
            && !person.is_leaving()
            && let Some(login) = person.take_first_parked()
        {
            self.log_in(login);
        }
        // With a new session, those behind it meet the policy.
        if let Some(person) = self.people.find(user)
            && person.session.is_some()
        {
            for login in person.take_parked() {
                self.log_in(login);
            }
        }
    }

    /// Messages to a session that are not posted yet wait from now on with those that come after them.
    pub(crate) fn recall_letters(&mut self, user: UserId) {
        let batch = self.batch.number();
        let Some(person) = self.people.find(user) else { return };
        let Some(session) = person.session.as_mut().filter(|session| session.addressed == Some(batch)) else {
            return;
        };
        session.addressed = None;
        let key = (session.channel, session.number);
        for chat in self.batch.take_back(key) {
            person.hold(chat);
        }
    }

    /// An accepted message goes to the box, whatever the box holds.
    pub(crate) fn save(&mut self, user: UserId, chat: Chat) {
        let (at_ms, unix_ms) = (self.trusted_ms(), self.now.unix_ms);
        let Ok(Some(person)) = self.person(user) else {
            tracing::error!(%user, "an accepted message has no receiver's row to be kept for");
            return;
        };
        let object = chat.body.object();
        if let Some(usage) = person.usage_mut() {
            *usage = usage.with(&object);
        }
        let begun = (!person.has_numbers()).then(|| person.go_on_in_next_epoch(unix_ms));
        let mid = person.number();
        if let Some(epoch) = begun {
            self.batch.owe(PendingWrite::Epoch { user, epoch });
        }
        let accepted = chat.ticket.as_ref().and_then(|ticket| ticket.secure(1));
        let reaches = chat.ticket.as_ref().and_then(|ticket| ticket.note_reached());
        self.batch.owe(PendingWrite::Keep(Box::new(BoxWrite {
            user,
            mid,
            at_ms,
            body: Body::Object(object),
            sent: false,
            ticket: chat.ticket,
            accepted,
            reaches,
        })));
    }

    /// A letter came back because its session has ended: its departure is on its way through the queue.
    pub(crate) fn came_back(&mut self, letter: WorkerCommand) {
        let WorkerCommand::Chat { to, session, user, chat, .. } = letter else { return };
        let Some(person) = self.people.find(user) else { return };
        if let Some(present) = &mut person.session
            && (present.channel, present.number) == (to, session)
        {
            present.gone = true;
        }
        if chat.custody == OtherCopy::Here {
            person.hold(chat);
        }
        if !person.holds_messages() {
            // The session never was: its login could not be committed.
            self.release(user);
        }
    }

    /// Notes for every end of this batch that it is committed.
    pub(super) fn note_committed(&mut self) {
        let now_us = self.now.mono_us;
        for key in std::mem::take(&mut self.committing) {
            if let Some(ending) = self.endings.get_mut(key) {
                let offline_us = now_us.saturating_sub(ending.noticed_us);
                ending.completion.offline_us = Some(offline_us as i64);
                self.stages.committed.note(offline_us);
                if let Some(receipt) = &ending.receipt {
                    receipt.report(now_us, CloseStage::Offline);
                }
                let (user, epoch) = (ending.user, ending.epoch);
                self.hold_back(user, epoch);
            }
            self.complete(key);
        }
    }

    /// The batch has failed: no login of it ever was. Called before one is undone, which may have messages saved, for then
    /// the next transaction holds what is owed.
    pub(super) fn forget_ends(&mut self, effects: &[AfterCommit]) {
        for effect in effects {
            if let AfterCommit::LoggedIn { key, .. } = effect {
                self.forget_end(*key);
            }
        }
    }

    /// A login was not committed, and its session has ended in the same batch: history and friends never hear of it.
    /// The rest of its end goes on.
    fn forget_end(&mut self, key: SessionKey) {
        let now_us = self.now.mono_us;
        let Some(ending) = self.endings.get_mut(key) else { return };
        ending.completion.offline_us = Some(now_us.saturating_sub(ending.noticed_us) as i64);
        if let Some(receipt) = &ending.receipt {
            receipt.report(now_us, CloseStage::Offline);
        }
        self.committing.retain(|committing| *committing != key);
        self.batch.forget_departure(key);
    }

    /// Asks for every socket whose grace is over.
    pub(super) fn close_lingering(&mut self) {
        while let Some(channel) = self.lingering.take_due(self.now.mono_us) {
            self.grace_over(channel);
        }
    }

    /// Asks for the sockets of the oldest lingering channels while more than `limit` names are taken.
    pub(super) fn close_early(&mut self, limit: usize) {
        let taken = self.around.table.taken();
        let excess = taken.saturating_sub(limit).saturating_sub(self.lingering.due()).min(EARLY_CLOSES_MAX);
        for _ in 0..excess {
            let Some(channel) = self.lingering.take_oldest() else { break };
            self.around.metrics.closed_early.add(1);
            self.grace_over(channel);
        }
    }

    /// Asks for a socket whose grace is over, as soon as its worker has settled.
    pub(super) fn grace_over(&mut self, channel: ChannelId) {
        if self.lingering.end_grace(channel) {
            self.ask_for_socket(channel);
        }
    }

    fn ask_for_socket(&mut self, channel: ChannelId) {
        self.post(channel, WorkerCommand::Close { channel });
    }

    /// The fd is closed: the name is free. What went out in part only will never be whole.
    pub(super) fn closed(&mut self, channel: ChannelId, torn: Option<PartialWrite>) {
        if self.lingering.find(channel).is_none() {
            tracing::error!(%channel, "a socket came back that nobody asked for");
            return;
        }
        self.around.metrics.closed.add(1);
        self.around.table.free(channel);
        if let Some(PartialWrite { session, chats }) = torn {
            self.lose((channel, session), chats);
        }
        self.unseat(channel);
    }

    /// Chats that counted as delivered, because their rest was to go out first, have never gone out whole.
    fn lose(&mut self, key: SessionKey, chats: u64) {
        self.around.metrics.chats_lost.add(chats);
        if let Some(ending) = self.endings.get_mut(key) {
            ending.completion.delivered -= chats as i64;
            ending.completion.lost += chats as i64;
        }
    }

    /// A channel has no fd any more: nothing of its end is left to wait for.
    pub(super) fn unseat(&mut self, channel: ChannelId) {
        let Some(seat) = self.lingering.remove(channel) else { return };
        self.stages.closed.note(self.now.mono_us.saturating_sub(seat.noticed_us));
        if let Some(receipt) = &seat.receipt {
            receipt.report(self.now.mono_us, |_| CloseStage::Closed);
        }
        if let Some(key) = seat.session.map(|number| (channel, number))
            && let Some(ending) = self.endings.get_mut(key)
        {
            ending.completion.closed_us = Some(self.now.mono_us.saturating_sub(seat.noticed_us) as i64);
            self.complete(key);
        }
    }

    /// Completes the history: once when the end is settled and committed, once more when the fd is closed.
    fn complete(&mut self, key: SessionKey) {
        let Some(ending) = self.endings.get_mut(key) else { return };
        let last = ending.stays || ending.completion.closed_us.is_some();
        if !ending.settled || ending.completion.offline_us.is_none() || ending.completed && !last {
            return;
        }
        ending.completed = true;
        let completion = ending.completion;
        if last {
            self.endings.remove(key);
        }
        self.batch.owe_later(PendingWrite::DepartureUpdate { key, completion, last }, self.now.mono_us);
    }

    /// Asks a worker to settle a session that main itself has ended, on a channel that stays.
    pub(crate) fn settle_later(&mut self, channel: ChannelId, session: SessionNo) {
        self.post(channel, WorkerCommand::Settle { channel, session });
    }
}
