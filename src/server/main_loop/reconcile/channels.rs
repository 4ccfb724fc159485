//! The way through the slots: table, lingering channels, and the workers' connections.
//!
//! On main. A step notes how its slots stand and asks the workers what they hold. When a worker answers, everything
//! that it had done by the time of the note has reached main, so what stands as noted can be compared.

use super::difference::{Difference, SURE_US};
use crate::channel::{ChannelId, Reason, SessionNo, Stage};
use crate::ids::UserId;
use crate::main_loop::lingering::LingeringChannel;
use crate::main_loop::state::MainLoop;
use crate::message::command::WorkerCommand;
use crate::message::disconnect::{CloseInfo, DeliveryReport, Departure};
use crate::store::Storage;

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Asks the workers about the next slots, unless answers are still due.
    pub(in crate::main_loop) fn ask_holders(&mut self, max: u32) {
        let used = self.cx.handles.table.used();
        let Some((from, to)) = self.reconciler.channels.take_slots(used, max) else { return };
        let workers = self.cx.handles.worker_sender.workers();
        let mut asked: Vec<Vec<(ChannelId, Stage)>> = (0..workers).map(|_| Vec::new()).collect();
        for id in (from..to).filter_map(|slot| self.cx.handles.table.occupant(slot)) {
            if let Some(list) = asked.get_mut(self.cx.handles.table.worker(id)) {
                list.push((id, self.cx.handles.table.stage(id)));
            }
        }
        self.reconciler.channels.ask(asked);
        self.compare_seats(from, to);
        for worker in 0..workers {
            self.cx.handles.worker_sender.post(
                worker,
                &mut vec![WorkerCommand::Audit { from, to }],
                &mut Vec::new(),
            );
        }
    }

    /// A worker has said which channels it holds.
    pub(in crate::main_loop) fn audited(&mut self, worker: usize, held: &[ChannelId]) {
        let Some(asked) = self.reconciler.channels.take_asked(worker) else { return };
        for (channel, stage) in asked {
            // Whatever has changed since is under way.
            if self.cx.handles.table.stage(channel) == stage
                && let Some(difference) =
                    self.channel_differs(channel, stage, held.binary_search(&channel).is_ok())
            {
                self.mend_channel(difference);
            }
        }
        for channel in held {
            let table = &self.cx.handles.table;
            if table.stage(*channel) == Stage::Free || table.worker(*channel) != worker {
                self.mend_channel(Difference::WrongId { channel: *channel, worker });
            }
        }
    }

    /// Looks for lingering channels that are free. Main alone has channels linger, and frees them.
    pub(in crate::main_loop) fn compare_seats(&mut self, from: u32, to: u32) {
        let to = (to as usize).min(self.lingering.slots());
        for slot in from as usize..to {
            let channel = self.lingering.in_slot(slot).map(|entry| entry.channel);
            if let Some(channel) =
                channel.filter(|channel| self.cx.handles.table.stage(*channel) == Stage::Free)
            {
                self.mend_channel(Difference::Seated { channel });
            }
        }
    }

    fn channel_differs(&self, channel: ChannelId, stage: Stage, is_held: bool) -> Option<Difference> {
        let session = self.session_on(channel).map(|(_, session)| session);
        let over = session.map(|session| Difference::Over { channel, session });
        let unheld = (!is_held).then_some(Difference::NoSocket { channel });
        match stage {
            Stage::Free => None,
            Stage::LoggedIn(number) if session != Some(number) => {
                Some(Difference::Unknown { channel, session: number })
            }
            Stage::LoggedIn(_) => unheld,
            Stage::Connected => over.or(unheld),
            Stage::Offline => {
                match self.lingering.find(channel) {
                    None => Some(Difference::MissingLinger { channel }),
                    // A connection that could never be watched is not held; it goes when its grace is over.
                    Some(entry) => over.or_else(|| self.seat_differs(entry)),
                }
            }
        }
    }

    fn seat_differs(&self, entry: &LingeringChannel) -> Option<Difference> {
        let channel = entry.channel;
        if !entry.settled {
            return Some(Difference::Unsettled { channel, session: entry.session });
        }
        let over_us = entry.noticed_us + self.cx.policy.grace_us;
        let forgotten = !entry.due && self.cx.now.mono_us >= over_us + SURE_US;
        (forgotten || entry.due && !entry.closing).then_some(Difference::Overdue { channel })
    }

    /// The session that main has on a channel.
    fn session_on(&self, channel: ChannelId) -> Option<(UserId, SessionNo)> {
        let user = self.cx.handles.table.user(channel)?;
        let session = self.users.look(user)?.session.as_ref()?;
        (session.channel == channel).then_some((user, session.number))
    }

    fn mend_channel(&mut self, difference: Difference) {
        if !self.is_sure(difference) {
            return;
        }
        match difference {
            Difference::NoSocket { channel } => {
                self.cx.handles.kicker.kick(channel, Reason::InternalError);
            }
            Difference::WrongId { channel, worker } => {
                let mut mail = vec![WorkerCommand::Close { channel }];
                self.cx.handles.worker_sender.post(worker, &mut mail, &mut Vec::new());
            }
            Difference::Unknown { channel, session } => {
                let close_info = CloseInfo::new(Reason::InternalError);
                self.cx.handles.kicker.kick_session(channel, session, close_info);
            }
            Difference::Over { channel, session } => {
                if let Some((user, _)) = self.session_on(channel) {
                    self.sessions.insert((channel, session), user);
                }
                // The channel's own end, if it has left, is known.
                self.make_up_departure(channel, Some(session), true);
            }
            Difference::MissingLinger { channel } => {
                let session = self.session_on(channel);
                if let Some((user, session)) = session {
                    self.sessions.insert((channel, session), user);
                }
                self.make_up_departure(channel, session.map(|(_, session)| session), false);
            }
            Difference::Seated { channel } => self.end_lingering(channel),
            Difference::Overdue { channel } => self.lingering.end_grace(&mut self.cx, channel),
            Difference::Unsettled { channel, session } => self.settle_with_nothing(channel, session),
            _ => {}
        }
    }

    /// Ends what should have ended long ago. Its worker has no delivery report for it any more, or will send a second one
    /// that brings what is unsent.
    fn make_up_departure(&mut self, channel: ChannelId, session: Option<SessionNo>, stays: bool) {
        let close_info = CloseInfo::new(Reason::InternalError);
        if !stays {
            self.cx.post(channel, WorkerCommand::Leave { channel, session, close_info: close_info.clone() });
        }
        let (noticed_us, at_ms) = (self.cx.now.mono_us, self.cx.now.unix_ms);
        self.depart(&Departure {
            channel,
            session,
            stays,
            noticed_us,
            queued_us: noticed_us,
            at_ms,
            close_info,
        });
        self.settle_with_nothing(channel, session);
    }

    fn settle_with_nothing(&mut self, channel: ChannelId, session: Option<SessionNo>) {
        self.settle(DeliveryReport { channel, session, unsent: Vec::new(), delivered: 0 });
    }
}
