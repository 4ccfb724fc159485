//! Counts the failed logins of the last minute and the registrations of the last hour, for each address and user, so that
//! no address tries passwords or makes users by the thousand. Limits what the log says of failed logins.
//!
//! Shared. The workers ask before they pass a request on. The auth threads know whose login it is: they ask again, and
//! count. Main judges tokens and guests. Loopback is exempt, because every user there has the same address; only a limit of
//! registrations that is set by the administrator holds for it.

use crate::channel::ChannelId;
use crate::ids::UserId;
use crate::ip_block::IpBlock;
use crate::message::request::Who;
use crate::metrics::Metrics;
use crate::protocol::name::MAX_NAME_CHARS;
use crate::shrink::Shrink;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::SocketAddr;

/// For how long a failure counts, in microseconds.
const FAILURE_US: u64 = 60_000_000;
/// For how long a registration counts, in microseconds.
const REGISTRATION_US: u64 = 3_600_000_000;
/// Addresses, and users of addresses, that are remembered at once, for failures and again for registrations; past it the
/// oldest are forgotten.
const REMEMBERED_MAX: usize = 65_536;
/// How often windows that are over are removed, in microseconds.
const TIDY_US: u64 = 1_000_000;
/// Most windows that are removed at once.
const TIDY_MAX: usize = 4096;
/// Lines that the log has for failed and banned logins in one window. Past it they are only counted.
const FAILURE_LINES_MAX: u32 = 200;
/// How long such a window is, in microseconds (10 s).
const FAILURE_LINES_US: u64 = 10_000_000;
/// The sentence behind errno 17 for a login that is not even tried.
pub const TOO_MANY_FAILURES: &str = "too many failed logins; try again in a minute";
/// The sentence behind errno 17 for a registration, or a new guest.
pub const TOO_MANY_REGISTRATIONS: &str = "too many registrations; try again in an hour";

/// Limits for one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoginLimits {
    /// Failures a minute for one user.
    pub per_user: usize,
    /// Failures a minute altogether.
    pub per_address: usize,
    /// New users an hour.
    pub registrations: AddressLimit,
}

/// Whose password is tried.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Account {
    /// The user with that number, whether the client gave the number or the name. There may be no such user.
    User(UserId),
    /// A name that no user has.
    Name(Box<str>),
}

impl Account {
    /// The account that a client means. `user` is the one with that name or number, if there is one. None for a name that is
    /// longer than names may be.
    pub fn named(who: &Who, user: Option<UserId>) -> Option<Self> {
        match (user, who) {
            (Some(user), _) => Some(Account::User(user)),
            (None, Who::Id(user)) => Some(Account::User(*user)),
            (None, Who::Name(name)) => {
                let is_short = name.chars().nth(MAX_NAME_CHARS).is_none();
                is_short.then(|| Account::Name(name.clone()))
            }
        }
    }
}

/// A login that failed: a wrong id, name or password, or a token that is not good.
#[derive(Debug)]
pub struct Failure<'a> {
    /// On which channel.
    pub channel: ChannelId,
    /// From where.
    pub peer: SocketAddr,
    /// By what.
    pub tried: Tried<'a>,
}

/// What a client tried to log in with.
#[derive(Debug)]
pub enum Tried<'a> {
    /// By a password.
    Password {
        /// Whose, as the client named it.
        who: &'a Who,
        /// The account; none where the name is too long for one.
        account: Option<Account>,
    },
    /// By a token.
    Token,
    /// By a first line with a name alone, which is a registered one.
    Guest(&'a str),
}

/// Failures and registrations by address, and failures by address and user.
#[derive(Debug)]
pub struct LoginLimiter {
    limits: LoginLimits,
    failures: Mutex<Windows<Key>>,
    registrations: Mutex<Windows<IpBlock>>,
    log: Mutex<LogWindow>,
    tidy_at_us: AtomicU64,
    metrics: Arc<Metrics>,
}

