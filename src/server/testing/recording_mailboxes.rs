//! The workers as main sees them: commands are recorded instead of carried out.

use super::builders::Summary;
use crate::channel::{ChannelId, ChannelTable};
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::presence::Notice;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// A sender that records commands. As with the real mailbox, a chat for a session that has ended comes back.
#[derive(Debug)]
pub(crate) struct RecordingMailboxes {
    table: Arc<ChannelTable>,
    workers: usize,
    commands: Mutex<Vec<WorkerCommand>>,
    full: AtomicBool,
}

impl RecordingMailboxes {
    pub(crate) fn new(table: Arc<ChannelTable>, workers: usize) -> Self {
        RecordingMailboxes { table, workers, commands: Mutex::default(), full: AtomicBool::new(false) }
    }

    /// Has every worker look as if it could take no more chats, or not.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Takes what was said, oldest first: to everybody, or about one channel.
    pub(crate) fn take(&self, channel: Option<ChannelId>) -> Vec<WorkerCommand> {
        self.take_those(|command| channel.is_none() || Summary::of(command).0 == channel)
    }

    /// Takes the commands of one kind, oldest first.
    pub(crate) fn take_those(&self, wanted: impl Fn(&WorkerCommand) -> bool) -> Vec<WorkerCommand> {
        self.commands.lock().extract_if(.., |command| wanted(command)).collect()
    }
}

impl RecordingMailboxes {
    /// Takes what watchers were told.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        let mut commands = self.commands.lock();
        let bulletins = commands.extract_if(.., |command| matches!(command, WorkerCommand::Presence(_)));
        let notices = bulletins.flat_map(|command| match command {
            WorkerCommand::Presence(bulletin) => bulletin.notices.clone(),
            _ => Vec::new(),
        });
        notices.collect()
    }
}

impl WorkerSender for RecordingMailboxes {
    fn post(&self, worker: usize, mail: &mut Vec<WorkerCommand>, refused: &mut Vec<WorkerCommand>) {
        assert!(worker < self.workers, "a letter to a worker that is not there");
        let mut commands = self.commands.lock();
        for command in mail.drain(..) {
            match &command {
                WorkerCommand::Chat { to, session, .. } if !self.table.is_live(*to, *session) => {
                    refused.push(command);
                }
                _ => commands.push(command),
            }
        }
    }

    fn is_full(&self, _worker: usize) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    fn workers(&self) -> usize {
        self.workers
    }
}
