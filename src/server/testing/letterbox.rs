//! The workers as main sees them: letters are recorded instead of opened.

use super::words::Said;
use crate::channel::{ChannelId, ChannelTable};
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::presence::Notice;
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// An outlet that records letters. As with the real mailbox, a chat for a session that has ended comes back.
#[derive(Debug)]
pub(crate) struct Letterbox {
    table: Arc<ChannelTable>,
    workers: usize,
    letters: Mutex<Vec<WorkerCommand>>,
    full: AtomicBool,
}

impl Letterbox {
    pub(crate) fn new(table: Arc<ChannelTable>, workers: usize) -> Self {
        Letterbox { table, workers, letters: Mutex::default(), full: AtomicBool::new(false) }
    }

    /// Has every worker look as if it could take no more chats, or not.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Takes what was said, oldest first: to everybody, or about one channel.
    pub(crate) fn take(&self, channel: Option<ChannelId>) -> Vec<WorkerCommand> {
        self.take_those(|letter| channel.is_none() || Said::of(letter).0 == channel)
    }

    /// Takes the letters of one kind, oldest first.
    pub(crate) fn take_those(&self, wanted: impl Fn(&WorkerCommand) -> bool) -> Vec<WorkerCommand> {
        self.letters.lock().extract_if(.., |letter| wanted(letter)).collect()
    }
}

impl Letterbox {
    /// Takes what watchers were told.
    pub(crate) fn notices(&self) -> Vec<Notice> {
        let mut letters = self.letters.lock();
        let bulletins = letters.extract_if(.., |letter| matches!(letter, WorkerCommand::Presence(_)));
        let notices = bulletins.flat_map(|letter| match letter {
            WorkerCommand::Presence(bulletin) => bulletin.notices.clone(),
            _ => Vec::new(),
        });
        notices.collect()
    }
}

impl WorkerSender for Letterbox {
    fn post(&self, worker: usize, mail: &mut Vec<WorkerCommand>, refused: &mut Vec<WorkerCommand>) {
        assert!(worker < self.workers, "a letter to a worker that is not there");
        let mut letters = self.letters.lock();
        for letter in mail.drain(..) {
            match &letter {
                WorkerCommand::Chat { to, session, .. } if !self.table.is_live(*to, *session) => {
                    refused.push(letter);
                }
                _ => letters.push(letter),
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