/// An address with one of its accounts; without one, all logins of the address.
type Key = (IpBlock, Option<Account>);

/// How often something has happened, by key, each in a window of its own.
#[derive(Debug)]
struct Windows<K> {
    length_us: u64,
    by_key: HashMap<K, Window>,
    /// When each window began, oldest first. A key whose window has begun anew is here twice; only the later one counts.
    order: VecDeque<(u64, K)>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began_us: u64,
    count: usize,
}

/// How much the log has said in this window.
#[derive(Debug, Default)]
struct LogWindow {
    began_us: u64,
    lines: u32,
    suppressed: u64,
}

impl LoginLimiter {
    /// Nothing has happened yet.
    pub fn new(limits: LoginLimits, metrics: Arc<Metrics>) -> Self {
        LoginLimiter {
            limits,
            failures: Mutex::new(Windows::new(FAILURE_US)),
            registrations: Mutex::new(Windows::new(REGISTRATION_US)),
            log: Mutex::default(),
            tidy_at_us: AtomicU64::new(0),
            metrics,
        }
    }

    /// True exactly when that address has failed too often, for that account or altogether.
    pub fn are_exhausted(&self, address: IpBlock, account: Option<&Account>, now_us: u64) -> bool {
        if address.is_loopback() {
            return false;
        }
        let failures = self.failures.lock();
        failures.count(&(address, None), now_us) >= self.limits.per_address
            || account.is_some_and(|account| {
                failures.count(&(address, Some(account.clone())), now_us) >= self.limits.per_user
            })
    }

    /// Counts a failure, and has the log say so.
    pub fn fail(&self, failure: &Failure<'_>, now_us: u64) {
        self.metrics.logins_failed.add(1);
        let (channel, peer) = (failure.channel, failure.peer);
        let account = match &failure.tried {
            Tried::Password { account, .. } => account.clone(),
            Tried::Token | Tried::Guest(_) => None,
        };
        self.note_failure(IpBlock::of(peer.ip()), account, now_us);
        if !self.may_log(now_us) {
            return;
        }
        match &failure.tried {
            Tried::Password { who: Who::Id(user), .. } => {
                tracing::info!(%channel, %peer, %user, "a login failed: wrong id or password");
            }
            Tried::Password { who: Who::Name(name), .. } => {
                let name = shortened(name);
                tracing::info!(%channel, %peer, name, "a login failed: wrong name or password");
            }
            Tried::Token => tracing::info!(%channel, %peer, "a login failed: the token is not good"),
            Tried::Guest(name) => {
                let name = shortened(name);
                tracing::info!(%channel, %peer, name, "a login failed: the name needs its password");
            }
        }
    }

    /// True exactly when the log has room for one more line about a refused login. Where it has none, the login is counted.
    pub fn may_log(&self, now_us: u64) -> bool {
        self.log_suppressed(now_us);
        self.log.lock().note(now_us)
    }

    /// Once a second: logs how many lines were left out, removes windows that are over, and gives back memory that a flood
    /// has needed.
    pub fn tidy(&self, now_us: u64) {
        // Relaxed: main alone does this.
        if now_us < self.tidy_at_us.load(Ordering::Relaxed) {
            return;
        }
        self.tidy_at_us.store(now_us + TIDY_US, Ordering::Relaxed);
        self.log_suppressed(now_us);
        self.failures.lock().tidy(now_us);
        self.registrations.lock().tidy(now_us);
    }

    /// Logs how many refused logins got no line, once their window is over.
    fn log_suppressed(&self, now_us: u64) {
        let count = self.log.lock().take_suppressed(now_us);
        if count > 0 {
            tracing::info!(count, "more logins were refused");
        }
    }

    /// True exactly when that address may register one user more.
    pub fn may_register(&self, address: IpBlock, now_us: u64) -> bool {
        self.admit(address, now_us, false)
    }

