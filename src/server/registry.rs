//! Who is online, for everybody to read: user and name to channel. Main alone writes it.
//!
//! An entry may be a moment old. Whoever acts on one re-checks the channel's gate, so a stale entry only costs
//! a detour through main.

use crate::channel::{ChannelId, SessionNo};
use crate::ids::IdMap;
use crate::ids::UserId;
use crate::message::chat::Sender;
use crate::shrink::Shrink;
use crate::sync::{Arc, RwLock};
use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

/// Shards, so that workers seldom meet. A power of two.
const SHARDS: usize = 64;
const _: () = assert!(SHARDS.is_power_of_two());

/// A user's session, as others see it. Small, for a map has room for up to twice as many as it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionEntry {
    /// Where the user is.
    pub channel: ChannelId,
    /// Which of the channel's sessions it is.
    pub session: SessionNo,
    /// The channel's worker.
    pub worker: u16,
    /// True exactly when nothing older waits in main or in the box, so that workers may write to the channel
    /// directly. The owning worker sets it when it has taken over the last of what was held.
    pub direct: bool,
    /// The user, as chats name one.
    pub sender: Arc<Sender>,
}

const _: () = assert!(size_of::<SessionEntry>() <= 24);

/// A user, found by name.
#[derive(Debug)]
struct Named(Arc<Sender>);

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        &self.0.name
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Named {}

/// All sessions, by user and by name.
#[derive(Debug)]
pub struct Registry {
    users: Box<[RwLock<IdMap<UserId, SessionEntry>>]>,
    names: RwLock<HashSet<Named>>,
}

impl Default for Registry {
    fn default() -> Self {
        Registry {
            users: (0..SHARDS).map(|_| RwLock::default()).collect(),
            names: RwLock::new(HashSet::new()),
        }
    }
}

impl Registry {
    /// A user's session.
    pub fn find(&self, user: UserId) -> Option<SessionEntry> {
        self.shard(user).read().get(&user).cloned()
    }

    /// Where to write to a user directly, if that may be done: worker, channel and session.
    pub fn direct(&self, user: UserId) -> Option<(usize, ChannelId, SessionNo)> {
        let shard = self.shard(user).read();
        let online = shard.get(&user).filter(|online| online.direct)?;
        Some((online.worker.into(), online.channel, online.session))
    }

    /// The user of that name who is online.
    pub fn named(&self, name: &str) -> Option<UserId> {
        self.names.read().get(name).map(|named| named.0.id)
    }

    /// How many users are online.
    pub fn len(&self) -> usize {
        self.names.read().len()
    }

    /// True exactly when nobody is online.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Enters a session; by main.
    pub fn enter(&self, user: UserId, online: SessionEntry) {
        let named = Named(Arc::clone(&online.sender));
        self.shard(user).write().insert(user, online);
        // Of two users who are online under one name, the later one is found by it.
        self.names.write().replace(named);
    }

    /// Takes a session out, unless another has taken its place; by main.
    pub fn remove(&self, user: UserId, channel: ChannelId, session: SessionNo) {
        let mut shard = self.shard(user).write();
        if !shard.get(&user).is_some_and(|o| o.channel == channel && o.session == session) {
            return;
        }
        let gone = shard.remove(&user);
        shard.shrink();
        drop(shard);
        if let Some(online) = gone {
            let mut names = self.names.write();
            names.remove(&*online.sender.name);
            names.shrink();
        }
    }

    /// How many users have an entry, by user.
    pub fn entries(&self) -> usize {
        self.users.iter().map(|shard| shard.read().len()).sum()
    }

    /// Every entry, by user. For when the numbers do not agree.
    pub fn all(&self) -> Vec<(UserId, ChannelId, SessionNo)> {
        let of = |shard: &RwLock<IdMap<UserId, SessionEntry>>| -> Vec<_> {
            shard.read().iter().map(|(user, online)| (*user, online.channel, online.session)).collect()
        };
        self.users.iter().flat_map(of).collect()
    }

    /// Users whom a name leads to although they are not online under it.
    pub fn dangling_names(&self) -> Vec<UserId> {
        let names: Vec<_> = self.names.read().iter().map(|named| Arc::clone(&named.0)).collect();
        let dangling = names.into_iter().filter(|sender| !self.is_under(sender.id, &sender.name));
        dangling.map(|sender| sender.id).collect()
    }

    /// Takes out every name that leads to a user who is not online under it; by main.
    pub fn forget_dangling_names(&self, user: UserId) {
        let online = self.find(user);
        let name = online.as_ref().map(|online| &*online.sender.name);
        self.names.write().retain(|named| named.0.id != user || Some(&*named.0.name) == name);
    }

    /// True exactly when the user is online under that name.
    pub fn is_under(&self, user: UserId, name: &str) -> bool {
        self.shard(user).read().get(&user).is_some_and(|online| *online.sender.name == *name)
    }

    /// Lets others write to the channel directly, if that session still is the user's; by the owning worker.
    pub fn open(&self, user: UserId, channel: ChannelId, session: SessionNo) {
        if let Some(online) = self.shard(user).write().get_mut(&user)
            && online.channel == channel
            && online.session == session
        {
            online.direct = true;
        }
    }

    fn shard(&self, user: UserId) -> &RwLock<IdMap<UserId, SessionEntry>> {
        &self.users[user.0 as usize & (SHARDS - 1)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANNEL: ChannelId = ChannelId { slot: 1, generation: 1 };

    fn online(session: u32) -> SessionEntry {
        SessionEntry {
            channel: CHANNEL,
            session: SessionNo(session),
            worker: 0,
            direct: false,
            sender: Arc::new(Sender { id: UserId(7), name: "ann".into() }),
        }
    }

    #[test]
    fn a_session_is_found_by_user_and_by_name_until_it_is_removed() {
        let registry = Registry::default();
        registry.enter(UserId(7), online(1));
        assert_eq!(registry.named("ann"), Some(UserId(7)));
        assert_eq!(registry.find(UserId(7)), Some(online(1)));
        registry.remove(UserId(7), CHANNEL, SessionNo(1));
        assert_eq!((registry.named("ann"), registry.find(UserId(7))), (None, None));
    }

    #[test]
    fn a_late_removal_of_an_older_session_changes_nothing() {
        let registry = Registry::default();
        registry.enter(UserId(7), online(2));
        registry.remove(UserId(7), CHANNEL, SessionNo(1));
        assert_eq!(registry.find(UserId(7)), Some(online(2)));
    }

    #[test]
    fn nobody_writes_directly_before_the_session_is_open() {
        let registry = Registry::default();
        registry.enter(UserId(7), online(1));
        assert_eq!(registry.direct(UserId(7)), None);
        registry.open(UserId(7), CHANNEL, SessionNo(2));
        assert_eq!(registry.direct(UserId(7)), None, "another session's");
        registry.open(UserId(7), CHANNEL, SessionNo(1));
        assert_eq!(registry.direct(UserId(7)), Some((0, CHANNEL, SessionNo(1))));
    }
}
