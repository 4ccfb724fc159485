//! The groups that main remembers: their names and members.
//!
//! Owned by main. What is remembered may rest on a transaction that fails; then all is forgotten.

use super::context::Context;
use super::transaction::TransactionFailed;
use crate::ids::IdMap;
use crate::ids::{GroupId, UserId};
use crate::store::Storage;
use crate::sync::Arc;

/// A group, as main remembers it.
#[derive(Debug)]
pub(super) struct CachedGroup {
    pub(super) name: Arc<str>,
    /// In order.
    pub(super) members: Box<[UserId]>,
}

/// Members of one group at most: each chat to it costs main a step for each of them.
pub(super) const MEMBERS_MAX: usize = 65_536;
/// Groups that are remembered.
const GROUPS_MAX: usize = 4_096;
/// Members of all groups that are remembered: 8 MiB.
const REMEMBERED_MEMBERS_MAX: usize = 1_048_576;
const _: () = assert!(MEMBERS_MAX <= REMEMBERED_MEMBERS_MAX);

/// The groups that main remembers.
#[derive(Debug, Default)]
pub(super) struct GroupCache {
    by_id: IdMap<GroupId, Arc<CachedGroup>>,
    /// Members of all of them.
    members: usize,
}

impl GroupCache {
    /// A group's name and members, read if need be; `Ok(None)` when there is no such group.
    pub(super) fn find(
        &mut self,
        cx: &mut Context<impl Storage, impl Send + 'static>,
        group: GroupId,
    ) -> Result<Option<Arc<CachedGroup>>, TransactionFailed> {
        if let Some(known) = self.by_id.get(&group) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(row) = cx.attempt(|store| store.group(group)).ok_or(TransactionFailed)? else {
            return Ok(None);
        };
        let members = cx.attempt(|store| store.member_ids(group)).ok_or(TransactionFailed)?;
        let known = Arc::new(CachedGroup { name: row.name.into(), members: members.into() });
        self.remember(group, Arc::clone(&known));
        Ok(Some(known))
    }

    /// A group has a new member.
    pub(super) fn add_member(&mut self, group: GroupId, user: UserId) {
        if let Some(known) = self.by_id.get(&group) {
            let known = Arc::new(known.with(user));
            self.remember(group, known);
        }
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

    /// Forgets all, after a transaction that failed: they may rest on it.
    pub(super) fn forget_all(&mut self) {
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
