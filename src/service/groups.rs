//! Friends and groups: who added whom, who is a member of what.
//!
//! On main.

use super::ask::Asker;
use super::storage::Storage;
use crate::ident::{GroupId, UserId};
use crate::offline::batch::Effect;
use crate::offline::drain::{BatchFailed, Drain};
use crate::protocol::errno::Errno;
use crate::sync::Arc;

/// A group, as main remembers it.
#[derive(Debug)]
pub(crate) struct KnownGroup {
    pub(crate) name: Arc<str>,
    pub(crate) members: Box<[UserId]>,
}

impl<St: Storage, S: Send + 'static> Drain<St, S> {
    pub(crate) fn add_friend(&mut self, asker: &Asker, user: UserId, friend: UserId) {
        match self.person(friend) {
            Err(_) => return self.refuse_request(asker, Errno::NotStored),
            Ok(None) => return self.refuse_request(asker, Errno::NoSuchUser),
            Ok(Some(_)) => {}
        }
        match self.batch.attempt(|store| store.add_friend(user, friend)) {
            Some(()) => {
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

    /// A group's name and members; `Ok(None)` when there is no such group.
    pub(crate) fn members(&mut self, group: GroupId) -> Result<Option<Arc<KnownGroup>>, BatchFailed> {
        if let Some(known) = self.groups.get(&group) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(row) = self.batch.attempt(|store| store.group(group)).ok_or(BatchFailed)? else {
            return Ok(None);
        };
        let members = self.batch.attempt(|store| store.members(group)).ok_or(BatchFailed)?;
        let members = members.iter().map(|member| member.id).collect();
        let known = Arc::new(KnownGroup { name: row.name.into(), members });
        self.remember_group(group, Arc::clone(&known));
        Ok(Some(known))
    }
}
