//! What the admin socket asks of main.
//!
//! On main.

use super::state::MainLoop;
use super::transaction::AfterCommit;
use crate::message::event::{ControlAsk, QueueReport, StaleOnline, StaleOnlineFault, StaleOnlineName};
use crate::store::{Storage, Stored, UserRow};

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Does what the admin socket asks.
    pub(super) fn control(&mut self, ask: ControlAsk) {
        match ask {
            ControlAsk::Drain(ask) => self.shutdown.drain(&mut self.cx, ask),
            ControlAsk::Queue(reply) => {
                let report = QueueReport {
                    lingering: self.lingering.len(),
                    drained: self.stages.taken(),
                    stages: self.stages.rows(),
                };
                // Whoever asked may have given up.
                let _ = reply.send(report);
            }
            ControlAsk::StaleOnline { who, reply } => match self.find_stale_online(&who) {
                Ok(Some(UserRow { id: user, name, epoch, .. })) => {
                    // Should it fail, the transaction has failed, and says so.
                    self.cx.attempt(|store| store.set_offline(user, epoch));
                    let (ghost, asked_us) = (StaleOnline { user, name, offline_us: 0 }, self.cx.now.mono_us);
                    self.cx.then(AfterCommit::StaleOnline { reply, ghost, asked_us });
                }
                Ok(None) => drop(reply.send(Ok(None))),
                Err(error) => drop(reply.send(Err(StaleOnlineFault::Unread(error)))),
            },
            ControlAsk::Ban(ask) => self.bans.ban(&mut self.cx, ask),
            ControlAsk::Bans(reply) => {
                let _ = reply.send(self.bans.list_bans(&self.cx));
            }
            ControlAsk::Unban { names, reply } => self.bans.unban(&mut self.cx, &names, reply),
        }
    }

    /// A user who is marked online and has no session. Looked up without a transaction, for most are none, and that is
    /// known also while nothing can be written.
    fn find_stale_online(&mut self, who: &StaleOnlineName) -> Stored<Option<UserRow>> {
        let row = self.cx.look(|store| match who {
            StaleOnlineName::Id(user) => store.user(*user),
            StaleOnlineName::Name(name) => store.user_called(name),
        })?;
        Ok(row.filter(|row| row.online && !self.users.is_online(row.id)))
    }
}
