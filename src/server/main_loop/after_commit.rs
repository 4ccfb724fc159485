//! What happens when a transaction is over: commands go out to the workers, answers to those who asked.
//!
//! On main.

use super::replies::{refusal, through};
use super::session_map::SessionKey;
use super::state::MainLoop;
use super::transaction::AfterCommit;
use crate::channel::Reason;
use crate::message::command::WorkerCommand;
use crate::message::delivery::PendingReply;
use crate::message::disconnect::CloseInfo;
use crate::message::event::{BanFault, StaleOnlineFault};
use crate::message::reply::Answer;
use crate::message::reply_to::Completes;
use crate::message::request::Ask;
use crate::protocol::errno::Errno;
use crate::store::{Storage, StorageError};

impl<St: Storage, S: Send + 'static> MainLoop<St, S> {
    /// Carries out what hangs on a transaction; `failure` says why it is not committed.
    pub(super) fn carry_out(&mut self, mut effects: Vec<AfterCommit>, failure: Option<&StorageError>) {
        let committed = failure.is_none();
        let mut outgoing = Outgoing::new(self.cx.handles.worker_sender.workers());
        let mut put = |worker, command| outgoing.put(worker, command);
        let mut answers: Vec<PendingReply> = Vec::new();
        let mut replaced: Vec<SessionKey> = Vec::new();
        for effect in effects.drain(..) {
            match effect {
                AfterCommit::Replace { key } => replaced.push(key),
                AfterCommit::Post { worker, command } => put(worker, command),
                AfterCommit::Commit { worker, command, otherwise } => {
                    put(worker, if committed { command } else { *otherwise });
                }
                AfterCommit::Deliver { worker, command, .. } if committed => put(worker, command),
                AfterCommit::Deliver { user, key, mid, .. } => self.unsend(user, key, mid),
                AfterCommit::Refill { worker, commands, user, .. } if committed => {
                    for command in commands {
                        put(worker, command);
                    }
                    self.refills.push(user);
                }
                AfterCommit::Refill { user, key, sent, .. } => self.unsend_kept(user, key, sent),
                AfterCommit::GoOn { reply_to } => {
                    let worker = self.cx.handles.table.worker(reply_to.channel);
                    put(worker, through(&reply_to, (!committed).then_some(Errno::NotStored)));
                }
                AfterCommit::LoggedIn { worker, command, user, .. } if committed => {
                    self.presence.show_online(&self.cx, &self.users, user);
                    put(worker, *command);
                    if self.has_had_none_of_its_box(user) {
                        self.refills.push(user);
                    }
                }
                AfterCommit::LoggedIn { worker, user, key, reply_to, .. } => {
                    self.undo_login(user, key);
                    put(worker, refusal(&reply_to, Errno::NotStored));
                }
                AfterCommit::Befriended { user, friend, online } => {
                    if committed {
                        self.presence.watch_added(&self.users, user, friend, online);
                    }
                }
                AfterCommit::Proven { mut login } => {
                    login.proven = true;
                    let reply_to = login.reply_to.clone();
                    let fault = if committed {
                        self.cx.handles.queue.ask(Ask::Login(login)).err().map(|_| Errno::Busy)
                    } else {
                        Some(Errno::NotStored)
                    };
                    if let Some(errno) = fault {
                        put(self.cx.handles.table.worker(reply_to.channel), refusal(&reply_to, errno));
                    }
                }
                AfterCommit::CountOff { tracker, copies } => answers.extend(tracker.safe(copies)),
                AfterCommit::Safe { tracker, copies } | AfterCommit::SafeOrAgain { tracker, copies }
                    if committed =>
                {
                    answers.extend(tracker.safe(copies));
                }
                AfterCommit::Safe { tracker, copies } => {
                    answers.extend(tracker.failed(copies, Errno::NotStored));
                }
                AfterCommit::SafeOrAgain { .. } => {}
                AfterCommit::Failed { tracker, errno } => answers.extend(tracker.failed(1, errno)),
                AfterCommit::Full { tracker, user } => answers.extend(tracker.full(user)),
                AfterCommit::StaleOnline { reply, mut ghost, asked_us } => {
                    ghost.offline_us = self.cx.now.mono_us.saturating_sub(asked_us);
                    // Whoever asked may have given up.
                    let _ = reply.send(match failure {
                        None => Ok(Some(ghost)),
                        Some(error) => Err(StaleOnlineFault::NotStored(error.clone())),
                    });
                }
                AfterCommit::Bans { reply, bans } => {
                    let _ = reply.send(if committed { Ok(bans) } else { Err(BanFault::NotStored) });
                }
            }
        }
        for PendingReply { reply_to, settles, outcome } in answers {
            let channel = reply_to.channel;
            let answer = Answer::of_chat(reply_to, outcome);
            put(self.cx.handles.table.worker(channel), WorkerCommand::Answer { channel, settles, answer });
        }
        self.cx.transaction.reuse(effects);
        let mut refused = Vec::new();
        for (worker, mut commands) in outgoing.into_lists() {
            self.cx.handles.worker_sender.post(worker, &mut commands, &mut refused);
        }
        for command in refused {
            self.came_back(command);
        }
        for (channel, session) in replaced {
            self.cx.handles.kicker.kick_session(channel, session, CloseInfo::new(Reason::Replaced));
        }
    }
}

/// Commands to the workers in the order in which they are posted. Those that bring messages go before those that let
/// senders go on, to every worker: a sender that goes on may write to the receiver's worker directly. Sockets are asked for
/// last, when everything for them is on its way.
struct Outgoing {
    /// For each rank, a list for each worker.
    ranks: [Vec<Vec<WorkerCommand>>; 3],
}

impl Outgoing {
    fn new(workers: usize) -> Self {
        Outgoing { ranks: std::array::from_fn(|_| (0..workers).map(|_| Vec::new()).collect()) }
    }

    fn put(&mut self, worker: usize, command: WorkerCommand) {
        let rank = match &command {
            WorkerCommand::Answer { settles: Completes::Login, .. } => 0,
            WorkerCommand::Answer { .. } => 1,
            WorkerCommand::Close { .. } => 2,
            _ => 0,
        };
        if let Some(list) = self.ranks[rank].get_mut(worker) {
            list.push(command);
        }
    }

    fn into_lists(self) -> impl Iterator<Item = (usize, Vec<WorkerCommand>)> {
        self.ranks.into_iter().flat_map(|lists| lists.into_iter().enumerate())
    }
}
