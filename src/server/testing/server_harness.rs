//! Main and workers together, one after the other on the test's thread. A password is right when it is the stored
//! hash, word for word.

use super::builders::{HASH, SECOND_US};
use super::fake_socket::{Client, Fd};
use super::fixtures::{CAPACITY, policy};
use super::memory::{Disk, MemoryStore};
use super::worker_harness::WorkerHarness;
use crate::auth::pool::{Job, Task};
use crate::channel::ChannelId;
use crate::ids::UserId;
use crate::main_loop::context::Policy;
use crate::main_loop::state::MainLoop;
use crate::message::command::WorkerCommand;
use crate::message::reply::Answer;
use crate::message::reply_to::Completes;
use crate::message::reply_to::ReplyTo;
use crate::message::request::{Ask, Login};
use crate::message::request::{HashTag, Who};
use crate::protocol::errno::Errno;
use crate::protocol::msgid::Msgid;
use crate::store::{Lookup, Transactions, UserRow, Users};

/// Rounds without anything to do after which a server is at rest: what is said in one is heard in the next.
const QUIET_ROUNDS: usize = 3;
/// Rounds after which it never will be.
const ROUNDS_MAX: usize = 10_000;

/// A whole server without threads.
pub(crate) struct ServerHarness {
    pub(crate) workers: WorkerHarness,
    pub(crate) main: MainLoop<MemoryStore, Fd>,
    pub(crate) disk: Disk,
}

impl ServerHarness {
    /// One worker, the usual policy.
    pub(crate) fn new() -> Self {
        ServerHarness::with(policy(), 1)
    }

    pub(crate) fn with(policy: Policy, workers: usize) -> Self {
        ServerHarness::on(Disk::default(), policy, workers)
    }

    fn on(disk: Disk, policy: Policy, workers: usize) -> Self {
        ServerHarness::over(disk, policy, WorkerHarness::with(workers, CAPACITY))
    }

    /// Around workers that the test has made.
    pub(crate) fn over(disk: Disk, policy: Policy, workers: WorkerHarness) -> Self {
        let now_ms = workers.fixtures.clock.now().unix_ms;
        let (store, trusted) = disk.start(now_ms);
        let [accepted, unfinished] = disk.chats(trusted.now_ms(workers.fixtures.clock.now()));
        let main = MainLoop::new(store, policy, workers.fixtures.surroundings(&workers.worker_sender));
        ServerHarness { workers, main: main.with_trusted(trusted).with_chats(accepted, unfinished), disk }
    }

    /// The next run of the server, on the same disk, as after a crash.
    pub(crate) fn restarted(self) -> Self {
        let (policy, workers) = (self.main.cx.policy.clone(), self.workers.states.len());
        ServerHarness::on(self.disk, policy, workers)
    }

    /// Adds a user, as another program would.
    pub(crate) fn user(&mut self, name: &str) -> UserId {
        let mut store = self.disk.beside();
        store.begin().unwrap();
        let user = store.add_user(name, Some(HASH)).unwrap().expect("the name is free");
        store.commit().unwrap();
        user
    }

    /// A client of the first worker who is logged in.
    pub(crate) fn online(&mut self, name: &str) -> (UserId, ChannelId, Client) {
        let user = self.user(name);
        let (channel, client) = self.enter(user);
        (user, channel, client)
    }

    /// Connects and logs in, and forgets the answer.
    pub(crate) fn enter(&mut self, user: UserId) -> (ChannelId, Client) {
        let (channel, client) = self.workers.accept();
        self.log_in(&client, &login(user));
        (channel, client)
    }

