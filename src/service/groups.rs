//! Friends and groups: who added whom, who is a member of what.
//!
//! On main.

use super::ask::Asker;
use super::storage::Storage;
use crate::ident::{GroupId, UserId};
use crate::offline::drain::{BatchFailed, Drain};
use crate::protocol::errno::Errno;
use crate::sync::Arc;

impl<St: Storage, S: Send + 'static> Drain<St, S> {
    pub(crate) fn add_friend(&mut self, asker: &Asker, user: UserId, friend: UserId) {
        match self.person(friend) {
            Err(_) => return self.refuse_request(asker, Errno::NotStored),
            Ok(None) => return self.refuse_request(asker, Errno::NoSuchUser),
            Ok(Some(_)) => {}
        }
        match self.batch.attempt(|store| store.add_friend(user, friend)) {
            Some(()) => self.grant(asker, None),
            None => self.refuse_request(asker, Errno::NotStored),
        }
    }

    pub(crate) fn create_group(&mut self, asker: &Asker, user: UserId, name: &str, desc: &str) {
        match self.batch.attempt(|store| store.add_group(user, name, desc)) {
            Some(group) => self.grant(asker, Some(group)),
            None => self.refuse_request(asker, Errno::NotStored),
        }
    }

    pub(crate) fn join_group(&mut self, asker: &Asker, user: UserId, group: GroupId) {
        match self.batch.attempt(|store| store.group(group)) {
            None => return self.refuse_request(asker, Errno::NotStored),
            Some(None) => return self.refuse_request(asker, Errno::NoSuchGroup),
            Some(Some(_)) => {}
        }
        match self.batch.attempt(|store| store.join_group(group, user)) {
            Some(()) => {
                self.groups.remove(&group);
                self.grant(asker, None);
            }
            None => self.refuse_request(asker, Errno::NotStored),
        }
    }

    /// A group's members; `Ok(None)` when there is no such group.
    pub(crate) fn members(&mut self, group: GroupId) -> Result<Option<Arc<[UserId]>>, BatchFailed> {
        if let Some(members) = self.groups.get(&group) {
            return Ok(Some(Arc::clone(members)));
        }
        let found = self.batch.attempt(|store| store.group(group)).ok_or(BatchFailed)?;
        if found.is_none() {
            return Ok(None);
        }
        let members = self.batch.attempt(|store| store.members(group)).ok_or(BatchFailed)?;
        let members: Arc<[UserId]> = members.iter().map(|member| member.id).collect();
        self.remember_group(group, Arc::clone(&members));
        Ok(Some(members))
    }
}