    /// Counts a registration, if that address may have one more.
    pub fn register(&self, address: IpBlock, now_us: u64) -> bool {
        self.admit(address, now_us, true)
    }

    fn admit(&self, address: IpBlock, now_us: u64, counts: bool) -> bool {
        let AddressLimit { at_most, spares_loopback } = self.limits.registrations;
        if spares_loopback && address.is_loopback() {
            return true;
        }
        let mut registrations = self.registrations.lock();
        let may = registrations.count(&address, now_us) < at_most;
        if may && counts {
            registrations.note(address, now_us);
        }
        may
    }

    fn note_failure(&self, address: IpBlock, account: Option<Account>, now_us: u64) {
        if address.is_loopback() {
            return;
        }
        let mut failures = self.failures.lock();
        failures.note((address, None), now_us);
        if account.is_some() {
            failures.note((address, account), now_us);
        }
    }

    #[cfg(test)]
    pub(crate) fn failed(&self) -> u64 {
        self.metrics.logins_failed.value()
    }
}

/// A name as a client has sent it, cut to the length that names may have.
fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

impl<K: Clone + Eq + Hash> Windows<K> {
    fn new(length_us: u64) -> Self {
        Windows { length_us, by_key: HashMap::new(), order: VecDeque::new() }
    }

    fn count(&self, key: &K, now_us: u64) -> usize {
        self.by_key.get(key).filter(|window| !self.is_over(window.began_us, now_us)).map_or(0, |w| w.count)
    }

    fn note(&mut self, key: K, now_us: u64) {
        if self.count(&key, now_us) > 0
            && let Some(window) = self.by_key.get_mut(&key)
        {
            window.count += 1;
            return;
        }
        self.forget(2, now_us);
        self.order.push_back((now_us, key.clone()));
        self.by_key.insert(key, Window { began_us: now_us, count: 1 });
    }

    /// Removes windows that are over, a bounded number a call, and gives memory back of which little is used.
    fn tidy(&mut self, now_us: u64) {
        self.forget(TIDY_MAX, now_us);
        if self.by_key.len() < self.by_key.capacity() / 4 {
            self.by_key.shrink_to(2 * self.by_key.len());
            self.order.shrink_to(2 * self.order.len());
        }
    }

    /// Removes up to `most` windows that are over. Where there is no room, the oldest goes in any case.
    fn forget(&mut self, most: usize, now_us: u64) {
        for _ in 0..most {
            let full = self.order.len() >= REMEMBERED_MAX;
            let length_us = self.length_us;
            let Some((began_us, key)) =
                self.order.pop_front_if(|(began_us, _)| full || now_us >= *began_us + length_us)
            else {
                return;
            };
            if self.by_key.get(&key).is_some_and(|window| window.began_us == began_us) {
                self.by_key.remove(&key);
            }
        }
        self.order.shrink();
        self.by_key.shrink();
    }

    fn is_over(&self, began_us: u64, now_us: u64) -> bool {
        now_us >= began_us + self.length_us
    }
}

impl LogWindow {
    /// Something has happened. True when there is room for a line.
    fn note(&mut self, now_us: u64) -> bool {
        if self.is_over(now_us) {
            *self = LogWindow { began_us: now_us, lines: 0, suppressed: self.suppressed };
        }
        let has_room = self.lines < FAILURE_LINES_MAX;
        self.lines += u32::from(has_room);
        self.suppressed += u64::from(!has_room);
        has_room
    }

    /// How many got no line, once the window is over.
    fn take_suppressed(&mut self, now_us: u64) -> u64 {
        if self.is_over(now_us) { std::mem::take(&mut self.suppressed) } else { 0 }
    }

    fn is_over(&self, now_us: u64) -> bool {
        now_us >= self.began_us + FAILURE_LINES_US
    }
}

