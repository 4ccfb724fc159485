//! Passwords: argon2id on threads of their own, so that no worker and not main ever waits for one.
//!
//! Workers submit jobs, the auth threads run [`Verifier::run`]. A password that was verified a moment ago is
//! recalled from a keyed in-memory hash, so that a reconnect does not cost a full argon2.

use super::answer::Answer;
use super::ask::{Ask, Asker, Login};
use super::attempts::{Account, Attempts, TOO_MANY_FAILURES};
use super::storage::{Lookup, UserRow};
use crate::addr::IpBlock;
use crate::clock::Clock;
use crate::hashing::IdMap;
use crate::ident::UserId;
use crate::offline::{Mail, OfflineQueue, Outlet, Settles};
use crate::protocol::errno::Errno;
use crate::protocol::request::Caps;
use crate::sync::{Arc, Lock};
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};
use std::net::SocketAddr;

/// Jobs that may wait at once. Past it, clients get errno 18.
pub const JOBS_MAX: usize = 4096;
/// Verified passwords for which there is room from the start. What is not used is not resident, and a small map that
/// grows leaves holes behind in the memory of the auth threads, which have no other use for them.
const RECALL_ROOM: usize = 3500;
/// Verified passwords that are remembered at once.
const RECALL_MAX: usize = 65_536;
/// Microseconds in a second.
const SECOND_US: u64 = 1_000_000;
/// How long a verified password is remembered at most, in microseconds (10 minutes).
const RECALL_US: u64 = 600_000_000;
/// argon2 checks this password when there is no such user, so that the time taken does not tell.
const NOBODYS_PASSWORD: &[u8] = b"nobody";

/// The cost of new password hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

/// Who wants to log in, as the client names it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Who {
    /// By number.
    Id(UserId),
    /// By name.
    Name(Box<str>),
}

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
        /// The name, already found acceptable.
        name: Box<str>,
        /// The password.
        password: Box<str>,
    },
}

impl Task {
    /// The msgid of the answer.
    pub fn answered_by(&self) -> i64 {
        match self {
            Task::Login { .. } => 2,
            Task::Register { .. } => 5,
        }
    }
}

/// A task, with who asked for it.
#[derive(Debug)]
pub struct Job {
    /// Who.
    pub asker: Asker,
    /// What.
    pub task: Task,
}

/// The front of the auth threads: their queue, and what they remember.
pub struct Auth {
    jobs: Sender<Job>,
    key: [u8; 32],
    recalled: Lock<IdMap<u64, Recalled>>,
}

/// What who and password hash to, under a key that nobody knows. Larger than its map's key, which finds; the rest tells
/// whether that is it.
#[derive(Clone, Copy)]
struct Recall {
    key: u64,
    rest: u32,
}

struct Recalled {
    rest: u32,
    /// When it is forgotten, in whole seconds.
    until_s: u32,
    user: UserId,
    verified: Verified,
}

const _: () = assert!(size_of::<(u64, Recalled)>() <= 32);

impl Recalled {
    fn is_good(&self, rest: u32, now_us: u64) -> bool {
        self.rest == rest && now_us < u64::from(self.until_s) * SECOND_US
    }
}

/// Tells a stored hash from any other, in far fewer bytes, in this run of the server. A quick hash will do: whoever could
/// write one that collides could write any other just as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verified(u64);

impl Verified {
    /// The mark of a stored hash.
    pub fn of(stored: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(stored.as_bytes());
        Verified(hasher.finish())
    }
}

impl Auth {
    /// A front, and where its jobs come out.
    ///
    /// # Errors
    /// When the kernel gives no random key.
    pub fn new() -> Result<(Self, Receiver<Job>), getrandom::Error> {
        let (jobs, taken) = crossbeam_channel::bounded(JOBS_MAX);
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        let recalled = IdMap::with_capacity_and_hasher(RECALL_ROOM, BuildHasherDefault::default());
        Ok((Auth { jobs, key, recalled: Lock::new(recalled) }, taken))
    }

