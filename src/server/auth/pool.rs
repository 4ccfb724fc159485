//! Passwords: argon2id on threads of their own, so that no worker and not main ever waits for one.
//!
//! Workers submit jobs, the auth threads run [`Verifier::run`]. Logins go before registrations, and nothing is hashed for
//! a channel that has left: so a client that asks for many hashes keeps no other waiting for longer than one takes.

use super::cache::PasswordCache;
use super::login_limiter::{Account, Failure, LoginLimiter, TOO_MANY_FAILURES, Tried};
use super::password::{self, Hasher};
use crate::channel::ChannelTable;
use crate::clock::Clock;
use crate::ids::UserId;
use crate::ip_block::IpBlock;
use crate::message::command::{WorkerCommand, WorkerSender};
use crate::message::reply::Answer;
use crate::message::reply_to::{Completes, ReplyTo};
use crate::message::request::{Ask, HashTag, Login, Who};
use crate::offline_queue::queue::OfflineQueue;
use crate::protocol::errno::Errno;
use crate::protocol::request::Caps;
use crate::store::{Lookup, NameTaken, UserRow};
use crate::sync::Arc;
use crossbeam_channel::{Receiver, RecvError, Sender, TrySendError};
use std::net::SocketAddr;
use std::time::Duration;

/// Logins that may wait at once, and registrations. Past it, clients get errno 18.
pub const JOBS_MAX: usize = 4096;
/// How long an auth thread keeps its memory for hashes while there is nothing to hash.
const MEMORY_KEPT: Duration = Duration::from_secs(1);

/// What is to be done with a password.
#[derive(Debug)]
pub enum Task {
    /// Verify it.
    Login {
        /// The other end's address, for the history and for bans.
        peer: SocketAddr,
        /// Whose.
        who: Who,
        /// The password.
        password: Box<str>,
        /// What the client can do.
        caps: Caps,
        /// True exactly when the client speaks lines, where a name that nobody registered is a guest's.
        lines: bool,
    },
    /// Hash it for a new user.
    Register {
        /// The other end's address, for what it may register and for bans.
        peer: SocketAddr,
        /// The name, already found acceptable.
        name: Box<str>,
        /// The password.
        password: Box<str>,
    },
}

/// A task, with who asked for it.
#[derive(Debug)]
pub struct Job {
    /// Who.
    pub reply_to: ReplyTo,
    /// What.
    pub task: Task,
}

/// Where the jobs come out. Each auth thread has one.
#[derive(Clone)]
pub struct Jobs {
    logins: Receiver<Job>,
    registrations: Receiver<Job>,
}

impl Jobs {
    /// The next job, logins first. Waits for one: where `most` is given, no longer than that, and then answers none.
    fn next(&self, most: Option<Duration>) -> Result<Option<Job>, RecvError> {
        let late = most.map_or_else(crossbeam_channel::never, crossbeam_channel::after);
        crossbeam_channel::select_biased! {
            recv(self.logins) -> job => job.map(Some),
            recv(self.registrations) -> job => job.map(Some),
            recv(late) -> _ => Ok(None),
        }
    }

    /// All that wait, logins first.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn take_all(&self) -> Vec<Job> {
        self.logins.try_iter().chain(self.registrations.try_iter()).collect()
    }
}

/// The way to the auth threads: their queues, and the passwords that were verified a short time ago.
pub struct Auth {
    logins: Sender<Job>,
    registrations: Sender<Job>,
    cache: PasswordCache,
}

impl Auth {
    /// The way in, and where the jobs come out.
    ///
    /// # Errors
    /// When the kernel gives no random key.
    pub fn new() -> Result<(Self, Jobs), getrandom::Error> {
        let (logins, taken_logins) = crossbeam_channel::bounded(JOBS_MAX);
        let (registrations, taken_registrations) = crossbeam_channel::bounded(JOBS_MAX);
        let jobs = Jobs { logins: taken_logins, registrations: taken_registrations };
        Ok((Auth { logins, registrations, cache: PasswordCache::new()? }, jobs))
    }

