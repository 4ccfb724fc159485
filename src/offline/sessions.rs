//! Whose session is on which channel, as main has begun and not yet ended it.
//!
//! Plain data, owned by main.

use super::batch::EndKey;
use crate::channel::{ChannelId, SessionNo};
use crate::hashing::IdMap;
use crate::ident::UserId;
use std::num::NonZeroU32;

/// Sessions by channel. A list by slot is smaller than a map, and needs no hash.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// By slot.
    first: Vec<Option<Place>>,
    /// Those whose slot has another one: the client has logged out and in again, and the first end is on its way.
    others: IdMap<EndKey, UserId>,
    /// How many `first` has.
    placed: usize,
}

/// One session in its slot.
#[derive(Clone, Copy, Debug)]
struct Place {
    generation: NonZeroU32,
    session: SessionNo,
    user: UserId,
}

const _: () = assert!(size_of::<Option<Place>>() <= 16);

impl Sessions {
    /// None yet; there will be so many channels at most.
    pub(crate) fn new(capacity: usize) -> Self {
        // What is not used is not resident, and a list that grows leaves holes behind.
        Sessions { first: Vec::with_capacity(capacity), others: IdMap::default(), placed: 0 }
    }

    /// Whose that session is.
    pub(crate) fn owner(&self, key: EndKey) -> Option<UserId> {
        self.place(key).map_or_else(|| self.others.get(&key).copied(), |place| Some(place.user))
    }

    /// Enters a session; answers whose it was.
    pub(crate) fn insert(&mut self, key: EndKey, user: UserId) -> Option<UserId> {
        let before = self.remove(key);
        let (channel, session) = key;
        let slot = channel.slot as usize;
        if self.first.len() <= slot {
            self.first.resize(slot + 1, None);
        }
        match NonZeroU32::new(channel.generation) {
            Some(generation) if self.first[slot].is_none() => {
                self.first[slot] = Some(Place { generation, session, user });
                self.placed += 1;
            }
            _ => {
                self.others.insert(key, user);
            }
        }
        before
    }

    /// Takes a session out; answers whose it was.
    pub(crate) fn remove(&mut self, key: EndKey) -> Option<UserId> {
        let Some(place) = self.place(key) else { return self.others.remove(&key) };
        self.first[key.0.slot as usize] = None;
        self.placed -= 1;
        Some(place.user)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.placed + self.others.len()
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (EndKey, UserId)> {
        let first = self.first.iter().enumerate().filter_map(|(slot, place)| {
            let Place { generation, session, user } = (*place)?;
            Some(((ChannelId { slot: slot as u32, generation: generation.get() }, session), user))
        });
        first.chain(self.others.iter().map(|(key, user)| (*key, *user)))
    }

    fn place(&self, (channel, session): EndKey) -> Option<Place> {
        let place = (*self.first.get(channel.slot as usize)?)?;
        ((place.generation.get(), place.session) == (channel.generation, session)).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32, generation: u32, session: u32) -> EndKey {
        (ChannelId { slot, generation }, SessionNo(session))
    }

    #[test]
    fn each_session_of_a_channel_is_found_by_its_own_name_alone() {
        let mut sessions = Sessions::new(4);
        let keys = [key(3, 1, 1), key(3, 1, 2), key(3, 2, 1), key(0, 1, 1)];
        for (at, key) in keys.into_iter().enumerate() {
            assert_eq!(sessions.insert(key, UserId(at as i64)), None);
        }
        assert_eq!(keys.map(|key| sessions.owner(key)), [0, 1, 2, 3].map(|user| Some(UserId(user))));
        assert_eq!(sessions.len(), 4);
        assert_eq!((sessions.owner(key(3, 2, 2)), sessions.owner(key(9, 1, 1))), (None, None));
        let mut all: Vec<_> = sessions.iter().collect();
        all.sort_by_key(|(_, user)| user.0);
        assert_eq!(all.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
    }

    #[test]
    fn a_session_that_is_taken_out_leaves_the_others_of_its_channel() {
        let mut sessions = Sessions::new(4);
        let (old, new) = (key(3, 1, 1), key(3, 1, 2));
        sessions.insert(old, UserId(1));
        sessions.insert(new, UserId(2));
        assert_eq!(sessions.remove(old), Some(UserId(1)));
        assert_eq!((sessions.owner(old), sessions.owner(new)), (None, Some(UserId(2))));
        assert_eq!(sessions.insert(new, UserId(5)), Some(UserId(2)), "entered anew, not twice");
        assert_eq!((sessions.owner(new), sessions.len()), (Some(UserId(5)), 1));
        assert_eq!((sessions.remove(new), sessions.remove(new), sessions.len()), (Some(UserId(5)), None, 0));
    }
}