    /// Queues a job.
    ///
    /// # Errors
    /// The job, when [`JOBS_MAX`] are waiting or the server stops.
    pub fn submit(&self, job: Job) -> Result<(), Job> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
        })
    }

    /// The login of a job whose password was verified a short time ago.
    pub fn recall(&self, job: &Job, now_us: u64) -> Option<Login> {
        let Task::Login { peer, who, password, caps, lines } = &job.task else { return None };
        let name = self.name_of(who, password);
        let recalled = self.recalled.lock();
        let known = recalled.get(&name.key).filter(|known| known.is_good(name.rest, now_us))?;
        Some(Login {
            asker: job.asker.clone(),
            peer: *peer,
            user: known.user,
            token: None,
            verified: Some(known.verified),
            renewed: None,
            again: Some((who.clone(), password.clone())),
            caps: *caps,
            lines: *lines,
            proven: false,
        })
    }

    /// Forgets a password that main has found changed.
    pub fn forget(&self, who: &Who, password: &str) {
        let name = self.name_of(who, password);
        self.recalled.lock().remove(&name.key);
    }

    /// Remembers a password that was verified just now.
    pub(crate) fn remember(&self, who: &Who, password: &str, user: UserId, verified: Verified, now_us: u64) {
        let name = self.name_of(who, password);
        let mut recalled = self.recalled.lock();
        if recalled.len() >= RECALL_MAX {
            recalled.retain(|_, known| known.is_good(known.rest, now_us));
        }
        if recalled.len() >= RECALL_MAX {
            recalled.clear();
        }
        let until_s = ((now_us + RECALL_US) / SECOND_US) as u32;
        recalled.insert(name.key, Recalled { rest: name.rest, until_s, user, verified });
    }

    /// A keyed hash of who and password: what is remembered reveals neither.
    fn name_of(&self, who: &Who, password: &str) -> Recall {
        let mut mac = Blake2sMac256::new(&self.key.into());
        match who {
            Who::Id(user) => {
                mac.update(&[0]);
                mac.update(&user.0.to_le_bytes());
            }
            Who::Name(name) => {
                mac.update(&[1]);
                mac.update(&(name.len() as u64).to_le_bytes());
                mac.update(name.as_bytes());
            }
        }
        mac.update(password.as_bytes());
        let hash: [u8; 32] = mac.finalize().into_bytes().into();
        let key = u64::from_le_bytes(std::array::from_fn(|at| hash[at]));
        let rest = u32::from_le_bytes(std::array::from_fn(|at| hash[size_of::<u64>() + at]));
        Recall { key, rest }
    }
}

/// One auth thread.
pub struct Verifier<S> {
    /// Its share of the jobs.
    pub jobs: Receiver<Job>,
    /// Where verified passwords are remembered.
    pub auth: Arc<Auth>,
    /// Failed logins.
    pub attempts: Arc<Attempts>,
    /// Users, to be read only.
    pub lookup: Box<dyn Lookup + Send>,
    /// Main's queue, for what was verified.
    pub queue: Arc<OfflineQueue<S>>,
    /// The workers, for what was not.
    pub outlet: Arc<dyn Outlet>,
    /// Which worker owns a channel.
    pub worker_of: Box<dyn Fn(&Asker) -> usize + Send>,
    /// The cost of new hashes.
    pub cost: Cost,
    /// For what is remembered.
    pub clock: Clock,
}

impl<S> Verifier<S> {
    /// Works until the front is gone.
    pub fn run(mut self) {
        let hasher = hasher(self.cost);
        let nobody = hasher
            .as_ref()
            .and_then(|hasher| hasher.hash_password(NOBODYS_PASSWORD).ok())
            .map(|hash| hash.to_string());
        while let Ok(job) = self.jobs.recv() {
            let Job { asker, task } = job;
            let outcome = match (&hasher, task) {
                (None, task) => Err((task.answered_by(), Errno::Busy, Errno::Busy.text())),
                (Some(hasher), Task::Login { peer, who, password, caps, lines }) => {
                    self.verify(hasher, nobody.as_deref(), &asker, peer, (&who, caps, lines), &password)
                }
                (Some(hasher), Task::Register { name, password }) => {
                    self.register(hasher, &asker, name, &password)
                }
            };
            let refusal = match outcome {
                Ok(ask) => self.queue.ask(ask).err().map(|ask| {
                    let msgid = if matches!(*ask, Ask::Register { .. }) { 5 } else { 2 };
                    (msgid, Errno::Busy, Errno::Busy.text())
                }),
                Err(refusal) => Some(refusal),
            };
            if let Some((msgid, errno, text)) = refusal {
                self.refuse(&asker, msgid, errno, text);
            }
        }
    }

