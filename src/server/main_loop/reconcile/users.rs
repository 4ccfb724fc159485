//! The way through the users: rows, main's sessions, the registry.
//!
//! On main, when all is committed. Only main writes sessions and the registry, so only rows can change meanwhile, and
//! only by other processes.

use super::difference::Difference;
use crate::channel::Reason;
use crate::ids::UserId;
use crate::main_loop::session_map::SessionKey;
use crate::main_loop::state::MainLoop;
use crate::main_loop::users::{Session, UserState};
use crate::message::command::WorkerCommand;
use crate::message::disconnect::CloseInfo;
use crate::registry::SessionEntry;
use crate::store::{Storage, UserMark};
use crate::sync::Arc;

/// What a client hears whose row is gone.
const ROW_GONE: &str = "your account is no longer in the server's database";

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Compares the next rows, and the sessions of users in that range. True when more are ahead in this round.
    pub(in crate::main_loop) fn compare_rows(&mut self, max: usize) -> bool {
        let after = self.reconciler.users.after();
        if after.is_none() {
            self.compare_registry();
        }
        let from = after.unwrap_or(UserId(i64::MIN));
        let marks = match self.cx.look(|store| store.user_marks(from, max)) {
            Ok(marks) => marks,
            Err(error) => {
                tracing::debug!(%error, "rows could not be compared");
                return false;
            }
        };
        let last = marks.last().filter(|_| marks.len() >= max).map(|mark| mark.id);
        let mut found: Vec<Difference> = marks.iter().filter_map(|mark| self.row_differs(mark)).collect();
        // A list by user would be quicker to search, and as large as all that is known of some clients.
        for (key, &user) in self.sessions.iter() {
            if after.is_none_or(|after| user > after) && last.is_none_or(|last| user <= last) {
                let has_row = marks.binary_search_by_key(&user, |mark| mark.id).is_ok();
                found.extend(self.session_differs(user, key, has_row));
            }
        }
        for difference in found {
            self.mend_user(difference);
        }
        self.reconciler.users.end_step(last);
        last.is_some()
    }

    /// Compares the registry as a whole.
    fn compare_registry(&mut self) {
        let registry = Arc::clone(&self.cx.handles.registry);
        let entries = registry.entries();
        if entries != self.sessions.len() {
            for (user, channel, session) in registry.all() {
                let has = self.users.look(user).is_some_and(|person| person.session.is_some());
                if !has {
                    self.mend_user(Difference::Registered { user, channel, session });
                }
            }
        }
        if registry.len() > entries {
            for user in registry.dangling_names() {
                self.mend_user(Difference::Stray { user });
            }
        }
    }

    fn row_differs(&self, mark: &UserMark) -> Option<Difference> {
        let UserMark { id: user, online, epoch } = *mark;
        let person = self.users.look(user);
        if person.is_some_and(|person| !person.is_at_rest()) {
            return None;
        }
        let Some(session) = person.and_then(|person| person.session.as_ref()) else {
            return online.then_some(Difference::StaleOnline { user, epoch });
        };
        let (channel, number) = (session.channel, session.number);
        if self.sessions.get((channel, number)) != Some(&user) {
            return Some(Difference::Unmapped { user, channel, session: number });
        }
        let differs = self.is_live(session) && (!online || epoch != session.epoch);
        differs.then_some(Difference::Row { user, epoch: session.epoch, says: (online, epoch) })
    }

    /// What differs of a session that main's map has.
    fn session_differs(&self, user: UserId, key: SessionKey, has_row: bool) -> Option<Difference> {
        let (channel, number) = key;
        let person = self.users.look(user);
        let session = person.and_then(|person| person.session.as_ref());
        let Some((person, session)) =
            person.zip(session).filter(|(_, session)| (session.channel, session.number) == key)
        else {
            return Some(Difference::Mapped { user, channel, session: number });
        };
        if !person.is_at_rest() || !self.is_live(session) {
            return None;
        }
        if !has_row {
            return Some(Difference::RowGone { user, channel, session: number });
        }
        let agrees = self.registry_agrees(user, person, session);
        (!agrees).then_some(Difference::Unregistered { user, channel, session: number })
    }

    fn registry_agrees(&self, user: UserId, person: &UserState, session: &Session) -> bool {
        let registry = &self.cx.handles.registry;
        let entered = registry.find(user).is_some_and(|online| {
            let place = (online.channel, online.session, online.worker);
            place == (session.channel, session.number, self.worker_of(session))
                && online.sender == person.sender
        });
        // Another process may have renamed users; then two may be online under one name, and the later has it.
        entered
            && registry
                .named(&person.sender.name)
                .is_some_and(|at| at == user || registry.is_under(at, &person.sender.name))
    }

    fn worker_of(&self, session: &Session) -> u16 {
        self.cx.handles.table.worker(session.channel) as u16
    }

    fn is_live(&self, session: &Session) -> bool {
        self.cx.handles.table.is_live(session.channel, session.number)
    }

    fn mend_user(&mut self, difference: Difference) {
        if !self.is_sure(difference) {
            return;
        }
        match difference {
            Difference::Unmapped { user, channel, session } => {
                self.sessions.insert((channel, session), user);
            }
            Difference::Mapped { channel, session, .. } => {
                self.sessions.remove((channel, session));
            }
            Difference::Unregistered { user, .. } => self.register_again(user),
            Difference::Registered { user, channel, session } => {
                self.cx.handles.registry.remove(user, channel, session);
            }
            Difference::Stray { user } => self.cx.handles.registry.forget_dangling_names(user),
            Difference::Row { user, epoch, .. } => {
                self.cx.attempt(|store| store.restore_online(user, epoch));
            }
            Difference::StaleOnline { user, epoch } => {
                self.cx.attempt(|store| store.set_offline(user, epoch));
            }
            Difference::RowGone { channel, session, .. } => {
                let close_info = CloseInfo::new(Reason::InternalError).saying(ROW_GONE);
                self.cx.handles.kicker.kick_session(channel, session, close_info);
            }
            _ => {}
        }
    }

    /// Enters a session anew. Its worker opens it to the others again when nothing of its box is left.
    fn register_again(&mut self, user: UserId) {
        let Some(person) = self.users.look(user) else { return };
        let Some(session) = &person.session else { return };
        let (channel, number, has_box) = (session.channel, session.number, session.backlog.is_some());
        let online = SessionEntry {
            channel,
            session: number,
            worker: self.worker_of(session),
            direct: false,
            sender: Arc::clone(&person.sender),
        };
        let registry = &self.cx.handles.registry;
        if let Some(present) = registry.find(user) {
            registry.remove(user, present.channel, present.session);
        }
        registry.enter(user, online);
        if !has_box {
            self.cx.post(channel, WorkerCommand::Open { channel, session: number });
        }
    }
}
