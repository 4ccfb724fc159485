//! A worker's mailbox: commands from other threads, in one order.
//!
//! Any thread pushes, the worker takes. A chat's receiver is checked under the mailbox's lock: a worker that
//! empties its mailbox after a session's end has seen everything that was ever sent to that session.

use crate::channel::ChannelTable;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering};

/// Commands in a mailbox at which new chats are refused with errno 18.
pub const MAIL_MAX: usize = 65_536;
/// The same in bytes of chats: the worker copies them once for each receiver, in one turn.
pub const MAIL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Wakes a worker out of its poller. Called without any lock held.
pub trait Wake: Send + Sync {
    /// Makes the worker's present or next wait return.
    fn wake(&self);
}

/// One worker's mailbox.
pub struct Mailbox {
    commands: Mutex<Vec<WorkerCommand>>,
    /// About how many there are, to be read without the lock.
    count: AtomicUsize,
    /// The same in bytes of chats.
    bytes: AtomicUsize,
    wake: Box<dyn Wake>,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new(wake: Box<dyn Wake>) -> Self {
        let (count, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Mailbox { commands: Mutex::new(Vec::new()), count, bytes, wake }
    }

    /// Pushes commands in order. Wakes the worker when the mailbox was empty: the thread that pushes the first command
    /// wakes it. Chats for sessions that have ended come back in `refused`.
    pub fn push(
        &self,
        table: &ChannelTable,
        mail: &mut Vec<WorkerCommand>,
        refused: &mut Vec<WorkerCommand>,
    ) {
        if mail.is_empty() {
            return;
        }
        let bytes: usize = mail.iter().map(chat_bytes).sum();
        let mut commands = self.commands.lock();
        let were_none = commands.is_empty();
        for command in mail.drain(..) {
            match &command {
                WorkerCommand::Chat { to, session, .. } if !table.is_live(*to, *session) => {
                    refused.push(command);
                }
                _ => commands.push(command),
            }
        }
        // Relaxed: read only as a measure.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count.store(commands.len(), Ordering::Relaxed);
        let is_first = were_none && !commands.is_empty();
        drop(commands);
        if is_first {
            self.wake.wake();
        }
    }

    /// Takes everything; only the owning worker calls it. `into` must be empty, and its memory goes to the mailbox.
    pub fn take(&self, into: &mut Vec<WorkerCommand>) {
        debug_assert!(into.is_empty());
        let mut commands = self.commands.lock();
        std::mem::swap(&mut *commands, into);
        self.count.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= MAIL_MAX || self.bytes.load(Ordering::Relaxed) >= MAIL_BYTES_MAX
    }
}

fn chat_bytes(command: &WorkerCommand) -> usize {
    if let WorkerCommand::Chat { chat, .. } = command { chat.body.size() } else { 0 }
}

/// Every worker's mailbox, for all other threads.
pub struct Mailboxes {
    table: Arc<ChannelTable>,
    boxes: Vec<Arc<Mailbox>>,
}

impl Mailboxes {
    /// The mailboxes of one server, by worker.
    pub fn new(table: Arc<ChannelTable>, boxes: Vec<Arc<Mailbox>>) -> Self {
        Mailboxes { table, boxes }
    }
}

impl WorkerSender for Mailboxes {
    fn post(&self, worker: usize, mail: &mut Vec<WorkerCommand>, refused: &mut Vec<WorkerCommand>) {
        if let Some(mailbox) = self.boxes.get(worker) {
            mailbox.push(&self.table, mail, refused);
        }
    }

    fn is_full(&self, worker: usize) -> bool {
        self.boxes.get(worker).is_some_and(|mailbox| mailbox.is_full())
    }

    fn workers(&self) -> usize {
        self.boxes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserId;
    use crate::message::chat::{Body, Chat};

    struct Counted(Arc<AtomicUsize>);

    impl Wake for Counted {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn mailbox() -> (Mailbox, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        (Mailbox::new(Box::new(Counted(Arc::clone(&wakes)))), wakes)
    }

    #[test]
    fn a_chat_to_a_session_that_has_ended_comes_back() {
        let table = ChannelTable::new(1);
        let channel = table.open(0).unwrap();
        let session = table.begin_session(channel, UserId(1)).unwrap();
        let (mailbox, _) = mailbox();
        let chat = || WorkerCommand::Chat {
            to: channel,
            session,
            user: UserId(1),
            origin: None,
            chat: Chat::accepted(Body::Object((*b"{}").into()), None),
        };
        let mut refused = Vec::new();
        mailbox.push(&table, &mut vec![chat()], &mut refused);
        assert!(refused.is_empty());
        table.leave(channel).unwrap();
        mailbox.push(&table, &mut vec![chat(), WorkerCommand::Accept], &mut refused);
        assert!(matches!(refused[..], [WorkerCommand::Chat { .. }]));
        let mut taken = Vec::new();
        mailbox.take(&mut taken);
        assert!(matches!(taken[..], [WorkerCommand::Chat { .. }, WorkerCommand::Accept]));
    }

    #[test]
    fn a_mailbox_is_full_by_the_bytes_of_its_chats_until_it_is_emptied() {
        let table = ChannelTable::new(1);
        let channel = table.open(0).unwrap();
        let session = table.begin_session(channel, UserId(1)).unwrap();
        let (mailbox, _) = mailbox();
        let body: Arc<[u8]> = vec![b' '; MAIL_BYTES_MAX / 4].into();
        for _ in 0..4 {
            assert!(!mailbox.is_full());
            let chat = Chat::accepted(Body::Object(Arc::clone(&body)), None);
            let command = WorkerCommand::Chat { to: channel, session, user: UserId(1), origin: None, chat };
            mailbox.push(&table, &mut vec![command], &mut Vec::new());
        }
        assert!(mailbox.is_full());
        mailbox.take(&mut Vec::new());
        assert!(!mailbox.is_full());
    }

    #[test]
    fn the_first_letter_wakes() {
        let (mailbox, wakes) = mailbox();
        let table = ChannelTable::new(1);
        mailbox.push(
            &table,
            &mut vec![WorkerCommand::Accept, WorkerCommand::CloseListeners],
            &mut Vec::new(),
        );
        mailbox.push(&table, &mut Vec::new(), &mut Vec::new());
        mailbox.push(&table, &mut vec![WorkerCommand::Accept], &mut Vec::new());
        assert_eq!(wakes.load(Ordering::Relaxed), 1, "until it is emptied");
        mailbox.take(&mut Vec::new());
        mailbox.push(&table, &mut vec![WorkerCommand::Accept], &mut Vec::new());
        assert_eq!(wakes.load(Ordering::Relaxed), 2);
    }
}