    fn verify(
        &mut self,
        hasher: &Argon2<'_>,
        nobody: Option<&str>,
        asker: &Asker,
        peer: SocketAddr,
        (who, caps, lines): (&Who, Caps, bool),
        password: &str,
    ) -> Result<Ask, Refusal> {
        let found = match who {
            Who::Id(user) => self.lookup.user(*user),
            Who::Name(name) => self.lookup.user_named(name),
        };
        let row = found.map_err(|error| {
            tracing::error!(%error, "a login could not be looked up");
            (2, Errno::NotStored, Errno::NotStored.text())
        })?;
        if let (true, Who::Name(name), None | Some(UserRow { password: None, .. })) = (lines, who, &row) {
            return Ok(Ask::Guest { asker: asker.clone(), peer, name: name.clone() });
        }
        let account = Account::named(who, row.as_ref().map(|row| row.id));
        let address = IpBlock::of(peer.ip());
        if self.attempts.are_exhausted(address, account.as_ref(), self.clock.now().mono_us) {
            return Err((2, Errno::TooMany, TOO_MANY_FAILURES));
        }
        let known = row.and_then(|row| Some((row.id, row.password?)));
        // For nobody as long as for a user who exists, so that the time does not tell.
        let stored = known.as_ref().map(|(_, stored)| stored.as_str()).or(nobody);
        let is_right = stored.is_some_and(|stored| matches(stored, password));
        let Some((id, stored)) = known.filter(|_| is_right) else {
            self.attempts.note_failure(address, account, self.clock.now().mono_us);
            return Err((2, Errno::Refused, Errno::Refused.text()));
        };
        let renewed = is_weaker(&stored, self.cost)
            .then(|| hasher.hash_password(password.as_bytes()).ok())
            .flatten()
            .map(|hash| hash.to_string());
        let current = Verified::of(renewed.as_deref().unwrap_or(&stored));
        self.auth.remember(who, password, id, current, self.clock.now().mono_us);
        Ok(Ask::Login(Box::new(Login {
            asker: asker.clone(),
            peer,
            user: id,
            token: None,
            verified: Some(Verified::of(&stored)),
            renewed: renewed.map(Into::into),
            again: Some((who.clone(), password.into())),
            caps,
            lines,
            proven: false,
        })))
    }

    fn register(
        &mut self,
        hasher: &Argon2<'_>,
        asker: &Asker,
        name: Box<str>,
        password: &str,
    ) -> Result<Ask, Refusal> {
        // Main decides; this only spares a hash for a name that is taken already.
        if matches!(self.lookup.user_named(&name), Ok(Some(_))) {
            return Err((5, Errno::Refused, NAME_TAKEN));
        }
        let hash =
            hasher.hash_password(password.as_bytes()).map_err(|_| (5, Errno::Busy, Errno::Busy.text()))?;
        Ok(Ask::Register { asker: asker.clone(), name, password: hash.to_string().into() })
    }

    fn refuse(&self, asker: &Asker, msgid: i64, errno: Errno, text: &'static str) {
        let answer = Answer::Refused { msgid, errno, text: text.into(), seq: asker.seq.clone() };
        let letter = Mail::Answer { channel: asker.channel, settles: Settles::Login, answer: Some(answer) };
        self.outlet.post((self.worker_of)(asker), &mut vec![letter], &mut Vec::new());
    }
}

/// The sentence behind errno 1 for a name that somebody has.
pub const NAME_TAKEN: &str = "the name is taken";

