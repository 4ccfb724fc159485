//! A map by session, which is named by its channel and its number on that channel.
//!
//! Plain data, owned by main.

use crate::channel::{ChannelId, SessionNo};
use crate::ids::IdMap;
use crate::ids::UserId;
use std::num::NonZeroU32;

/// A map by session. A list by slot needs no hash, and a storm of ends goes through it in the order of its memory.
#[derive(Debug)]
pub(crate) struct SessionMap<T> {
    /// By slot.
    first: Vec<Option<Place<T>>>,
    /// Those whose slot has another one: an older session of the channel, or of the slot's last one, whose end is not
    /// over.
    others: IdMap<SessionKey, T>,
    /// How many `first` has.
    placed: usize,
}

/// One session in its slot.
#[derive(Debug)]
struct Place<T> {
    generation: NonZeroU32,
    session: SessionNo,
    value: T,
}

// Main knows whose each session is: one for each client.
const _: () = assert!(size_of::<Option<Place<UserId>>>() <= 16);

impl<T> SessionMap<T> {
    /// None yet; there will be so many channels at most.
    pub(crate) fn new(capacity: usize) -> Self {
        // What is not used is not resident, and a list that grows leaves holes behind.
        SessionMap { first: Vec::with_capacity(capacity), others: IdMap::default(), placed: 0 }
    }

    /// What is known of that session.
    pub(crate) fn get(&self, key: SessionKey) -> Option<&T> {
        match self.deliver(key) {
            Some(place) => Some(&place.value),
            None => self.others.get(&key),
        }
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut T> {
        if self.deliver(key).is_none() {
            return self.others.get_mut(&key);
        }
        self.first[key.0.slot as usize].as_mut().map(|place| &mut place.value)
    }

    /// Enters a session; answers what was known of it.
    pub(crate) fn insert(&mut self, key: SessionKey, value: T) -> Option<T> {
        let before = self.remove(key);
        let (channel, session) = key;
        let slot = channel.slot as usize;
        if self.first.len() <= slot {
            self.first.resize_with(slot + 1, || None);
        }
        match NonZeroU32::new(channel.generation) {
            Some(generation) if self.first[slot].is_none() => {
                self.first[slot] = Some(Place { generation, session, value });
                self.placed += 1;
            }
            _ => {
                self.others.insert(key, value);
            }
        }
        before
    }

    /// Takes a session out; answers what was known of it.
    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<T> {
        if self.deliver(key).is_none() {
            return self.others.remove(&key);
        }
        self.placed -= 1;
        self.first[key.0.slot as usize].take().map(|place| place.value)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.placed + self.others.len()
    }

    /// True exactly when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionKey, &T)> {
        let first = self.first.iter().enumerate().filter_map(|(slot, place)| {
            let Place { generation, session, value } = place.as_ref()?;
            Some(((ChannelId { slot: slot as u32, generation: generation.get() }, *session), value))
        });
        first.chain(self.others.iter().map(|(key, value)| (*key, value)))
    }

    fn deliver(&self, (channel, session): SessionKey) -> Option<&Place<T>> {
        let place = self.first.get(channel.slot as usize)?.as_ref()?;
        ((place.generation.get(), place.session) == (channel.generation, session)).then_some(place)
    }
}

/// Names the end of one session.
pub(crate) type SessionKey = (ChannelId, SessionNo);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32, generation: u32, session: u32) -> SessionKey {
        (ChannelId { slot, generation }, SessionNo(session))
    }

    #[test]
    fn each_session_of_a_channel_is_found_by_its_own_name_alone() {
        let mut sessions = SessionMap::new(4);
        let keys = [key(3, 1, 1), key(3, 1, 2), key(3, 2, 1), key(0, 1, 1)];
        for (at, key) in keys.into_iter().enumerate() {
            assert_eq!(sessions.insert(key, UserId(at as i64)), None);
        }
        assert_eq!(keys.map(|key| sessions.get(key).copied()), [0, 1, 2, 3].map(|user| Some(UserId(user))));
        assert_eq!(sessions.len(), 4);
        assert_eq!((sessions.get(key(3, 2, 2)), sessions.get(key(9, 1, 1))), (None, None));
        let mut all: Vec<_> = sessions.iter().collect();
        all.sort_by_key(|(_, user)| user.0);
        assert_eq!(all.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys);
    }

    #[test]
    fn a_session_that_is_taken_out_leaves_the_others_of_its_channel() {
        let mut sessions = SessionMap::new(4);
        let (old, new) = (key(3, 1, 1), key(3, 1, 2));
        sessions.insert(old, UserId(1));
        sessions.insert(new, UserId(2));
        assert_eq!(sessions.remove(old), Some(UserId(1)));
        assert_eq!((sessions.get(old), sessions.get(new)), (None, Some(&UserId(2))));
        assert_eq!(sessions.insert(new, UserId(5)), Some(UserId(2)), "entered anew, not twice");
        assert_eq!((sessions.get(new), sessions.len()), (Some(&UserId(5)), 1));
        assert_eq!((sessions.remove(new), sessions.remove(new), sessions.len()), (Some(UserId(5)), None, 0));
    }

    #[test]
    fn what_is_known_of_a_session_can_be_changed_wherever_it_lies() {
        let mut sessions = SessionMap::new(4);
        let (placed, beside) = (key(3, 1, 1), key(3, 1, 2));
        for key in [placed, beside] {
            sessions.insert(key, 1);
            *sessions.get_mut(key).unwrap() += 1;
        }
        assert_eq!((sessions.get(placed), sessions.get(beside)), (Some(&2), Some(&2)));
        assert_eq!(sessions.get_mut(key(3, 2, 1)), None);
    }
}