/// A limit for one address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressLimit {
    /// The most of it.
    pub at_most: usize,
    /// True exactly when the limit is the default: then it does not hold for loopback.
    pub spares_loopback: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAR: [u8; 4] = [192, 0, 2, 1];

    fn block(ip: impl Into<std::net::IpAddr>) -> IpBlock {
        IpBlock::of(ip.into())
    }

    fn attempts() -> LoginLimiter {
        let registrations = AddressLimit { at_most: 2, spares_loopback: true };
        LoginLimiter::new(LoginLimits { per_user: 2, per_address: 3, registrations }, Arc::default())
    }

    fn user(user: i64) -> Account {
        Account::User(UserId(user))
    }

    #[test]
    fn a_user_is_closed_to_an_address_that_has_failed_too_often_for_a_minute() {
        let attempts = attempts();
        let (ann, bob) = (user(1), user(2));
        attempts.note_failure(block(FAR), Some(ann.clone()), 0);
        assert!(!attempts.are_exhausted(block(FAR), Some(&ann), 1));
        attempts.note_failure(block(FAR), Some(ann.clone()), 1);
        assert!(attempts.are_exhausted(block(FAR), Some(&ann), 2));
        assert!(!attempts.are_exhausted(block(FAR), Some(&bob), 2));
        assert!(!attempts.are_exhausted(block(FAR), Some(&ann), FAILURE_US), "the minute is over");
        attempts.note_failure(block(FAR), Some(ann.clone()), FAILURE_US);
        assert!(!attempts.are_exhausted(block(FAR), Some(&ann), FAILURE_US + 1), "a new minute counts anew");
    }

    #[test]
    fn an_address_is_closed_to_all_users_in_the_end() {
        let attempts = attempts();
        for id in 1..=3 {
            attempts.note_failure(block(FAR), Some(user(id)), 0);
        }
        assert!(attempts.are_exhausted(block(FAR), Some(&user(9)), 1));
        assert!(attempts.are_exhausted(block(FAR), None, 1), "whoever is meant");
    }

    #[test]
    fn a_user_is_one_account_by_number_and_by_name() {
        let (number, name) = (Who::Id(UserId(1)), Who::Name("ann".into()));
        assert_eq!(Account::named(&name, Some(UserId(1))), Account::named(&number, Some(UserId(1))));
        assert_eq!(Account::named(&number, None), Some(user(1)));
        assert_eq!(Account::named(&name, None), Some(Account::Name("ann".into())));
        let long = Who::Name("x".repeat(MAX_NAME_CHARS + 1).into());
        assert_eq!(Account::named(&long, None), None, "nobody has such a name, and it is not kept");
    }

    #[test]
    fn when_all_places_are_taken_the_oldest_are_forgotten_and_nobody_else() {
        let attempts = attempts();
        let (oldest, old) = (block([192, 0, 2, 1]), block([192, 0, 2, 2]));
        let fail = |address, at_us| attempts.note_failure(address, None, at_us);
        for (address, at_us) in [(oldest, 0), (old, 1)] {
            for _ in 0..3 {
                fail(address, at_us);
            }
        }
        let others = (2..REMEMBERED_MAX as u32).map(|n| block((0x0A00_0000 + n).to_be_bytes()));
        for address in others {
            fail(address, 2);
        }
        assert!(attempts.are_exhausted(oldest, None, 3), "there was room for all");
        fail(block([192, 0, 2, 3]), 3);
        assert!(!attempts.are_exhausted(oldest, None, 4), "its place was needed");
        assert!(attempts.failures.lock().by_key.len() <= REMEMBERED_MAX);
        assert!(attempts.are_exhausted(old, None, 4), "no other place was needed");
    }

    #[test]
    fn what_is_over_is_forgotten_bit_by_bit() {
        let attempts = attempts();
        for n in 0..100u32 {
            attempts.note_failure(block((0x0A00_0000 + n).to_be_bytes()), None, 0);
        }
        for n in 0..50u32 {
            attempts.note_failure(block((0x0B00_0000 + n).to_be_bytes()), None, FAILURE_US);
        }
        let windows = attempts.failures.lock();
        assert_eq!((windows.by_key.len(), windows.order.len()), (50, 50));
    }

    #[test]
    fn after_a_flood_all_is_forgotten_and_its_room_given_back() {
        let attempts = attempts();
        for n in 0..10_000u32 {
            attempts.note_failure(block((0x0A00_0000 + n).to_be_bytes()), None, 0);
        }
        let held = |attempts: &LoginLimiter| {
            let failures = attempts.failures.lock();
            (failures.by_key.len(), failures.by_key.capacity() + failures.order.capacity())
        };
        attempts.tidy(1);
        assert_eq!(held(&attempts).0, 10_000, "it counts for a minute");
        for second in 0..5 {
            attempts.tidy(FAILURE_US + second * TIDY_US);
        }
        assert_eq!(held(&attempts), (0, 0));
    }

    #[test]
    fn an_address_that_goes_on_is_remembered_by_its_newest_minute() {
        let attempts = attempts();
        let minutes = 5;
        for minute in 0..minutes {
            for _ in 0..3 {
                attempts.note_failure(block(FAR), None, minute * FAILURE_US);
            }
        }
        assert!(attempts.are_exhausted(block(FAR), None, (minutes - 1) * FAILURE_US + 1));
        assert_eq!(attempts.failures.lock().order.len(), 1);
    }

    #[test]
    fn loopback_is_exempt() {
        let attempts = attempts();
        let (address, who) = (block(std::net::Ipv6Addr::LOCALHOST), user(1));
        for _ in 0..10 {
            attempts.note_failure(address, Some(who.clone()), 0);
        }
        assert!(!attempts.are_exhausted(address, Some(&who), 1));
    }

    #[test]
    fn an_address_may_register_so_many_an_hour() {
        let attempts = attempts();
        let far = block(FAR);
        assert!(attempts.register(far, 0) && attempts.register(far, 1));
        for at_us in [2, REGISTRATION_US - 1] {
            assert!(!attempts.register(far, at_us) && !attempts.may_register(far, at_us));
        }
        assert!(attempts.register(block([192, 0, 2, 2]), 2), "another address has its own");
        assert!(attempts.may_register(far, REGISTRATION_US), "the hour is over");
        let network = |host: u16| block([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]);
        assert!(attempts.register(network(1), 0) && attempts.register(network(2), 0));
        assert!(!attempts.register(network(3), 0), "an IPv6 /64 is one address");
        let loopback = block(std::net::Ipv4Addr::LOCALHOST);
        assert!((0..9).all(|_| attempts.register(loopback, 0)), "loopback is exempt");
        let mut attempts = attempts;
        attempts.limits.registrations.spares_loopback = false;
        assert!(attempts.register(loopback, 0) && attempts.register(loopback, 0));
        assert!(!attempts.register(loopback, 0), "it is not where somebody gives the limit");
    }

    #[test]
    fn a_few_failures_get_a_line_each_and_a_flood_is_counted() {
        let mut log = LogWindow::default();
        assert!((0..FAILURE_LINES_MAX).all(|_| log.note(1)));
        assert!(!log.note(2) && !log.note(3));
        assert_eq!(log.take_suppressed(FAILURE_LINES_US - 1), 0, "when the window is over");
        assert_eq!(log.take_suppressed(FAILURE_LINES_US), 2);
        assert_eq!(log.take_suppressed(FAILURE_LINES_US), 0, "once");
        assert!(log.note(FAILURE_LINES_US), "a new window has room again");
    }

    #[test]
    fn a_name_of_any_length_is_logged_as_far_as_names_go() {
        assert_eq!(shortened("ann"), "ann");
        let longest = "ü".repeat(MAX_NAME_CHARS);
        assert_eq!(shortened(&longest), longest);
        assert_eq!(shortened(&"ü".repeat(9000)), format!("{longest}…"));
    }
}
