//! What main has watchers told of their friends (cap `presence`).
//!
//! On main. Only what is committed is shown: a login or an addition when its batch has ended well, an end when its row
//! is written. What follows from that is decided in [`super::presence`].

use super::presence::Presence;
use super::session_map::SessionKey;
use super::state::MainLoop;
use crate::ids::{Epoch, UserId};
use crate::message::command::WorkerCommand;
use crate::message::reply::FriendNow;
use crate::store::Storage;
use crate::sync::Arc;

/// Users of whom one turn finds that they are not back.
const GONE_MAX: usize = 8192;
/// When main looks again at a user who is about to be back, in microseconds.
const AGAIN_US: u64 = 100_000;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// A session with the cap begins; its login answer says how its friends are.
    pub(crate) fn watch_friends(
        &mut self,
        watcher: UserId,
        key: SessionKey,
        worker: usize,
        friends: &[FriendNow],
    ) {
        self.presence.begin(watcher, key, worker);
        for FriendNow { id, name, online } in friends {
            self.watch(watcher, *id, name, *online);
        }
    }

    /// A friend was added, who was online then or not.
    pub(crate) fn watch_added(&mut self, watcher: UserId, friend: UserId, online: bool) {
        let Some(sender) = self.people.find(friend).map(|person| Arc::clone(&person.sender)) else {
            return;
        };
        self.watch(watcher, friend, &sender.name, online);
    }

    fn watch(&mut self, watcher: UserId, friend: UserId, name: &str, told: bool) {
        let person = self.people.find(friend);
        let session = person.as_ref().and_then(|person| Some(person.session.as_ref()?.epoch));
        let epoch = session.or(person.map(|person| person.epoch)).unwrap_or(Epoch(0));
        self.presence.watch(watcher, friend, name, told, (session.is_some(), epoch));
    }

    /// A login is committed. Nothing is told of a session that was over before.
    pub(crate) fn show_online(&mut self, user: UserId) {
        let Some(person) = self.people.find(user) else { return };
        let Some(session) = &person.session else { return };
        if self.presence.came(user, &person.sender.name, session.epoch) {
            self.around.metrics.presence_spared.add(1);
        }
    }

    /// The end of a session is committed.
    pub(crate) fn hold_back(&mut self, user: UserId, epoch: Epoch) {
        self.presence.left(user, epoch, self.now.mono_us + self.policy.presence_delay_us);
    }

    /// Tells watchers what has changed for them. Nothing during a stop or drain, when everybody goes.
    pub(crate) fn tell_watchers(&mut self) {
        if self.is_stopping() {
            self.presence = Presence::default();
            return;
        }
        for _ in 0..GONE_MAX {
            let now_us = self.now.mono_us;
            let Some(user) = self.presence.take_due(now_us) else { break };
            let person = self.people.find(user);
            // Whoever takes a place over, or waits for the settlement before, is not gone.
            let is_back = person.is_some_and(|person| person.session.is_some() || person.has_parked());
            self.presence.decide(user, is_back.then_some(now_us + AGAIN_US));
        }
        for (worker, bulletin) in self.presence.bulletins() {
            self.post_now(worker, &mut vec![WorkerCommand::Presence(bulletin)]);
        }
    }
}