    /// Queues a job.
    ///
    /// # Errors
    /// The job, when [`JOBS_MAX`] of its kind are waiting or the server stops.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        let queue = match job.task {
            Task::Login { .. } => &self.logins,
            Task::Register { .. } => &self.registrations,
        };
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }

    /// The login of a job whose password was verified a short time ago.
    pub fn cached_login(&self, job: &Job, now_us: u64) -> Option<Login> {
        let Task::Login { peer, who, password, caps, lines } = &job.task else { return None };
        let (user, verified) = self.cache.find(who, password, now_us)?;
        Some(Login {
            reply_to: job.reply_to.clone(),
            peer: *peer,
            user,
            token: None,
            verified: Some(verified),
            renewed: None,
            again: Some((who.clone(), password.clone())),
            caps: *caps,
            lines: *lines,
            proven: false,
        })
    }

    /// Forgets a password that main has found changed.
    pub fn forget(&self, who: &Who, password: &str) {
        self.cache.forget(who, password);
    }

    /// Remembers a password that was verified just now.
    pub(crate) fn remember(&self, who: &Who, password: &str, user: UserId, verified: HashTag, now_us: u64) {
        self.cache.remember(who, password, user, verified, now_us);
    }
}

/// One auth thread.
pub struct Verifier<S> {
    /// Its share of the jobs.
    pub jobs: Jobs,
    /// Where it remembers verified passwords.
    pub auth: Arc<Auth>,
    /// Failed logins and registrations.
    pub attempts: Arc<LoginLimiter>,
    /// Users, to be read only.
    pub lookup: Box<dyn Lookup + Send>,
    /// Main's queue, for what was verified.
    pub queue: Arc<OfflineQueue<S>>,
    /// The workers, for what was not.
    pub worker_sender: Arc<dyn WorkerSender>,
    /// Which channels have left, and whose the others are.
    pub table: Arc<ChannelTable>,
    /// Hashes.
    pub hasher: Hasher,
    /// Tells when a verified password is forgotten.
    pub clock: Clock,
}

impl<S> Verifier<S> {
    /// Works until the sending side is dropped.
    pub fn run(mut self) {
        loop {
            match self.jobs.next(self.hasher.holds_memory().then_some(MEMORY_KEPT)) {
                Ok(Some(job)) => self.work(job),
                Ok(None) => self.hasher.rest(),
                Err(RecvError) => return,
            }
        }
    }

    fn work(&mut self, job: Job) {
        let Job { reply_to, task } = job;
        if self.table.has_left(reply_to.channel) {
            return;
        }
        let outcome = match task {
            Task::Login { peer, who, password, caps, lines } => {
                self.verify(&reply_to, peer, (&who, caps, lines), &password)
            }
            Task::Register { peer, name, password } => self.register(&reply_to, peer, name, &password),
        };
        let refusal = match outcome {
            Ok(ask) => self.queue.ask(ask).err().map(|_| (Errno::Busy, Errno::Busy.text())),
            Err(refusal) => Some(refusal),
        };
        if let Some((errno, text)) = refusal {
            self.refuse(&reply_to, errno, text);
        }
    }