type Refusal = (i64, Errno, &'static str);

fn hasher(cost: Cost) -> Option<Argon2<'static>> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn matches(stored: &str, password: &str) -> bool {
    PasswordHash::new(stored)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

fn is_weaker(stored: &str, cost: Cost) -> bool {
    let Ok(hash) = PasswordHash::new(stored) else { return false };
    let Ok(params) = Params::try_from(&hash) else { return false };
    params.m_cost() < cost.memory_kib || params.t_cost() < cost.passes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::attempts::AttemptLimits;
    use crate::service::storage::Storage;
    use crate::testing::commons::Commons;
    use crate::testing::letterbox::Letterbox;
    use crate::testing::memory::Disk;
    use crate::testing::wire::Fd;

    const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

    fn hash(password: &str, cost: Cost) -> String {
        hasher(cost).unwrap().hash_password(password.as_bytes()).unwrap().to_string()
    }

    #[test]
    fn a_hash_is_verified_with_its_own_parameters() {
        let stored = hash("secret", CHEAP);
        assert!(stored.starts_with("$argon2id$"));
        assert!(matches(&stored, "secret"));
        assert!(!matches(&stored, "Secret"));
        assert!(!matches("not a hash", "secret"));
    }

    #[test]
    fn only_weaker_hashes_are_renewed() {
        let stored = hash("secret", CHEAP);
        assert!(!is_weaker(&stored, CHEAP));
        assert!(is_weaker(&stored, Cost { passes: 2, ..CHEAP }));
        assert!(is_weaker(&stored, Cost { memory_kib: 16, ..CHEAP }));
    }

    #[test]
    fn a_remembered_password_is_recalled_only_as_it_was() {
        let (auth, _jobs) = Auth::new().unwrap();
        let channel = crate::channel::ChannelId { slot: 0, generation: 1 };
        let job = |password: &str| Job {
            asker: Asker { channel, re: 1, seq: None },
            task: Task::Login {
                peer: ([127, 0, 0, 1], 1).into(),
                who: Who::Id(UserId(1)),
                password: password.into(),
                caps: Caps::default(),
                lines: false,
            },
        };
        auth.remember(&Who::Id(UserId(1)), "secret", UserId(1), Verified::of("hash"), 0);
        assert!(auth.recall(&job("secret"), 1).is_some());
        assert!(auth.recall(&job("guess"), 1).is_none());
        assert!(auth.recall(&job("secret"), RECALL_US).is_none(), "it expires");
        auth.forget(&Who::Id(UserId(1)), "secret");
        assert!(auth.recall(&job("secret"), 1).is_none());
    }
    const FAR: &str = "192.0.2.1:4";

    /// An auth thread that has one user, ann, and what it answers to a login.
    fn verifier(limits: AttemptLimits) -> (Verifier<Fd>, UserId) {
        let commons = Commons::new(4);
        let disk = Disk::default();
        let mut store = disk.open(0);
        store.begin().unwrap();
        let ann = store.add_user("ann", Some(&hash("secret", CHEAP))).unwrap().unwrap();
        store.commit().unwrap();
        let verifier = Verifier {
            jobs: commons.jobs.clone(),
            auth: Arc::clone(&commons.auth),
            attempts: Arc::new(Attempts::new(limits)),
            lookup: Box::new(disk.lookup()),
            queue: Arc::clone(&commons.queue),
            outlet: Arc::new(Letterbox::new(Arc::clone(&commons.table), 1)),
            worker_of: Box::new(|_| 0),
            cost: CHEAP,
            clock: commons.clock,
        };
        (verifier, ann)
    }

    fn errno(verifier: &mut Verifier<Fd>, who: &Who, password: &str) -> Option<Errno> {
        let channel = crate::channel::ChannelId { slot: 0, generation: 1 };
        let asker = Asker { channel, re: 1, seq: None };
        let (hasher, peer) = (hasher(CHEAP).unwrap(), FAR.parse().unwrap());
        let answer = verifier.verify(&hasher, None, &asker, peer, (who, Caps::default(), false), password);
        answer.err().map(|refusal| refusal.1)
    }

    #[test]
    fn failures_by_number_and_by_name_count_together_for_one_user() {
        let (mut verifier, ann) = verifier(AttemptLimits { per_user: 2, per_address: 9 });
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
        let (mut verifier, ann) = verifier(AttemptLimits { per_user: 1, per_address: 1 });
        for _ in 0..3 {
            assert_eq!(errno(&mut verifier, &Who::Id(ann), "secret"), None);
        }
    }

    #[test]
    fn names_that_nobody_has_are_counted_like_users() {
        let (mut verifier, _) = verifier(AttemptLimits { per_user: 1, per_address: 9 });
        let nobody = Who::Name("nobody".into());
        assert_eq!(errno(&mut verifier, &nobody, "guess"), Some(Errno::Refused));
        assert_eq!(errno(&mut verifier, &nobody, "guess"), Some(Errno::TooMany), "as for somebody");
    }
}
