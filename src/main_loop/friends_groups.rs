//! Friends and groups: who added whom, who is a member of what.
//!
//! On main.

use super::state::{BatchFailed, MainLoop};
use super::transaction::AfterCommit;
use crate::hashing::IdMap;
use crate::ids::{GroupId, UserId};
use crate::message::command::WorkerCommand;
use crate::message::reply::Answer;
use crate::message::reply_to::Completes;
use crate::message::reply_to::ReplyTo;
use crate::protocol::errno::Errno;
use crate::store::Storage;
use crate::sync::Arc;

/// A group, as main remembers it.
#[derive(Debug)]
pub(crate) struct CachedGroup {
    pub(crate) name: Arc<str>,
    /// In order.
    pub(crate) members: Box<[UserId]>,
}

/// Members of one group at most: each chat to it costs main a step for each of them.
const MEMBERS_MAX: usize = 65_536;
/// Groups that are remembered.
const GROUPS_MAX: usize = 4_096;
/// Members of all groups that are remembered: 8 MiB.
const REMEMBERED_MEMBERS_MAX: usize = 1_048_576;
const _: () = assert!(MEMBERS_MAX <= REMEMBERED_MEMBERS_MAX);

/// The groups that main remembers.
#[derive(Debug, Default)]
pub(crate) struct GroupCache {
    by_id: IdMap<GroupId, Arc<CachedGroup>>,
    /// Members of all of them.
    members: usize,
}

impl GroupCache {
    fn find(&self, group: GroupId) -> Option<Arc<CachedGroup>> {
        self.by_id.get(&group).cloned()
    }

    /// Remembers a group. When there are too many, all others are forgotten.
    fn remember(&mut self, group: GroupId, known: Arc<CachedGroup>) {
        self.members -= self.by_id.remove(&group).map_or(0, |known| known.members.len());
        if self.by_id.len() >= GROUPS_MAX || self.members + known.members.len() > REMEMBERED_MEMBERS_MAX {
            self.forget_all();
        }
        self.members += known.members.len();
        self.by_id.insert(group, known);
    }

    /// Forgets all, after a batch that failed: they may rest on it.
    pub(crate) fn forget_all(&mut self) {
        *self = GroupCache::default();
    }
}

impl CachedGroup {
    /// The same group with one more member.
    fn with(&self, user: UserId) -> Self {
        let mut members = self.members.to_vec();
        let place = members.partition_point(|member| *member < user);
        members.insert(place, user);
        CachedGroup { name: Arc::clone(&self.name), members: members.into() }
    }
}

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    pub(crate) fn add_friend(&mut self, asker: &ReplyTo, user: UserId, friend: UserId) {
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
                    self.batch.then(AfterCommit::Befriended { user, friend, online });
                }
                self.grant(asker, None);
            }
            None => self.refuse_request(asker, Errno::NotStored),
        }
    }

    pub(crate) fn create_group(&mut self, asker: &ReplyTo, user: UserId, name: &str, desc: &str) {
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

    pub(crate) fn join_group(&mut self, asker: &ReplyTo, user: UserId, group: GroupId) {
        let known = match self.members(group) {
            Ok(Some(known)) => known,
            Ok(None) => return self.refuse_request(asker, Errno::NoSuchGroup),
            Err(_) => return self.refuse_request(asker, Errno::NotStored),
        };
        if known.members.len() >= MEMBERS_MAX && known.members.binary_search(&user).is_err() {
            return self.refuse_one_more(
                asker,
                format!("the group has {MEMBERS_MAX} members, which is the most here"),
            );
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
                    self.groups.remember(group, Arc::new(known.with(user)));
                }
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

    fn refuse_one_more_group(&mut self, asker: &ReplyTo) {
        let max = self.policy.groups_max;
        self.refuse_one_more(asker, format!("you are in {max} groups, which is the most here"));
    }

    fn refuse_one_more(&mut self, asker: &ReplyTo, text: String) {
        let (channel, settles) = (asker.channel, Completes::Request);
        let (re, seq) = (Some(asker.re), asker.seq.clone());
        let answer = Some(Answer::Error { errno: Errno::BoxFull, text: text.into(), re, seq });
        self.post(channel, WorkerCommand::Answer { channel, settles, answer });
    }

    /// A group's name and members; `Ok(None)` when there is no such group.
    pub(crate) fn members(&mut self, group: GroupId) -> Result<Option<Arc<CachedGroup>>, BatchFailed> {
        if let Some(known) = self.groups.find(group) {
            return Ok(Some(known));
        }
        let Some(row) = self.batch.attempt(|store| store.group(group)).ok_or(BatchFailed)? else {
            return Ok(None);
        };
        let members = self.batch.attempt(|store| store.member_ids(group)).ok_or(BatchFailed)?;
        let known = Arc::new(CachedGroup { name: row.name.into(), members: members.into() });
        self.groups.remember(group, Arc::clone(&known));
        Ok(Some(known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(members: usize) -> Arc<CachedGroup> {
        Arc::new(CachedGroup { name: "g".into(), members: (0..members as i64).map(UserId).collect() })
    }

    #[test]
    fn what_is_remembered_of_groups_is_bounded_in_groups_and_in_members() {
        let mut groups = GroupCache::default();
        for id in 0..3 * GROUPS_MAX as i64 {
            groups.remember(GroupId(id), group(1));
            assert!(groups.by_id.len() <= GROUPS_MAX);
        }
        for id in 0..40 {
            groups.remember(GroupId(id), group(MEMBERS_MAX));
            let members: usize = groups.by_id.values().map(|known| known.members.len()).sum();
            assert!(members <= REMEMBERED_MEMBERS_MAX);
            assert_eq!(members, groups.members);
        }
    }

    #[test]
    fn a_new_member_has_a_place_in_the_order() {
        let members = |known: &CachedGroup| known.members.iter().map(|member| member.0).collect::<Vec<_>>();
        assert_eq!(members(&group(2).with(UserId(9)).with(UserId(4))), [0, 1, 4, 9]);
    }
}