    fn verify(
        &mut self,
        reply_to: &ReplyTo,
        peer: SocketAddr,
        (who, caps, lines): (&Who, Caps, bool),
        password: &str,
    ) -> Result<Ask, Refusal> {
        let found = match who {
            Who::Id(user) => self.lookup.user(*user),
            Who::Name(name) => self.lookup.user_called(name),
        };
        let row = found.map_err(|error| {
            tracing::error!(%error, "a login could not be looked up");
            (Errno::NotStored, Errno::NotStored.text())
        })?;
        if let (true, Who::Name(name), None | Some(UserRow { password: None, .. })) = (lines, who, &row) {
            // Passwords may have white space, but a guest has no password that it could belong to.
            if password.contains(char::is_whitespace) {
                return Err((Errno::Refused, MORE_THAN_A_PASSWORD));
            }
            return Ok(Ask::Guest { reply_to: reply_to.clone(), peer, name: name.clone() });
        }
        let account = Account::named(who, row.as_ref().map(|row| row.id));
        let now_us = self.clock.now().mono_us;
        if self.attempts.are_exhausted(IpBlock::of(peer.ip()), account.as_ref(), now_us) {
            return Err((Errno::TooMany, TOO_MANY_FAILURES));
        }
        let known = row.and_then(|row| Some((row.id, row.password?)));
        let stored = known.as_ref().map(|(_, stored)| stored.as_str());
        let is_right = self.hasher.verify(stored, password.as_bytes());
        let now_us = self.clock.now().mono_us;
        let Some((id, stored)) = known.as_ref().filter(|_| is_right) else {
            let tried = Tried::Password { who, account };
            self.attempts.fail(&Failure { channel: reply_to.channel, peer, tried }, now_us);
            if let Some((user, stored)) = &known
                && !password::is_computable(stored)
                && self.attempts.may_log(now_us)
            {
                tracing::warn!(%user, "the stored password is no argon2 hash within bounds; it lets nobody in");
            }
            return Err((Errno::Refused, Errno::Refused.text()));
        };
        let renewed = self.hasher.is_weaker(stored).then(|| self.hasher.hash(password.as_bytes())).flatten();
        let current = HashTag::of(renewed.as_deref().unwrap_or(stored));
        self.auth.remember(who, password, *id, current, now_us);
        Ok(Ask::Login(Box::new(Login {
            reply_to: reply_to.clone(),
            peer,
            user: *id,
            token: None,
            verified: Some(HashTag::of(stored)),
            renewed: renewed.map(Into::into),
            again: Some((who.clone(), password.into())),
            caps,
            lines,
            proven: false,
        })))
    }

    fn register(
        &mut self,
        reply_to: &ReplyTo,
        peer: SocketAddr,
        name: Box<str>,
        password: &str,
    ) -> Result<Ask, Refusal> {
        // Main decides; this only spares a hash for a name that is taken already.
        if matches!(self.lookup.user_named(&name), Ok(Some(_))) {
            return Err((Errno::Refused, NameTaken::Exactly.text()));
        }
        if !self.attempts.register(IpBlock::of(peer.ip()), self.clock.now().mono_us) {
            return Ok(Ask::RefuseNewcomer { reply_to: reply_to.clone(), peer });
        }
        let hash = self.hasher.hash(password.as_bytes()).ok_or((Errno::Busy, Errno::Busy.text()))?;
        Ok(Ask::Register { reply_to: reply_to.clone(), peer, name, password: hash.into() })
    }

    fn refuse(&self, reply_to: &ReplyTo, errno: Errno, text: &'static str) {
        let answer = Answer::Refused { re: reply_to.re, errno, text: text.into(), seq: reply_to.seq.clone() };
        let command = WorkerCommand::Answer {
            channel: reply_to.channel,
            settles: Completes::Login,
            answer: Some(answer),
        };
        self.worker_sender.post(self.table.worker(reply_to.channel), &mut vec![command], &mut Vec::new());
    }
}

/// What a first line is refused with that has more than a name and a password.
const MORE_THAN_A_PASSWORD: &str = "the first line is a name, or a name and its password";