    /// Logs in on a connection, and answers what that brought.
    pub(crate) fn log_in(&mut self, client: &Client, login: &str) -> String {
        client.send(login);
        self.run();
        let answer = client.heard();
        assert!(answer.contains(r#""errno":0"#), "{answer}");
        answer
    }

    /// Main takes all that waits, in one batch. Answers whether there was anything.
    pub(crate) fn main(&mut self) -> bool {
        let entries = self.workers.entries();
        let any = !entries.is_empty() || self.main.cx.transaction.is_under_way();
        let clock = self.workers.fixtures.clock;
        for entry in entries {
            self.main.take(entry, clock.now());
        }
        self.main.finish(&|| clock.now());
        any
    }

    /// Passwords are verified. Answers whether there were any.
    pub(crate) fn verify(&mut self) -> bool {
        let jobs = self.workers.fixtures.jobs.take_all();
        let any = !jobs.is_empty();
        for job in jobs {
            match verified(&self.disk, job) {
                Ok(ask) => self.workers.fixtures.queue.ask(ask).expect("there is room"),
                Err(refusal) => self.workers.post(*refusal),
            }
        }
        any
    }

    /// Everybody works until there is nothing left to do at once. Then everything says the same everywhere.
    pub(crate) fn run(&mut self) {
        self.work();
        self.check_invariants();
    }

    /// The reconciler, asked to look at everything, finds nothing. While writes are owed, rows are behind.
    pub(crate) fn check_invariants(&mut self) {
        if !self.main.is_settled() {
            return;
        }
        let before = self.workers.fixtures.metrics.reconciled.value();
        self.main.look_around();
        self.work();
        self.main.looked_around();
        let found = self.workers.fixtures.metrics.reconciled.value() - before;
        assert_eq!(found, 0, "something differs that nobody has touched");
    }

    fn work(&mut self) {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            let worked = self.workers.turn();
            let verified = self.verify();
            let any = self.main() || worked || verified;
            quiet = if any { 0 } else { quiet + 1 };
            if quiet == QUIET_ROUNDS {
                return;
            }
        }
        panic!("the server is never at rest");
    }

    /// Time passes, and everybody works.
    pub(crate) fn pass(&mut self, seconds: u64) {
        self.workers.fixtures.clock.advance(seconds * SECOND_US);
        self.run();
    }

    pub(crate) fn is_online(&self, user: UserId) -> bool {
        self.disk.user(user).is_some_and(|row| row.online)
    }
}

/// The request to log in.
pub(crate) fn login(user: UserId) -> String {
    format!(r#"{{"msgid":1,"id":{user},"password":"{HASH}"}}"#)
}

/// The same by a client with an extension.
pub(crate) fn login_with(user: UserId, cap: &str) -> String {
    format!(r#"{{"msgid":1,"id":{user},"password":"{HASH}","caps":["{cap}"]}}"#)
}

/// The request to chat, with `seq`.
pub(crate) fn chat_with_seq(to: UserId, text: &str, seq: i64) -> String {
    format!(r#"{{"msgid":6,"toid":{to},"msg":"{text}","time":"now","seq":{seq}}}"#)
}

/// The request to chat, without `seq`.
pub(crate) fn chat(to: UserId, text: &str) -> String {
    format!(r#"{{"msgid":6,"toid":{to},"msg":"{text}","time":"now"}}"#)
}

pub(crate) fn verified(disk: &Disk, job: Job) -> Result<Ask, Box<WorkerCommand>> {
    let Job { reply_to, task } = job;
    match task {
        Task::Register { peer, name, password } => Ok(Ask::Register { reply_to, peer, name, password }),
        Task::Login { peer, who, password, caps, lines } => {
            let mut lookup = disk.lookup();
            let found = match &who {
                Who::Id(user) => lookup.user(*user),
                Who::Name(name) => lookup.user_called(name),
            };
            match found.unwrap() {
                Some(UserRow { id: user, password: Some(stored), .. }) if stored == *password => {
                    let again = Some((who, password));
                    let verified = Some(HashTag::of(&stored));
                    Ok(Ask::Login(Box::new(Login {
                        reply_to,
                        peer,
                        user,
                        token: None,
                        verified,
                        renewed: None,
                        again,
                        caps,
                        lines,
                        proven: false,
                    })))
                }
                _ => Err(Box::new(refused(reply_to))),
            }
        }
    }
}

fn refused(reply_to: ReplyTo) -> WorkerCommand {
    let errno = Errno::Refused;
    let answer =
        Some(Answer::Refused { re: Msgid::Login, errno, text: errno.text().into(), seq: reply_to.seq });
    WorkerCommand::Answer { channel: reply_to.channel, settles: Completes::Login, answer }
}

#[cfg(test)]
mod confirming;
#[cfg(test)]
mod tests;
