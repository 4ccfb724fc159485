//! Friends and groups: who added whom, who is a member of what.
//!
//! On main.

use super::answer::Answer;
use super::ask::Asker;
use super::storage::Storage;
use crate::ident::{GroupId, UserId};
use crate::offline::batch::Effect;
use crate::offline::drain::{BatchFailed, Drain};
use crate::offline::{Mail, Settles};
use crate::protocol::errno::Errno;
use crate::sync::Arc;

/// A group, as main remembers it.
#[derive(Debug)]
pub(crate) struct KnownGroup {
    pub(crate) name: Arc<str>,
    /// In order.
    pub(crate) members: Box<[UserId]>,
}

impl<St: Storage, S: Send + 'static> Drain<St, S> {
    pub(crate) fn add_friend(&mut self, asker: &Asker, user: UserId, friend: UserId) {
        match self.person(friend) {
            Err(_) => return self.refuse_request(asker, Errno::NotStored),
            Ok(None) => return self.refuse_request(asker, Errno::NoSuchUser),
            Ok(Some(_)) => {}
        }
        match self.has_room_for_friend(user, friend) {
            None => return self.refuse_request(asker, Errno::NotStored),
            Some(false) => {
                let max = self.policy.friends_max;
                return self
                    .refuse_one_more(asker, format!("you have {max} friends, which is the most here"));
            }
            Some(true) => {}
        }
        match self.batch.attempt(|store| store.add_friend(user, friend)) {
            Some(is_new) => {
                if is_new {
                    self.lists.note_friend(user);
                }
                if self.presence.is_watching(user) {
                    let online = self.people.is_online(friend);
                    self.batch.then(Effect::Befriended { user, friend, online });
                }
                self.grant(asker, None);
            }
            None => self.refuse_request(asker, Errno::NotStored),
        }
    }

    pub(crate) fn create_group(&mut self, asker: &Asker, user: UserId, name: &str, desc: &str) {
        match self.has_room_for_group(user, None) {
            None => return self.refuse_request(asker, Errno::NotStored),
            Some(false) => return self.refuse_one_more_group(asker),
            Some(true) => {}
        }
        match self.batch.attempt(|store| store.add_group(user, name, desc)) {
            Some(group) => {
                self.lists.note_member(group, user);
                self.grant(asker, Some(group));
            }
            None => self.refuse_request(asker, Errno::NotStored),
        }
    }

    pub(crate) fn join_group(&mut self, asker: &Asker, user: UserId, group: GroupId) {
        match self.batch.attempt(|store| store.group(group)) {
            None => return self.refuse_request(asker, Errno::NotStored),
            Some(None) => return self.refuse_request(asker, Errno::NoSuchGroup),
            Some(Some(_)) => {}
        }
        match self.has_room_for_group(user, Some(group)) {
            None => return self.refuse_request(asker, Errno::NotStored),
            Some(false) => return self.refuse_one_more_group(asker),
            Some(true) => {}
        }
        match self.batch.attempt(|store| store.join_group(group, user)) {
            Some(is_new) => {
                if is_new {
                    self.lists.note_member(group, user);
                }
                self.groups.remove(&group);
                self.grant(asker, None);
            }
            None => self.refuse_request(asker, Errno::NotStored),
        }
    }

    /// True exactly when a user may add that friend: again, or one more. `None` when the batch has failed.
    fn has_room_for_friend(&mut self, user: UserId, friend: UserId) -> Option<bool> {
        if self.count_friends(user)? < self.policy.friends_max {
            return Some(true);
        }
        let before = UserId(friend.0.saturating_sub(1));
        let next = self.batch.attempt(|store| store.friends(user, before, 1))?;
        Some(next.first().is_some_and(|next| next.id == friend))
    }

    /// True exactly when a user may be in that group, who may be in it already, or in one more.
    fn has_room_for_group(&mut self, user: UserId, group: Option<GroupId>) -> Option<bool> {
        if self.count_groups(user)? < self.policy.groups_max {
            return Some(true);
        }
        let Some(group) = group else { return Some(false) };
        let before = GroupId(group.0.saturating_sub(1));
        let next = self.batch.attempt(|store| store.groups_of(user, before, 1))?;
        Some(next.first().is_some_and(|next| next.id == group))
    }

    fn refuse_one_more_group(&mut self, asker: &Asker) {
        let max = self.policy.groups_max;
        self.refuse_one_more(asker, format!("you are in {max} groups, which is the most here"));
    }

    fn refuse_one_more(&mut self, asker: &Asker, text: String) {
        let (channel, settles) = (asker.channel, Settles::Request);
        let (re, seq) = (Some(asker.re), asker.seq.clone());
        let answer = Some(Answer::Error { errno: Errno::BoxFull, text: text.into(), re, seq });
        self.post(channel, Mail::Answer { channel, settles, answer });
    }

    /// A group's name and members; `Ok(None)` when there is no such group.
    pub(crate) fn members(&mut self, group: GroupId) -> Result<Option<Arc<KnownGroup>>, BatchFailed> {
        if let Some(known) = self.groups.get(&group) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(row) = self.batch.attempt(|store| store.group(group)).ok_or(BatchFailed)? else {
            return Ok(None);
        };
        let members = self.batch.attempt(|store| store.member_ids(group)).ok_or(BatchFailed)?;
        let known = Arc::new(KnownGroup { name: row.name.into(), members: members.into() });
        self.remember_group(group, Arc::clone(&known));
        Ok(Some(known))
    }
}