type Refusal = (Errno, &'static str);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::login_limiter::AddressLimit;
    use crate::auth::login_limiter::LoginLimits;
    use crate::auth::password::Cost;
    use crate::channel::ChannelId;
    use crate::protocol::msgid::Msgid;
    use crate::store::{Transactions, Users};
    use crate::testing::fake_socket::Fd;
    use crate::testing::fixtures::Fixtures;
    use crate::testing::memory::Disk;
    use crate::testing::recording_mailboxes::RecordingMailboxes;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
    const USUAL: Cost = Cost { memory_kib: 32, passes: 2, lanes: 1 };

    fn hash(password: &str, cost: Cost) -> String {
        Hasher::new(cost, Arc::default()).hash(password.as_bytes()).unwrap()
    }

    const FAR: &str = "192.0.2.1:4";
    const LIMITS: LoginLimits = LoginLimits {
        per_user: 9,
        per_address: 99,
        registrations: AddressLimit { at_most: 9, spares_loopback: true },
    };

    /// An auth thread with ann, whose hash is of a lower cost than usual, somebody with a new one, and a guest.
    fn verifier(limits: LoginLimits) -> (Verifier<Fd>, UserId) {
        let fixtures = Fixtures::new(4);
        let disk = Disk::default();
        let mut store = disk.open(0);
        store.begin().unwrap();
        let ann = store.add_user("ann", Some(&hash("secret", CHEAP))).unwrap().unwrap();
        store.add_user("usual", Some(&hash("secret", USUAL))).unwrap().unwrap();
        store.add_user("guest", None).unwrap().unwrap();
        store.commit().unwrap();
        let verifier = Verifier {
            jobs: fixtures.jobs.clone(),
            auth: Arc::clone(&fixtures.auth),
            attempts: Arc::new(LoginLimiter::new(limits, Arc::clone(&fixtures.metrics))),
            lookup: Box::new(disk.lookup()),
            queue: Arc::clone(&fixtures.queue),
            worker_sender: Arc::new(RecordingMailboxes::new(Arc::clone(&fixtures.table), 1)),
            table: Arc::clone(&fixtures.table),
            hasher: Hasher::new(USUAL, Arc::default()),
            clock: fixtures.clock,
        };
        (verifier, ann)
    }

    fn errno(verifier: &mut Verifier<Fd>, who: &Who, password: &str) -> Option<Errno> {
        let channel = ChannelId { slot: 0, generation: 1 };
        let reply_to = ReplyTo { channel, re: Msgid::Login, seq: None };
        let peer = FAR.parse().unwrap();
        let answer = verifier.verify(&reply_to, peer, (who, Caps::default(), false), password);
        answer.err().map(|refusal| refusal.0)
    }

    fn job(channel: ChannelId, task: Task) -> Job {
        Job { reply_to: ReplyTo { channel, re: Msgid::Login, seq: None }, task }
    }

    fn login_of(channel: ChannelId, user: UserId) -> Job {
        let (who, password) = (Who::Id(user), "secret".into());
        let (peer, caps) = (FAR.parse().unwrap(), Caps::default());
        job(channel, Task::Login { peer, who, password, caps, lines: false })
    }

    fn registration_of(channel: ChannelId, name: &str) -> Job {
        let peer = FAR.parse().unwrap();
        job(channel, Task::Register { peer, name: name.into(), password: "secret".into() })
    }

    #[test]
    fn failures_by_number_and_by_name_count_together_for_one_user() {
        let (mut verifier, ann) = verifier(LoginLimits { per_user: 2, per_address: 9, ..LIMITS });
        let (number, name) = (Who::Id(ann), Who::Name("ann".into()));
        assert_eq!(errno(&mut verifier, &number, "guess"), Some(Errno::Refused));
        assert_eq!(errno(&mut verifier, &name, "guess"), Some(Errno::Refused));
        for who in [&number, &name] {
            assert_eq!(errno(&mut verifier, who, "secret"), Some(Errno::TooMany), "{who:?}");
        }
        assert_eq!(
            errno(&mut verifier, &Who::Name("bob".into()), "guess"),
            Some(Errno::Refused),
            "somebody else"
        );
    }

    #[test]
    fn a_login_that_succeeds_is_no_failure() {
        let (mut verifier, ann) = verifier(LoginLimits { per_user: 1, per_address: 1, ..LIMITS });
        for _ in 0..3 {
            assert_eq!(errno(&mut verifier, &Who::Id(ann), "secret"), None);
        }
    }

    #[test]
    fn names_that_nobody_has_are_counted_like_users() {
        let (mut verifier, _) = verifier(LoginLimits { per_user: 1, per_address: 9, ..LIMITS });
        let nobody = Who::Name("nobody".into());
        assert_eq!(errno(&mut verifier, &nobody, "guess"), Some(Errno::Refused));
        assert_eq!(errno(&mut verifier, &nobody, "guess"), Some(Errno::TooMany), "as for somebody");
    }

    #[test]
    fn a_login_goes_before_all_registrations() {
        let (auth, jobs) = Auth::new().unwrap();
        let channel = ChannelId { slot: 0, generation: 1 };
        for name in ["one", "two", "three"] {
            auth.submit(registration_of(channel, name)).unwrap();
        }
        auth.submit(login_of(channel, UserId(1))).unwrap();
        let next = || jobs.next(Some(Duration::ZERO)).unwrap();
        assert!(matches!(next(), Some(Job { task: Task::Login { .. }, .. })));
        assert!(matches!(next(), Some(Job { task: Task::Register { name, .. }, .. }) if &*name == "one"));
    }

    #[test]
    fn registrations_that_wait_take_no_logins_place() {
        let (auth, _jobs) = Auth::new().unwrap();
        let channel = ChannelId { slot: 0, generation: 1 };
        for _ in 0..JOBS_MAX {
            auth.submit(registration_of(channel, "new")).unwrap();
        }
        assert!(auth.submit(registration_of(channel, "new")).is_err());
        assert!(auth.submit(login_of(channel, UserId(1))).is_ok());
    }

    #[test]
    fn nothing_is_hashed_for_a_channel_that_has_left() {
        let (mut verifier, ann) = verifier(LIMITS);
        let (gone, here) = (verifier.table.open(0).unwrap(), verifier.table.open(0).unwrap());
        verifier.table.leave(gone).unwrap();
        for job in [login_of(gone, ann), registration_of(gone, "new")] {
            verifier.work(job);
        }
        assert_eq!((verifier.hasher.worked_kib(), verifier.queue.len()), (0, 0));
        for job in [login_of(here, ann), registration_of(here, "new")] {
            verifier.work(job);
        }
        assert!(verifier.hasher.worked_kib() > 0);
        assert_eq!(verifier.queue.len(), 2);
    }

    #[test]
    fn an_address_registers_so_many_and_then_no_more_is_hashed_for_it() {
        let registrations = AddressLimit { at_most: 2, spares_loopback: true };
        let (mut verifier, _) = verifier(LoginLimits { registrations, ..LIMITS });
        let peer: SocketAddr = FAR.parse().unwrap();
        let reply_to =
            ReplyTo { channel: ChannelId { slot: 0, generation: 1 }, re: Msgid::Register, seq: None };
        let mut errno = |name: &str| {
            let before_kib = verifier.hasher.worked_kib();
            let errno = match verifier.register(&reply_to, peer, name.into(), "secret") {
                Ok(Ask::RefuseNewcomer { .. }) => Some(Errno::TooMany),
                answer => answer.err().map(|refusal| refusal.0),
            };
            (errno, verifier.hasher.worked_kib() > before_kib)
        };
        assert_eq!(errno("one"), (None, true));
        assert_eq!(errno("ann"), (Some(Errno::Refused), false), "a taken name makes no new user");
        assert_eq!(errno("two"), (None, true));
        assert_eq!(errno("three"), (Some(Errno::TooMany), false));
    }

    #[test]
    fn a_login_takes_as_long_whether_there_is_such_a_user_and_however_its_hash_is_stored() {
        let (mut verifier, ann) = verifier(LIMITS);
        let mut cost = |who: Who| {
            let before_kib = verifier.hasher.worked_kib();
            assert_eq!(errno(&mut verifier, &who, "guess"), Some(Errno::Refused), "{who:?}");
            verifier.hasher.worked_kib() - before_kib
        };
        let present = cost(Who::Name("usual".into()));
        assert!(present > 0);
        for who in [Who::Id(ann), Who::Name("guest".into()), Who::Id(UserId(999)), Who::Name("nobody".into())]
        {
            assert_eq!(cost(who.clone()), present, "{who:?}");
        }
    }

    #[test]
    fn every_failed_login_is_counted() {
        let (mut verifier, ann) = verifier(LoginLimits { per_user: 2, ..LIMITS });
        for password in ["guess", "guess", "secret"] {
            errno(&mut verifier, &Who::Id(ann), password);
        }
        assert_eq!(verifier.attempts.failed(), 2, "what was not tried has not failed");
    }
}
