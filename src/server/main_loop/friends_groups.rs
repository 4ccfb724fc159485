//! Requests about friends and groups: who adds whom, who creates a group, who joins one.
//!
//! On main.

use super::group_cache::MEMBERS_MAX;
use super::state::MainLoop;
use super::transaction::AfterCommit;
use crate::ids::{GroupId, UserId};
use crate::message::reply_to::ReplyTo;
use crate::protocol::errno::Errno;
use crate::store::Storage;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Adds a friend.
    pub(super) fn add_friend(&mut self, reply_to: &ReplyTo, user: UserId, friend: UserId) {
        match self.users.find_or_load(&mut self.cx, friend) {
            Err(_) => return self.cx.refuse_request(reply_to, Errno::NotStored),
            Ok(None) => return self.cx.refuse_request(reply_to, Errno::NoSuchUser),
            Ok(Some(_)) => {}
        }
        match self.has_room_for_friend(user, friend) {
            None => return self.cx.refuse_request(reply_to, Errno::NotStored),
            Some(false) => {
                let max = self.cx.policy.friends_max;
                let text = format!("you have {max} friends, which is the most here");
                return self.cx.refuse_request_saying(reply_to, Errno::BoxFull, text);
            }
            Some(true) => {}
        }
        match self.cx.attempt(|store| store.add_friend(user, friend)) {
            Some(is_new) => {
                if is_new {
                    self.lists.note_friend(user);
                }
                if self.presence.is_watching(user) {
                    let online = self.users.is_online(friend);
                    self.cx.then(AfterCommit::Befriended { user, friend, online });
                }
                self.cx.grant(reply_to, None);
            }
            None => self.cx.refuse_request(reply_to, Errno::NotStored),
        }
    }

    /// Creates a group.
    pub(super) fn create_group(&mut self, reply_to: &ReplyTo, user: UserId, name: &str, desc: &str) {
        match self.has_room_for_group(user, None) {
            None => return self.cx.refuse_request(reply_to, Errno::NotStored),
            Some(false) => return self.refuse_one_more_group(reply_to),
            Some(true) => {}
        }
        match self.cx.attempt(|store| store.add_group(user, name, desc)) {
            Some(group) => {
                self.lists.note_member(group, user);
                self.cx.grant(reply_to, Some(group));
            }
            None => self.cx.refuse_request(reply_to, Errno::NotStored),
        }
    }

    /// Joins a group.
    pub(super) fn join_group(&mut self, reply_to: &ReplyTo, user: UserId, group: GroupId) {
        let known = match self.group_cache.find(&mut self.cx, group) {
            Ok(Some(known)) => known,
            Ok(None) => return self.cx.refuse_request(reply_to, Errno::NoSuchGroup),
            Err(_) => return self.cx.refuse_request(reply_to, Errno::NotStored),
        };
        if known.members.len() >= MEMBERS_MAX && known.members.binary_search(&user).is_err() {
            let text = format!("the group has {MEMBERS_MAX} members, which is the most here");
            return self.cx.refuse_request_saying(reply_to, Errno::BoxFull, text);
        }
        match self.has_room_for_group(user, Some(group)) {
            None => return self.cx.refuse_request(reply_to, Errno::NotStored),
            Some(false) => return self.refuse_one_more_group(reply_to),
            Some(true) => {}
        }
        match self.cx.attempt(|store| store.join_group(group, user)) {
            Some(is_new) => {
                if is_new {
                    self.lists.note_member(group, user);
                    self.group_cache.add_member(group, user);
                }
                self.cx.grant(reply_to, None);
            }
            None => self.cx.refuse_request(reply_to, Errno::NotStored),
        }
    }

    /// True exactly when a user may add that friend: again, or one more. `None` when the transaction has failed.
    fn has_room_for_friend(&mut self, user: UserId, friend: UserId) -> Option<bool> {
        if self.lists.count_friends(&mut self.cx, user)? < self.cx.policy.friends_max {
            return Some(true);
        }
        let before = UserId(friend.0.saturating_sub(1));
        let next = self.cx.attempt(|store| store.friends(user, before, 1))?;
        Some(next.first().is_some_and(|next| next.id == friend))
    }

    /// True exactly when a user may be in that group, who may be in it already, or in one more.
    fn has_room_for_group(&mut self, user: UserId, group: Option<GroupId>) -> Option<bool> {
        if self.lists.count_groups(&mut self.cx, user)? < self.cx.policy.groups_max {
            return Some(true);
        }
        let Some(group) = group else { return Some(false) };
        let before = GroupId(group.0.saturating_sub(1));
        let next = self.cx.attempt(|store| store.groups_of(user, before, 1))?;
        Some(next.first().is_some_and(|next| next.id == group))
    }

    fn refuse_one_more_group(&mut self, reply_to: &ReplyTo) {
        let max = self.cx.policy.groups_max;
        let text = format!("you are in {max} groups, which is the most here");
        self.cx.refuse_request_saying(reply_to, Errno::BoxFull, text);
    }
}
